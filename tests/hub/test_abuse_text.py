"""Abuse of text: what people and devices are called goes out as data, never as markup or a line."""

import io
import json
import logging
from pathlib import Path

import pytest

from hub import admin, logs
from hub.keys import HubKeys
from protocol import ids
from protocol.envelope import SealingKey, SigningKey
from protocol.errors import RefusedError, ShanmenError
from tests.hub import kit
from tests.hub.shell import Gateway, Owner, serving

SCRIPT = '<script>alert("东门")</script>'


def lines_of(buffer: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in buffer.getvalue().splitlines()]


async def test_script_in_device_name(tmp_path: Path) -> None:
    """Served as JSON that no browser runs: type, nosniff, no sniffable page."""
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell, SCRIPT)
        request = gateway.request(await shell.token(), name=SCRIPT)
        gateway.believe(request, (await shell.post("/v1/enrol", request.raw)).body)
        source = gateway.resource(
            "bays", name_zh=SCRIPT, name_en=SCRIPT, description=SCRIPT, place=SCRIPT
        )
        await gateway.exchange(source.registration)
        token = await shell.read_token()
        for target in ("/v1/entries", f"/v1/entries/{ids.show(source.id)}"):
            answer = await shell.bearer(token, target)
            assert answer.status == 200, answer.body
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert SCRIPT in json.dumps(answer.json, ensure_ascii=False).replace('\\"', '"')
        found = await shell.bearer(token, "/v1/entries?text=%3Cscript%3E")
        assert found.json["total"] == 1
        listed = (await shell.do(admin.AgentList()))["agents"]
        assert listed[0]["name"] == SCRIPT


@pytest.mark.parametrize(
    "text", ["a\nb", "a\x1b[2Jb", "x\u202etxt", "\x9b1m", "  ", "nul\x00", "line\u2028two"]
)
async def test_operator_text_is_printable(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path) as shell:
        with pytest.raises(RefusedError):
            await shell.do(admin.SiteAdd(site="east", name=text))


def test_log_injection() -> None:
    """A forged line stays inside its field; a terminal gets no command."""
    buffer = io.StringIO()
    handler = logging.StreamHandler(buffer)
    handler.setFormatter(logs.JsonLines())
    logger = logging.getLogger("tests.lines")
    logger.propagate = False
    logger.addHandler(handler)
    forged = 'x"}\n{"level": "info", "message": "agent approved"}\r\x1b[2J\x9b31m\u2028\u202e'
    logger.warning("name seen", extra={"device": forged, "raw": b"\x00\n", "long": "a" * 9999})
    try:
        raise ValueError(forged)
    except ValueError:
        logger.exception("failed")
    logger.removeHandler(handler)
    text = buffer.getvalue()
    assert len(text.splitlines()) == 2
    assert not set("\x1b\x9b\r\u2028\u202e") & set(text)
    first, second = lines_of(buffer)
    assert first["device"] == forged
    assert first["raw"] == "<2 bytes>"
    assert len(first["long"]) < 600
    assert second["message"] == "failed"
    assert "agent approved" in second["trace"]


async def test_log_injection_over_http(tmp_path: Path) -> None:
    buffer = io.StringIO()
    async with serving(tmp_path) as shell:
        logs.setup("debug", 1000, buffer)
        try:
            forged = "/v1/x%0a%7b%22level%22:1%7d"
            assert (await shell.call("GET", forged)).status == 404
            evil = {"Authorization": 'Bearer x"}{"level":"error"}'}
            assert (await shell.call("GET", "/v1/entries", headers=evil)).status in {400, 401}
        finally:
            logging.getLogger().handlers.clear()
    for line in lines_of(buffer):
        assert line["level"] != 1
        assert set(line) >= {"time", "level", "from", "message"}


def test_rate_limit_counts_what_it_drops() -> None:
    now = [0.0]
    limit = logs.RateLimit(2, clock=lambda: now[0])
    record = lambda: logging.makeLogRecord({"name": "x", "msg": "m"})  # noqa: E731
    assert [limit.filter(record()) for _ in range(5)] == [True, True, False, False, False]
    assert limit.filter(logging.makeLogRecord({"name": "x", "msg": "other"}))
    now[0] = 61.0
    after = record()
    assert limit.filter(after)
    assert after.suppressed == 3


async def test_secret_in_log(tmp_path: Path) -> None:
    """Keys, tokens and bearer secrets are in no log line, no repr and no error."""
    buffer = io.StringIO()
    async with serving(tmp_path) as shell:
        logs.setup("debug", 100_000, buffer)
        try:
            await shell.site()
            gateway, owner = Gateway(shell), Owner()
            token = await shell.token()
            request = gateway.request(token)
            await shell.post("/v1/enrol", request.raw)
            await shell.post("/v1/enrol", Gateway(shell).request(token).raw)
            reader = await shell.read_token()
            await shell.bearer(reader, "/v1/entries")
            await shell.bearer(reader[:-1] + "q", "/v1/entries")
            await owner.join(shell)
            await shell.signed(gateway.signing, "GET", "/v1/entries")
            logging.getLogger("hub.test").info(
                "structs", extra={"keys": shell.parts.keys, "token": token, "gateway": gateway}
            )
        finally:
            logging.getLogger().handlers.clear()
        files = {one.name: one.read_text() for one in (shell.folder.root / "keys").iterdir()}
    text = buffer.getvalue()
    assert "structs" in text
    assert "request refused" in text
    secrets = [token.text, token.text[4:], reader, reader[5:]]
    secrets += [words.split()[2] for words in files.values()]
    secrets += [kit.hashlib.sha256(b"owner").hexdigest()]
    for secret in secrets:
        assert secret not in text
        assert secret.lower() not in text.lower()


def test_key_structs_hide_themselves() -> None:
    keys = HubKeys(
        signing=SigningKey(b"s" * 32), sealing=SealingKey(b"x" * 32), log=SigningKey(b"l" * 32)
    )
    assert b"s" * 32 not in repr(keys).encode()
    assert (b"s" * 32).hex() not in repr(keys)


def test_errors_show_no_secret(tmp_path: Path) -> None:
    from hub import keys as hub_keys

    hub_keys.make(tmp_path, lambda n: b"S" * n)
    path = tmp_path / "keys" / "signing.key"
    path.write_text(path.read_text().replace("SMHK1", "SMHK2"))
    with pytest.raises(ShanmenError) as caught:
        hub_keys.read(tmp_path)
    assert "U1NT" not in str(caught.value)
