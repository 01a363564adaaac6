"""Configuration: everything that is wrong is said at once, with path, value and what is right."""

import contextlib
import os
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.host.config import load
from agent.host.settings import AgentConfig
from protocol.program.settings import ConfigProblems
from protocol.program.units import Duration, Size
from protocol.program.walk import Problem, Walk, show
from tests.shared import bounds_of

GOOD = """
data = "/var/lib/shanmen-agent"
[hub]
url = "https://hub.example.org"
[[resource]]
id = "p1-bays"
pack = "parking.bay"
"""

EXAMPLES = int(os.environ.get("SHANMEN_FUZZ_EXAMPLES", "2000"))


def problems_of(text: str | bytes) -> dict[str, Problem]:
    with pytest.raises(ConfigProblems) as raised:
        load(text, file="agent.toml")
    return {problem.path: problem for problem in raised.value.problems}


def test_a_short_configuration_is_enough():
    config = load(GOOD, file="agent.toml")
    assert config.hub.url == "https://hub.example.org"
    assert config.hub.retry_max.seconds == 60
    assert config.storage.budget == 2 << 30
    assert config.resource[0].grade is None


def test_all_problems_are_reported_at_once():
    found = problems_of("""
        data = "relative"
        ownr = "x"
        [hub]
        url = "ftp://hub"
        retry_min = 5
        retry_max = "11m"
        bach = "4MiB"
        [seal]
        records = 0
        [log]
        level = "loud"
        [[resource]]
        id = "a b"
        [[resource]]
        id = "b"
        pack = "x"
        coordinates = { longitude = 200.0 }
    """)
    assert {path: problem.key for path, problem in found.items()} == {
        "data": "impossible",
        "ownr": "unknown-key-near",
        "hub.url": "impossible",
        "hub.retry_min": "wrong-type",
        "hub.retry_max": "impossible",
        "hub.bach": "unknown-key-near",
        "seal.records": "impossible",
        "log.level": "impossible",
        "resource[0].id": "impossible",
        "resource[0].pack": "missing",
        "resource[1].coordinates.longitude": "impossible",
        "resource[1].coordinates.latitude": "missing",
    }
    assert found["ownr"].fields["near"] == "owner"
    assert found["hub.retry_max"].value == '"11m"'
    assert found["hub.retry_max"].fields == {"expected": "between", "low": "1s", "high": "10m"}
    assert found["seal.records"].fields == {
        "expected": "whole-between",
        "low": "1",
        "high": "10000",
    }


def test_options_are_checked_against_each_other():
    text = (
        GOOD.replace("[[resource]]", 'retry_min = "50s"\nretry_max = "2s"\n[[resource]]')
        + GOOD.split("\n", 4)[4]
    )
    found = problems_of(text)
    assert found["hub.retry_min"].key == "above"
    assert found["resource[1].id"].key == "twice"


@pytest.mark.parametrize(
    "url", ["http://hub.example.org", "http://10.0.0.7:8440", "http://localhost.example"]
)
def test_plain_http_refused(url):
    found = problems_of(GOOD.replace("https://hub.example.org", url))
    assert found["hub.url"].key == "plain-http"


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1", "http://[::1]:8440", "https://x"]
)
def test_plain_http_to_this_machine_and_tls_are_fine(url):
    assert load(GOOD.replace("https://hub.example.org", url), file="f").hub.url == url


@pytest.mark.parametrize("owner", ["abcd", "", "as-hub-say"])
def test_an_owner_that_is_no_fingerprint(owner):
    assert "owner" in problems_of(f'owner = "{owner}"\n' + GOOD)


def test_text_that_is_not_toml_or_not_text():
    assert problems_of("a = ")[""].key == "not-toml"
    assert problems_of(b"\xff\xfe")[""].key == "not-utf8"
    assert problems_of("x = " + "[" * 100_000)[""].key in {"too-deep", "not-toml"}
    assert problems_of(b" " * (5 << 20))[""].key == "too-large"


def test_a_value_is_shown_in_one_line_and_never_a_secret():
    assert show("a\nb\x1b[2J") == '"a�b�[2J"'
    assert len(show("x" * 1000)) == 60
    assert show("hunter2", "mqtt[0].password") == "•••"


def test_every_bound_is_held():
    bounds = bounds_of(AgentConfig)
    assert len(bounds) == 18
    for path, (unit, between) in bounds.items():
        low, high = between
        assert unit.parse(low) < unit.parse(high), path
        raw = tomllib.loads(GOOD)
        *tables, leaf = path.split(".")
        table = raw
        for name in tables:
            table = table["resource"][0] if name.endswith("[]") else table.setdefault(name, {})
        table[leaf] = str(unit(unit.parse(high) + unit.parse("1s" if unit is Duration else "1KiB")))
        walk = Walk()
        walk.struct(raw, AgentConfig)
        assert [problem.fields.get("expected") for problem in walk.problems] == ["between"], path


@pytest.mark.parametrize("text", ["1", "1 s", "-1s", "1.5h", "s", "1S", "99999999999s", "１s"])
def test_not_a_duration(text):
    with pytest.raises(ValueError):
        Duration.parse(text)


@given(st.integers(0, 10**9))
def test_units_are_written_as_they_are_read(number):
    assert Duration.parse(str(Duration(number * 1000))) == number * 1000
    assert Size.parse(str(Size(number))) == number


LEAVES = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 10_001, 2**70, 0.5, float("nan"), float("inf"), -181.0,
        "", "30s", "2GiB", "https://h", "http://h", "/x", "\x1b[2J", "as-hub-says", "parking.bay", "x" * 2000,
    ]
) | st.text(max_size=8)  # fmt: skip
KEYS = st.sampled_from(
    [
        "id",
        "pack",
        "url",
        "longitude",
        "latitude",
        "age",
        "records",
        "allow",
        "grade",
        "x",
        "",
        "a.b",
        "\n",
    ]
)
TABLES = st.dictionaries(KEYS, LEAVES | st.dictionaries(KEYS, LEAVES, max_size=2), max_size=4)
VALUES = LEAVES | st.lists(LEAVES, max_size=3) | TABLES | st.lists(TABLES, max_size=3)
NAMES = st.sampled_from(list(AgentConfig.__struct_fields__)) | st.text(max_size=6)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, VALUES, max_size=4), st.booleans())
def test_any_tree_gives_a_configuration_or_problems(tree, whole):
    if whole:
        tree = {"data": "/d", "hub": {"url": "https://h"}} | tree
    walk = Walk()
    config = walk.struct(tree, AgentConfig)
    assert config is not None or walk.problems
    for problem in walk.problems:
        assert problem.value.isprintable()
        assert len(problem.value) <= 60


@settings(max_examples=EXAMPLES // 5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_text_gives_a_configuration_or_problems(data):
    text = list(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.text(max_size=4))
        text = text or [" "]
    with contextlib.suppress(ConfigProblems):
        load("".join(text), file="agent.toml")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_configuration_or_problems(raw):
    with pytest.raises(ConfigProblems):
        load(raw, file="agent.toml")
