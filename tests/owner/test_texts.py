"""Both languages have every text, with the same placeholders, and every code has its words looked up safely."""

import os
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from hub.owner import cli
from hub.owner.output import _safe
from hub.owner.texts import explain
from protocol.errors import Code, RefusedError
from protocol.notes import GapUnit
from protocol.times import Quality, quality_names

SOURCES = Path(cli.__file__).parent.glob("*.py")
MESSAGES = Path(cli.__file__).parent / "messages"


def test_every_text_asked_for_is_there_and_every_text_is_used() -> None:
    source = "".join(path.read_text("utf-8") for path in SOURCES)
    literal = set(re.findall(r'"((?:about|option|key|principal|read)\.[a-z_]+)"', source))
    tables = tomllib.loads((MESSAGES / "en.toml").read_text("utf-8"))
    known = {f"{group}.{key}" for group, texts in tables.items() for key in texts}
    assert literal <= known
    about = {
        f"about.{one}"
        for one in ("key_new", "key_show", "key_backup", "principal_add", "read", "demo")
    }
    units = {f"unit.{one}" for one in get_args(GapUnit)}
    codes = {f"code.{one.key}" for one in Code}
    assert known - codes == literal | about | units


def test_error_without_a_text_of_its_own_explains_itself(monkeypatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    error = RefusedError(Code.NOT_OWNER, field="resource", expected="a new secret")
    assert explain(error) == "只有数据所有者可以获取：请向所有者申请授权（resource）。"
    monkeypatch.setenv("LC_ALL", "C")
    assert "(resource). Expected: a new secret." in explain(error)


def test_marks_have_names_and_formulas_are_defused() -> None:
    assert quality_names(Quality.MAYBE_REPEAT | Quality.GAP_BEFORE) == (
        "gap_before",
        "maybe_repeat",
    )
    assert quality_names(1 << 40) == (str(1 << 40),)
    assert _safe("=1+1") == "'=1+1"
    assert _safe(-1) == -1


def test_demo_gets_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def execv(_: str, words: list[str]) -> None:
        ran.append(words[1:])
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(SystemExit):
        cli.main(["demo", "--for", "60s", "--chaos"])
    assert ran == [["-m", "devices.demo", "--for", "60s", "--chaos"]]
