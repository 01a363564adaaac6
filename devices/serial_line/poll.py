"""Readers that speak only when asked: find a card, select it, read it. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One question, and how an answer begins that leads on."""

    send: bytes
    expect: bytes


@dataclass(frozen=True, slots=True)
class PollRule:
    """A `poll` table, ready to use."""

    steps: tuple[Step, ...]
    every_us: int  # between rounds
    timeout_us: int  # for each answer


class Dialogue:
    """One round after the other: `begin`, then `answered` for each frame until it says over."""

    def __init__(self, rule: PollRule) -> None:
        self._steps = rule.steps
        self._at: int | None = None  # the step whose answer is awaited

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is awaited."""
        return self._at is not None

    def begin(self) -> bytes:
        """Start a round; what to send."""
        self._at = 0
        return self._steps[0].send

    def give_up(self) -> None:
        """No answer came, or none that can be read."""
        self._at = None

    def answered(self, body: bytes) -> tuple[bytes, bool]:
        """Take an answer: what to send next (nothing: the round is over), and if it is a message.

        An answer that does not lead on (no card, read failed) ends the round quietly.
        """
        at, self._at = self._at, None
        if at is None or not body.startswith(self._steps[at].expect):
            return b"", False
        if at + 1 == len(self._steps):
            return b"", True
        self._at = at + 1
        return self._steps[at + 1].send, False
