"""Grades that stay stricter than the configuration asks: 就高从严, only the owner may open.

A resource once registered keeps its grade when `agent.toml` asks for a more open one. `check` finds
it in the spool's file, where registrations in force stand.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from agent.store.ports import Paths, ResourceSettings
from protocol.grades import Grade, effective, more_open, rules

_GRADES: Final = "SELECT local, grade FROM resource"


def kept_grades(folder: Path, resources: tuple[ResourceSettings, ...]) -> dict[str, str]:
    """Return local name -> grade in force, where the configuration asks for a more open one.

    Reads the files as they stand (`immutable`): what lies in the WAL only is seen at the next
    look, and no file is made that the agent's user could not open.
    """
    paths = Paths(folder=folder)
    found = _registered(paths.spool) | _registered(paths.vault)
    kept: dict[str, str] = {}
    for one in resources:
        wanted = effective(one.pack.grade if one.grade is None else one.grade, one.secrecy)
        grade = found.get(one.local)
        if grade is not None and more_open(wanted, grade):
            kept[one.local] = rules(grade).name_en
    return kept


def _registered(path: Path) -> dict[str, Grade]:
    if not path.exists():
        return {}
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as source:
            return {str(local): Grade(grade) for local, grade in source.execute(_GRADES)}
    except (sqlite3.Error, ValueError):
        return {}  # damaged or not yet made: the agent itself will say so
