"""Records, columns and packs: nothing is dropped, nothing undeclared passes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits, packs
from protocol.errors import Code, ConfigError, DecodeError
from protocol.grades import Grade
from protocol.packs import Field, Pack, check_columns, open_schema, parse_pack
from protocol.records import (
    Columns,
    Record,
    concat,
    dump_columns,
    load_columns,
    to_columns,
    to_records,
)
from protocol.times import Quality

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
)
NAMES = ("alpha", "beta", "gamma")
records = st.builds(
    Record,
    event_time_us=st.integers(-(2**63), 2**63 - 1),
    device=st.sampled_from(["east", "west", "东门"]),
    values=st.dictionaries(st.sampled_from([*NAMES, "undeclared"]), values),
    quality=st.integers(0, 2047),
    device_time_us=st.none() | st.integers(0, 2**60),
)


def plain(record: Record) -> Record:
    """A record whose absent fields are absent."""
    kept = {name: value for name, value in record.values.items() if value is not None}
    return Record(
        event_time_us=record.event_time_us,
        device=record.device,
        values=kept,
        quality=record.quality,
        device_time_us=record.device_time_us,
    )


@given(st.lists(records, max_size=30))
def test_rows_to_columns_and_back_through_the_journal(rows):
    columns = to_columns(rows, NAMES, 17)
    assert columns.gateway_time == [17] * len(rows)
    assert tuple(columns.fields)[:3] == NAMES
    loaded = load_columns(dump_columns(columns))
    assert loaded == columns
    # 1 == True == 1.0: equality alone would not see a type change.
    for name, column in columns.fields.items():
        assert list(map(type, loaded.fields[name])) == list(map(type, column))
    assert list(to_records(loaded)) == [plain(row) for row in rows]


@given(st.lists(st.lists(records, max_size=8), min_size=1, max_size=5))
def test_joined_columns_are_the_joined_rows(parts):
    joined = concat([to_columns(rows, NAMES, at) for at, rows in enumerate(parts)])
    rows = [plain(row) for part in parts for row in part]
    assert list(to_records(joined)) == rows
    assert joined.count == len(rows)
    assert joined.gateway_time == [at for at, part in enumerate(parts) for _ in part]
    half = len(rows) // 2
    assert list(to_records(joined.slice(0, half))) == rows[:half]
    assert list(to_records(joined.keep([*range(half, len(rows))]))) == rows[half:]


def test_concat_leaves_its_parts_alone():
    first = to_columns([Record(event_time_us=1, device="a", values={"alpha": 1})], NAMES, 0)
    second = to_columns([Record(event_time_us=2, device="b", values={"beta": 2})], NAMES, 0)
    concat([first, second])
    assert first.count == len(first.event_time) == len(first.fields["alpha"]) == 1


def test_marks_given_as_flags_travel_as_numbers():
    row = Record(event_time_us=1, device="a", values={}, quality=Quality.LATE | Quality.TEST)
    assert load_columns(dump_columns(to_columns([row], (), 0))).quality == [260]


@given(st.binary(max_size=200))
def test_a_foreign_journal_body_is_a_declared_error(data):
    try:
        load_columns(data)
    except DecodeError:
        pass


def test_a_journal_body_with_columns_of_unequal_length_is_refused():
    columns = to_columns([Record(event_time_us=1, device="a", values={"alpha": 1})] * 3, NAMES, 0)
    columns.fields["alpha"].append(4)
    with pytest.raises(DecodeError):
        load_columns(dump_columns(columns))
    columns.fields["alpha"] = [2**80] * 3
    with pytest.raises(DecodeError):
        dump_columns(columns)


# --- packs ---------------------------------------------------------------------------------------


def field(name: str, type_: str, **more: object) -> Field:
    return Field(name=name, zh=name, en=name, type=type_, grade=Grade.SHAREABLE, **more)


PACK = Pack(
    id="test.pack", version=1, zh="试", en="test", grade=Grade.SHAREABLE,
    fields=(
        field("count", "int", minimum=0, maximum=9),
        field("level", "float", minimum=-1.5, maximum=1.5),
        field("ok", "bool"),
        field("name", "string", length_max=5),
        field("state", "code", codes=("free", "occupied")),
        field("seen", "time"),
        field("plate", "token", group="personal", personal="personal"),
    ),
)  # fmt: skip
GOOD = {
    "count": 3,
    "level": 0.5,
    "ok": True,
    "name": "东门",
    "state": "free",
    "seen": 5,
    "plate": b"\x01",
}


def columns_of(*rows: dict[str, object]) -> Columns:
    made = [Record(event_time_us=at, device="d", values=row) for at, row in enumerate(rows)]
    return to_columns(made, PACK.names, 0)


def test_good_values_and_absent_ones_pass():
    assert check_columns(PACK, columns_of(GOOD, {}, GOOD, dict.fromkeys(GOOD))) == []
    assert check_columns(PACK, columns_of()) == []


@pytest.mark.parametrize(
    ("name", "bad", "kind"),
    [
        ("count", -1, "range"), ("count", 10, "range"), ("count", True, "type"),
        ("count", 1.0, "type"), ("count", "1", "type"),
        ("level", 1.6, "range"), ("level", math.nan, "range"), ("level", math.inf, "range"),
        ("level", -math.inf, "range"), ("level", "x", "type"), ("level", True, "type"),
        ("level", 10**400, "type"),
        ("ok", 1, "type"), ("ok", "true", "type"),
        ("name", "abcdef", "length"), ("name", b"abc", "type"), ("name", "\ud800", "type"),
        ("state", "FREE", "code"), ("state", "", "code"), ("state", 1, "type"),
        ("seen", 2**63, "range"), ("seen", 1.5, "type"),
        ("plate", b"", "length"), ("plate", bytes(33), "length"), ("plate", "x", "type"),
        ("what", 1, "unknown-field"),
    ],
)  # fmt: skip
def test_each_bad_value_is_found_alone_with_its_rows(name, bad, kind):
    rows = [GOOD, {**GOOD, name: bad}, {}, GOOD, {**GOOD, name: bad}]
    problems = check_columns(PACK, columns_of(*rows))
    assert [(p.field, p.rows, p.kind) for p in problems] == [(name, [1, 4], kind)]
    assert type(problems[0].value) is type(bad)
    assert problems[0].expected


def test_several_problems_of_one_column_are_all_found():
    rows = [{"level": math.nan}, {"level": 9.0}, {"level": "x"}, {"level": 1.0}]
    found = {(p.kind, tuple(p.rows)) for p in check_columns(PACK, columns_of(*rows))}
    assert found == {("range", (0,)), ("range", (1,)), ("type", (2,))}


def test_whole_numbers_in_a_float_column_become_floats():
    columns = columns_of({"level": 1}, {"level": -1.5}, {"level": None})
    assert check_columns(PACK, columns) == []
    assert list(map(type, columns.fields["level"])) == [float, float, type(None)]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"event_time_us": 2**63}, "@event_time"), ({"event_time_us": 1.5}, "@event_time"),
        ({"event_time_us": None}, "@event_time"), ({"device_time_us": "x"}, "@device_time"),
        ({"quality": -1}, "@quality"), ({"device": "x" * 129}, "@device"),
        ({"device": None}, "@device"), ({"device": "\udfff"}, "@device"),
    ],
)  # fmt: skip
def test_what_every_record_has_is_checked_too(changes, name):
    good = {"event_time_us": 1, "device": "d", "values": GOOD}
    rows = [Record(**good), Record(**{**good, **changes})]
    problems = check_columns(PACK, to_columns(rows, PACK.names, 0))
    assert [(p.field, p.rows) for p in problems] == [(name, [1])]


@given(st.lists(st.dictionaries(st.sampled_from([*GOOD, "what"]), values), max_size=12))
def test_check_agrees_with_a_value_by_value_reading(rows):
    found = {(p.field, row) for p in check_columns(PACK, columns_of(*rows)) for row in p.rows}
    wrong = {
        (name, at)
        for at, row in enumerate(rows)
        for name, value in row.items()
        if value is not None and not fits(name, value)
    }
    assert found == wrong


def fits(name: str, value: object) -> bool:
    if name == "count":
        return type(value) is int and 0 <= value <= 9
    if name == "level":
        return type(value) in (int, float) and -1.5 <= value <= 1.5
    if name == "name":
        return type(value) is str and len(value) <= 5
    if name == "plate":
        return type(value) is bytes and 1 <= len(value) <= 32
    wanted = {"ok": bool, "state": str, "seen": int}
    return (
        name in wanted
        and type(value) is wanted[name]
        and (name != "state" or value in ("free", "occupied"))
    )


def test_what_passes_the_check_passes_the_journal():
    columns = columns_of(GOOD, {}, {**GOOD, "level": 1})
    assert check_columns(PACK, columns) == []
    assert load_columns(dump_columns(columns)) == columns


# --- reading packs -------------------------------------------------------------------------------

TOML = {
    "id": "parking.bay", "version": 1, "zh": "车位", "en": "bay", "grade": "generally-open",
    "record_index": ["bay_no"],
    "fields": [
        {"name": "bay_no", "zh": "车位", "en": "bay", "type": "string", "grade": 5},
        {"name": "state", "zh": "状态", "en": "state", "type": "code", "codes": ["free", "occupied"],
         "grade": "一般开放级"},
        {"name": "plate", "zh": "车牌", "en": "plate", "type": "token", "grade": "shareable",
         "group": "personal", "personal": "personal"},
    ],
}  # fmt: skip


def test_pack_from_toml():
    pack = parse_pack(TOML)
    assert pack.grade is Grade.GENERALLY_OPEN
    assert pack.groups == ("data", "personal")
    assert [f.name for f in pack.group_fields(1)] == ["plate"]
    assert open_schema(pack.schema_bytes) == pack.fields
    assert len(pack.schema_hash) == 32
    assert packs.schema_hash(pack.schema_bytes) == pack.schema_hash


def test_group_zero_is_data_even_if_no_field_is_in_it():
    only = [{**TOML["fields"][0], "group": "personal"}]
    assert parse_pack({**TOML, "fields": only}).groups == ("data", "personal")


def test_every_problem_of_a_pack_is_named_at_once():
    bad = {
        **TOML,
        "version": "one",
        "grade": "opne",
        "colour": "red",
        "record_index": ["bay_no"],
        "fields": [
            {**TOML["fields"][0], "type": "text"},
            {**TOML["fields"][1], "codes": []},
            {**TOML["fields"][2], "minimum": 1},
            {**TOML["fields"][2], "grade": 9},
            {"name": "Bad Name", "zh": "x", "en": "x", "type": "int", "grade": 5},
            {
                "name": "wide",
                "zh": "x",
                "en": "x",
                "type": "int",
                "grade": 5,
                "minimum": 3,
                "maximum": 1,
            },
            {"name": "s", "zh": "x", "en": "x", "type": "string", "grade": 5, "length_max": 10**6},
            {
                "name": "face",
                "zh": "x",
                "en": "x",
                "type": "token",
                "grade": 5,
                "personal": "sensitive",
            },
            {"name": "less", "en": "x", "type": "int", "grade": 5},
        ],
    }
    with pytest.raises(ConfigError) as caught:
        parse_pack(bad)
    paths = {problem.path for problem in caught.value.problems}
    assert {"version", "grade", "colour", "fields[0].type", "fields[3].grade"} <= paths
    assert any(path.endswith(".codes") for path in paths)
    assert any("zh" in path for path in paths)
    assert len(paths) >= 10
    assert caught.value.code is Code.PACK_INVALID


@pytest.mark.parametrize(
    "changes",
    [{"fields": []}, {"fields": "x"}, {"id": "Parking Bay"}, {"version": 0}, {"record_index": ["no"]},
     {"fields": [TOML["fields"][0]] * 2}, {"kind": "odd"},
     {"fields": [{**TOML["fields"][0], "name": f"f{n}", "group": f"g{n}"} for n in range(8)]},
     {"fields": [{**TOML["fields"][0], "name": f"f{n}"} for n in range(limits.FIELDS_MAX + 1)]}],
)  # fmt: skip
def test_packs_that_cannot_be(changes):
    with pytest.raises(ConfigError):
        parse_pack({**TOML, **changes})


def test_a_schema_that_contradicts_itself_is_refused_by_readers():
    from protocol import wire

    twice = wire.encode([PACK.fields[0], PACK.fields[0]])
    with pytest.raises(DecodeError):
        open_schema(twice)
    with pytest.raises(DecodeError):
        open_schema(bytes(limits.SCHEMA_BYTES_MAX + 1))
