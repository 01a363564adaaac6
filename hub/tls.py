"""TLS with a certificate that was given: loaded at start, and again on SIGHUP without a pause."""

import ssl
from pathlib import Path

from hub.config import HubConfig
from hub.config import resolve as at
from hub.faults import Exit, Fault


def _fresh(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A key with a passphrase would ask at a terminal that is not there.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise Fault(
            Exit.CONFIG, "certificate", file=certificate, key_file=key, why=str(error)[:200]
        ) from error
    return context


class Tls:
    """The server's context; new connections use what was loaded last."""

    def __init__(self, config: HubConfig, folder: Path) -> None:
        """Raises Fault if certificate or key cannot be used."""
        self._certificate = at(folder, config.listen.certificate)
        self._key = at(folder, config.listen.key)
        self.context = _fresh(self._certificate, self._key)

    def reload(self) -> None:
        """Read the files again. Raises Fault and keeps the old ones if the new do not fit."""
        _fresh(self._certificate, self._key)
        self.context.load_cert_chain(self._certificate, self._key)


def context_of(config: HubConfig, folder: Path) -> Tls | None:
    """Return the TLS of the settings; None for plain HTTP, which only loopback gets."""
    return Tls(config, folder) if config.listen.certificate else None
