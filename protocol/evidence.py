"""Fork and overlap evidence: what lets an agent drop rows that have no receipt of their own.

The hub shows the agent's own signed headers that it accepted. An agent believes each one only with
its own signature and a proven leaf of its own; rows are covered only by headers whose body is
durable (state 1). What is shown of a stream must be whole: consecutive, linked, and up to the head.

A gateway whose image is older than a stream begins one that the hub cannot take, because the
resource has others: it is shown those, from their beginning, and after each stream the one that
followed it (`then`). What a hub leaves out there it could have left out altogether.
"""

from collections.abc import Mapping
from itertools import pairwise

from msgspec import Struct

from protocol.chain import rows_overlap
from protocol.envelope import KeyLookup
from protocol.errors import Code, VerifyError
from protocol.header import Header
from protocol.ids import PrincipalId, SegmentId
from protocol.leaf import State
from protocol.messages import Evidence, EvidenceHeader, EvidenceItem
from protocol.segment import Segment, parse

#: (state, id) -> leaf index, of leaves that were verified and are the agent's own.
Proven = Mapping[tuple[int, bytes], int]


class Shown(Struct, frozen=True, kw_only=True):
    """One header of the evidence, verified."""

    header: Header
    id: SegmentId
    state: State  # BODY: its rows are at the hub
    leaf: int  # index
    head: bytes  # prelude ‖ header ‖ signature


def verify_evidence(
    evidence: Evidence, agent: PrincipalId, keys: KeyLookup, leaves: tuple[Proven, ...]
) -> tuple[Shown, ...]:
    """Every header of a page, each verified by itself.

    keys: the agent's own signing keys. leaves: what each proof of the answer names, by position.
    Raises VerifyError if a single one is not the agent's, not signed or not proven.
    """
    return tuple(
        _shown(entry, agent, keys, leaves[entry.proof] if entry.proof < len(leaves) else {})
        for entry in evidence.headers
    )


def check_fork(shown: tuple[Shown, ...], evidence: Evidence, item: Segment | EvidenceItem) -> None:
    """Hold the page against the item that forked, or against the page that was asked for.

    Raises VerifyError if headers of another stream stand in it, if one is left out, if the list
    ends before the head that it names, or if the item itself is what was accepted.
    """
    first = shown[0].header
    if isinstance(item, EvidenceItem):
        place = (item.resource, item.stream)
        begins = first.seq == (0 if item.after is None else item.after + 1)
    else:
        begins_anew = item.header.seq == 0 and item.header.continues is None
        stream = first.stream if begins_anew else item.header.stream
        place = (item.header.resource, stream)
        begins = first.seq <= item.header.seq
        if any(one.id == item.id for one in shown):
            raise VerifyError(Code.PROOF_INVALID, field="fork", expected="another segment")
    if any((one.header.resource, one.header.stream) != place for one in shown):
        raise VerifyError(Code.PROOF_INVALID, field="fork", expected="headers of its stream")
    linked = all(
        (b.header.prev, b.header.seq) == (a.id, a.header.seq + 1) for a, b in pairwise(shown)
    )
    if not (begins and linked and _reaches_head(shown[-1], evidence)):
        raise VerifyError(Code.PROOF_INVALID, field="fork", expected="every header up to the head")


def check_overlap(shown: tuple[Shown, ...], item: Segment) -> None:
    """Every header shown is of the item's resource and has rows of it. Raises VerifyError."""
    for one in shown:
        if (
            one.header.resource != item.header.resource
            or one.id == item.id
            or not rows_overlap(one.header.rows, item.header.rows)
        ):
            raise VerifyError(Code.PROOF_INVALID, field="overlap", expected="headers with its rows")


def _reaches_head(last: Shown, evidence: Evidence) -> bool:
    if evidence.head is None:
        return False
    seq, head_id = evidence.head
    if evidence.more:
        return last.header.seq < seq and evidence.then is None
    return (last.header.seq, last.id) == (seq, head_id)


def _shown(entry: EvidenceHeader, agent: PrincipalId, keys: KeyLookup, named: Proven) -> Shown:
    unverified = parse(entry.head, body=False)
    public = keys(unverified.prelude.signer)
    if public is None:
        raise VerifyError(Code.WRONG_SIGNER, field="evidence", value=unverified.prelude.signer)
    segment = unverified.verify(public)
    if segment.header.agent != agent:
        raise VerifyError(Code.WRONG_AGENT, field="evidence", value=segment.header.agent)
    leaf = named.get((entry.state, segment.id))
    if leaf is None or entry.state not in {State.BODY, State.HEADER}:
        raise VerifyError(Code.PROOF_INVALID, field="evidence", expected="a leaf that names it")
    return Shown(
        header=segment.header, id=segment.id, state=entry.state, leaf=leaf, head=segment.head
    )
