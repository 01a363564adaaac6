"""A full vault: told at the gateway, emptied by hand, and in nobody's way."""

import asyncio
import random
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from agent.seal import vault
from agent.store.disk import DiskLevel
from agent.store.ports import CoreSettings
from devices.driver import Promise, Reading, Rows
from protocol.envelope import only_key
from protocol.envelope import parse as parse_envelope
from protocol.errors import DecodeError
from protocol.notes import open_note
from tests.agent.kit import AGENT, GATE, SECRET, Site, reading, record

SETTINGS = CoreSettings(resources=(GATE, SECRET), vault_budget_bytes=4 << 20)


async def seal_vault(site):
    while await site.core.vault.sealer.seal_due(force=True):
        pass


async def fill_vault(site) -> int:
    """Give key-protected records until the vault takes no more; how many it took."""
    noise = random.Random(1)  # noqa: S311 - bytes that do not compress
    given = 0
    while site.core.vault_level < DiskLevel.ACKS_STOP:
        rows = [record(given + n, text=noise.randbytes(1900).hex()) for n in range(20)]
        await site.core.pipeline.submit(
            Reading(rows=[Rows(resource="secret", records=rows)], promise=Promise.A), driver="mqtt"
        )
        given += len(rows)
        if site.core.vault_level < DiskLevel.ACKS_STOP:
            await seal_vault(site)  # as time would: most of a full vault is sealed
    return given


async def vault_notes(site):
    rows = await site.core.vault.database.read(
        lambda c: c.execute("SELECT data FROM outbox WHERE kind = 'gap'").fetchall()
    )
    return [open_note(parse_envelope(raw), only_key(AGENT.public)) for (raw,) in rows]


async def test_a_full_vault_holds_up_nothing_and_counts_what_it_cannot_take(tmp_path):
    site = Site(tmp_path, settings=SETTINGS)
    acked = []
    async with site.running():
        given = await fill_vault(site)
        waiting = site.core.pipeline.submit(
            reading(1, resource="secret", promise=Promise.E), driver="table"
        )
        for number in range(5):
            rows = [
                Rows(resource="secret", records=[record(given)]),
                Rows(resource="gate", records=[record(number)]),
            ]
            message = Reading(
                rows=rows,
                identity=b"%d" % number,
                promise=Promise.A,
                ack=lambda number=number: acked.append(number),
            )
            async with asyncio.timeout(10):
                await site.core.pipeline.submit(message, driver="mqtt")
        await site.give(5, resource="secret")
        await site.drain()
        assert not waiting.done()  # its source keeps it, so it is not lost
        assert site.hub.numbers() == [0, 1, 2, 3, 4]
        assert site.core.bounds["secret"].counters.journalled == given
        assert site.core.bounds["secret"].counters.lost == 6
    assert acked == [0, 1, 2, 3, 4]
    assert site.hub.notes() == []
    async with site.running():
        (note,) = await vault_notes(site)
        assert (note.count, note.reason, note.resource) == (
            6, "no room", site.core.bounds["secret"].id,
        )  # fmt: skip
        await site.drain()
    assert site.hub.notes() == []


async def test_a_vault_waits_where_the_main_file_takes_nothing_either(tmp_path):
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        await fill_vault(site)
        site.core.main.database.room.clear()
        held = site.core.pipeline.submit(reading(1, resource="secret"), driver="mqtt")
        site.core.vault.journal.make_way()
        assert not held.done()
        site.core.main.database.room.set()
        await held
        assert site.core.bounds["secret"].counters.lost == 1


async def kept(path):
    """Records in the vault's bodies, links of its chains, its gap notes."""
    with closing(sqlite3.connect(path)) as file:
        return file.execute(
            "SELECT (SELECT coalesce(sum(n), 0) FROM body), (SELECT count(*) FROM chain),"
            " (SELECT count(*) FROM outbox WHERE kind = 'gap'), (SELECT count(*) FROM content)"
        ).fetchone()


async def test_what_was_carried_out_leaves_the_vault_and_room_comes_back(tmp_path):
    site = Site(tmp_path, settings=SETTINGS)
    path, budget = tmp_path / "vault.db", SETTINGS.vault_budget_bytes
    async with site.running():
        given = await fill_vault(site)
        await site.give(given, resource="secret")  # lost, and said so in a note at the stop
    done = await vault.carry_out(path, tmp_path / "out1", budget_bytes=budget)
    assert done.records + done.waiting == given
    assert await kept(path) == (0, 1, 0, 0)
    kinds = Counter(kind for kind, _ in vault.read((tmp_path / "out1").read_bytes()))
    assert (kinds["gap"], kinds["segment"]) == (1, done.segments)
    async with site.running():
        assert site.core.vault_level is DiskLevel.NORMAL
        await site.give(given + 1, resource="secret")
        await seal_vault(site)
        assert site.core.bounds["secret"].stream.next_seq > done.segments
    again = await vault.carry_out(path, tmp_path / "out2", budget_bytes=budget)
    assert (again.records, again.waiting) == (done.waiting + 1, 0)


async def test_a_file_that_is_not_what_was_written_empties_nothing(tmp_path, monkeypatch):
    site = Site(tmp_path, settings=SETTINGS)
    async with site.running():
        await site.give(1, resource="secret")
        await seal_vault(site)
    export = vault.export

    def bad_medium(source, target):
        done = export(source, target)
        data = bytearray(target.read_bytes())
        data[-1] ^= 1
        target.write_bytes(data)
        return done

    monkeypatch.setattr(vault, "export", bad_medium)
    with pytest.raises(DecodeError):
        await vault.carry_out(tmp_path / "vault.db", tmp_path / "out", budget_bytes=4 << 20)
    assert (await kept(tmp_path / "vault.db"))[0] == 1


async def test_a_crash_before_the_end_of_the_removal_exports_twice(tmp_path, monkeypatch):
    site = Site(tmp_path, settings=SETTINGS)
    path = tmp_path / "vault.db"
    async with site.running():
        await site.give(1, resource="secret")
        await seal_vault(site)
    before = await kept(path)
    let_go = vault._let_go

    def cut_off(connection, done):
        let_go(connection, done)
        raise KeyError

    monkeypatch.setattr(vault, "_let_go", cut_off)
    with pytest.raises(KeyError):
        await vault.carry_out(path, tmp_path / "out", budget_bytes=4 << 20)
    assert await kept(path) == before
    monkeypatch.undo()
    assert (await vault.carry_out(path, tmp_path / "out2", budget_bytes=4 << 20)).records == 1
    assert (tmp_path / "out").read_bytes() == (tmp_path / "out2").read_bytes()
