"""No secret in a log line, a repr, a fault, a status: each struct is shown and searched for key bytes."""

import base64
import io
import json
import logging
import pickle

import msgspec
import pytest

from agent.host import logs
from agent.host.keyring import AgentKeys, Keyring, _Seeds
from agent.store.rest import RootKey
from protocol.envelope import SealingKey, SigningKey
from protocol.keys import EpochKey
from protocol.token import make_token
from tests.agent.kit import Site, identity
from tests.agent.test_shell import lines  # noqa: F401 - a fixture

SECRET = bytes(range(101, 133))


def forms(secret: bytes) -> list[str]:
    """How 8 bytes out of a secret could stand in a text."""
    found = []
    for at in range(0, len(secret) - 8, 4):
        part = secret[at : at + 8]
        found += [part.hex(), repr(part)[2:-1], str(list(part))[1:-1], part.decode("latin-1")]
        found.append(base64.b64encode(secret)[at : at + 8].decode())
        found.append(base64.b32encode(secret)[at : at + 8].decode().lower())
    return found


def holders():
    signing, sealing = SigningKey(SECRET), SealingKey(SECRET)
    epoch = EpochKey(resource=bytes(16), epoch=1, group=0, key=SECRET, from_us=0, to_us=1)
    token = make_token(bytes(8), SECRET[:16], bytes(16))
    return [
        signing,
        sealing,
        epoch,
        token,
        token.signing_key(),
        RootKey(SECRET, lambda n: bytes(n)),
        AgentKeys(signing, sealing),
        _Seeds(signing=SECRET, sealing=SECRET),
    ]


@pytest.mark.parametrize("holder", holders(), ids=lambda one: type(one).__name__)
def test_secret_in_log(lines, holder):  # noqa: F811 - the fixture
    log = logging.getLogger("agent.secrets")
    log.warning("holder", extra={"value": holder, "many": [holder], "map": {"k": holder}})
    log.warning("formatted %s %r", holder, holder)
    try:
        raise ValueError(holder)
    except ValueError:
        log.exception("failed", extra={"value": holder})
    text = lines.getvalue() + repr(holder) + str(holder) + f"{[holder]}"
    for form in forms(SECRET):
        assert form not in text
    assert len(lines.getvalue().splitlines()) == 3


@pytest.mark.parametrize("holder", holders()[:2], ids=lambda one: type(one).__name__)
def test_private_keys_are_not_pickled(holder):
    with pytest.raises(TypeError):
        pickle.dumps(holder)


async def test_a_whole_life_logs_no_key(tmp_path):
    """Debug level, records, a segment, a receipt, a broken driver: nothing of any key is written."""
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.setup("debug", 10_000, stream)
    keyring = Keyring(tmp_path / "keys", {})
    keys = keyring.keys_or_new(keyring.root_key())
    pseudonym = keyring.secret("pseudonym", keyring.root_key())
    try:
        async with Site(tmp_path / "data").running() as site:
            await site.give(1, 2, 3, text="B京A12345")
            await site.drain()
            known = [
                key.key
                for epochs in site.core.main.epochs._live.values()
                for epoch in epochs
                for key in epoch.keys.values()
            ]
            logging.getLogger("agent.x").info(
                "everything",
                extra={
                    "core": site.core,
                    "identity": identity(site.hub),
                    "keys": keys,
                    "bounds": site.core.bounds,
                },
            )
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
    text = stream.getvalue()
    assert known
    secrets = [*known, (tmp_path / "keys" / "root.key").read_bytes(), bytes.fromhex(pseudonym)]
    for secret in secrets:
        for form in forms(secret):
            assert form not in text
    assert "A12345" not in text  # a plate is nobody's business either
    for line in text.splitlines():
        json.loads(line)


async def test_status_and_identity_show_public_things_only(tmp_path):
    async with Site(tmp_path / "data").running() as site:
        text = repr(site.core.identity)
    for form in forms(bytes(range(32))):  # the seed of the test agent
        assert form not in text
    assert "•••" in text


def test_msgspec_does_not_print_seeds():
    assert repr(_Seeds(signing=SECRET, sealing=SECRET)) == "•••"
    assert SECRET in msgspec.msgpack.encode(_Seeds(signing=SECRET, sealing=SECRET))
