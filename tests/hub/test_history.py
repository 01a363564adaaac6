"""An entry's history and its proof, over HTTP, believed by nobody who does not check."""

import base64
import hashlib
from pathlib import Path

import pytest

from hub import admin
from protocol import envelope, ids
from protocol.checkpoint import verify_note
from protocol.errors import VerifyError
from protocol.grades import Grade
from protocol.ids import PrincipalId
from protocol.receipt import Receipt, verify_receipt
from protocol.registration import Coordinates, open_registration
from tests.hub import kit
from tests.hub.shell import Gateway, Owner, Shell, serving


async def with_versions(shell: Shell, count: int = 3) -> tuple[Gateway, list[kit.Source]]:
    """A gateway, and the versions of one entry as it sent them."""
    await shell.site()
    gateway = Gateway(shell)
    await gateway.join()
    made = [gateway.resource("bays", name_zh="车位1")]
    for version in range(2, count + 1):
        made.append(
            gateway.resource(
                "bays",
                name_zh=f"车位{version}",
                version=version,
                previous=made[-1].entry.object_id,
            )  # fmt: skip
        )
    for one in made:
        await gateway.exchange(one.registration)
    return gateway, made


async def test_versions_say_who_when_and_what_changed(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        owner, gateway = Owner(), Gateway(shell)
        await owner.join(shell)
        await gateway.join(owner=owner.id)
        from protocol import wire
        from protocol.schema import Field, schema_hash

        more = wire.encode((*kit.FIELDS, Field(
            name="floor", zh="楼层", en="floor", type="string", grade=Grade.GENERALLY_OPEN,
        )))  # fmt: skip
        first = gateway.resource("bays")
        second = gateway.resource(
            "bays", name_zh="东门车位", owner=owner.id, owner_basis="local",
            coordinates=Coordinates(longitude=119.5, latitude=30.5), users=(owner.id,),
            schema=more, schema_hash=schema_hash(more),
            version=2, previous=first.entry.object_id,
        )  # fmt: skip
        await gateway.exchange(first.registration, second.registration)
        token = await shell.read_token()
        target = f"/v1/entries/{ids.show(first.id)}/versions"
        page = (await shell.bearer(token, target)).json
        assert page["next"] is None
        newest, oldest = page["items"]
        assert (newest["version"], oldest["version"]) == (2, 1)
        assert (newest["in_force"], oldest["in_force"]) == (True, False)
        assert newest["object"] == second.entry.object_id.hex()
        assert newest["previous"] == oldest["object"]
        assert newest["agent"] == ids.show(gateway.id)
        assert newest["registered_agent_us"] == second.payload.registered_at.wall_us
        assert newest["registered_hub_us"] > kit.T0 // 10
        changed = {one["field"]: (one["before"], one["after"]) for one in newest["changes"]}
        assert changed.pop("schema.floor")[1]["zh"] == "楼层"
        assert changed == {
            "name_zh": ("车位状态", "东门车位"),
            "owner": (None, owner.shown),
            "owner_basis": ("none", "local"),
            "coordinates": ([103.6, 31.0, "CGCS2000"], [119.5, 30.5, "CGCS2000"]),
            "users": ([], [owner.shown]),
        }
        assert (oldest["changes"], oldest["previous_known"]) == ([], False)
        by_owner = await shell.signed(owner.signing, "GET", target)
        assert by_owner.json == page


async def test_a_version_whose_forerunner_never_came_compares_with_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        lost = gateway.resource("bays")
        other = gateway.resource("other")  # an object that is there, of another resource
        for number, previous in enumerate((lost.entry.object_id, other.entry.object_id)):
            source = gateway.resource(f"r{number}", version=2, previous=previous)
            await gateway.exchange(other.registration, source.registration)
            target = f"/v1/entries/{ids.show(source.id)}/versions"
            (item,) = (await shell.bearer(await shell.read_token(), target)).json["items"]
            assert item["previous"] == previous.hex()
            assert (item["previous_known"], item["changes"]) == (False, [])


async def test_versions_come_in_pages_the_newest_first(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        _, made = await with_versions(shell, 5)
        token = await shell.read_token()
        target = f"/v1/entries/{ids.show(made[0].id)}/versions?limit=2"
        seen, after = [], ""
        while after is not None:
            page = (await shell.bearer(token, f"{target}{after and '&after=' + after}")).json
            seen += page["items"]
            after = page["next"]
        assert [one["version"] for one in seen] == [5, 4, 3, 2, 1]
        assert [one["changes"][0]["after"] for one in seen[:4]] == [
            "车位5",
            "车位4",
            "车位3",
            "车位2",
        ]
        for bad in (
            "after=x",
            "after=1.2",
            "after=1.2.3",
            "limit=0",
            "limit=101",
            "after=-1.1." + "0" * 64,
        ):
            answer = await shell.bearer(token, f"/v1/entries/{ids.show(made[0].id)}/versions?{bad}")
            assert answer.status == 400, bad


async def test_a_stranger_verifies_the_proof(tmp_path: Path) -> None:
    """With nothing but the log key: the leaf under the root, the entry in the leaf, its signature."""
    async with serving(tmp_path) as shell:
        gateway, made = await with_versions(shell)
        for _ in range(3):
            await gateway.exchange(kit.item(made[-1].seal()))
        token = await shell.read_token()
        target = f"/v1/entries/{ids.show(made[0].id)}/proof"
        for source, query in (
            (made[-1], ""),
            (made[0], f"?object={made[0].entry.object_id.hex()}"),
        ):
            said = (await shell.bearer(token, target + query)).json
            assert said["log_key"] == gateway.enrolled.log_key
            receipt = Receipt(
                leaf=base64.b64decode(said["leaf"]),
                index=said["index"],
                path=tuple(base64.b64decode(one) for one in said["path"]),
                checkpoint=said["checkpoint"],
            )
            leaf = verify_receipt(receipt, gateway.enrolled.log_key, gateway.id)
            entry = envelope.parse(base64.b64decode(said["entry"]))
            assert entry.object_id.hex() == said["object"]
            assert entry.object_id in {item for _, item in leaf.items}
            assert entry.raw == source.entry.raw
            # Who checks the agent's signature too learns its key from the enrolment.
            assert open_registration(entry, gateway.signing.public) == source.payload
            # One byte changed, and it is no proof any more.
            for change in ({"leaf": receipt.leaf[:-1] + b"\x00"}, {"index": receipt.index + 1},
                           {"path": receipt.path[::-1]},
                           {"checkpoint": receipt.checkpoint.replace("\n", "\n1", 1)}):  # fmt: skip
                bent = Receipt(
                    **{name: getattr(receipt, name) for name in Receipt.__struct_fields__} | change
                )
                with pytest.raises(VerifyError):
                    verify_receipt(bent, gateway.enrolled.log_key, gateway.id)
            assert verify_note(said["checkpoint"], said["log_key"]).size > receipt.index


async def test_what_is_not_a_version_of_the_entry_has_no_proof_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        gateway, made = await with_versions(shell, 1)
        other = gateway.resource("other")
        opened = gateway.resource("open", grade=Grade.FULLY_OPEN)
        await gateway.exchange(other.registration, opened.registration)
        token = await shell.read_token()
        shown = ids.show(made[0].id)
        for wanted in (other.entry.object_id.hex(), hashlib.sha256(b"x").hexdigest()):
            answer = await shell.bearer(token, f"/v1/entries/{shown}/proof?object={wanted}")
            assert (answer.status, answer.key) == (404, "not-found")
        for hidden in (ids.show(opened.id), ids.show(bytes(16))):
            for end in ("", "/versions", "/proof"):
                answer = await shell.bearer(token, f"/v1/entries/{hidden}{end}")
                assert (answer.status, answer.key) == (404, "unknown-resource"), end


async def test_facets_over_http(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        sources = [
            gateway.resource(f"r{at}", name_zh=name) for at, name in enumerate(("检票", "停车"))
        ]
        await gateway.exchange(*(one.registration for one in sources))
        token = await shell.read_token()
        every = (await shell.bearer(token, "/v1/facets")).json
        assert every["site"] == [{"value": "lake", "zh": "湖区", "en": "湖区", "count": 2}]
        assert every["grade"] == [
            {"value": "5", "zh": "一般开放级", "en": "generally-open", "count": 2}
        ]
        assert every["state"][0] == {
            "value": "unowned", "zh": "所有者待确认", "en": "owner not known", "count": 2,
        }  # fmt: skip
        assert (every["exact"], every["owner"]) == (True, [])
        asked = (await shell.bearer(token, "/v1/facets?text=%E5%81%9C%E8%BD%A6")).json
        assert asked["region"] == [{"value": "33", "zh": "33", "en": "33", "count": 1}]
        # Each value is taken by the filter as it stands.
        for name, values in every.items():
            for one in values if isinstance(values, list) else []:
                found = (await shell.bearer(token, f"/v1/entries?{name}={one['value']}")).json
                assert found["total"] == one["count"], name
        for bad in ("limit=1", "after=0", "state=x", "color=red"):
            assert (await shell.bearer(token, f"/v1/facets?{bad}")).status == 400


async def test_proof_after_a_restore_leads_to_the_frozen_tree(tmp_path: Path) -> None:
    """What an older generation recorded is proven there: its last checkpoint stays signed."""
    from hub.restoring import restore

    async with serving(tmp_path) as shell:
        gateway, made = await with_versions(shell, 1)
        await shell.do(admin.BackupMake(folder=str(tmp_path / "backup")))
        folder = shell.folder
    with folder.locked() as held:
        assert held
        await restore(folder, tmp_path / "backup", by=kit.BY)
    async with serving(tmp_path) as shell:
        token = await shell.read_token()
        found = (await shell.bearer(token, "/v1/entries?text=%E8%BD%A6%E4%BD%8D")).json
        assert found["total"] == 1, "the index came back with the rest"
        said = (await shell.bearer(token, f"/v1/entries/{ids.show(made[0].id)}/proof")).json
        assert said["generation"] == 1
        receipt = Receipt(
            leaf=base64.b64decode(said["leaf"]), index=said["index"],
            path=tuple(base64.b64decode(one) for one in said["path"]), checkpoint=said["checkpoint"],
        )  # fmt: skip
        verify_receipt(receipt, gateway.enrolled.log_key, PrincipalId(gateway.id))
