"""Every text that a person reads is there in both languages, with the same fields, and is Chinese in Chinese."""

import ast
import re
import string
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from hub.owner.texts import speaking_in
from tests.shared import ROOT

FOLDERS = sorted(
    path.parent
    for path in ROOT.glob("*/**/messages/en.toml")
    if ".venv" not in path.parts and "build" not in path.parts
)
#: Groups whose keys are the English text itself, so that only the Chinese stands in a catalogue.
BY_ENGLISH = {"phrase", "argparse", "errno"}

#: Where a sentence for a person may be put together: modules that print, or raise what is printed.
SPOKEN = [*sorted((ROOT / "hub/owner").glob("*.py")), ROOT / "hub/cli.py", ROOT / "agent/cli.py"]


def flat(table: dict, prefix: str = "") -> dict[str, str]:
    found = {}
    for key, value in table.items():
        found |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return found


def texts(folder: Path, lang: str) -> dict[str, str]:
    tables = tomllib.loads((folder / f"{lang}.toml").read_text("utf-8"))
    return flat({name: table for name, table in tables.items() if name not in BY_ENGLISH})


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= char <= "\u9fff" for char in text)


def english_in(text: str) -> list[str]:
    """Words of English in a sentence; what is quoted, in backquotes or a path is nobody's language."""
    bare = re.sub(r"`[^`]*`|“[^”]*”|\"[^\"]*\"|'[^']*'|\S*/\S*", "", text)
    return re.findall(r"\b[A-Za-z]{2,} [a-z]{2,}\b", bare)


def test_there_are_catalogues() -> None:
    found = {str(one.relative_to(ROOT)) for one in FOLDERS}
    assert found >= {
        f"{one}/messages" for one in ("protocol/program", "agent", "hub", "hub/owner", "devices")
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.parent.name)
def test_both_languages_have_the_same_texts_and_fields(folder: Path) -> None:
    en, zh = texts(folder, "en"), texts(folder, "zh")
    assert en.keys() == zh.keys()
    assert [key for key in en if fields(en[key]) != fields(zh[key])] == []
    assert all(text.strip() for text in (*en.values(), *zh.values()))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.parent.name)
def test_chinese_is_chinese(folder: Path) -> None:
    for key, text in texts(folder, "zh").items():
        rest = re.sub(r"\{[^}]*\}", "", text)
        assert is_chinese(rest) or not english_in(rest), key


@pytest.mark.parametrize("path", SPOKEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_sentence_is_written_into_code(path: Path) -> None:
    """What is printed comes from a catalogue, from data, or from `explain`: never a literal."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        said = []
        if name == "print":
            said = node.args
        elif name in {"add_argument", "add_parser", "ArgumentParser"}:
            said = [one.value for one in node.keywords if one.arg in {"help", "description"}]
            no_help = name == "add_argument" and not any(one.arg == "help" for one in node.keywords)
            if no_help:
                found.append(f"{path}:{node.lineno}: an argument without help")
        for one in said:
            if isinstance(one, ast.JoinedStr) or (
                isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value.strip()
            ):
                found.append(f"{path}:{node.lineno}")
            # An exception's own text is English.
            if isinstance(one, ast.Name) and one.id in {"error", "fault", "exc"}:
                found.append(f"{path}:{node.lineno}: prints an exception")
    assert not found


def literals(paths: Iterable[Path], argument: str) -> set[str]:
    """What code says in English in one argument of a call; a hole stands as 7."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == argument:
                found |= sentences(node.value)
    return found


def test_what_errors_name_has_its_chinese() -> None:
    """`explain` prints the field, and of the hub's and the owner's own errors what would be right."""
    say = speaking_in("zh")
    hub = sorted((ROOT / "hub").rglob("*.py"))
    named = literals([*sorted((ROOT / "protocol").glob("*.py")), *hub], "field")
    said = {text for text in named if " " in text} | literals(hub, "expected")
    assert len(said) > 50
    assert [t for t in sorted(said) if english_in(t) and not is_chinese(say.phrase(t))] == []


def test_reasons_of_agents_have_their_chinese() -> None:
    """They stand in `continues` and gap notes and are printed by `shanmen read`."""
    say = speaking_in("zh")
    names = ("answers", "forks", "succession", "mending", "register", "resend", "sealer")
    paths = [next((ROOT / "agent").rglob(f"{name}.py")) for name in names]
    said = {text for text in literals(paths, "reason") if text}
    assert len(said) >= 6
    assert [text for text in sorted(said) if not is_chinese(say.phrase(text))] == []


def sentences(node: ast.expr) -> set[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.JoinedStr):
        parts = [one.value if isinstance(one, ast.Constant) else "7" for one in node.values]
        return {"".join(str(one) for one in parts)}
    return set()
