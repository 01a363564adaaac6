"""The operations manual says everything that the program knows: options, exit codes, states, alarms."""

import re
from pathlib import Path

import msgspec
from msgspec import inspect

from agent.host.faults import Exit
from agent.host.messages import catalogue
from agent.host.plan import read_file
from agent.host.settings import AgentConfig
from protocol.program.walk import options
from tests.shared import bounds_of

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/agent-operations.md").read_text("utf-8")


def test_every_option_stands_in_the_reference_with_its_default():
    rows = dict(re.findall(r"^\| `([a-z_\[\].]+)` \| (.*?) \|", TEXT, re.M))
    known = options(AgentConfig)
    assert set(known) == {name for name in rows if "." in name or name in known}
    for name, field in known.items():
        default = field.default
        if type(default).__name__ in {"Duration", "Size"}:
            assert type(default).parse(rows[name].strip("`")) == default, name
        elif isinstance(default, int) and not isinstance(default, bool):
            assert f"`{default}`" in rows[name], name
        elif field.required:
            assert rows[name] == "(must be given)", name


def test_every_bound_stands_in_the_reference():
    lines = {m[1]: m[0] for m in re.finditer(r"^\| `([a-z_\[\].]+)` \|.*$", TEXT, re.M)}
    for name, (_, (low, high)) in bounds_of(AgentConfig).items():
        assert low in lines[name], name
        assert high in lines[name] or high == "4096GiB", name


def test_every_exit_code_state_and_alarm_is_explained():
    for code in Exit:
        assert re.search(rf"^\| {int(code)} \| ", TEXT, re.M), code
    texts = catalogue("en")
    for key in texts:
        area, _, name = key.partition(".")
        if area in {"state", "alarm"}:
            assert f"`{name}`" in TEXT, key


def test_the_example_has_no_problems():
    plan = read_file(ROOT / "packaging/examples/agent.toml")
    names = {one.local for one in plan.resources}
    assert names == {"p1-bays", "east-gate-checks", "device-health", "device-link"}
    assert len(plan.drivers) == 1
    assert {one.value for one in plan.promises.values()} == {"A"}


def test_settings_are_frozen_and_strict():
    for cls in (
        AgentConfig,
        *(
            f.type.cls
            for f in inspect.type_info(AgentConfig).fields
            if isinstance(f.type, inspect.StructType)
        ),
    ):
        assert issubclass(cls, msgspec.Struct)
        assert cls.__struct_config__.frozen
        assert cls.__struct_config__.forbid_unknown_fields
