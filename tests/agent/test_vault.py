"""Key-protected data stays, and its owner can read it where it is carried out by hand."""

from agent.seal import vault
from agent.store.ports import CoreSettings
from devices.driver import Promise, Reading, Rows
from protocol.envelope import only_key
from protocol.envelope import parse as parse_envelope
from protocol.records import to_records
from protocol.segment import open_segment, parse
from protocol.wraps import open_wrap
from tests.agent.kit import AGENT, GATE, OWNER_SEALING, SECRET, Site, record


async def test_exported_vault_is_readable_by_the_owner_alone(tmp_path):
    site = Site(tmp_path, settings=CoreSettings(resources=(GATE, SECRET)))
    async with site.running():
        for number in range(25):
            await site.give(number, resource="secret", text="hidden-text")
        while await site.core.vault.sealer.seal_due(force=True):
            pass
        done = vault.export(tmp_path / "vault.db", tmp_path / "out.vault")
        await site.drain()
    assert (done.records, done.waiting, done.resources) == (25, 0, 1)
    assert (tmp_path / "out.vault").stat().st_mode & 0o777 == 0o600
    data = (tmp_path / "out.vault").read_bytes()
    assert b"hidden-text" not in data
    items = list(vault.read(data))
    keys = [
        open_wrap(parse_envelope(raw), OWNER_SEALING, only_key(AGENT.public))
        for kind, raw in items
        if kind == "wrap"
    ]
    by_commitment = {key.commitment(): key for key in keys}
    numbers = []
    for kind, raw in items:
        if kind == "segment":
            segment = parse(raw).verify(AGENT.public)
            held = {p.group: by_commitment[p.commitment] for p in segment.header.parts}
            numbers += [r.values["number"] for r in to_records(open_segment(segment, held))]
    assert numbers == list(range(25))
    assert site.hub.segments() == []
    assert site.hub.raw == {}


async def test_one_message_over_both_files_is_acknowledged_after_both(tmp_path):
    site = Site(tmp_path, settings=CoreSettings(resources=(GATE, SECRET)))
    acked = []
    async with site.running():
        for _ in range(2):  # a repeat is recognised in both
            rows = [
                Rows(resource="gate", records=[record(1)]),
                Rows(resource="secret", records=[record(2)]),
            ]
            await site.core.pipeline.submit(
                Reading(rows=rows, identity=b"m", promise=Promise.A, ack=lambda: acked.append(1)),
                driver="mqtt",
            )
        await site.drain()
        assert site.core.bounds["gate"].counters.journalled == 1
        assert site.core.bounds["secret"].counters.journalled == 1
        assert site.core.bounds["secret"].counters.duplicates == 1
    assert site.hub.numbers() == [1]
    assert acked == [1, 1]


async def test_vault_survives_a_restart_and_is_left_when_nothing_is_protected(tmp_path):
    site = Site(tmp_path, settings=CoreSettings(resources=(GATE, SECRET)))
    async with site.running():
        await site.give(1, resource="secret")
    async with site.running():
        await site.give(2, resource="secret")
        assert site.core.vault.bounds["secret"].counters.journalled == 2
    site.settings = CoreSettings(resources=(GATE,))
    async with site.running():
        await site.give(3)
        await site.drain()
    assert (tmp_path / "vault.db").exists()
    assert site.hub.numbers() == [3]
