"""Errors of aiomqtt as ours: who must act."""

import ssl
from typing import Final

from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.reasoncodes import ReasonCode

from devices.driver import DriverError
from devices.mqtt.settings import Settings
from protocol.errors import Code

#: CONNACK codes that say "not you": 3.1.1 (4, 5) and MQTT 5 (0x84-0x8A, 0x8C).
_REFUSED: Final = frozenset({4, 5, 0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C})
#: A refused login is tried again this slowly: brokers lock accounts.
REFUSED_AFTER_S: Final = 300.0


def translated(error: Exception, settings: Settings) -> DriverError:
    """The error of a connection, with where it happened and what was expected."""
    where = f"{settings.host}:{settings.port}"
    cause = error.__cause__ or error.__context__
    if isinstance(error, MqttConnectError):
        code = error.rc.value if isinstance(error.rc, ReasonCode) else error.rc
        if code in _REFUSED:
            return DriverError(
                Code.NOT_ALLOWED, after_s=REFUSED_AFTER_S, field="login", value=where
            )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DriverError(
            Code.SIGNATURE_INVALID, field="tls", value=where, expected=cause.verify_message
        )
    if isinstance(cause, ssl.SSLError):
        return DriverError(Code.UNREACHABLE, field="tls", value=where, expected=cause.reason or "")
    return DriverError(Code.UNREACHABLE, field="broker", value=where, expected=str(error)[:80])
