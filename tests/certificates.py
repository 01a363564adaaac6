"""Authorities of a county's own, and certificates made by them."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_DAY = dt.timedelta(days=1)
_PEM = serialization.Encoding.PEM


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


class Authority:
    """Makes certificates; its own stands in the file `path`."""

    def __init__(self, path: Path, name: str = "county"):
        self.path = path
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = self._key.public_key()
        made = (
            self._begun(self._name, public, begins=-900, ends=900)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path.write_bytes(made.public_bytes(_PEM))

    def _begun(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, *, begins: int, ends: int
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins * _DAY)
            .not_valid_after(now + ends * _DAY)
        )

    def issue(
        self,
        pem: Path,
        private: Path | None = None,
        *,
        subject: str = "hub",
        address: str = "127.0.0.1",
        begins: int = -1,
        ends: int = 90,
    ) -> tuple[Path, Path]:
        """Write a certificate, and its key beside it or into the same file; gives both paths.

        begins, ends: days from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        named = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = (
            self._begun(_name(subject), key.public_key(), begins=begins, ends=ends)
            .add_extension(named, critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem.write_bytes(made.public_bytes(_PEM))
        with (private or pem).open("ab" if private is None else "wb") as file:
            file.write(
                key.private_bytes(
                    _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
        return pem, private or pem


def make_authority(folder: Path) -> Path:
    """ca.pem, and good, expired and other (another address) with their keys."""
    county = Authority(folder / "ca.pem")
    county.issue(folder / "good.pem")
    county.issue(folder / "expired.pem", begins=-400, ends=-300)
    county.issue(folder / "other.pem", address="127.0.0.2")
    return folder
