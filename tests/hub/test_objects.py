"""Signed objects: who may hand one in, and who may have one back."""

from pathlib import Path

from protocol import ids, wire
from protocol.grades import Grade
from protocol.keys import EpochKey
from protocol.messages import ObjectItem
from protocol.notes import Gap, make_gap
from protocol.wraps import make_wrap
from tests.hub import kit
from tests.hub.shell import Gateway, Owner, serving


async def test_who_may_have_which_object(tmp_path: Path) -> None:
    """Wraps go to their recipient and maker, notes to who may read the resource, entries wider."""
    async with serving(tmp_path) as shell:
        owner, stranger = Owner(), Owner("stranger")
        await owner.join(shell)
        await stranger.join(shell)
        await shell.site()
        gateway, other = Gateway(shell), Gateway(shell)
        await gateway.join(owner=owner.id)
        await other.join()
        checks = gateway.resource(
            "checks",
            grade=Grade.SHAREABLE,
            owner=owner.id,
            owner_basis="local",
            encryption=kit.Encryption(suite=1, epoch_s=86400, groups=("data",)),
        )
        wrap = make_wrap(
            EpochKey(resource=checks.id, epoch=1, group=0, key=b"k" * 32, from_us=0, to_us=kit.T0),
            recipient=owner.id,
            recipient_sealing=owner.sealing.public,
            maker=gateway.signing,
            seen=None,
            nonce=b"w" * 16,
            box_seed=b"b" * 32,
        )
        gap = make_gap(
            Gap(
                resource=checks.id, stream=checks.stream, unit="row", first=1, last=2, count=2,
                reason="damaged", nonce=b"g" * 16,
            ),
            gateway.signing,
        )  # fmt: skip
        outcome = await gateway.exchange(
            checks.registration, ObjectItem(wrap.raw), ObjectItem(gap.raw)
        )
        assert len(outcome.accepted) == 3, outcome.items
        reader = await shell.read_token()

        async def seen_by(object_id: bytes) -> dict[str, bool]:
            target = f"/v1/objects/{object_id.hex()}"
            answers = {
                "owner": await shell.signed(owner.signing, "GET", target),
                "agent": await shell.signed(gateway.signing, "GET", target),
                "stranger": await shell.signed(stranger.signing, "GET", target),
                "other": await shell.signed(other.signing, "GET", target),
                "reader": await shell.bearer(reader, target),
            }
            assert {one.status for one in answers.values()} <= {200, 404}
            return {name: one.status == 200 for name, one in answers.items()}

        def only(*names: str) -> dict[str, bool]:
            every = ("owner", "agent", "stranger", "other", "reader")
            return {name: name in names for name in every}

        assert await seen_by(wrap.object_id) == only("owner", "agent")
        assert await seen_by(gap.object_id) == only("owner", "agent")
        assert await seen_by(checks.entry.object_id) == only("owner", "agent", "reader")
        everybody = only("owner", "agent", "stranger", "other", "reader")
        assert await seen_by(owner.principal.object_id) == everybody

        target = f"/v1/wraps?recipient={owner.shown}&resource={ids.show(checks.id)}"
        mine = await shell.signed(owner.signing, "GET", target)
        assert wire.decode_any(mine.body, limit=10**6) == [wrap.raw]
        theirs = await shell.signed(stranger.signing, "GET", target)
        assert (theirs.status, theirs.key) == (403, "not-allowed")


async def test_an_owner_speaks_for_itself_only(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        owner, other = Owner(), Owner("other")
        await owner.join(shell)
        answer = await shell.signed(owner.signing, "POST", "/v1/objects", other.principal.raw)
        assert (answer.status, answer.key) == (401, "wrong-signer")
        again = await shell.signed(owner.signing, "POST", "/v1/objects", owner.principal.raw)
        assert (again.status, again.json["known"]) == (200, True)
        missing = await shell.signed(owner.signing, "GET", f"/v1/objects/{other.shown}")
        assert missing.status == 404


async def test_only_owners_principals_are_handed_in(tmp_path: Path) -> None:
    from protocol.principal import make_principal

    async with serving(tmp_path) as shell:
        owner = Owner()
        user = make_principal(owner.signing, owner.sealing.public, kind="user", nonce=bytes(16))
        key = (await shell.owner_token()).signing_key()
        answer = await shell.signed(key, "POST", "/v1/objects", user.raw)
        assert (answer.status, answer.key) == (403, "not-allowed")
        # The token was not burnt by that.
        good = await shell.signed(key, "POST", "/v1/objects", owner.principal.raw)
        assert good.status == 200


async def test_a_checkpoint_is_noted_before_it_leaves(tmp_path: Path) -> None:
    """Also that of an enrolment, or a hub put back before it would not notice."""
    from protocol.checkpoint import parse_note

    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        enrolled = await gateway.join()
        noted = [parse_note(one).size for one in shell.parts.recorder._last.read()]
        assert max(noted) == parse_note(enrolled.checkpoint).size == enrolled.index + 1
