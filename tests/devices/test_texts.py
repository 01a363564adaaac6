"""Texts in two languages, packs and profiles: nothing is missing, nothing is left over."""

import ast
import string
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from devices.catalogues import catalogue
from devices.packs import load_packs
from protocol.grades import Grade, rules

DEVICES = Path(__file__).resolve().parents[2] / "devices"
EN, ZH = (catalogue(lang, "devices") for lang in ("en", "zh"))
OWN = tomllib.loads((DEVICES / "messages/en.toml").read_text())


def keys_of(group: str, texts: Mapping[str, str] = EN) -> set[str]:
    return {key.removeprefix(f"{group}.") for key in texts if key.startswith(f"{group}.")}


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def config_keys() -> dict[str, set[str]]:
    """Every `….add(path, "key", value, **fields)` of devices/: key -> names that its text may use."""
    found: dict[str, set[str]] = {}
    for file in DEVICES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "add"
                and len(node.args) >= 2
                and isinstance(node.args[1], ast.Constant)
                and isinstance(node.args[1].value, str)
            ):
                # `**_expected(…)` names what would be right.
                names = {one.arg or "expected" for one in node.keywords} | {"value"}
                key = node.args[1].value
                found[key] = found.get(key, names) & names
    return found


#: Keys that reach `add` through a variable.
TOPICS = {"topic-empty-or-long", "topic-hash", "topic-plus", "topic-shared"}


def test_every_problem_of_the_configuration_has_a_text():
    keys = config_keys()
    assert set(keys) | TOPICS <= keys_of("config")
    assert set(OWN["config"]) <= set(keys) | TOPICS, "not used"
    for key, names in keys.items():
        assert fields(EN[f"config.{key}"]) <= names, key


def test_every_expectation_has_a_text_in_both_languages():
    """What would be right is said by key, so that no English stands in a Chinese sentence."""
    keys = set()
    for file in DEVICES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add":
                given = [one.value for one in node.keywords if one.arg == "expected"]
                keys |= {one.value for one in given if isinstance(one, ast.Constant)}
    assert len(keys) > 10
    assert keys <= keys_of("expect")
    for key in keys_of("expect"):
        text = ZH[f"expect.{key}"]
        assert any(one > "\u2e80" for one in text) or "{" in text or '"' in text, key


def test_every_reason_of_rejection_has_a_text():
    source = "".join(file.read_text() for file in DEVICES.rglob("*.py"))
    for key in OWN["reject"]:
        assert f'"{key}"' in source, f"{key} is not used"


@pytest.mark.parametrize("pack", load_packs().values(), ids=lambda pack: pack.id)
def test_packs_are_graded_as_the_dictionary_says(pack):
    open_packs = {"parking.lot", "parking.bay", "visitor.load", "device.health"}
    assert rules(pack.grade).sealed == (pack.id not in open_packs)
    if pack.id in open_packs:
        assert pack.grade is Grade.GENERALLY_OPEN
    for field in pack.fields:
        # The field's grade is the most open at which it may stand.
        assert field.grade >= pack.grade, field.name
        assert (field.personal != "none") == (field.group == "personal"), field.name
        if field.personal != "none":
            assert field.type == "token", f"{field.name} would be kept in clear"


def test_the_eight_packs_are_there():
    assert set(load_packs()) == {
        "parking.lot", "parking.bay", "parking.passage", "ticket.check",
        "visitor.passage", "visitor.load", "device.health", "device.link",
    }  # fmt: skip


@pytest.mark.parametrize("driver", ["mqtt", "lorawan", "modbus", "serial_line"])
def test_sample_and_checklist_of_each_driver(driver):
    from devices.kit import load

    sample = (DEVICES / driver / "sample.toml").read_text()
    loaded = load(sample, folder=DEVICES / driver)
    assert not loaded.problems, loaded.problems
    assert sample in (DEVICES / driver / "README.md").read_text()
    rules_of = tomllib.loads((DEVICES / driver / "checklist.toml").read_text())
    for rule, state in rules_of.items():
        assert state == "done" or set(state) == {"exempt"}, rule
