"""One signed object, one leaf: what changes who may do what goes on record here.

Enrolments, principals and an operator's decisions take this way; batches of agents take that of
`ingest`. Both hold the ledger's head last in their transaction, and sign after COMMIT.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from hub.last_checkpoint import LastCheckpoint
from hub.ledger import Appended, Ledger
from hub.store import leaves, objects
from hub.store.engine import Store, Tx
from hub.store.leaves import HeadRow
from hub.store.objects import ObjectRow
from protocol.envelope import Envelope
from protocol.errors import Code, RefusedError
from protocol.leaf import event_leaf

T = TypeVar("T")


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """Where an object stands in the ledger; counts once its transaction has committed."""

    generation: int
    index: int
    appended: Appended | None = None  #: None if it was there before


class LeafProof(msgspec.Struct, frozen=True, kw_only=True):
    """A leaf and its way to a signed checkpoint."""

    index: int
    leaf: bytes
    path: list[bytes]
    checkpoint: str


class Recorder:
    """Writes single objects to the ledger and proves them."""

    def __init__(self, store: Store, ledger: Ledger, last: LastCheckpoint) -> None:
        self._store = store
        self._ledger = ledger
        self._last = last

    def append(
        self, tx: Tx, kind: str, envelope: Envelope, *, signer: bytes, now_us: int
    ) -> Recorded:
        """Keep an object and append its leaf: the last step of a transaction.

        kind: of the leaf, e.g. `enrolment`. Raises IntegrityError for an object that is known.
        """
        head = self._ledger.lock(tx)
        objects.add(
            tx,
            [
                ObjectRow(
                    id=envelope.object_id,
                    kind=envelope.kind,
                    signer=signer,
                    record_hash=envelope.record_hash,
                    raw=envelope.raw,
                    generation=head.generation,
                    leaf=head.size,
                    accepted_us=now_us,
                )
            ],
        )
        data = event_leaf(kind, envelope.object_id, envelope.record_hash, now_us)
        appended = self._ledger.append(tx, [data], head=head)
        return Recorded(generation=head.generation, index=head.size, appended=appended)

    def find(self, tx: Tx, object_id: bytes) -> Recorded:
        """Where a known object stands. Raises RefusedError NOT_FOUND."""
        row = objects.get(tx, object_id)
        if row is None:
            raise RefusedError(Code.NOT_FOUND, field="object", expected="a recorded object")
        return Recorded(generation=row.generation, index=row.leaf)

    async def commit(
        self, name: str, step: Callable[[Tx], tuple[Recorded, T]]
    ) -> tuple[Recorded, T]:
        """Run a use case's one transaction; `name` names its audit points."""
        recorded, value = await self._store.write(name, step)
        if recorded.appended is not None:
            self._ledger.committed(recorded.appended)
        return recorded, value

    async def prove(self, recorded: Recorded) -> LeafProof:
        """Prove a committed leaf under the newest checkpoint of its generation."""

        def steps() -> LeafProof:
            head = self._committed_head(recorded.generation)
            assert head is not None
            found = self._store.read_committed(
                lambda tx: self._ledger.inclusion(
                    tx, recorded.generation, [recorded.index], head.size
                )[recorded.index]
            )
            return LeafProof(
                index=found.index,
                leaf=found.leaf,
                path=found.path,
                checkpoint=self._note(head),
            )

        return await self._store.on_writer(steps)

    async def checkpoint(self, generation: int) -> str | None:
        """The newest checkpoint of a generation as a signed note; None for an unknown one."""

        def steps() -> str | None:
            head = self._committed_head(generation)
            return None if head is None else self._note(head)

        return await self._store.on_writer(steps)

    def vkey(self, generation: int) -> str:
        """The verifier key of a generation's checkpoints."""
        return self._ledger.vkey(generation)

    def _committed_head(self, generation: int) -> HeadRow | None:
        return self._store.read_committed(lambda tx: leaves.head(tx, generation))

    def _note(self, head: HeadRow) -> str:
        """Sign a committed head; a live one is noted outside the database before it leaves."""
        note = self._ledger.sign(head)
        if head.live:
            self._last.write(note)
        return note
