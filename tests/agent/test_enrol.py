"""Enrolment at the gateway: keys first, the answer believed only if it is this hub's to this request."""

import asyncio

import pytest
from aiohttp import web

from agent.commands import enrol as enrolling
from agent.commands.enrol import enrol, mismatched, read_token
from agent.host.clock import Clock
from agent.host.config import load
from agent.host.faults import Exit, Fault
from agent.host.health import Health
from agent.host.identity import IdentityFiles
from agent.host.keyring import Keyring
from agent.link.hub_client import HubClient
from agent.owner import OwnerWatch
from protocol import envelope, ids
from protocol.enrolment import Enrolment
from protocol.token import make_token
from tests.agent.test_uplink import serving
from tests.protocol import objects
from tests.protocol.objects import HUB, OWNER, STRANGER, TOKEN

SWAPPED = str.maketrans("AB", "BA")  # what a tired reader does
PIN = ids.show(OWNER.principal)


class EnrolHub:
    """Answers enrolments as the real hub does: the same object gets the same answer."""

    def __init__(self, *, hub=HUB, lose=0, change=None, owner=True, **answer):
        self.requests = []
        self.lose = lose
        self.hub = hub
        self.answer = answer
        self.change = change or (lambda raw: raw)
        self.owner = owner
        self.asked = []
        self.release = asyncio.Event()

    async def __call__(self, request):
        self.asked.append(request.path)
        if request.path == "/v1/enrol":
            raw = await request.read()
            self.requests.append(raw)
            sent = envelope.parse(raw)
            asked = envelope.decode_payload(sent, Enrolment)
            if self.lose:
                self.lose -= 1
                request.transport.close()
                raise ConnectionResetError
            who = ids.principal_id(asked.signing_key)
            made = objects.enrolled(sent, hub=self.hub, **({"agent": who} | self.answer))
            return web.Response(body=self.change(made.envelope.raw))
        if request.path == f"/v1/objects/{PIN}" and self.owner:
            return web.Response(body=objects.owner_principal().raw)
        return web.Response(status=404)


def config_of(tmp_path, url, more=""):
    text = f'data = "{tmp_path / "data"}"\n{more}[hub]\nurl = "{url}"\nconnect_timeout = "1s"\n'
    return load(text, file="agent.toml")


async def run(tmp_path, hub, *, token=TOKEN, owner=PIN, more=""):
    (tmp_path / "data").mkdir(exist_ok=True)
    async with serving(hub) as url:
        config = config_of(tmp_path, url, more)
        return await enrol(config, token=token, owner=owner, host="gw", clock=Clock())


def stored(tmp_path):
    ring = Keyring(tmp_path / "data" / "keys", {})
    keys = ring.keys(ring.root_key())
    return keys, IdentityFiles(ring.folder)


async def test_an_enrolment_is_believed_stored_and_used(tmp_path):
    done = await run(tmp_path, EnrolHub())
    assert done.enrolled.site == "lake"
    assert done.owner.principal == OWNER.principal
    keys, files = stored(tmp_path)
    identity = files.identity(keys, None)
    assert identity.agent == done.agent == keys.signing.principal
    assert identity.owner_confirmed
    assert identity.owner_basis == "local"
    assert identity.hub.hub == HUB.principal
    assert not any(
        "SM1" in path.read_text("latin-1") for path in (tmp_path / "data/keys").iterdir()
    )


async def test_enrolment_answer_lost(tmp_path):
    hub = EnrolHub(lose=1)
    with pytest.raises(Fault) as raised:
        await run(tmp_path, hub)
    assert raised.value.exit is Exit.UNAVAILABLE
    keys, files = stored(tmp_path)
    assert files.identity(keys, None) is None
    await run(tmp_path, hub)
    assert hub.requests[0] == hub.requests[1]  # byte for byte, so that no token is burnt


async def test_enrolment_answer_replayed(tmp_path):
    """The hub's answer to an earlier request of ours, recorded on the wire, is no answer now."""
    first = EnrolHub()
    await run(tmp_path, first)
    old = objects.enrolled(envelope.parse(first.requests[0])).envelope.raw
    (tmp_path / "data" / "keys" / "enrolled").unlink()
    other = make_token(bytes(8), bytes(16), HUB.principal)
    with pytest.raises(Fault) as raised:
        await run(tmp_path, EnrolHub(change=lambda raw: old), token=other)
    assert raised.value.exit is Exit.UNTRUSTED
    keys, files = stored(tmp_path)
    assert files.enrolled(keys) is None


async def test_enrolment_for_other_hub(tmp_path):
    with pytest.raises(Fault) as raised:
        await run(tmp_path, EnrolHub(hub=STRANGER))
    assert raised.value.key in {"token-other-hub", "answer-untrusted"}
    keys, files = stored(tmp_path)
    assert files.enrolled(keys) is None


@pytest.mark.parametrize("flip", [20, 200, 500, -5])
async def test_a_bent_answer_is_not_stored(tmp_path, flip):
    def bend(raw):
        bent = bytearray(raw)
        bent[flip] ^= 1
        return bytes(bent)

    with pytest.raises(Fault):
        await run(tmp_path, EnrolHub(change=bend))
    keys, files = stored(tmp_path)
    assert files.enrolled(keys) is None


async def test_owner_key_substituted_by_hub(tmp_path):
    """The hub offers a principal of its own making under the pinned id: not an owner, a fault."""

    class Liar(EnrolHub):
        async def __call__(self, request):
            if request.path.startswith("/v1/objects/"):
                from protocol.principal import make_principal

                false = make_principal(
                    STRANGER, objects.STRANGER_SEALING.public, kind="owner", nonce=bytes(16)
                )
                return web.Response(body=false.raw)
            return await super().__call__(request)

    with pytest.raises(Fault) as raised:
        await run(tmp_path, Liar())
    assert raised.value.exit is Exit.UNTRUSTED
    keys, files = stored(tmp_path)
    identity = files.identity(keys, None)
    assert identity is not None  # enrolled it is
    assert not identity.owner_confirmed
    assert identity.owner is None


async def test_the_hub_names_another_owner_than_the_pin(tmp_path):
    with pytest.raises(Fault) as raised:
        await run(tmp_path, EnrolHub(owner=False), owner=ids.show(STRANGER.principal))
    assert raised.value.key == "owner-mismatch"


async def test_a_wrong_pin_is_told_whether_or_not_the_request_carried_it(tmp_path):
    """The hub names its site's owner and repeats no pin; enrolled it is, and the pin stands."""
    wrong = ids.show(STRANGER.principal)
    with pytest.raises(Fault) as raised:
        await run(tmp_path, EnrolHub(), owner=wrong)
    assert (raised.value.key, raised.value.exit) == ("owner-mismatch", Exit.UNTRUSTED)
    assert (raised.value.fields["owner"], raised.value.fields["hub_owner"]) == (wrong, PIN)
    keys, files = stored(tmp_path)
    enrolled = files.enrolled(keys)
    assert enrolled is not None
    pin = files.pin(None, enrolled)
    assert pin.owner == STRANGER.principal
    assert mismatched(pin, enrolled) is not None
    assert mismatched(files.pin(PIN, enrolled), enrolled) is None, "corrected in agent.toml"


async def test_owner_unpinned_sends_nothing(tmp_path):
    done = await run(tmp_path, EnrolHub(), owner=None)
    assert done.pin.owner is None
    keys, files = stored(tmp_path)
    assert not files.identity(keys, None).owner_confirmed
    later = files.pin(PIN, done.enrolled)  # a pin in the configuration counts from the next start
    assert later.owner == OWNER.principal


async def test_as_hub_says_stands_in_the_basis(tmp_path):
    done = await run(tmp_path, EnrolHub(), owner="as-hub-says")
    assert (done.pin.owner, done.pin.basis) == (OWNER.principal, "hub")
    keys, files = stored(tmp_path)
    assert files.identity(keys, None).owner_basis == "hub"


async def test_the_owner_comes_later(tmp_path):
    done = await run(tmp_path, EnrolHub(owner=False))
    assert done.owner is None
    keys, files = stored(tmp_path)
    assert not files.identity(keys, None).owner_confirmed


async def test_a_second_token_does_not_replace_an_identity(tmp_path):
    await run(tmp_path, EnrolHub())
    other = make_token(bytes(8), bytes(16), HUB.principal)
    with pytest.raises(Fault) as raised:
        await run(tmp_path, EnrolHub(), token=other)
    assert raised.value.key == "already-enrolled"


async def test_keys_are_durable_before_anything_is_sent(tmp_path, monkeypatch):
    order = []
    save = enrolling.IdentityFiles.save_pending
    monkeypatch.setattr(
        enrolling.IdentityFiles,
        "save_pending",
        lambda self, made: (save(self, made), order.append("saved"))[0],
    )

    class Watching(EnrolHub):
        async def __call__(self, request):
            order.append(request.path)
            return await super().__call__(request)

    await run(tmp_path, Watching())
    assert order[:2] == ["saved", "/v1/enrol"]


async def test_a_swapped_identity_file_is_found_at_the_start(tmp_path):
    await run(tmp_path, EnrolHub())
    keys, files = stored(tmp_path)
    path = tmp_path / "data" / "keys" / "enrolled"
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    with pytest.raises(Fault) as raised:
        files.identity(keys, None)
    assert raised.value.exit is Exit.KEYS


@pytest.mark.parametrize(
    "text", ["", "SM1-", "SM1-AAAA", "x" * 1000, TOKEN.text.translate(SWAPPED)]
)
def test_a_mistyped_token_is_found_without_the_hub(text):
    with pytest.raises(Fault) as raised:
        read_token(text)
    assert raised.value.key == "token-malformed"
    assert not any(text and text in str(value) for value in raised.value.fields.values())


@pytest.mark.parametrize("state", ["active", "waiting"])
async def test_the_state_is_told(tmp_path, state):
    assert (await run(tmp_path, EnrolHub(state=state))).enrolled.state == state


class Core:
    """As much of the core as waits for an owner."""

    def __init__(self, identity):
        self.identity = identity
        self.confirmed = []

    async def confirm_owner(self, identity):
        self.identity = identity
        self.confirmed.append(identity)


async def watch_owner(tmp_path, hub, *, tries=2, owner=PIN):
    """Enrol while the hub has no principal, then wait for it; the waits end after `tries`."""
    await run(tmp_path, hub, owner=owner)
    keys, files = stored(tmp_path)
    health = Health(lambda: 1)
    core = Core(files.identity(keys, None))
    seen = []

    async def sleep(seconds):
        seen.append((seconds, set(health.alarms)))
        if len(seen) == tries:
            hub.owner = True

    async with serving(hub) as url:
        config = config_of(tmp_path, url)
        client = HubClient(config.hub, Clock(), hub=HUB.principal, key=keys.signing)
        await client.open()
        watch = OwnerWatch(
            client=client,
            stored=files,
            pin=files.pin(None, files.enrolled(keys)),
            core=core,
            health=health,
            sleep=sleep,
        )
        async with asyncio.timeout(5):
            await watch.run()
        await client.close()
    return core, health, seen


async def test_the_owners_principal_is_asked_for_until_it_comes(tmp_path):
    core, health, seen = await watch_owner(tmp_path, EnrolHub(owner=False))
    assert [seconds for seconds, _ in seen] == [1, 2]
    assert seen[0][1] == {"owner-unconfirmed"}
    assert health.alarms == {}
    (identity,) = core.confirmed
    assert identity.owner.principal == OWNER.principal
    assert identity.owner_confirmed
    keys, files = stored(tmp_path)
    assert files.identity(keys, None).owner_confirmed  # also after a restart without a hub


async def test_without_a_pin_nobody_is_asked(tmp_path):
    hub = EnrolHub()
    core, health, seen = await watch_owner(tmp_path, hub, owner=None)
    assert core.confirmed == seen == []
    assert set(health.alarms) == {"owner-unconfirmed"}
    assert not [path for path in hub.asked if "objects" in path]
