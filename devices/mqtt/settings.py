"""What a connection to a broker needs: values, the CONNECT of MQTT 5, the TLS handshake."""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a connection needs, after all checks."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = None
    version: str = "3.1.1"  # or "5"
    tls: Callable[[], ssl.SSLContext] | None = None  # reads files: called in a thread
    keepalive_s: int = 60
    timeout_s: float = 10.0
    in_flight: int = 100
    session_expiry_s: int = 604_800
    packet_max: int = 262_144
    persistent: bool = True  # False: a visit that leaves no session behind

    def __repr__(self) -> str:
        return f"Settings({self.client_id} at {self.host}:{self.port}, login •••)"


def handshake(context: ssl.SSLContext, settings: Settings, tcp: socket.socket) -> ssl.SSLSocket:
    """Do the TLS handshake; the certificate and its name are verified by the context."""
    wrapped = context.wrap_socket(tcp, server_hostname=settings.host, do_handshake_on_connect=False)
    try:
        wrapped.settimeout(settings.timeout_s)
        wrapped.do_handshake()
    except OSError:
        wrapped.close()
        raise
    return wrapped


def connect_properties(settings: Settings) -> Properties:
    """What MQTT 5 tells the broker: how much we hold, how long to keep our session."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's
    properties.ReceiveMaximum = settings.in_flight
    properties.SessionExpiryInterval = settings.session_expiry_s if settings.persistent else 0
    properties.MaximumPacketSize = settings.packet_max
    return properties
