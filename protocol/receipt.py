"""Receipts (回执): the hub's proof that what it was given is durable and stands in its ledger.

A receipt proves one leaf under one checkpoint. An answer carries the leaves of all its items and
one checkpoint, to which all their paths lead, and the proof that this checkpoint continues the one
the agent verified last. What a leaf does not name was not accepted, whatever the answer says.
"""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from protocol.checkpoint import Checkpoint, LogKey, verify_note
from protocol.errors import Code, VerifyError
from protocol.ids import PrincipalId, WireHash, WireU63
from protocol.leaf import BatchLeaf, Leaf, parse_leaf
from protocol.limits import LEAF_BYTES_MAX, NOTE_BYTES_MAX, PATH_HASHES_MAX, SYNC_ITEMS_MAX
from protocol.merkle import leaf_hash, verify_consistency, verify_inclusion

WireLeaf = Annotated[bytes, Meta(max_length=LEAF_BYTES_MAX)]
WirePath = Annotated[tuple[WireHash, ...], Meta(max_length=PATH_HASHES_MAX)]
WireNote = Annotated[str, Meta(max_length=NOTE_BYTES_MAX)]


class LeafProof(Struct, frozen=True, kw_only=True):
    """One leaf, and its way to the root of the checkpoint beside it."""

    leaf: WireLeaf
    index: WireU63
    path: WirePath


class Receipt(Struct, frozen=True, kw_only=True):
    """One leaf with its checkpoint: what is stored, exported and shown to others."""

    leaf: WireLeaf
    index: WireU63
    path: WirePath
    checkpoint: WireNote


class Proofs(Struct, frozen=True, kw_only=True):
    """The receipt of a whole answer: several leaves under one checkpoint."""

    checkpoint: WireNote
    proofs: Annotated[tuple[LeafProof, ...], Meta(max_length=SYNC_ITEMS_MAX + 1)] = ()
    consistency: Annotated[tuple[WireHash, ...], Meta(max_length=PATH_HASHES_MAX + 1)] = ()
    statements: Annotated[tuple[Receipt, ...], Meta(max_length=16)] = ()
    # ^ generation statements since the agent's generation, oldest first: leaf 0 of each

    def receipt(self, number: int) -> Receipt:
        """Proof `number` as a receipt of its own."""
        proof = self.proofs[number]
        return Receipt(
            leaf=proof.leaf, index=proof.index, path=proof.path, checkpoint=self.checkpoint
        )


def verify_receipt(receipt: Receipt, vkey: str | LogKey, agent: PrincipalId) -> BatchLeaf:
    """The batch leaf that this receipt proves for this agent.

    Raises VerifyError (note, path, kind or agent), DecodeError.
    """
    checkpoint = verify_note(receipt.checkpoint, vkey)
    return agent_leaf(verify_leaf(receipt, checkpoint), agent)


def verify_leaf(proof: LeafProof | Receipt, checkpoint: Checkpoint) -> Leaf:
    """The leaf that stands at the proof's index under a verified checkpoint."""
    verify_inclusion(
        leaf_hash(proof.leaf), proof.index, checkpoint.size, proof.path, checkpoint.root
    )
    return parse_leaf(proof.leaf)


def agent_leaf(leaf: Leaf, agent: PrincipalId) -> BatchLeaf:
    """The leaf, if it is a batch of this agent. Raises VerifyError."""
    if not isinstance(leaf, BatchLeaf):
        raise VerifyError(Code.PROOF_INVALID, field="leaf kind", value=leaf.kind, expected="batch")
    if leaf.agent != agent:
        raise VerifyError(Code.WRONG_AGENT, field="leaf agent", value=leaf.agent)
    return leaf


def verify_continues(new: Checkpoint, old: Checkpoint, path: Sequence[bytes]) -> None:
    """Check that a verified checkpoint continues an older one of the same generation.

    Raises VerifyError: TREE_SMALLER if it goes back, CONSISTENCY_INVALID if history was rewritten.
    """
    if new.origin != old.origin:
        raise VerifyError(Code.GENERATION_UNKNOWN, field="origin", value=new.origin)
    if new.size < old.size:
        raise VerifyError(Code.TREE_SMALLER, field="size", value=new.size, expected=f"≥ {old.size}")
    if old.size:
        verify_consistency(old.size, new.size, path, old.root, new.root)
