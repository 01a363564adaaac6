"""The hub over HTTP: enrol, sync, read back; what each caller may see."""

from pathlib import Path

from protocol import ids, wire
from protocol.grades import Grade
from tests.hub import kit
from tests.hub.shell import Gateway, Owner, serving


async def test_a_gateway_enrols_syncs_and_its_data_is_read_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        enrolled = await gateway.join()
        assert enrolled.site == "lake"
        assert enrolled.region == "330523"
        assert enrolled.state == "active"
        bays = gateway.resource()
        segments = [bays.seal(5) for _ in range(3)]
        outcome = await gateway.exchange(bays.registration, *kit.items(segments))
        assert len(outcome.accepted) == 4
        token = await shell.read_token()
        shown = ids.show(bays.id)
        page = wire.decode_any(
            (await shell.bearer(token, f"/v1/resources/{shown}/segments")).body, limit=10**6
        )
        assert [one[2] for one in page["items"]] == [one.head for one in segments]
        assert page["next"] is None
        one = segments[1]
        part = await shell.bearer(token, f"/v1/parts/{one.id.hex()}/0")
        assert part.body == bytes(one.body)
        whole = await shell.bearer(token, f"/v1/segments/{one.id.hex()}")
        assert whole.body == one.raw


async def test_the_owner_reads_what_nobody_else_may(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        owner, stranger = Owner(), Owner("stranger")
        answer = await owner.join(shell)
        assert answer.status == 200, answer.body
        assert (await stranger.join(shell)).status == 200
        await shell.site(owner=owner.shown)
        gateway = Gateway(shell)
        assert (await gateway.join(owner=owner.id)).owner == owner.id
        raw = await shell.signed(gateway.signing, "GET", f"/v1/objects/{owner.shown}")
        assert raw.body == owner.principal.raw
        sealed = gateway.resource(
            "checks",
            grade=Grade.SHAREABLE,
            owner=owner.id,
            owner_basis="local",
            encryption=kit.Encryption(suite=1, epoch_s=86400, groups=("data",)),
        )
        outcome = await gateway.exchange(sealed.registration)
        assert len(outcome.accepted) == 1
        target = f"/v1/resources/{ids.show(sealed.id)}/segments"
        assert (await shell.signed(owner.signing, "GET", target)).status == 200
        assert (await shell.signed(gateway.signing, "GET", target)).status == 200
        refused = await shell.signed(stranger.signing, "GET", target)
        assert (refused.status, refused.key) == (403, "not-owner")
        assert (await shell.bearer(await shell.read_token(), target)).status == 403
        other = Gateway(shell)
        await other.join()
        assert (await shell.signed(other.signing, "GET", target)).status == 404


async def test_an_agent_of_another_version_is_told_both(tmp_path: Path) -> None:
    import msgspec

    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        batch = msgspec.msgpack.decode(gateway.body()) | {"version": 9}
        body = msgspec.msgpack.encode(batch)
        answer = await shell.signed(gateway.signing, "POST", "/v1/sync", body)
        assert (answer.status, answer.key) == (426, "version-unsupported")
        assert answer.json["error"]["expected"] == "1; this batch has 9"
