"""Between machines there is TLS, and it is verified: with the county's own authority, and not without it."""

import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hub.owner.join import add_principal
from hub.owner.state import Memory
from protocol.errors import RefusedError, UnavailableError
from tests.owner.test_read import read_again
from tests.owner.world import World


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, private


@asynccontextmanager
async def secured(world: World, pem: Path, private: Path) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", world.answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    try:
        yield f"https://127.0.0.1:{server.port}"
    finally:
        await server.close()


async def test_hub_behind_the_countys_own_authority(key: Path, tmp_path: Path) -> None:
    world = World()
    world.fill()
    pem, private = certificate(tmp_path, "county")
    other, _ = certificate(tmp_path, "other")
    async with secured(world, pem, private) as url:
        for ca in ("", str(other)):
            with pytest.raises(UnavailableError, match="certificate"):
                await add_principal(key, url=url, token=world.token.text, ca=ca)
        assert world.posted == []
        await add_principal(key, url=url, token=world.token.text, ca=str(pem))
        assert Memory(key).find(url).ca == str(pem)
        assert len(await read_again(key)) == 30


async def test_authority_that_is_no_file_is_named(key: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="ca"):
        await add_principal(
            key, url="https://127.0.0.1:1", token=World().token.text, ca=str(tmp_path / "none.pem")
        )
