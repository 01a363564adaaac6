"""What is in the vault stays there, whole, whatever agent.toml says of it the next time."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from agent.host.kept import kept_grades
from agent.seal import vault
from agent.store.ports import CoreSettings
from devices.driver import Promise, Reading, Rows
from protocol.envelope import only_key
from protocol.envelope import parse as parse_envelope
from protocol.grades import Grade, Secrecy
from protocol.packs import Field
from protocol.records import Record, to_records
from protocol.segment import open_segment, parse
from protocol.wraps import open_wrap
from tests.agent.kit import AGENT, GATE, NOW_US, OWNER_SEALING, SECRET, Site

FIELDS = tuple(SECRET.pack.fields)
EXTRA = Field(name="extra", zh="加", en="extra", type="int", grade=Grade.FULLY_OPEN)
PERSONAL = Field(
    name="extra", zh="加", en="extra", type="int", grade=Grade.FULLY_OPEN, group="personal"
)


def shaped(*fields):
    return replace(SECRET, pack=changed(SECRET.pack, version=2, fields=fields))


def exported_numbers(site, target):
    """What the owner reads from an export of the vault."""
    vault.export(site.folder / "vault.db", target)
    items = list(vault.read(target.read_bytes()))
    keys = [
        open_wrap(parse_envelope(raw), OWNER_SEALING, only_key(AGENT.public))
        for kind, raw in items
        if kind == "wrap"
    ]
    by_commitment = {key.commitment(): key for key in keys}
    found = []
    for kind, raw in items:
        if kind == "segment":
            segment = parse(raw).verify(AGENT.public)
            held = {p.group: by_commitment[p.commitment] for p in segment.header.parts}
            found += [r.values["number"] for r in to_records(open_segment(segment, held))]
    return sorted(found)


async def seal_vault(site):
    while await site.core.vault.sealer.seal_due(force=True):
        pass


@pytest.mark.parametrize(
    "before", [replace(GATE, grade=Grade.KEY_PROTECTED), replace(GATE, secrecy=Secrecy.SECRET)]
)
async def test_a_deleted_line_opens_nothing_that_is_in_the_vault(tmp_path, before):
    site = Site(tmp_path, settings=CoreSettings(resources=(before,)))
    async with site.running():
        await site.give(1)
        await site.drain()
    site = site.like(settings=CoreSettings(resources=(GATE,)))
    async with site.running():
        await site.give(2)
        await site.drain()
        assert site.core.bounds["gate"].grade is Grade.KEY_PROTECTED
        assert site.core.bounds["gate"].is_grade_kept
        assert site.core.pipeline.counters() == {}
        await seal_vault(site)
        assert exported_numbers(site, tmp_path / "out") == [1, 2]
    assert (site.hub.segments(), site.hub.raw, site.hub.wire) == ([], {}, [])
    assert kept_grades(tmp_path, (GATE,)) == {"gate": "key-protected"}


@pytest.mark.parametrize(
    "later",
    [
        replace(SECRET, place="north"),
        shaped(*FIELDS, EXTRA),
        shaped(*FIELDS, PERSONAL),
        shaped(FIELDS[0]),
        replace(SECRET, local="renamed"),
    ],
    ids=["place", "more", "more-groups", "less", "renamed"],
)
async def test_rows_of_the_vault_are_sealed_as_they_were_written(tmp_path, later):
    site = Site(tmp_path, settings=CoreSettings(resources=(SECRET, GATE)))
    async with site.running():
        await site.give(1, 2, 3, resource="secret")
    site = site.like(settings=CoreSettings(resources=(later, GATE)))
    async with site.running():
        await seal_vault(site)
        assert exported_numbers(site, tmp_path / "out") == [1, 2, 3]
        lost = await site.core.vault.database.read(
            lambda c: c.execute("SELECT sum(lost) FROM stream").fetchone()[0]
        )
    assert lost == 0


TWO_GROUPS = shaped(*FIELDS, PERSONAL)


@pytest.mark.parametrize("shapes", ["112", "221", "1221"])
async def test_column_groups_that_came_or_went_get_keys_of_their_own(tmp_path, shapes):
    """Rows of before are sealed under their groups, rows of after under theirs."""
    site = Site(tmp_path)
    for number, groups in enumerate(shapes):  # at the last change, epochs are open
        later = SECRET if groups == "1" else TWO_GROUPS
        site = site.like(settings=CoreSettings(resources=(later,)))
        async with site.running():
            values = dict.fromkeys((field.name for field in later.pack.fields), number)
            one = Record(event_time_us=NOW_US, device="d", values=values | {"text": "x"})
            await site.core.pipeline.submit(
                Reading(rows=[Rows(resource="secret", records=[one])], promise=Promise.A),
                driver="mqtt",
            )
            if number != len(shapes) - 2:  # and rows wait
                await seal_vault(site)
    assert exported_numbers(site, tmp_path / "out") == list(range(len(shapes)))
