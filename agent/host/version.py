"""The version of this agent, as hubs and people see it."""

from importlib import metadata
from typing import Final


def _version() -> str:
    try:
        return metadata.version("shanmen")
    except metadata.PackageNotFoundError:
        return "0"  # run from a checkout that was not installed


SOFTWARE: Final = f"shanmen-agent {_version()}"
