"""The catalog as a JSON API, the ledger's tiles, and the document about all of it."""

import json
from pathlib import Path

import msgspec
from openapi_spec_validator import OpenAPIV31SpecValidator

from hub.api import openapi
from hub.api.routes import ROUTES, Router
from hub.messages import catalogue
from protocol import ids, tiles
from protocol.checkpoint import verify_note
from protocol.errors import Code
from protocol.grades import Grade
from protocol.merkle import Frontier, leaf_hash
from protocol.program.messages import LANGUAGES
from protocol.registration import Coordinates, Registration
from tests.hub import kit
from tests.hub.shell import Gateway, Owner, Shell, serving


async def joined(shell: Shell, **how) -> Gateway:
    gateway = Gateway(shell)
    await gateway.join(**how)
    return gateway


async def test_entry_has_every_field_of_the_registration(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        owner = Owner()
        await owner.join(shell)
        gateway = await joined(shell, owner=owner.id)
        source = gateway.resource(
            "bays",
            owner=owner.id,
            owner_basis="local",
            owner_key=owner.sealing.key_id,
            coordinates=Coordinates(longitude=119.68, latitude=30.63),
            place="东门停车场",
            users=(owner.id,),
            user_policy="公开",
        )
        await gateway.exchange(source.registration, kit.item(source.seal(7)))
        token = await shell.read_token()
        answer = await shell.bearer(token, f"/v1/entries/{ids.show(source.id)}")
        assert answer.status == 200, answer.body
        view = answer.json
        entry = source.payload
        assert view["attributes"]["name_zh"] == "车位状态"
        assert view["attributes"]["fields"][0]["zh"] == "状态"
        assert view["ownership"]["owner"] == owner.shown
        assert view["ownership"]["owner_basis"] == "local"
        assert view["ownership"]["producer"] == ids.show(gateway.id)
        assert view["metadata"]["coordinates"]["longitude"] == 119.68
        assert view["metadata"]["records"] == 7
        assert view["metadata"]["segments"] == 1
        assert view["metadata"]["size_bytes"] > 0
        assert view["security"]["grade_zh"] == "一般开放级"
        assert view["security"]["owner_key"] == ids.show(owner.sealing.key_id)
        assert len(view["classification"]) == 12
        assert view["proof"]["object"] == source.entry.object_id.hex()
        assert view["readable"] is True
        # Every field of the signed entry is shown under its own or a telling name.
        shown = {
            name
            for group in ("attributes", "ownership", "metadata", "security")
            for name in view[group]
        } | set(view)
        other = {
            "schema": "fields",
            "registered_at": "registered_agent_us",
            "nonce": "proof",
        }
        for name in Registration.__struct_fields__:
            assert other.get(name, name) in shown, name
        assert entry.local_name == view["attributes"]["local_name"]


async def test_list_filters_and_pages(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        await shell.site("gate")
        gateway = await joined(shell)
        sources = [
            gateway.resource(f"r{at}", name_zh=name, region=region)
            for at, (name, region) in enumerate(
                [("东门停车场", "330523"), ("西门停车场", "330524"), ("游客量 50%", "330523")]
            )
        ]
        fully = gateway.resource("open", grade=Grade.FULLY_OPEN)
        await gateway.exchange(*(one.registration for one in [*sources, fully]))
        token = await shell.read_token()

        async def names(query: str) -> list[str]:
            answer = await shell.bearer(token, f"/v1/entries{query}")
            assert answer.status == 200, answer.body
            return [one["name_zh"] for one in answer.json["items"]]

        assert len(await names("")) == 3  # the fully open one is in no catalog
        assert await names("?text=%E5%81%9C%E8%BD%A6") == ["东门停车场", "西门停车场"]
        assert await names("?text=50%25") == ["游客量 50%"]
        assert await names("?text=%25") == []  # a sign is no word
        assert len(await names("?text=%20")) == 3  # and blanks ask nothing
        assert await names("?region=330523") == ["东门停车场", "游客量 50%"]
        assert await names("?region=33") == await names("?site=lake") == await names("")
        assert await names("?grade=5&kind=structured&pack=parking.bay") == await names("")
        assert await names("?grade=3") == await names("?site=gate") == []
        assert await names(f"?agent={ids.show(gateway.id)}&text=x") == []
        first = (await shell.bearer(token, "/v1/entries?limit=2")).json
        assert (len(first["items"]), first["total"]) == (2, 3)
        second = (await shell.bearer(token, f"/v1/entries?limit=2&after={first['next']}")).json
        assert (len(second["items"]), second["next"]) == (1, None)
        for bad in ("?color=red", "?limit=0", "?limit=501", "?grade=7", "?kind=x", "?owner=x",
                    "?text=a&text=b"):  # fmt: skip
            answer = await shell.bearer(token, f"/v1/entries{bad}")
            assert answer.status == 400, bad
        hidden = await shell.bearer(token, f"/v1/entries/{ids.show(fully.id)}")
        assert (hidden.status, hidden.key) == (404, "unknown-resource")
        listed = (await shell.bearer(token, "/v1/resources")).json["items"]
        assert len(listed) == 4  # but it is served


async def test_unowned_entry_is_visible_and_not_catalogued(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = await joined(shell)
        source = gateway.resource()
        await gateway.exchange(source.registration)
        token = await shell.read_token()
        item = (await shell.bearer(token, "/v1/entries")).json["items"][0]
        assert (item["state"], item["owner"]) == ("unowned", None)


async def test_the_log_can_be_followed_by_tiles_alone(tmp_path: Path) -> None:
    """A stranger with nothing but the verifier key recomputes the root from the entries."""
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = await joined(shell)
        bays = gateway.resource()
        await gateway.exchange(bays.registration)
        for _ in range(5):
            await gateway.exchange(kit.item(bays.seal()))
        enrolled = gateway.enrolled
        prefix = f"/log/{enrolled.generation}"
        answer = await shell.call("GET", f"{prefix}/checkpoint")
        assert answer.headers["Content-Type"].startswith("text/plain")
        note = verify_note(answer.body.decode(), enrolled.log_key)
        frontier = Frontier()
        for tile in tiles.tiles_of(note.size):
            answer = await shell.call("GET", f"{prefix}/{tiles.tile_path(tile)}")
            assert answer.status == 200, tile
            if tile.level is None:
                data = tiles.parse_bundle(answer.body)
            elif tile.level == 0:
                hashes = answer.body
        for one in data:
            frontier.append(leaf_hash(one))
        assert b"".join(leaf_hash(one) for one in data) == hashes
        assert (frontier.size, frontier.root()) == (note.size, note.root)
        beyond = await shell.call("GET", f"{prefix}/tile/0/000.p/{note.size + 1}")
        assert beyond.status == 404
        assert (await shell.call("GET", "/log/77/checkpoint")).status == 404


async def test_streams_of_the_calling_agent(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = await joined(shell)
        bays = gateway.resource()
        segments = bays.many(3)
        await gateway.exchange(bays.registration, *kit.items(segments))
        found = (await shell.signed(gateway.signing, "GET", "/v1/streams")).json["items"]
        assert found == [
            {
                "resource": ids.show(bays.id),
                "stream": ids.show(bays.stream),
                "seq": 2,
                "head": segments[2].id.hex(),
            }
        ]
        other = await joined(shell)
        assert (await shell.signed(other.signing, "GET", "/v1/streams")).json["items"] == []


async def test_segments_come_in_pages(tmp_path: Path) -> None:
    from protocol import wire

    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = await joined(shell)
        bays = gateway.resource()
        segments = bays.many(5)
        await gateway.exchange(bays.registration, *kit.items(segments))
        token, heads, after = await shell.read_token(), [], "0"
        while after is not None:
            target = f"/v1/resources/{ids.show(bays.id)}/segments?limit=2&after={after}"
            page = wire.decode_any((await shell.bearer(token, target)).body, limit=10**6)
            heads += [one[2] for one in page["items"]]
            after = None if page["next"] is None else str(page["next"])
        assert heads == [one.head for one in segments]


async def test_time_is_signed_and_repeats_the_nonce(tmp_path: Path) -> None:
    from hub.api.time import TimeAnswer
    from protocol import envelope

    async with serving(tmp_path) as shell:
        answer = await shell.call("GET", f"/v1/time?nonce={'ab' * 16}")
        key = shell.parts.keys.signing.public
        told = envelope.open_as(
            envelope.parse(answer.body), "time", TimeAnswer, envelope.only_key(key)
        )
        assert told.nonce == b"\xab" * 16
        assert (await shell.call("GET", "/v1/time?nonce=x")).status == 400


async def test_health(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        assert (await shell.call("GET", "/healthz")).json == {"status": "ok"}
        ready = {"status": "ok", "reasons": [], "warnings": []}
        assert (await shell.call("GET", "/readyz")).json == ready
        shell.parts.stopping = True
        answer = await shell.call("GET", "/readyz")
        assert (answer.status, answer.json["reasons"]) == (503, ["stopping"])
        refused = await shell.post("/v1/enrol", b"x")
        assert (refused.status, refused.key) == (503, "stopping")


async def test_the_document_is_valid_and_complete(tmp_path: Path) -> None:
    made = json.loads(msgspec.json.encode(openapi.make(ROUTES, release="1")))
    OpenAPIV31SpecValidator(made).validate()
    documented = {(method.upper(), path) for path, item in made["paths"].items() for method in item}
    assert documented == {(one.method, one.path.replace("*}", "}")) for one in ROUTES}
    for path, item in made["paths"].items():
        for operation in item.values():
            free = operation["security"] == []
            assert free == (
                path in {"/v1/time", "/v1/enrol", "/healthz", "/readyz"} or path.startswith("/log/")
            ), path
    async with serving(tmp_path) as shell:
        answer = await shell.bearer(await shell.read_token(), "/openapi.json")
        assert answer.json["openapi"] == "3.1.0"


async def test_answers_are_as_the_document_says(tmp_path: Path) -> None:
    """JSON answers validate against the schemas that the document gives for them."""
    from jsonschema import Draft202012Validator

    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = await joined(shell)
        bays = gateway.resource()
        await gateway.exchange(bays.registration, kit.item(bays.seal()))
        token = await shell.read_token()
        document = openapi.make(ROUTES, release="1")
        shown = ids.show(bays.id)
        for route in ROUTES:
            if route.answer is None or route.method != "GET":
                continue
            target = route.path.replace("{resource}", shown)
            if route.path == "/v1/streams":
                answer = await shell.signed(gateway.signing, "GET", target)
            else:
                answer = await shell.bearer(token, target)
            assert answer.status == 200, target
            found = document["paths"][route.path]["get"]["responses"]["200"]["content"]
            schema = found["application/json"]["schema"] | {"components": document["components"]}
            Draft202012Validator(schema).validate(answer.json)


def test_unknown_method_names_the_known() -> None:
    router = Router(ROUTES)
    assert router.find("DELETE", "/v1/sync")[2] == ["POST"]
    assert router.find("GET", "/v1/none")[2] == []
    assert router.find("GET", "/v1/entries/")[0] is None


def test_every_code_has_a_text_in_both_languages() -> None:
    for language in LANGUAGES:
        assert {f"code.{one.key}" for one in Code} <= catalogue(language).keys()
