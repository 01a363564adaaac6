"""Abuse of the connection: slow, many, large, crooked, for ever."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from hub.api import inbox
from hub.config import ListenSection
from protocol.limits import ENROLMENT_BYTES_MAX, SYNC_BYTES_MAX
from protocol.messages import MEDIA_TYPE
from protocol.program.settings import ConfigProblems
from protocol.program.walk import Problem
from tests.hub.shell import Gateway, Shell, serving


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch) -> None:
    monkeypatch.setattr("hub.app._LINGER_S", 0.05)


async def raw(shell: Shell, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(shell.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    return reader, writer


async def all_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            return await reader.read()
    return b""


def head(headers: dict[str, str], length: int, path: str = "/v1/sync") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: hub", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_slow_body_cut_off(tmp_path: Path) -> None:
    """A sender below the floor loses its connection, and the memory it was promised."""
    async with serving(
        tmp_path, body_floor=1_000_000, body_grace_seconds=0.2, item_seconds=5
    ) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        body = gateway.body() + bytes(100_000)
        headers = shell.sign(gateway.signing, "POST", "/v1/sync", body)
        reader, writer = await raw(shell, head(headers, len(body)) + body[:10])
        answer = await all_of(reader)
        assert b" 408 " in answer.splitlines()[0]
        assert b'"key":"too-slow"' in answer
        writer.close()
        assert shell.parts.pool.used == 0
        # An honest sender goes on undisturbed.
        bays = gateway.resource()
        assert len((await gateway.exchange(bays.registration)).accepted) == 1


async def test_silent_body_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path, body_floor=1, body_grace_seconds=60, item_seconds=0.2) as shell:
        reader, writer = await raw(
            shell, head({"Content-Type": MEDIA_TYPE}, 100, "/v1/enrol") + b"x"
        )
        assert b" 408 " in (await all_of(reader)).splitlines()[0]
        writer.close()


async def test_silent_connection_closed(tmp_path: Path) -> None:
    """One that never finishes its header is closed, and its place is free again."""
    async with serving(tmp_path, idle_seconds=0.3) as shell:
        reader, writer = await raw(shell, b"GET /healthz HTTP/1.1\r\nHost: h")
        assert await all_of(reader) == b""
        writer.close()


async def test_too_many_connections(tmp_path: Path) -> None:
    async with serving(tmp_path, connections=4, connections_per_address=4) as shell:
        held = [await raw(shell, b"") for _ in range(4)]
        for reader, writer in held:  # each is let in
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await reader.readline()).endswith(b"200 OK\r\n")
        reader, writer = await raw(shell, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = await all_of(reader)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.rpartition(b"\r\n")[2])["error"]["key"] == "too-many-connections"
        writer.close()
        held[0][1].close()
        await held[0][1].wait_closed()
        async with asyncio.timeout(5):
            while True:
                reader, writer = await raw(shell, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
                line = await reader.readline()
                writer.close()
                if b" 200 " in line:
                    break
        for _, writer in held[1:]:
            writer.close()


async def test_one_address_does_not_take_all_places(tmp_path: Path) -> None:
    async with serving(tmp_path, connections=100, connections_per_address=2) as shell:
        held = [await raw(shell, b"") for _ in range(2)]
        reader, writer = await raw(shell, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await all_of(reader)).startswith(b"HTTP/1.1 503 ")
        for _, one in [*held, (reader, writer)]:
            one.close()


async def test_oversize_body(tmp_path: Path) -> None:
    """Refused by its declared length: not a byte of it is read."""
    async with serving(tmp_path) as shell:
        for path, limit in (("/v1/enrol", ENROLMENT_BYTES_MAX), ("/v1/sync", SYNC_BYTES_MAX)):
            reader, writer = await raw(shell, head({"Content-Type": MEDIA_TYPE}, limit + 1, path))
            answer = await all_of(reader)
            assert b" 413 " in answer.splitlines()[0]
            assert b'"key":"too-large"' in answer
            writer.close()


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Transfer-Encoding: chunked", 400),
        ("Content-Length: 5\r\nContent-Length: 6", 400),
        ("Content-Length: -1", 400),
        ("Content-Length: 1e3", 400),
        ("Content-Length: 99999999999999999999", 400),
        ("", 400),
    ],
)
async def test_crooked_length(tmp_path: Path, lines: str, status: int) -> None:
    async with serving(tmp_path) as shell:
        text = f"POST /v1/enrol HTTP/1.1\r\nHost: h\r\nContent-Type: {MEDIA_TYPE}\r\n"
        text += f"{lines}\r\n" * bool(lines) + "Connection: close\r\n\r\n0\r\n\r\n"
        reader, writer = await raw(shell, text.encode())
        answer = await all_of(reader)
        assert int(answer.split()[1]) == status
        assert b'"error"' in answer
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /v1/entries?\xff=%ff HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_no_500(tmp_path: Path, data: bytes) -> None:
    async with serving(tmp_path, idle_seconds=1) as shell:
        reader, writer = await raw(shell, data)
        answer = await all_of(reader)
        if answer:
            assert int(answer.split()[1]) < 500
        writer.close()
        assert (await shell.call("GET", "/healthz")).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/log/1/tile/../../../../etc/passwd",
        "/log/1/tile/0/..%2f..%2fhub.toml",
        "/log/1/tile/%2e%2e/keys/signing.key",
        "/log/1/tile/0/x001/../000",
        "/log/1/tile//etc/passwd",
        "/log/../keys/signing.key",
        "/v1/objects/..%2f..%2fkeys%2flog.key",
        "/v1/objects/../../hub.db",
        "/v1/parts/..\\..\\hub.db/0",
        "/keys/signing.key",
        "//etc/passwd",
        "/log/1/tile/0/000%00.p/1",
        "/log/-1/checkpoint",
        "/log/99999999999/checkpoint",
        "/log/1/tile/entries/000/",
        "/log/1/tile/64/000",
    ],
)
async def test_path_traversal_in_name(tmp_path: Path, target: str) -> None:
    """No name of a path becomes a path of a file: nothing but 4xx, and nothing of a file."""
    async with serving(tmp_path) as shell:
        reader, writer = await raw(
            shell, f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await all_of(reader)
        writer.close()
        assert 400 <= int(answer.split()[1]) < 500
        assert b"SMHK1" not in answer
        assert b"root:" not in answer
        assert b"listen" not in answer


async def test_path_traversal_in_local_name_of_a_resource(tmp_path: Path) -> None:
    """A resource may be called what it likes: names are data, never files."""
    from tests.hub import kit

    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        source = gateway.resource("../../../tmp/x", name_zh="../../etc/passwd", name_en="a\x00b")
        outcome = await gateway.exchange(source.registration, kit.item(source.seal()))
        assert len(outcome.accepted) == 2
        inside = {path.name for path in tmp_path.iterdir()}
        assert inside == {"hub"}


async def test_plain_http_refused(tmp_path: Path) -> None:
    """Settings that would serve plain HTTP to other machines do not load."""
    from hub import config

    def problem(setting: str) -> Problem:
        with pytest.raises(ConfigProblems) as raised:
            config.load(f"[listen]\n{setting}\n", file="hub.toml")
        (one,) = raised.value.problems
        return one

    for host in ("0.0.0.0", "::", "192.0.2.7", "hub.example", "fe80::1", "::ffff:192.0.2.7"):
        found = problem(f'host = "{host}"')
        assert (found.path, found.key) == ("listen.host", "plain-listen"), host
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8", "::ffff:127.0.0.1"):
        assert config.load(f'[listen]\nhost = "{host}"\n', file="f").listen.host == host
    assert problem('url = "http://hub.example:8440"').key == "plain-http"


async def test_inbox_poll_held_forever(tmp_path: Path, monkeypatch) -> None:
    """A poll ends by itself, a newer one ends an older, and there are only so many."""
    monkeypatch.setattr(inbox, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(inbox, "POLL_S", 0.3)
    async with serving(tmp_path, inbox_polls=1) as shell:
        await shell.site()
        first, second = Gateway(shell), Gateway(shell)
        await first.join()
        await second.join()
        answer = await shell.signed(first.signing, "GET", "/v1/inbox?generation=0&n=0")
        assert answer.status == 200
        assert answer.body.rstrip(b"\x90").replace(b"\x00", b"") == b""
        assert answer.body.endswith(b"\x90")  # the empty list
        assert answer.body.count(b"\x00") >= 3
        monkeypatch.setattr(inbox, "POLL_S", 60.0)
        old = asyncio.create_task(shell.signed(first.signing, "GET", "/v1/inbox"))
        async with asyncio.timeout(5):
            while not shell.parts.bells.standing:
                await asyncio.sleep(0.01)
        busy = await shell.signed(second.signing, "GET", "/v1/inbox")
        assert (busy.status, busy.key) == (503, "busy")
        newer = asyncio.create_task(shell.signed(first.signing, "GET", "/v1/inbox"))
        async with asyncio.timeout(5):
            assert (await old).body.endswith(b"\x90")
        assert shell.parts.bells.standing == 1
        # A caller that goes away is noticed at the next heartbeat.
        newer.cancel()
        async with asyncio.timeout(5):
            while shell.parts.bells.standing:
                await asyncio.sleep(0.01)


async def test_a_stopping_hub_ends_polls(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        poll = asyncio.create_task(shell.signed(gateway.signing, "GET", "/v1/inbox"))
        async with asyncio.timeout(5):
            while not shell.parts.bells.standing:
                await asyncio.sleep(0.01)
            shell.app.stop()
            assert (await poll).body.endswith(b"\x90")


async def test_memory_for_bodies_is_bounded(tmp_path: Path) -> None:
    """What is declared is taken from the pool before it is read; above it: later."""
    async with serving(tmp_path, bodies_mib=8) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        body = bytes(5 * 1024 * 1024)
        headers = shell.sign(gateway.signing, "POST", "/v1/sync", body)
        _, holding = await raw(shell, head(headers, len(body)))
        async with asyncio.timeout(5):
            while not shell.parts.pool.used:
                await asyncio.sleep(0.01)
        headers = shell.sign(gateway.signing, "POST", "/v1/sync", body)
        reader, writer = await raw(shell, head(headers, len(body)))
        answer = await all_of(reader)
        assert b" 503 " in answer.splitlines()[0]
        assert b"Retry-After" in answer
        holding.close()
        writer.close()
        async with asyncio.timeout(5):
            while shell.parts.pool.used:
                await asyncio.sleep(0.01)


async def test_loopback_settings_stay_loopback(tmp_path: Path) -> None:
    async with serving(tmp_path, listen=ListenSection(port=0)) as shell:
        assert shell.url.startswith("http://127.0.0.1:")


async def test_slow_reader_is_left(tmp_path: Path) -> None:
    """Who asks for much and takes nothing loses the connection, not the hub its memory."""
    import random
    import socket

    from tests.hub import kit

    async with serving(tmp_path, body_floor=100_000_000, item_seconds=0.3) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        bays, chance, count = gateway.resource(), random.Random(1), 60_000
        columns = kit.Columns(
            count=count,
            event_time=list(range(kit.T0, kit.T0 + count)),
            gateway_time=[kit.T0] * count,
            device_time=[None] * count,
            device=["b"] * count,
            quality=[0] * count,
            fields={"state": [chance.getrandbits(62) for _ in range(count)]},
        )
        small = bays.sealed()
        large = kit.seal(
            columns,
            layout=kit.LAYOUT,
            signer=gateway.signing,
            **{
                name: getattr(small.header, name)
                for name in (
                    "agent",
                    "resource",
                    "stream",
                    "seq",
                    "prev",
                    "entry",
                    "epoch",
                    "clock",
                )
            },
            grade=bays.grade,
            rows=((bays.run, 0, count - 1),),
        )
        await gateway.exchange(bays.registration, kit.item(large))
        token = await shell.read_token()
        line = f"GET /v1/segments/{large.id.hex()} HTTP/1.1\r\nHost: h\r\n"
        line += f"Authorization: Bearer {token}\r\n\r\n"
        port = int(shell.url.rpartition(":")[2])
        with socket.socket() as greedy:
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            greedy.connect(("127.0.0.1", port))
            greedy.sendall(line.encode() * 30)
            async with asyncio.timeout(20):
                while await _open_connections(shell) > 1:  # the asking one itself
                    await asyncio.sleep(0.05)


async def _open_connections(shell: Shell) -> int:
    metrics = (await shell.call("GET", "/metrics")).body.decode()
    found = next(one for one in metrics.splitlines() if one.startswith("shanmen_connections "))
    return int(float(found.split()[1]))
