"""The agent's texts: its own over those of the drivers, over those of every program of ours."""

from collections.abc import Mapping

from devices import catalogues
from protocol.program import messages
from protocol.program.messages import Language


class Messages(messages.Messages):
    """What the agent says in one language."""

    def __init__(self, lang: Language) -> None:
        super().__init__(lang, catalogue(lang))


def catalogue(lang: Language) -> Mapping[str, str]:
    """All texts of the agent in one language."""
    return catalogues.catalogue(lang, "devices", "agent")
