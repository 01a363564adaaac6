"""One entry as rows for a page: every field of T/ADEDS 02-2023 §6.2, with the clause that wants it.

A row's key is the field's name in the signed entry where it has one, so that the differences of two
versions are told with the same names. Texts stand in `messages` under `[field]`, in both languages,
because a page shows both.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

from hub.api import views
from hub.console import formats, texts
from hub.domain.classes import DIMENSIONS, VALUES
from hub.domain.differences import Change
from hub.messages import text as hub_text
from protocol.program.messages import LANGUAGES, Language

Kind = Literal["text", "code", "time"]

#: Fields that the page shows in another way: as a table, as the address of the page, as a link.
ELSEWHERE: Final = frozenset({"fields", "classification", "proof", "readable", "how_to_read"})


@dataclass(frozen=True, slots=True)
class Row:
    """One field: what it is called, what it says, which clause wants it."""

    key: str
    value: str  #: empty where the entry says nothing
    clause: str
    kind: Kind = "text"
    names: dict[str, str] = field(default_factory=dict)  #: by language
    stamp: str = ""  #: of a time, for machines


@dataclass(frozen=True, slots=True)
class Group:
    """One of the groups of §6.2, or the catalog's own."""

    key: str
    clause: str
    rows: list[Row]


def groups(
    view: views.EntryView, language: Language, *, site_name: str, owner_name: str
) -> list[Group]:
    """Return everything that an entry says, in the standard's order."""

    def row(key: str, value: str | int | None, clause: str, kind: Kind = "text") -> Row:
        return Row(key, "" if value is None else str(value), clause, kind, names(key))

    def time(key: str, time_us: int | None, clause: str) -> Row:
        said = "" if time_us is None else formats.stamp(time_us)
        return Row(key, formats.moment(time_us), clause, "time", names(key), said)

    def say(key: str) -> str:
        return texts.text(key, language)

    a, o, m, s = view.attributes, view.ownership, view.metadata, view.security
    owner = f"{owner_name} {o.owner}" if owner_name and o.owner else o.owner
    return [
        Group("catalog", "§6.3", [
            row("code", view.code, "§6.3", "code"),
            row("state", hub_text(f"catalog.{view.state}", language), "§6.2"),
            row("version", view.version, "§6.3"),
            row("previous", view.previous, "§6.3", "code"),
            row("resource", view.resource, "§6.2", "code"),
            row("site", f"{site_name} ({view.site})" if site_name else view.site, "§6.2"),
            row("agent", view.agent, "§6.2", "code"),
        ]),
        Group("attributes", "§6.2", [
            row("name_zh", a.name_zh, "§6.2"),
            row("name_en", a.name_en, "§6.2"),
            row("local_name", a.local_name, "§6.2", "code"),
            row("description", a.description, "§6.2"),
            row("kind", hub_text(f"catalog.{a.kind}", language), "§6.2, §6.5"),
            row("pack", a.pack, "§6.2", "code"),
            row("pack_version", a.pack_version, "§6.2"),
            row("schema_hash", a.schema_hash, "§6.2", "code"),
            row("record_index", ", ".join(a.record_index), "§6.2", "code"),
            row("storage_address", a.storage_address, "§6.2", "code"),
            row("access_method", a.access_method, "§6.2"),
            row("link", a.link, "§6.2", "code"),
            row("rhythm", a.rhythm, "§6.2"),
            row("extent", _area(a.extent), "§6.2"),
        ]),
        Group("ownership", "§6.2", [
            row("owner", owner, "§6.2"),
            row("owner_basis", say(f"basis.{o.owner_basis}"), "§7.2"),
            row("producer", o.producer, "§6.2", "code"),
            row("provider", o.provider, "§6.2", "code"),
            row("users", ", ".join(o.users), "§6.2", "code"),
            row("user_policy", o.user_policy, "§6.2"),
            row("status", say(f"status.{o.status}"), "§7.2"),
        ]),
        Group("metadata", "§6.2", [
            row("data_type", m.data_type, "§6.2"),
            time("registered_agent_us", m.registered_agent_us, "§6.2"),
            row("registered_offset_us", formats.number(m.registered_offset_us) + " µs", "§6.2"),
            row("registered_error_us", formats.number(m.registered_error_us) + " µs", "§6.2"),
            row("clock_source", m.clock_source, "§6.2", "code"),
            time("registered_hub_us", m.registered_hub_us, "§6.2"),
            row("region", m.region, "§6.2", "code"),
            row("place", m.place, "§6.2"),
            row("coordinates", _place(m.coordinates), "§6.2"),
            row("size_bytes", formats.size(m.size_bytes), "§6.2"),
            row("segments", formats.number(m.segments), "§6.2"),
            row("records", formats.number(m.records), "§6.2"),
            time("first_us", m.first_us, "§6.2"),
            time("last_us", m.last_us, "§6.2"),
            time("accepted_us", m.accepted_us, "§6.2"),
        ]),
        Group("security", "§6.2", [
            row("grade", f"{s.grade} {s.grade_zh if language == 'zh' else s.grade_en}", "§7.1"),
            row("sealed", say(f"answer.{'yes' if s.sealed else 'no'}"), "§7.1"),
            row("secrecy", say(f"secrecy.{s.secrecy}"), "§7"),
            row("encryption-suite", s.encryption.suite, "§6.2"),
            row("encryption-epoch_s", formats.number(s.encryption.epoch_s) + " s", "§6.2"),
            row("encryption-groups", ", ".join(s.encryption.groups), "§6.2", "code"),
            row("owner_key", s.owner_key, "§6.2", "code"),
            row("agent_key", s.agent_key, "§6.2", "code"),
        ]),
        Group("classification", "§6.5", [
            Row(f"classification-{name}", _class_value(name, value, language), "§6.5",
                names=dict(zip(("zh", "en"), DIMENSIONS[name], strict=True)))
            for name, value in view.classification.items()
        ]),
    ]  # fmt: skip


def _place(point: views.PointView | None) -> str:
    return "" if point is None else f"{point.longitude}, {point.latitude} ({point.system})"


def _area(extent: views.ExtentView | None) -> str:
    if extent is None:
        return ""
    fine = "" if extent.resolution_m is None else f", {extent.resolution_m} m"
    return f"{extent.west} … {extent.east}, {extent.south} … {extent.north} ({extent.system}){fine}"


def names(key: str) -> dict[str, str]:
    """Return what a field is called, by language."""
    return {language: texts.text(f"field.{key}", language) for language in LANGUAGES}


def _in(language: Language, said: tuple[str, str]) -> str:
    zh, en = said
    return zh if language == "zh" else en


def _class_value(name: str, value: str, language: Language) -> str:
    said = VALUES.get((name, value))
    if said is None:
        return texts.text("answer.not-applicable", language)
    return _in(language, said)


def change_name(changed: str, language: Language) -> str:
    """Return what a changed field is called; a declared field of the schema by its own name."""
    start, _, rest = changed.partition(".")
    if start == "classification":
        return _in(language, DIMENSIONS[rest])
    known = texts.catalogue(language)
    whole = known.get(f"field.{changed.replace('.', '-')}")
    if whole is not None:
        return whole
    group = "fields" if start == "schema" else start
    return f"{known[f'field.{group}']} {rest}"


def change_values(change: Change) -> tuple[str, str]:
    """Return a field before and after; of a declared field of the schema only what differs."""
    old, new = change.before, change.after
    if isinstance(old, dict) and isinstance(new, dict):
        differing = [name for name in new if new[name] != old.get(name)]
        old, new = ({name: one.get(name) for name in differing} for one in (old, new))
    elif change.field.startswith("schema."):
        old, new = (one and f"{one['zh']} {one['en']} ({one['type']})" for one in (old, new))
    return _parts(old), _parts(new)


def _parts(value: Any) -> str:
    if not isinstance(value, dict):
        return formats.plain(value)
    return "; ".join(f"{name}: {formats.plain(one) or '—'}" for name, one in value.items())
