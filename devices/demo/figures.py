"""Figures against their bars: one file of bars, one function that computes `ok`.

Every command that prints figures (demo, bench, torture) adds them here and writes
`build/<command>.json`: a list of {name, value, unit, bar, ok, commit, machine, seconds}. A bar of
the command's tables that got no figure is in the list with value null and ok false.
"""

import json
import os
import platform
import subprocess
import time
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

#: Written by commands below the folder they run in.
BUILD = Path("build")


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure must reach; at most one of the two is set."""

    unit: str
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return f"<= {self.at_most:g}" if self.at_most is not None else ""


def is_ok(value: float | None, bar: Bar) -> bool:
    """Whether a figure reaches its bar; what was not measured does not.

    A bar without a bound is a figure to be shown: measured is enough.
    """
    if value is None or value != value:  # noqa: PLR0124 — NaN
        return False
    if bar.at_least is not None:
        return value >= bar.at_least
    return bar.at_most is None or value <= bar.at_most


def bars(*tables: str) -> dict[str, Bar]:
    """The bars of some tables of the one file, by name. Raises KeyError for a table not there."""
    text = resources.files(__package__).joinpath("bars.toml").read_text("utf-8")
    found = tomllib.loads(text)
    return {name: Bar(**bar) for table in tables for name, bar in found[table].items()}


class Figures:
    """The figures of one run of one command."""

    def __init__(self, command: str, *tables: str) -> None:
        self.command = command
        self._bars = bars(*tables)
        self._values: dict[str, float | None] = dict.fromkeys(self._bars)
        self._began = time.monotonic()

    def add(self, name: str, value: float | None, unit: str = "") -> bool:
        """Take one figure; tells whether it is ok. One without a bar is shown and is ok."""
        self._bars.setdefault(name, Bar(unit))
        self._values[name] = value
        return is_ok(value, self._bars[name])

    @property
    def ok(self) -> bool:
        """Whether every bar was reached."""
        return all(is_ok(value, self._bars[name]) for name, value in self._values.items())

    def rows(self) -> list[dict[str, Any]]:
        """What is written and printed."""
        about = {
            "commit": _commit(),
            "machine": f"{platform.machine()} {os.cpu_count()} cores {platform.release()}",
            "seconds": round(time.monotonic() - self._began, 1),
        }
        return [
            {
                "name": name,
                "value": value,
                "unit": self._bars[name].unit,
                "bar": str(self._bars[name]),
                "ok": is_ok(value, self._bars[name]),
                **about,
            }
            for name, value in self._values.items()
        ]

    def write(self, folder: Path = BUILD) -> Path:
        """Write `<folder>/<command>.json` and say where."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.command}.json"
        path.write_text(json.dumps(self.rows(), ensure_ascii=False, indent=1) + "\n", "utf-8")
        return path


def _commit() -> str:
    """The commit of the tree that runs, with a + if it was changed; empty outside of one."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, check=True
        ).stdout.decode()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.strip() + ("+" if changed else "")
