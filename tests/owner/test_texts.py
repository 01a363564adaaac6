"""Both languages have every text, with the same placeholders, and every code has its words looked up safely."""

import os
import re
import string
from pathlib import Path

import pytest

from hub.owner import cli
from hub.owner.output import _safe, quality_names
from hub.owner.texts import LANGUAGES, catalogue, explain
from protocol.errors import Code, RefusedError
from protocol.times import Quality

SOURCES = Path(cli.__file__).parent.glob("*.py")


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_catalogues_agree() -> None:
    zh, en = (catalogue(one) for one in LANGUAGES)
    assert zh.keys() == en.keys()
    assert [key for key in zh if fields(zh[key]) != fields(en[key])] == []
    assert all(any("\u4e00" <= char <= "\u9fff" for char in text) for text in zh.values())


def test_every_text_asked_for_is_there_and_every_text_is_used() -> None:
    source = "".join(path.read_text("utf-8") for path in SOURCES)
    literal = set(re.findall(r'"((?:about|option|key|principal|read)\.[a-z_]+)"', source))
    known = catalogue("en").keys()
    assert literal <= known
    about = {
        f"about.{one}"
        for one in ("key_new", "key_show", "key_backup", "principal_add", "read", "demo")
    }
    assert {key for key in known if not key.startswith("error.")} - literal - about == set()
    assert {key.removeprefix("error.") for key in known if key.startswith("error.")} <= {
        code.key for code in Code
    }


def test_error_without_a_text_of_its_own_explains_itself() -> None:
    assert "not-owner" in explain(RefusedError(Code.NOT_OWNER, field="resource"))


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
