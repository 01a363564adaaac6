"""`shanmen-hub init`: a data folder with settings, keys and an empty ledger."""

import asyncio
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from hub import config as configs
from hub import keys
from hub.config import FILE_NAME, HubConfig
from hub.faults import Exit, Fault
from hub.folder import Folder
from hub.opening import opened
from protocol import ids
from protocol.errors import ConfigError

Given = Mapping[str, Mapping[str, str | int]]


def toml_of(given: Given) -> str:
    """Write settings as TOML: tables of texts and numbers, defaults left out by the caller."""
    lines = [
        "# Settings of this hub; every option stands in docs/hub-operations.md.",
        "# `shanmen-hub serve` names all problems of this file at once.",
    ]
    for table, values in given.items():
        lines += ["", f"[{table}]"]
        # A JSON string is a TOML basic string, but for DEL, which a name may not hold anyway.
        lines += [
            f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()
        ]
    return "\n".join(lines) + "\n"


def make_hub(root: Path, given: Given) -> str:
    """Make a hub in `root`; returns its id as shown. Raises Fault, ConfigProblems.

    Nothing that exists is overwritten: a folder with keys or settings is refused.
    """
    kept = {
        table: {key: value for key, value in values.items() if value != ""}
        for table, values in given.items()
    }
    text = toml_of(kept)
    path = root / FILE_NAME
    config = configs.load(text, file=str(path))
    if path.exists():
        raise Fault(Exit.IN_USE, "exists", folder=root)
    hub = make_data(config, Folder((root / config.hub.data).resolve()))
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Fault(Exit.DISK, "folder-unusable", folder=root, why=error) from error
    return hub


def make_data(config: HubConfig, folder: Folder) -> str:
    """Make keys and an empty ledger for settings that exist; returns the hub's id as shown.

    Raises Fault: the folder has a hub, or cannot be written.
    """
    try:
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = keys.make(folder.root, secrets.token_bytes)
    except ConfigError as error:
        raise Fault(Exit.IN_USE, "exists", folder=folder.root) from error
    except OSError as error:
        raise Fault(Exit.DISK, "folder-unusable", folder=folder.root, why=error) from error

    async def begin() -> None:
        async with opened(config, folder):
            pass

    asyncio.run(begin())
    return ids.show(made.hub)
