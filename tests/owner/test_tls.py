"""Between machines there is TLS, and it is verified: with the county's own authority, and not without it."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from hub.owner.join import add_principal
from hub.owner.state import Memory
from protocol.errors import RefusedError, UnavailableError
from tests.certificates import Authority
from tests.owner.test_read import read_again
from tests.owner.world import World


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
    county, other = (Authority(tmp_path / f"{one}.pem", one) for one in ("county", "other"))
    pem, private = county.issue(tmp_path / "hub.pem")
    async with secured(world, pem, private) as url:
        for ca in ("", str(other.path)):
            with pytest.raises(UnavailableError, match="certificate"):
                await add_principal(key, url=url, token=world.token.text, ca=ca)
        assert world.posted == []
        await add_principal(key, url=url, token=world.token.text, ca=str(county.path))
        assert Memory(key).find(url).ca == str(county.path)
        assert len(await read_again(key)) == 30


async def test_authority_that_is_no_file_is_named(key: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="ca"):
        await add_principal(
            key, url="https://127.0.0.1:1", token=World().token.text, ca=str(tmp_path / "none.pem")
        )
