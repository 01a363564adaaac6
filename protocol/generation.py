"""Generations: a hub that was restored from a backup opens a new ledger and has to say so.

Leaf 0 of the new ledger is the generation statement: origin, size and root of the one before, as
the backup had it. Without it, or with one that contradicts what the agent verified, nothing of the
new ledger is believed. The log's key stays; its name is the origin, so its verifier key changes.
"""

from msgspec import Struct
from msgspec.structs import replace

from protocol.checkpoint import (
    Checkpoint,
    LogKey,
    generation_of,
    parse_note,
    same_log,
    verify_note,
)
from protocol.errors import Code, VerifyError
from protocol.ids import PrincipalId
from protocol.leaf import GenerationLeaf
from protocol.merkle import verify_consistency
from protocol.receipt import Proofs, Receipt, verify_leaf


class HubIdentity(Struct, frozen=True, kw_only=True):
    """What an agent learnt of its hub at enrolment, and believes from then on."""

    hub: PrincipalId
    signing_public: bytes  # of the hub's envelopes
    log_vkey: str  # verifier key of the ledger's present generation
    generation: int


class LedgerError(VerifyError):
    """The ledger went back or was rewritten: both notes are evidence, for the alarm file."""

    def __init__(self, cause: VerifyError, old: str, new: str) -> None:
        super().__init__(cause.code, field=cause.field, expected=cause.expected)
        self.old = old  # signed notes
        self.new = new


def next_generation(
    hub: HubIdentity, last: Checkpoint | None, generation: int, receipt: Proofs
) -> HubIdentity:
    """Follow the statements from what the agent knows to what the hub says it is.

    Each is leaf 0 of its generation, names the one before, and is signed by the same log key.
    The first may follow an older generation than the agent's: a backup put back a second time
    knows nothing of the restore between, and states that loss. No number goes back.
    Raises VerifyError; LedgerError if a statement contradicts the last verified checkpoint.
    """
    known = LogKey.parse(hub.log_vkey)
    origin, number = known.name, hub.generation
    first: GenerationLeaf | None = None
    for statement in receipt.statements:
        if parse_note(statement.checkpoint).generation <= hub.generation:
            continue  # the hub could not know what this agent knows
        leaf, origin, number = _statement(statement, known, origin, number, is_first=first is None)
        first = first or leaf
    ends = receipt.statements and receipt.statements[-1].checkpoint == receipt.checkpoint
    if first is None or not ends or number != generation:
        raise VerifyError(Code.GENERATION_UNKNOWN, field="generation", value=generation)
    # A backup older than the last checkpoint can prove nothing: that is the loss it states.
    follows = first.previous_origin == known.name
    if follows and last is not None and last.size and last.size <= first.size:
        try:
            verify_consistency(last.size, first.size, receipt.consistency, last.root, first.root)
        except VerifyError as error:
            raise LedgerError(error, last.text, receipt.checkpoint) from error
    return replace(hub, generation=number, log_vkey=LogKey(origin, known.public).text)


def _statement(
    statement: Receipt, known: LogKey, origin: str, number: int, *, is_first: bool
) -> tuple[GenerationLeaf, str, int]:
    said = parse_note(statement.checkpoint)
    if not same_log(said.origin, origin) or said.generation <= number:
        raise VerifyError(Code.GENERATION_UNKNOWN, field="origin", value=said.origin)
    checkpoint = verify_note(statement.checkpoint, LogKey(said.origin, known.public))
    leaf = verify_leaf(statement, checkpoint)
    if not isinstance(leaf, GenerationLeaf) or statement.index:
        raise VerifyError(Code.GENERATION_UNKNOWN, field="statement", value=statement.index)
    older = is_first and same_log(leaf.previous_origin, origin)
    if leaf.previous_origin != origin and not (
        older and generation_of(leaf.previous_origin) < number
    ):
        raise VerifyError(Code.GENERATION_UNKNOWN, field="statement", value=leaf.previous_origin)
    return leaf, said.origin, said.generation
