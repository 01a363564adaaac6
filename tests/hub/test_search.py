"""The search index: every engine gives the answers of the rule, and it holds what is in force."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.domain import search as words
from hub.domain.classes import DIMENSIONS, VALUES, searched_words
from hub.store import agents, entries, facets, meta, migrate, principals, search, sites
from hub.store.engine import Store, Tx
from hub.store.entries import Filter, ResourceRow
from protocol import wire
from protocol.errors import DecodeError
from protocol.grades import Grade
from protocol.registration import Classification, Encryption
from protocol.schema import Field, schema_hash
from tests.hub import kit
from tests.hub.finding import finds
from tests.hub.kit import BY, T0, Agent, HubCore, Killed, kill_at, running, verdicts

ENGINES = ["sqlite"]
CROWDED = st.text(st.sampled_from('停车场票门a1b -,"*'), max_size=12)


@contextlib.contextmanager
def empty_store(engine: str):
    """A store of this engine with one agent, for tests that are run many times."""
    assert engine == "sqlite"
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "hub.db")
        try:
            yield store
        finally:
            store.close_now()


def write(store: Store, fn) -> None:
    store._writer_thread.submit(store.write_now, "w", fn).result()


def stand(tx: Tx) -> Agent:
    """A site and an agent, which resources refer to."""
    migrate.upgrade(tx)
    sites.add(tx, sites.SiteRow(id="lake", name="湖区", region="33", owner=None, created_us=T0), BY)
    agent = Agent("a")
    agents.add(tx, agent.row(), BY)
    return agent


def resource(agent: Agent, number: int, **changes) -> ResourceRow:
    row = ResourceRow(
        n=0, id=number.to_bytes(16, "big"), agent=agent.id, site="lake", entry=bytes(32),
        kind="registration", version=1, grade=5, owner=None, pack="p", data_kind="structured",
        name_zh="", name_en="", region="330523", code="", created_us=T0, changed_us=T0,
    )  # fmt: skip
    return msgspec.structs.replace(row, **changes)


# --- the contract of an engine --------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(CROWDED, max_size=3), min_size=1, max_size=6), st.lists(CROWDED, max_size=12)
)
def test_every_engine_answers_as_the_rule_says(
    engine: str, documents: list[list[str]], questions: list[str]
) -> None:
    with empty_store(engine) as store:

        def fill(tx: Tx) -> None:
            agent = stand(tx)
            for number, fields in enumerate(documents):
                n = entries.add_resource(tx, resource(agent, number))
                search.index_of(tx).put(tx, [(n, words.document(fields))])

        write(store, fill)
        for asked in questions:
            found = store.read_now(lambda tx, asked=asked: entries.page(tx, Filter(text=asked)))
            right = [n for n, fields in enumerate(documents, 1) if finds(asked, fields)]
            assert [one.n for one in found] == (
                right if asked.strip() else [*range(1, len(documents) + 1)]
            )


@pytest.mark.parametrize("engine", ENGINES)
def test_put_replaces_remove_and_clear(engine: str) -> None:
    with empty_store(engine) as store:

        def hits(tx: Tx, text: str) -> list[int]:
            return [one.n for one in entries.page(tx, Filter(text=text))]

        def steps(tx: Tx) -> None:
            agent = stand(tx)
            one, two = (entries.add_resource(tx, resource(agent, at)) for at in range(2))
            index = search.index_of(tx)
            index.put(tx, [(one, words.document(["停车"])), (two, words.document(["停车 检票"]))])
            assert hits(tx, "停车") == [one, two]
            index.put(tx, [(one, words.document(["闸机"]))])
            assert (hits(tx, "停车"), hits(tx, "闸机")) == ([two], [one])
            index.remove(tx, one)
            index.remove(tx, one)
            assert (hits(tx, "停车"), hits(tx, "闸机")) == ([two], [])
            index.clear(tx)
            assert hits(tx, "停车") == []

        write(store, steps)


# --- what is in the index -------------------------------------------------------------------------

FIELDS = (
    Field(
        name="code_no", zh="证券代码", en="security code", type="int", grade=Grade.GENERALLY_OPEN
    ),
    Field(name="gate_no", zh="闸机编号", en="gate", type="int", grade=Grade.GENERALLY_OPEN),
)
SCHEMA = wire.encode(FIELDS)


def told(agent: Agent, local_name: str = "r", **changes) -> kit.Source:
    """A resource whose every text can be told from the others."""
    return agent.resource(
        local_name,
        **{
            "name_zh": "东门检票", "name_en": "East gate checks", "description": "景区入口的检票记录",
            "place": "游客中心北侧", "schema": SCHEMA, "schema_hash": schema_hash(SCHEMA),
        } | changes,
    )  # fmt: skip


async def found(hub: HubCore, text: str, **more) -> list[str]:
    page = await hub.reading.entries(Filter(text=text, **more))
    assert (page.total, page.exact) == (len(page.items), True)
    return sorted(one.name_zh for one in page.items)


#: A fixed list: each was or could be missed by an index made for other languages.
NAMED = [
    "检票", "景区", "闸机", "代码", "证券代码", "证券", "券代", "票", "门", "东门检票", "门检",
    "检票记录", "游客中心", "湖区", "安吉文旅", "East", "eas", "gate checks", "GATE", "ｇａｔｅ",
    "security", "330523", "330523-0000", "parking", "parking.bay", "gate_no", "结构化", "可公开",
    "一般开放级", "东门　检票", "检票 east", "330523-00000001",
]  # fmt: skip
MISSED = ["停车", "停車", "非结构化", "不可共享", "门东", "票检", "ast", "检票东门", "检入", "r2"]


async def test_named_words_are_found_and_others_are_not(hub, agent) -> None:
    owner = await an_owner(hub, "安吉文旅局")
    source = told(agent, owner=owner, owner_basis="hub")
    other = agent.resource("r2x", name_zh="车位", name_en="", pack="p2", region="51")
    await agent.send(hub, source.registration)
    for word in NAMED:
        assert await found(hub, word) == ["东门检票"], word
    for word in MISSED:
        assert await found(hub, word) == [], word
    await agent.send(hub, other.registration)
    assert await found(hub, "车位") == ["车位"]
    assert await found(hub, "湖区") == sorted(["东门检票", "车位"])
    assert await found(hub, "湖区", region="51") == ["车位"]
    assert await found(hub, "湖区", state="unowned") == ["车位"]
    assert await found(hub, "湖区", state="catalogued") == ["东门检票"]


async def an_owner(hub: HubCore, name: str, version: int = 1) -> bytes:
    row = principals.PrincipalRow(
        id=b"owner-of-resource"[:16], kind="owner", name=name, signing=b"s" * 32, sealing=b"e" * 32,
        version=version, object=bytes(32), created_us=T0,
    )  # fmt: skip
    await hub.store.write("owner", principals.put, row, BY)
    return row.id


async def test_an_owner_who_is_named_later_is_found(hub, agent) -> None:
    owner = await an_owner(hub, "")
    await agent.send(hub, told(agent, owner=owner, owner_basis="hub").registration)
    assert await found(hub, "文旅局") == []
    await an_owner(hub, "安吉文旅局", version=2)
    assert await found(hub, "文旅局") == ["东门检票"]


async def test_a_superseded_version_leaves_the_index(hub, agent) -> None:
    first = told(agent)
    await agent.send(hub, first.registration)
    second = told(agent, name_zh="东门闸口", description="", schema=kit.SCHEMA,
                  schema_hash=schema_hash(kit.SCHEMA), version=2, previous=first.entry.object_id)  # fmt: skip
    await agent.send(hub, second.registration)
    assert await found(hub, "检票") == await found(hub, "代码") == []
    assert await found(hub, "闸口") == ["东门闸口"]


async def test_an_older_version_that_comes_late_changes_nothing(hub, agent) -> None:
    first = told(agent)
    second = told(agent, name_zh="东门闸口", version=2, previous=first.entry.object_id)
    await agent.send(hub, second.registration)
    outcome = await agent.send(hub, first.registration)
    assert verdicts(outcome) == ["Accepted"]
    assert (await found(hub, "闸口"), await found(hub, "东门检票")) == (["东门闸口"], [])


async def test_fully_open_resources_are_in_no_index(hub, agent) -> None:
    opened = told(agent, "open", grade=Grade.FULLY_OPEN)
    await agent.send(hub, opened.registration)
    assert await found(hub, "检票") == await found(hub, "检票", descriptions=True) == []
    # Protected from now on, it is registered: and found.
    key = Encryption(suite=1, epoch_s=3600, groups=("data",))
    sealed = told(agent, "open", grade=Grade.SHAREABLE, encryption=key, version=2,
                  previous=opened.entry.object_id)  # fmt: skip
    assert verdicts(await agent.send(hub, sealed.registration)) == ["Accepted"]
    assert await found(hub, "检票") == ["东门检票"]


@pytest.mark.parametrize("last", ["accept.before", "accept.after"])
async def test_a_kill_leaves_index_and_entries_alike(tmp_path: Path, last: str) -> None:
    async with running(tmp_path) as hub:
        agent = Agent("a")
        await agent.enrol(hub)
        with kill_at(last):
            sending = asyncio.create_task(agent.send(hub, told(agent).registration))
            with pytest.raises((Killed, asyncio.CancelledError)):
                async with asyncio.timeout(10):
                    await sending
    store = Store(tmp_path / "hub.db")
    rows = await store.read(entries.page, Filter())
    assert await store.read(entries.page, Filter(text="检票")) == rows
    assert bool(rows) == (last == "accept.after")
    await store.close()


async def test_a_database_of_an_older_release_is_indexed_at_its_start(hub, agent) -> None:
    """As after migration 0003, or with a release whose tokens differ: all is made anew."""
    sources = [told(agent, f"r{at}", name_zh=f"检票{at}号") for at in range(3)]
    await agent.send(hub, *(one.registration for one in sources))

    def age(tx: Tx) -> None:
        search.index_of(tx).clear(tx)
        search.index_of(tx).put(tx, [(3, ["旧词"]), (7, ["检票"])])
        tx.exec_driver_sql("DELETE FROM meta WHERE k = 'search-tokens'")

    await hub.store.write("age", age)
    assert await found(hub, "检票") == []
    await hub.store.write("migrate", migrate.upgrade)
    assert len(await found(hub, "检票")) == 3
    assert await found(hub, "旧词") == []
    assert await hub.store.read(meta.get, "search-tokens") == str(words.TOKENS_VERSION)


async def test_the_migration_makes_the_index_in_a_first_database(tmp_path: Path) -> None:
    """A database of the first schema with entries in it, as a file would be."""
    async with running(tmp_path) as hub:
        agent = Agent("a")
        await agent.enrol(hub)
        await agent.send(hub, told(agent).registration)

        def back(tx: Tx) -> None:
            tx.exec_driver_sql("DROP TABLE search")
            tx.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
            tx.exec_driver_sql("DELETE FROM meta WHERE k = 'search-tokens'")

        await hub.store.write("back", back)
        await hub.store.write("migrate", migrate.upgrade)
        assert await found(hub, "检票") == ["东门检票"]


async def test_a_backup_keeps_the_index(tmp_path: Path) -> None:
    from hub.store.copy import copy_database

    async with running(tmp_path) as hub:
        agent = Agent("a")
        await agent.enrol(hub)
        await agent.send(hub, told(agent).registration)
        await asyncio.to_thread(copy_database, hub.store.path, tmp_path / "copy.db")
    copy = Store(tmp_path / "copy.db")
    assert [one.name_zh for one in await copy.read(entries.page, Filter(text="检票"))] == [
        "东门检票"
    ]
    await copy.close()


# --- counts ---------------------------------------------------------------------------------------


async def test_facets_count_under_the_filter(hub, agent) -> None:
    owner = await an_owner(hub, "安吉文旅局")
    made = [
        told(agent, "a", region="330523"),
        told(agent, "b", region="330523", owner=owner, owner_basis="hub"),
        told(agent, "c", region="330111", pack="ticket.check"),
        told(agent, "d", region="510100", name_zh="车位", description=""),
        told(agent, "open", grade=Grade.FULLY_OPEN),
    ]
    await agent.send(hub, *(one.registration for one in made))

    async def counts(**which) -> dict[str, dict[object, int]]:
        found = await hub.store.read(facets.of, Filter(**which))
        return {name: {one.value: one.count for one in some.counts} for name, some in found.items()}

    every = await counts()
    assert every == {
        "site": {"lake": 4},
        "grade": {5: 4},
        "pack": {"parking.bay": 3, "ticket.check": 1},
        "data_kind": {"structured": 4},
        "owner": {owner: 1},
        "state": {"unowned": 3, "catalogued": 1},
        "region": {"33": 3, "51": 1},
    }
    searched = await counts(text="检票")
    assert searched["region"] == {"33": 3}
    assert searched["pack"] == {"parking.bay": 2, "ticket.check": 1}
    narrowed = await counts(pack="ticket.check", region="33")
    assert narrowed["pack"] == {"parking.bay": 2, "ticket.check": 1}, "what else could be chosen"
    assert narrowed["region"] == {"3301": 1}, "one level below"
    assert narrowed["state"] == {"unowned": 1}
    assert (await counts(region="330523"))["region"] == {"330523": 2}
    assert all(not some for some in (await counts(text="无此词")).values())


async def test_counting_ends_somewhere(hub, agent, monkeypatch) -> None:
    monkeypatch.setattr(entries, "COUNT_MAX", 2)
    monkeypatch.setattr(facets, "COUNT_MAX", 2)
    monkeypatch.setattr(facets, "VALUES_MAX", 1)
    made = [told(agent, f"r{at}", pack=f"p{at % 2}") for at in range(5)]
    await agent.send(hub, *(one.registration for one in made))
    for text in (None, "检票"):
        assert await hub.store.read(entries.count, Filter(text=text)) == 3
        found = await hub.store.read(facets.of, Filter(text=text))
        assert [(one.value, one.count) for one in found["pack"].counts] == [("p0", 2)]
        assert not found["pack"].exact
        page = await hub.reading.entries(Filter(text=text), limit=2)
        assert (page.total, page.exact) == (2, False)


async def test_few_hits_stand_in_order_of_their_names_and_many_in_order_of_entry(
    hub, agent, monkeypatch
) -> None:
    names = ["东门检票口", "检票", "停车", "检票记录", "闸机 检票"]
    made = [told(agent, f"r{at}", name_zh=name, name_en="") for at, name in enumerate(names)]
    await agent.send(hub, *(one.registration for one in made))

    async def pages(limit: int) -> list[str]:
        said, after = [], ""
        while after is not None:
            page = await hub.reading.entries(Filter(text="检票"), after=after, limit=limit)
            said += [one.name_zh for one in page.items]
            after = page.next
        return said

    for limit in (1, 2, 5, 9):
        assert await pages(limit) == ["检票", "检票记录", "东门检票口", "闸机 检票", "停车"]
    monkeypatch.setattr("hub.reading.RANKED_MAX", 4)
    for limit in (1, 2, 5, 9):
        assert await pages(limit) == names
    for bad in ("x", "-1", "r", "rr1", "1" * 30, "٣"):
        with pytest.raises(DecodeError):
            await hub.reading.entries(Filter(text="检票"), after=bad)


# --- words of the classification ------------------------------------------------------------------


def test_every_value_of_the_classification_has_words() -> None:
    assert tuple(DIMENSIONS) == Classification.__struct_fields__
    for name in DIMENSIONS:
        hint = msgspec.inspect.type_info(Classification)
        field = next(one for one in hint.fields if one.name == name)
        for value in field.type.values:
            assert value == "n/a" or (name, value) in VALUES, (name, value)


def test_denials_are_not_searched() -> None:
    from protocol.registration import classify

    said = list(searched_words(classify(Grade.GENERAL_PROTECTED, "unstructured", relation="n/a")))
    assert "非结构化" not in said
    assert not any(word.startswith("不") for word in said)
    assert "实时" in said
