"""No catalogue keeps a text that nobody asks for.

Keys are often put together (`f"state.{…}"`), so a key counts as asked for if the code says it whole, or
says a pattern that it fits, and each part that fills the pattern is said somewhere, too.
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from tests.house.test_imports import sources
from tests.shared import ROOT

#: Each catalogue, and where its keys may be asked for: agents show the texts of devices and codes.
CATALOGUES = {
    "protocol/program": ("protocol", "agent", "devices", "hub"),
    "agent": ("agent", "devices", "protocol"),
    "devices": ("devices", "agent", "protocol"),
    "devices/demo": ("devices/demo",),
    "hub": ("hub", "protocol"),
    "hub/owner": ("hub/owner", "protocol"),
    "hub/console": ("hub", "protocol"),
}
#: What a template asks for: `t('a.b')`, or `t('a.' ~ x)`; a script has its group as `texts.b`.
_TEMPLATE = re.compile(r"\bt\('([\w.-]+)'( ~)?")
_SCRIPT = re.compile(r"\btexts(?:\.(\w+)|\[[\"`]([\w-]+)(\$\{)?)")
_ANY = r"([\w.-]+)"


@dataclass
class Said:
    """The strings, patterns and names in the code of some folders."""

    words: set[str] = field(default_factory=set)
    patterns: set[str] = field(default_factory=set)

    def read(self, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            match node:
                case ast.Constant(value=str() as text):
                    self.words |= {text, _plain(text)}
                case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                    self.words.add(_plain(name))
                case ast.JoinedStr(values=parts):
                    self.patterns.add("".join(map(_piece, parts)))
                case ast.BinOp(left=ast.Constant(value=str() as text), op=ast.Add()):
                    self.patterns.add(re.escape(text) + _ANY)

    def read_pages(self, folder: str) -> None:
        """Templates and scripts, which are not Python."""
        for path in (ROOT / folder).rglob("*.html"):
            for key, more in _TEMPLATE.findall(path.read_text("utf-8")):
                self.patterns.add(re.escape(key) + _ANY) if more else self.words.add(key)
        for path in (ROOT / folder).rglob("*.js"):
            self.words |= set(re.findall(r'"([\w-]+)"', path.read_text("utf-8")))
            for name, start, more in _SCRIPT.findall(path.read_text("utf-8")):
                key = "script." + (name or start)
                self.patterns.add(re.escape(key) + _ANY) if more else self.words.add(key)

    def has(self, key: str) -> bool:
        return key in self.words or any(
            all(
                part in self.words or _plain(part) in self.words or self.has(part) for part in parts
            )
            for parts in self._fits(key)
        )

    def _fits(self, key: str) -> Iterator[tuple[str, ...]]:
        for pattern in self.patterns:
            # A pattern that is nearly all hole says nothing.
            if len(pattern.replace(_ANY, "")) >= 3 and (found := re.fullmatch(pattern, key)):
                yield found.groups()


def _piece(part: ast.expr) -> str:
    return re.escape(str(part.value)) if isinstance(part, ast.Constant) else _ANY


def _plain(name: str) -> str:
    """`UNKNOWN_PORT`, `unknown port` and `unknown-port` are one."""
    return re.sub(r"[ _]", "-", name).lower()


def keys_of(table: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_every_text_is_asked_for(catalogue: str) -> None:
    said = Said()
    for folder in CATALOGUES[catalogue]:
        for path in sources(folder):
            said.read(ast.parse(path.read_text("utf-8")))
        said.read_pages(folder)
    texts = tomllib.loads((ROOT / catalogue / "messages" / "en.toml").read_text("utf-8"))
    keys = list(keys_of(texts))
    assert len(keys) > 10
    left = [key for key in keys if not said.has(key)]
    assert not left, left


def test_the_rule_sees_what_is_left_over() -> None:
    said = Said()
    said.read(ast.parse('say(f"state.{x}"); State.DISK_FULL; say("chaos." + y); "kill hub"'))
    assert said.has("state.disk-full")
    assert said.has("chaos.kill_hub")
    assert not said.has("state.recovering")
