"""The agent's texts: its own over those of the drivers, over those of every program of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import devices
from program import messages
from program.messages import Language

FOLDERS: Final = (Path(devices.__file__).parent / "messages", Path(__file__).parent / "messages")


class Messages(messages.Messages):
    """What the agent says in one language."""

    def __init__(self, lang: Language) -> None:
        super().__init__(lang, *FOLDERS)


def catalogue(lang: Language) -> Mapping[str, str]:
    """All texts of the agent in one language."""
    return messages.catalogue(lang, *FOLDERS)
