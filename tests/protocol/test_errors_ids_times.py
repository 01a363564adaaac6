"""Errors, ids, times and grades: what people see of the protocol."""

import contextlib
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import errors, ids, limits, times
from protocol.errors import Code, ConfigError, DecodeError, ShanmenError
from protocol.grades import (
    Grade,
    Secrecy,
    effective,
    more_open,
    parse_grade,
    parse_secrecy,
    rules,
)


def test_codes_have_numbers_and_keys_of_their_own():
    numbers = [code.value.number for code in Code]
    keys = [code.value.key for code in Code]
    assert len(set(numbers)) == len(numbers)
    assert len(set(keys)) == len(keys)
    for code in Code:
        assert 400 <= code.http_status <= 503
        assert Code.from_key(code.key) is code
        assert code.key == code.name.lower().replace("_", "-")
    assert Code.from_key("what-is-this") is Code.MALFORMED


def test_an_error_is_one_short_line_whatever_it_holds():
    hostile = "x\n\x1b[31mroot\r\u202e" + "y" * 500
    error = DecodeError(Code.MALFORMED, field="name", value=hostile, expected="a name")
    assert str(error).isprintable()
    assert len(str(error)) < 700
    assert "(5000 bytes)" in str(DecodeError(Code.MALFORMED, value=bytes(5000)))
    assert "Opaque" in str(DecodeError(Code.MALFORMED, value=type("Opaque", (), {})()))


def test_config_error_lists_every_problem():
    problems = (errors.ConfigProblem("a.b", "3", "text"), errors.ConfigProblem("c", "", "1..9"))
    error = ConfigError(Code.CONFIG_INVALID, field="file", problems=problems)
    assert "a.b" in str(error)
    assert "1..9" in str(error)
    assert ConfigError(Code.CONFIG_INVALID, field="f", value=1).problems[0].path == "f"
    assert isinstance(error, ShanmenError)


@given(st.binary(min_size=16, max_size=16))
def test_id_survives_being_read_out(id16):
    shown = ids.show(id16)
    assert len(shown) == 34
    assert ids.parse(shown) == id16
    assert ids.parse(shown.replace("-", "").upper()) == id16
    assert ids.parse(f"  {shown.replace('-', ' ')} ") == id16


@given(
    st.binary(min_size=16, max_size=16),
    st.integers(0, 27),
    st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"),
)
def test_one_wrong_character_is_nearly_always_found(id16, at, letter):
    plain = ids.show(id16).replace("-", "")
    bent = plain[:at] + letter + plain[at + 1 :]
    if bent != plain:
        # 10 bits of check: 1 in 1,024 slips through, and then it is another id.
        with contextlib.suppress(DecodeError):
            assert ids.parse(bent) != id16


@pytest.mark.parametrize("text", ["", "a", "a" * 28, "0" * 28, "é" * 28, "a-" * 28, "a" * 29])
def test_what_is_no_id_is_refused(text):
    with pytest.raises(DecodeError):
        ids.parse(text)


def test_ids_separate_use_suite_name_and_agent():
    public = bytes(range(32))
    signing = ids.key_id(public, use=ids.Use.SIGNING)
    assert signing != ids.key_id(public, use=ids.Use.SEALING)
    assert ids.principal_id(public) == signing
    agent = ids.principal_id(public)
    assert ids.resource_id(agent, "caf\u00e9") == ids.resource_id(agent, "cafe\u0301")
    assert ids.resource_id(agent, "a") != ids.resource_id(agent, "b")
    with pytest.raises(DecodeError):
        ids.key_id(public, use=ids.Use.SIGNING, suite=2)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2022-07-18T09:34:15.775023242+00:00", 1658136855775023),
        ("2022-07-18t17:34:15.775023+08:00", 1658136855775023),
        ("2016-12-31T23:59:60.5Z", 1483228800000000),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2026-05-01 00:00:00-05:30", 1777613400000000 - 0),
    ],
)
def test_rfc3339_is_read_to_the_microsecond(text, us):
    if text.endswith("-05:30"):
        us = round(dt.datetime(2026, 5, 1, 5, 30, tzinfo=dt.UTC).timestamp()) * 10**6
    assert times.parse_rfc3339(text) == us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2022-07-18",
        "2022-07-18T09:34:15",
        "2022-13-18T09:34:15Z",
        "2022-02-30T00:00:00Z",
        "2022-07-18T24:00:00Z",
        "2022-07-18T09:34:61Z",
        "2022-07-18T09:34:15+24:00",
        "２022-07-18T09:34:15Z",
        "2022-07-18T09:34:15-5:00",
        "2022-07-18T09:34:15.Z",
        "x2022-07-18T09:34:15Z",
    ],
)
def test_times_without_zone_or_sense_are_refused(text):
    with pytest.raises(DecodeError):
        times.parse_rfc3339(text)


@given(st.integers(-62135596800 * 10**6, 253402300799 * 10**6))
def test_times_print_as_they_are_read(us):
    assert times.parse_rfc3339(times.show_time(us)) == us


def test_a_time_of_no_calendar_is_an_error_not_a_crash():
    for us in (limits.INT_MAX, limits.INT_MIN, 2**80):
        with pytest.raises(DecodeError):
            times.show_time(us)


def test_quality_marks_keep_their_bits():
    assert [mark.value for mark in times.Quality] == [1 << bit for bit in range(11)]
    assert times.Quality.MAYBE_REPEAT == 1024


# Table 7-2 as printed in the protocol: sealed, registered, leaves, grant, publish.
TABLE = {
    1: ("重点保护级", True, False, False, False, False),
    2: ("一般保护级", True, True, True, False, False),
    3: ("可共享级", True, True, True, True, False),
    4: ("可公开级", True, True, True, True, True),
    5: ("一般开放级", False, True, True, False, False),
    6: ("完全开放级", False, False, True, False, False),
}


def test_table_7_2():
    for grade in Grade:
        rule = rules(grade)
        row = (rule.name_zh, rule.sealed, rule.registered, rule.leaves, rule.grant, rule.publish)
        assert row == TABLE[grade]
        for name in (int(grade), rule.name_zh, rule.name_en):
            assert parse_grade(name) is grade


@given(st.sampled_from(Grade), st.sampled_from(Secrecy))
def test_secrecy_only_ever_protects_more(grade, secrecy):
    held = effective(grade, secrecy)
    assert not more_open(held, grade)
    assert held is (grade if secrecy is Secrecy.PUBLIC else Grade.KEY_PROTECTED)


@pytest.mark.parametrize("bad", [0, 7, "", "open", True, "1"])
def test_unknown_grades_are_refused(bad):
    with pytest.raises(DecodeError):
        parse_grade(bad)
    if bad != 0:
        with pytest.raises(DecodeError):
            parse_secrecy(bad)
    assert parse_secrecy("公开型") is parse_secrecy(0) is Secrecy.PUBLIC
