"""Declared loss and corrections: listed for whoever may read the resource, page by page."""

from pathlib import Path

import pytest

from protocol import ids, wire
from protocol.grades import Grade
from protocol.ids import PrincipalId, StreamId
from protocol.messages import ObjectItem, SegmentItem
from protocol.notes import Correction, Gap, make_correction, make_gap
from tests.hub import kit
from tests.hub.shell import Answer, Gateway, Owner, serving


def gap(gateway: Gateway, resource: kit.Source, number: int) -> bytes:
    made = Gap(
        resource=resource.id, stream=resource.stream, unit="row", first=number, last=number,
        count=1, reason="lost", nonce=number.to_bytes(16, "big"),
    )  # fmt: skip
    return make_gap(made, gateway.signing).raw


def sealed(gateway: Gateway, name: str, owner: PrincipalId) -> kit.Source:
    return gateway.resource(
        name,
        grade=Grade.SHAREABLE,
        owner=owner,
        owner_basis="local",
        encryption=kit.Encryption(suite=1, epoch_s=86400, groups=("data",)),
    )


def page(answer: Answer) -> tuple[list[bytes], str | None]:
    assert answer.status == 200, answer.body
    fields = wire.decode_any(answer.body, limit=1 << 20)
    assert isinstance(fields, dict)
    return fields["items"], fields["next"]  # type: ignore[return-value]


async def test_notes_of_one_resource_in_pages_and_to_whom(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        owner, stranger = Owner(), Owner("stranger")
        await owner.join(shell)
        await stranger.join(shell)
        await shell.site()
        gateway, other = Gateway(shell), Gateway(shell)
        await gateway.join(owner=owner.id)
        await other.join()
        checks, counts = (sealed(gateway, name, owner.id) for name in ("checks", "counts"))
        mine = [gap(gateway, checks, number) for number in range(5)]
        others = [gap(gateway, counts, number) for number in range(10, 13)]
        sent = [one for pair in zip(mine, [*others, *others], strict=False) for one in pair]
        await gateway.exchange(checks.registration, counts.registration)
        outcome = await gateway.exchange(*(ObjectItem(one) for one in dict.fromkeys(sent)))
        assert len(outcome.accepted) == 8
        path = f"/v1/resources/{ids.show(checks.id)}/notes"
        found, after, pages = [], "", 0
        while after is not None:
            target = f"{path}?limit=2" + (f"&after={after}" if after else "")
            items, after = page(await shell.signed(owner.signing, "GET", target))
            found += items
            pages += 1
        assert sorted(found) == sorted(mine)
        assert pages >= 4
        assert len(page(await shell.signed(gateway.signing, "GET", path))[0]) == 5
        assert (await shell.signed(stranger.signing, "GET", path)).key == "not-owner"
        assert (await shell.signed(other.signing, "GET", path)).key == "unknown-resource"
        assert (await shell.bearer(await shell.read_token(), path)).key == "not-owner"
        assert (await shell.call("GET", path)).status == 401


async def test_correction_is_listed_with_the_resource_of_its_stream(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        checks, counts = gateway.resource("checks"), gateway.resource("counts")
        await gateway.exchange(
            checks.registration, counts.registration, SegmentItem(checks.seal().raw)
        )
        made = [
            make_correction(
                Correction(
                    stream=stream, first_seq=0, last_seq=0, offset_us=5, nonce=bytes([n]) * 16
                ),
                gateway.signing,
            ).raw
            for n, stream in enumerate((checks.stream, StreamId(b"n" * 16)))
        ]
        await gateway.exchange(*(ObjectItem(one) for one in made))
        token = await shell.read_token()
        for resource, expected in ((checks, made[:1]), (counts, [])):
            path = f"/v1/resources/{ids.show(resource.id)}/notes"
            assert page(await shell.bearer(token, path)) == (expected, None)


@pytest.mark.parametrize("after", ["x", "1", "1.zz", "-1." + "00" * 32, "1." + "00" * 31])
async def test_cursor_that_is_none_is_refused(tmp_path: Path, after: str) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        checks = gateway.resource("checks")
        await gateway.exchange(checks.registration)
        path = f"/v1/resources/{ids.show(checks.id)}/notes?after={after}"
        assert (await shell.signed(gateway.signing, "GET", path)).status == 400


async def test_answer_names_the_sites_owner_and_not_the_pin(tmp_path: Path) -> None:
    """A wrong but valid pin is noticed at the gateway only if the hub does not repeat it."""
    async with serving(tmp_path) as shell:
        owner, wrong = Owner(), Owner("wrong")
        await owner.join(shell)
        await shell.site(owner=owner.shown)
        assert (await Gateway(shell).join(owner=wrong.id)).owner == owner.id
        assert (await Gateway(shell).join()).owner == owner.id
        await shell.site("free")
        gateway = Gateway(shell)
        request = gateway.request(await shell.token("free"), wrong.id)
        answer = await shell.post("/v1/enrol", request.raw)
        assert gateway.believe(request, answer.body).owner is None
