"""From a resource's row and its signed entry to what the catalog shows."""

from hub.api import views
from hub.messages import text
from hub.store.entries import ResourceRow, State
from hub.store.facets import Count, Facet
from hub.store.objects import ObjectRow
from hub.store.summaries import Sums
from protocol import envelope, ids
from protocol.grades import Grade, rules
from protocol.program.messages import Language
from protocol.registration import Registration
from protocol.schema import open_schema


def _shown(value: bytes | None) -> str | None:
    return None if value is None else ids.show(value)


def _state(owner: bytes | None) -> State:
    return "unowned" if owner is None else "catalogued"


def resource_view(row: ResourceRow, *, readable: bool) -> views.ResourceView:
    """Return one line of a list."""
    rule = rules(Grade(row.grade))
    return views.ResourceView(
        resource=ids.show(row.id),
        code=row.code,
        name_zh=row.name_zh,
        name_en=row.name_en,
        kind=row.data_kind,
        pack=row.pack,
        grade=row.grade,
        grade_zh=rule.name_zh,
        grade_en=rule.name_en,
        region=row.region,
        site=row.site,
        agent=ids.show(row.agent),
        owner=_shown(row.owner),
        version=row.version,
        entry=row.entry.hex(),
        state=_state(row.owner),
        registered_us=row.created_us,
        changed_us=row.changed_us,
        readable=readable,
    )


def facets_view(found: dict[str, Facet]) -> views.Facets:
    """Return the facets with names for people."""

    def named(name: str) -> list[views.FacetValue]:
        return [
            views.FacetValue(value=value, zh=zh, en=en, count=one.count)
            for one in found[name].counts
            for value, zh, en in [_named(name, one)]
        ]

    return views.Facets(
        site=named("site"), grade=named("grade"), pack=named("pack"), kind=named("data_kind"),
        owner=named("owner"), region=named("region"), state=named("state"),
        exact=all(one.exact for one in found.values()),
    )  # fmt: skip


def _named(facet: str, one: Count) -> tuple[str, str, str]:
    """Give a value as the filter takes it, and its Chinese and English name."""
    match facet:
        case "grade":
            rule = rules(Grade(one.value))
            return str(one.value), rule.name_zh, rule.name_en
        case "owner":
            shown = ids.show(one.value)
            return shown, one.name or shown, one.name or shown
        case "data_kind" | "state":
            key = f"catalog.{one.value}"
            return one.value, text(key, "zh"), text(key, "en")
        case _:
            return one.value, one.name or one.value, one.name or one.value


def entry_view(
    row: ResourceRow, record: ObjectRow, sums: Sums, *, readable: bool, language: Language
) -> views.EntryView:
    """Return one entry with every field of §6.2; verified when it was accepted."""
    entry = envelope.decode_payload(envelope.parse(record.raw), Registration)
    hint = "read-yes" if readable else "read-owner"
    return views.EntryView(
        resource=ids.show(row.id),
        code=row.code,
        state=_state(entry.owner),
        version=entry.version,
        previous=None if entry.previous is None else entry.previous.hex(),
        site=row.site,
        agent=ids.show(entry.agent),
        attributes=_attributes(entry),
        ownership=_ownership(entry),
        metadata=_metadata(entry, record, sums),
        security=_security(entry),
        classification={
            name: getattr(entry.classification, name)
            for name in entry.classification.__struct_fields__
        },
        proof=views.Proof(object=record.id.hex(), generation=record.generation, leaf=record.leaf),
        readable=readable,
        how_to_read=text(f"catalog.{hint}", language),
    )


def _attributes(entry: Registration) -> views.Attributes:
    fields = [
        views.FieldView(
            name=one.name, zh=one.zh, en=one.en, type=one.type, unit=one.unit,
            codes=list(one.codes), personal=one.personal, group=one.group, index=one.index,
        )
        for one in open_schema(entry.schema)
    ]  # fmt: skip
    extent = entry.extent
    return views.Attributes(
        name_zh=entry.name_zh,
        name_en=entry.name_en,
        local_name=entry.local_name,
        description=entry.description,
        kind=entry.kind,
        pack=entry.pack,
        pack_version=entry.pack_version,
        schema_hash=entry.schema_hash.hex(),
        fields=fields,
        record_index=list(entry.record_index),
        storage_address=entry.storage_address,
        access_method=entry.access_method,
        link=f"/v1/resources/{ids.show(entry.resource)}/segments",
        rhythm=entry.rhythm,
        extent=None
        if extent is None
        else views.ExtentView(
            west=extent.west, south=extent.south, east=extent.east, north=extent.north,
            system=extent.system, resolution_m=extent.resolution_m,
        ),
    )  # fmt: skip


def _ownership(entry: Registration) -> views.Ownership:
    return views.Ownership(
        owner=_shown(entry.owner),
        owner_basis=entry.owner_basis,
        producer=_shown(entry.producer),
        provider=_shown(entry.provider),
        users=[ids.show(one) for one in entry.users],
        user_policy=entry.user_policy,
        status="unowned" if entry.owner is None else "claimed",
    )


def _metadata(entry: Registration, record: ObjectRow, sums: Sums) -> views.Metadata:
    at = entry.registered_at
    place = entry.coordinates
    return views.Metadata(
        data_type=entry.data_type,
        registered_agent_us=at.wall_us,
        registered_offset_us=at.offset_us,
        registered_error_us=at.error_us,
        clock_source=at.source.name.lower(),
        registered_hub_us=record.accepted_us,
        region=entry.region,
        place=entry.place,
        coordinates=None
        if place is None
        else views.PointView(
            longitude=place.longitude, latitude=place.latitude, system=place.system
        ),
        size_bytes=sums.bytes,
        segments=sums.segments,
        records=sums.records,
        first_us=sums.first_us,
        last_us=sums.last_us,
        accepted_us=sums.accepted_us,
    )


def _security(entry: Registration) -> views.Security:
    rule = rules(entry.grade)
    return views.Security(
        grade=int(entry.grade),
        grade_zh=rule.name_zh,
        grade_en=rule.name_en,
        sealed=rule.sealed,
        secrecy=entry.secrecy.name.lower(),
        encryption=views.EncryptionView(
            suite=entry.encryption.suite,
            epoch_s=entry.encryption.epoch_s,
            groups=list(entry.encryption.groups),
        ),
        owner_key=_shown(entry.owner_key),
        agent_key=ids.show(entry.agent_key),
    )
