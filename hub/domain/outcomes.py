"""What becomes of one item of a batch, before it is put into an answer's words."""

import msgspec

from protocol.errors import Code
from protocol.leaf import State


class Accepted(msgspec.Struct, frozen=True):
    """Durable with this transaction, in the batch's own leaf."""

    state: State
    id: bytes


class Duplicate(msgspec.Struct, frozen=True):
    """Was accepted before: the leaf that says so is proven again."""

    state: State
    id: bytes
    generation: int
    leaf: int


class Missing(msgspec.Struct, frozen=True):
    """What comes before it has not arrived; `have` is the last accepted number, −1 for none."""

    have: int


class UnknownResource(msgspec.Struct, frozen=True):
    """Its registration entry has not arrived."""


class Refused(msgspec.Struct, frozen=True):
    """Never to be accepted as it is."""

    code: Code
    reason: str  #: for people who read logs; never a secret


class Later(msgspec.Struct, frozen=True):
    """Nothing is wrong with it: send it again."""

    seconds: int


class Evidence(msgspec.Struct, frozen=True):
    """Which accepted headers tell the agent what the hub has instead: one stream's, after a seq."""

    stream: int  #: StreamRow.n
    after: int  #: the page begins with the number after this one; −1 for the stream's beginning


class Fork(msgspec.Struct, frozen=True):
    """Another segment is in its place, or its stream has ended: begin a new stream."""

    evidence: Evidence


class Overlap(msgspec.Struct, frozen=True):
    """It holds journal rows that accepted segments hold: these, by id."""

    segments: tuple[bytes, ...]


class Page(msgspec.Struct, frozen=True):
    """An evidence page that the agent asked for; nothing was sent that could be accepted."""

    evidence: Evidence


Outcome = Accepted | Duplicate | Missing | UnknownResource | Refused | Later | Fork | Overlap | Page
