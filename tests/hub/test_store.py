"""The store by itself: migrations, the audit trail, tokens, inbox, hostile texts."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.domain.agents import NEXT, AgentState, check_move
from hub.domain.search import question
from hub.store import (
    agents,
    audit,
    entries,
    inbox,
    keys,
    meta,
    migrate,
    nonces,
    principals,
    read_tokens,
    search,
    sites,
    tokens,
)
from hub.store.audit import Actor
from hub.store.engine import Store
from hub.store.inbox import InboxRow
from hub.store.nonces import RequestNonce
from hub.store.principals import PrincipalRow
from hub.store.sites import SiteRow
from hub.store.tables import metadata, words
from hub.store.tokens import TokenRow
from protocol.errors import Code, FatalError, RefusedError, UnavailableError
from protocol.limits import NONCE_KEPT_S
from tests.hub.kit import BY, T0, Agent, Killed, item, kill_at, running, verdicts

HOSTILE = (
    "'; DROP TABLE agent; --",
    '" OR 1=1 --',
    "%' OR name LIKE '%",
    "\\'; DELETE FROM segment; --",
    "${jndi:x} {{7*7}} :name ?1 @p",
    "<script>alert(1)</script>",
    "名\u202eeman\u0000\n\tend",
    "🧨" * 20,
)


def site(**changes) -> SiteRow:
    made = SiteRow(id="lake", name="湖区", region="330523", owner=None, created_us=T0)
    return msgspec.structs.replace(made, **changes)


async def test_migrations_make_the_tables_that_the_code_says(store: Store) -> None:
    def compare(tx) -> list[object]:
        # The search index keeps tables of its own, which no metadata can say.
        how = {"include_name": lambda name, _kind, _parents: not search.is_index(name)}
        return compare_metadata(MigrationContext.configure(tx, opts=how), metadata)

    assert await store.read(compare) == []
    await store.write("migrate", migrate.upgrade)  # again: nothing to do


async def test_a_newer_database_is_refused_and_left_alone(store: Store) -> None:
    await store.write(
        "newer", lambda tx: tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    )
    with pytest.raises(FatalError) as caught:
        await store.write("migrate", migrate.upgrade)
    assert caught.value.code is Code.VERSION_UNSUPPORTED
    assert "9999" in caught.value.value
    assert migrate.HEAD in caught.value.expected


def test_the_newest_script_makes_the_revision_that_the_code_says() -> None:
    folder = Path(migrate.__file__).with_name("migrations")
    assert ScriptDirectory(str(folder)).get_current_head() == migrate.HEAD


def test_a_hub_that_has_nothing_to_migrate_does_not_load_the_tool() -> None:
    """It would be a quarter of the time of each start."""
    code = "import hub.app, sys; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_engine_settings(store: Store) -> None:
    def ask(tx) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "query_only")
        return {name: tx.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}

    writer = await store.on_writer(lambda: store.read_committed(ask))
    assert writer == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "query_only": 0}
    assert (await store.read(ask))["query_only"] == 1
    with pytest.raises(Exception, match="readonly|read-only"):
        await store.read(lambda tx: tx.exec_driver_sql("DELETE FROM site"))


async def test_a_cancelled_caller_does_not_interrupt_what_has_begun(store: Store) -> None:
    async with asyncio.timeout(10):
        began = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(tx) -> None:
            loop.call_soon_threadsafe(began.set)
            sites.add(tx, site(), BY)

        task = asyncio.create_task(store.write("add", slow))
        await began.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await store.write("after", lambda tx: None)
        assert await store.read(sites.get, "lake") == site()


async def test_a_killed_transaction_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "hub.db")
    await store.write("migrate", migrate.upgrade)
    with kill_at("add.before"), pytest.raises(Killed):
        await store.write("add", sites.add, site(), BY)
    assert await store.read(sites.all_of) == []
    with kill_at("add.after"), pytest.raises(Killed):
        await store.write("add", sites.add, site(), BY)
    assert await store.read(sites.all_of) == [site()]
    await store.close()


async def test_a_locked_database_is_for_later(store: Store) -> None:
    import sqlite3

    from hub.store import engine

    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await store.on_writer(
        lambda: store.read_now  # the writer's connection is open already
    )
    await store.on_writer(
        lambda: store._open_writer().connection.dbapi_connection.execute("PRAGMA busy_timeout=1")
    )
    with pytest.raises(UnavailableError):
        await store.write("add", sites.add, site(), BY)
    other.execute("ROLLBACK")
    other.close()
    assert engine.BUSY_TIMEOUT_MS
    await store.write("add", sites.add, site(), BY)


async def test_audit_trail_shows_removal_alteration_and_reordering(store: Store) -> None:
    for name in ("a", "b", "c", "d"):
        await store.write("add", sites.add, site(id=name), BY)
    assert await store.read(audit.verify) is None
    page = await store.read(audit.page)
    assert [(one.n, one.action, one.subject) for one in page] == [
        (n, "site.add", name) for n, name in enumerate("abcd", 1)
    ]
    for damage, found in (
        ("DELETE FROM audit WHERE n = 2", 2),
        ("UPDATE audit SET after = '{}' WHERE n = 3", 3),
        ("UPDATE audit SET who = 'x' WHERE n = 1", 1),
        ("UPDATE audit SET subject = CASE n WHEN 3 THEN 'd' ELSE 'c' END WHERE n >= 3", 3),
    ):
        seen: list[int | None] = []

        def spoil(tx, damage=damage, seen=seen) -> None:
            tx.exec_driver_sql(damage)
            seen.append(audit.verify(tx))
            raise Killed

        with pytest.raises(Killed):
            await store.write("spoil", spoil)
        assert seen == [found], damage


async def test_every_change_of_an_agent_is_in_the_trail(store: Store) -> None:
    agent = Agent("a")
    await store.write("add", sites.add, site(), BY)
    await store.write("add", agents.add, agent.row(), BY)
    by = Actor(who="operator:li", source="192.0.2.7")
    await store.write(
        "suspend", agents.set_state, agent.id, AgentState.SUSPENDED, by, T0, reason="lost"
    )
    last = (await store.read(audit.page))[-1]
    assert (last.who, last.source, last.action) == ("operator:li", "192.0.2.7", "agent.suspended")
    assert '"active"' in last.before
    assert '"lost"' in last.after
    assert (await store.read(agents.by_key, agent.signing.key_id)).reason == "lost"
    assert (await store.read(keys.get, agent.signing.key_id)).principal == agent.id
    with pytest.raises(RefusedError):
        await store.write("again", agents.add, agent.row(), BY)
    with pytest.raises(RefusedError):
        await store.write("no", agents.set_state, b"x" * 16, AgentState.ACTIVE, by, T0, reason="")


def test_agent_states_move_as_the_table_says() -> None:
    for old in AgentState:
        for new in AgentState:
            if new in NEXT[old]:
                check_move(old, new)
            else:
                with pytest.raises(RefusedError):
                    check_move(old, new)


async def test_token_is_used_once(store: Store) -> None:
    await store.write("add", sites.add, site(), BY)
    row = TokenRow(
        id=b"t" * 8, public=b"p" * 32, kind="site", site="lake", state="new",
        expires_us=T0, request=None, created_us=T0,
    )  # fmt: skip
    await store.write("add", tokens.add, row, BY)
    took = [await store.write("take", tokens.take, row.id, bytes([n]) * 32) for n in range(3)]
    assert took == [True, False, False]
    found = await store.read(tokens.get, row.id)
    assert (found.state, found.request) == ("used", bytes(32))


async def test_read_token_by_its_hash_until_revoked(store: Store) -> None:
    def add(tx) -> int:
        return read_tokens.add(tx, secret=b"s" * 16, name="bureau", by=BY, now_us=T0)

    number = await store.write("add", add)
    assert (await store.read(read_tokens.find, b"s" * 16)).name == "bureau"
    assert await store.read(read_tokens.find, b"t" * 16) is None
    raw = b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    assert b"s" * 16 not in raw
    assert await store.write("revoke", read_tokens.revoke, number, BY, T0)
    assert not await store.write("revoke", read_tokens.revoke, number, BY, T0)
    assert await store.read(read_tokens.find, b"s" * 16) is None


async def test_inbox_is_numbered_ordered_and_swept(store: Store) -> None:
    agent = Agent("a")
    await store.write("add", sites.add, site(), BY)
    await store.write("add", agents.add, agent.row(), BY)
    for n, expires in ((1, T0 + 1), (2, T0 + 100), (3, T0 + 2)):
        assert await store.read(inbox.next_number, agent.id, 1) == n
        row = InboxRow(agent=agent.id, generation=1, n=n, expires_us=expires, raw=b"%d" % n)
        await store.write("put", inbox.put, row)
    waiting = await store.read(inbox.waiting, agent.id, (0, 0), T0)
    assert [one.n for one in waiting] == [1, 2, 3]
    assert [one.n for one in await store.read(inbox.waiting, agent.id, (1, 1), T0)] == [2, 3]
    assert [one.n for one in await store.read(inbox.waiting, agent.id, (1, 0), T0 + 50)] == [2]
    assert await store.read(inbox.waiting, agent.id, (2, 0), T0) == []
    assert await store.write("sweep", inbox.sweep, T0 + 50) == 1
    assert await store.read(inbox.next_number, agent.id, 1) == 4, "no number is given twice"


async def test_nonces_are_forgotten_when_no_request_could_use_them(store: Store) -> None:
    one = RequestNonce(key=b"k" * 16, nonce=b"n" * 16)
    assert await store.write("take", nonces.take, one, T0)
    assert not await store.write("take", nonces.take, one, T0)
    assert await store.write("sweep", nonces.sweep, T0 + NONCE_KEPT_S * 1_000_000) == 0
    assert await store.write("sweep", nonces.sweep, T0 + NONCE_KEPT_S * 1_000_000 + 1) == 1
    other = msgspec.structs.replace(one, key=b"j" * 16)
    assert await store.write("take", nonces.take, one, T0)
    assert await store.write("take", nonces.take, other, T0), "another key's nonce is its own"


async def test_principal_moves_only_forward(store: Store) -> None:
    agent = Agent("owner")
    row = PrincipalRow(
        id=agent.id, kind="owner", name="", signing=agent.signing.public,
        sealing=agent.sealing.public, version=1, object=b"1" * 32, created_us=T0,
    )  # fmt: skip
    assert await store.write("put", principals.put, row, BY)
    assert not await store.write("put", principals.put, row, BY)
    newer = msgspec.structs.replace(row, version=2, object=b"2" * 32)
    assert await store.write("put", principals.put, newer, BY)
    assert (await store.read(principals.get, agent.id)).version == 2
    assert await store.read(principals.get, b"x" * 16) is None


async def test_meta_values(store: Store) -> None:
    assert await store.read(meta.get, "k") is None
    await store.write("put", meta.put, "k", "1")
    await store.write("put", meta.put, "k", "2")
    assert await store.read(meta.get, "k") == "2"


async def test_sql_in_every_text_field(tmp_path: Path) -> None:
    """Texts of strangers are values, never statements: stored, found again, nothing else changed."""
    async with running(tmp_path) as hub:
        for number, text in enumerate(HOSTILE):
            name, kept = text, words(text)
            by = Actor(who=text, source=text)
            row = site(id=f"{number}{text}"[:64], name=text, region=text[:12])
            await hub.store.write("add", sites.add, row, by)
            assert (await hub.store.read(sites.get, row.id)).name == kept
            agent = Agent(f"h{number}")
            made = msgspec.structs.replace(agent.row(), name=text, software=text, site=row.id)
            await hub.store.write("add", agents.add, made, by)
            source = agent.resource(
                f"r{number}",
                name_zh=name, name_en=name, description=text, pack=name, place=text,
                region=text[:12], rhythm=text, user_policy=text,
            )  # fmt: skip
            outcome = await agent.send(hub, source.registration, item(source.seal()))
            assert verdicts(outcome) == ["Accepted"] * 2
            for field in ("pack", "site", "region", "text"):
                wanted = {"site": row.id, "region": text[:12]}.get(field, name)
                which = entries.Filter(**{field: wanted})
                found = await hub.reading.entries(which)
                if field != "text" or question(name):  # signs alone are no words
                    assert source.id in {one.id for one in found.items}, field
                assert found.total == len(found.items)
            await hub.store.write(
                "state", agents.set_state, agent.id, AgentState.SUSPENDED, by, T0, reason=text
            )
        for signs in ('"', "%", "*", "-", "🧨"):
            assert (await hub.reading.entries(entries.Filter(text=signs))).total == 0
        for syntax in ('name" OR "drop', "drop OR name", "NEAR(drop table)", "tokens:drop", "dr*"):
            assert (await hub.reading.entries(entries.Filter(text=syntax))).total <= 1, syntax
        assert len(await hub.store.read(sites.all_of)) == len(HOSTILE) + 1
        assert len(await hub.store.read(agents.all_of)) == len(HOSTILE)
        assert await hub.store.read(audit.verify) is None


@settings(max_examples=15)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_audit_texts_of_any_kind_stay_verifiable(texts: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "hub.db")
        try:

            def write(tx) -> None:
                migrate.upgrade(tx)
                for text in texts:
                    audit.record(
                        tx, Actor(who=text, source=text), T0, "x", text, before=text, after=[text]
                    )

            store._writer_thread.submit(store.write_now, "w", write).result()
            assert store.read_now(audit.verify) is None
            found = [one.subject for one in store.read_now(audit.page)]
            assert found == [words(text) for text in texts]
        finally:
            store.close_now()


async def test_the_first_migration_is_written_out_and_equal(tmp_path: Path, store: Store) -> None:
    """Statement for statement what the tables say: a later change of them needs a migration."""

    def schema(tx) -> dict[str, list[str]]:
        found = tx.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {
            row.name: sorted(row.sql.replace('"', " ").replace(",", " ").split())
            for row in found
            if row.name != "alembic_version"
        }

    plain = Store(tmp_path / "plain.db")
    await plain.write("make", metadata.create_all)
    assert await plain.read(schema) == await store.read(schema)
    await plain.close()
