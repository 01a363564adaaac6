"""A full vault: told at the gateway, emptied by hand, and in nobody's way."""

import asyncio
import random

from agent.disk import DiskLevel
from agent.ports import CoreSettings
from devices.driver import Promise, Reading, Rows
from protocol.envelope import only_key
from protocol.envelope import parse as parse_envelope
from protocol.notes import open_note
from tests.agent.kit import AGENT, GATE, SECRET, Site, reading, record

SETTINGS = CoreSettings(resources=(GATE, SECRET), vault_budget_bytes=4 << 20)


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
