"""From a batch to its answer: many requests, one pack, one transaction, one checkpoint.

    submit ─▶ queue ─▶ [ verify ─▶ pack: write, fsync, rename, fsync folder ]   one thread
                              │ (the next group is verified while this one commits)
                              ▼
              [ BEGIN ─▶ nonces, accept ─▶ COMMIT ─▶ checkpoint ─▶ answers ]     the writer's thread

A group is everything that arrived while the group before it was under way (≤ 256 segments or
8 MiB); there is no timer. At each arrow a kill loses nothing that was answered: bodies are durable
before the rows that name them, rows before the checkpoint, the checkpoint before the answer.
"""

import asyncio
import itertools
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import IntegrityError

from hub.accept import Accept, ConflictError, Done, Packed
from hub.answers import Answers, Committed
from hub.domain.agents import AgentState
from hub.domain.outcomes import Later, Outcome
from hub.judge import Work
from hub.last_checkpoint import LastCheckpoint
from hub.ledger import Ledger
from hub.store import agents, audit, inbox, leaves, meta, nonces, segments
from hub.store.agents import AgentRow
from hub.store.bodies import Bodies
from hub.store.engine import Store, Tx, point
from hub.store.nonces import RequestNonce
from hub.verify import Checked, CheckedSegment, check
from protocol import ids, messages
from protocol.envelope import Envelope, SigningKey, make
from protocol.errors import Code, UnavailableError, VerifyError
from protocol.messages import Answer, Batch

GROUP_SEGMENTS: Final = 256
GROUP_BYTES: Final = 8 * 1024 * 1024
INBOX_BYTES: Final = 1024 * 1024  # of inbox messages in one answer; one has at most a quarter
WAITING_S: Final = 60  # what an agent that waits for approval is told
SUSPENDED_S: Final = 3600
SEEN_EVERY_US: Final = 60_000_000  # how stale an agent's "last seen" may be: a row a batch is dear
BACKED_UP_KEY: Final = "backed_up_to"


@dataclass(slots=True)
class _Request:
    batch: Batch
    agent: AgentRow
    nonce: RequestNonce
    body_sha256: bytes
    answer: "asyncio.Future[bytes]"
    bytes: int
    checked: list[Checked]


class Ingest:
    """Takes batches of agents; `run` must be running for `submit` to return."""

    def __init__(
        self,
        *,
        store: Store,
        bodies: Bodies,
        ledger: Ledger,
        key: SigningKey,
        last: LastCheckpoint,
        now_us: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        """key: the hub's envelope key. now_us: hub time, µs UTC. random: n fresh random bytes."""
        self._store = store
        self._bodies = bodies
        self._ledger = ledger
        self._key = key
        self._last = last
        self._now_us = now_us
        self._random = random
        self._queue: deque[_Request] = deque()
        self._wake = asyncio.Event()
        self._checker = ThreadPoolExecutor(1, "ingest-verify")
        self._stopping = False
        #: Told on the loop what a group brought, once it is durable and answered.
        self.accepted: Callable[[Sequence[CheckedSegment]], None] = lambda _: None
        self._under_way: dict[bytes, _Request] = {}  # by agent: queued, or in a group
        store.on_rollback.append(ledger.forget)

    @property
    def waiting(self) -> int:
        """Requests in the queue, for metrics."""
        return len(self._queue)

    async def submit(
        self, batch: Batch, agent: AgentRow, nonce: RequestNonce, body_sha256: bytes
    ) -> bytes:
        """Take one batch; returns the signed answer once all of it is durable.

        batch: decoded from a body whose signature and digest were verified. body_sha256: of that
        body, which the answer names. nonce: the request's, used up in the same transaction.
        Raises VerifyError (REPLAYED nonce, WRONG_AGENT), UnavailableError (RATE_LIMITED while
        another batch of the agent is under way, STOPPING, DISK_FULL, STORAGE_UNKNOWN): then
        nothing of the batch was answered, and the agent sends it again.
        """
        if self._stopping:
            raise UnavailableError(Code.STOPPING)
        if batch.agent != agent.id:
            raise VerifyError(Code.WRONG_AGENT, field="agent", value=batch.agent)
        if agent.id in self._under_way:
            raise UnavailableError(Code.RATE_LIMITED, expected="one batch in flight")
        request = _Request(
            batch=batch,
            agent=agent,
            nonce=nonce,
            body_sha256=body_sha256,
            answer=asyncio.get_running_loop().create_future(),
            bytes=sum(_size(item) for item in batch.items),
            checked=[],
        )
        self._under_way[agent.id] = request
        self._queue.append(request)
        self._wake.set()
        try:
            return await request.answer
        finally:
            del self._under_way[agent.id]

    async def run(self) -> None:
        """Form groups and answer them until `stop`; what was queued then is still answered."""
        loop = asyncio.get_running_loop()
        writing: asyncio.Task[None] | None = None
        try:
            while self._queue or not self._stopping:
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                group = self._take()
                packed = await self._prepared(loop, group)
                if writing is not None:
                    await writing
                    writing = None
                if packed is not None:
                    writing = asyncio.create_task(self._finish(group, packed), name="ingest-group")
                if not self._queue and writing is not None:
                    await writing
                    writing = None
        finally:
            self._stopping = True
            try:
                if writing is not None:
                    await writing
            finally:
                why = sys.exception() or UnavailableError(Code.STOPPING)
                for request in self._under_way.values():
                    _fail(request, why)  # nobody waits for what will not come
                self._queue.clear()

    def stop(self) -> None:
        """Take nothing more; `run` returns when the queue is answered."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """End the verifying thread, after `run` has returned."""
        self._checker.shutdown(wait=True)

    # --- before the lock -------------------------------------------------------------------------

    def _take(self) -> list[_Request]:
        group: list[_Request] = []
        count = size = 0
        while self._queue:
            one = self._queue[0]
            count += len(one.batch.items)
            size += one.bytes
            if group and (count > GROUP_SEGMENTS or size > GROUP_BYTES):
                break
            group.append(self._queue.popleft())
        return group

    async def _prepared(
        self, loop: asyncio.AbstractEventLoop, group: list[_Request]
    ) -> Packed | None:
        try:
            return await loop.run_in_executor(self._checker, self._prepare, group)
        except UnavailableError as error:
            for request in group:
                _fail(request, error)
            return None

    def _prepare(self, group: list[_Request]) -> Packed:
        """Verify everything, then make the bodies durable: one pack for the whole group."""
        for request in group:
            request.checked = [check(item, request.agent) for item in request.batch.items]
        found: dict[bytes, memoryview] = {}
        for request in group:
            if request.agent.state is AgentState.ACTIVE:
                for item in request.checked:
                    if isinstance(item, CheckedSegment) and item.body and item.flaw is None:
                        found.setdefault(item.id, item.body)
        lost = self._forget_known(found) if found else frozenset()
        if not found:
            return Packed(None, {})
        written = self._bodies.write(list(found.values()))
        places = zip(found.items(), written.offsets, strict=True)
        return Packed(written, {item: (at, len(body)) for (item, body), at in places}, lost)

    def _forget_known(self, found: dict[bytes, memoryview]) -> frozenset[bytes]:
        """Take out bodies that are durable here; returns those that should be and are not."""
        known = self._store.read_now(lambda tx: segments.bodies_of(tx, found))
        sizes = {name: self._bodies.size_of(name) for name, _size in known.values()}
        lost = frozenset(one for one, (name, size) in known.items() if sizes[name] != size)
        for one in known.keys() - lost:
            del found[one]
        return lost

    # --- under the lock, and after it ------------------------------------------------------------

    async def _finish(self, group: list[_Request], packed: Packed) -> None:
        try:
            answers, done = await self._store.on_writer(lambda: self._commit(group, packed))
        except UnavailableError as error:
            for request in group:
                _fail(request, error)
            return
        for request, answer in zip(group, answers, strict=True):
            if isinstance(answer, bytes):
                if not request.answer.done():
                    request.answer.set_result(answer)
            else:
                _fail(request, answer)
        self.accepted(
            [one for request in group for one in request.checked
             if isinstance(one, CheckedSegment) and one.id in done.leaves]
        )  # fmt: skip

    def _commit(
        self, group: list[_Request], packed: Packed
    ) -> tuple[list[bytes | VerifyError], Done]:
        now_us = self._now_us()
        try:
            replayed, done = self._transaction(group, packed, now_us, careful=False)
        except (ConflictError, IntegrityError):  # another process was faster somewhere
            replayed, done = self._transaction(group, packed, now_us, careful=True)
        for appended in done.appended:
            self._ledger.committed(appended)
        answers = self._store.read_committed(
            lambda tx: self._answer(tx, group, replayed, done, now_us)
        )
        return answers, done

    def _transaction(
        self, group: Sequence[_Request], packed: Packed, now_us: int, *, careful: bool
    ) -> tuple[set[int], Done]:
        return self._store.write_now(
            "accept", lambda tx: self._accept(tx, group, packed, now_us, careful=careful)
        )

    def _accept(
        self, tx: Tx, group: Sequence[_Request], packed: Packed, now_us: int, *, careful: bool
    ) -> tuple[set[int], Done]:
        fresh = _use_nonces(tx, group, now_us)
        live = [
            number
            for number in fresh
            if group[number].agent.state is AgentState.ACTIVE and group[number].checked
        ]
        accept = Accept(
            tx,
            ledger=self._ledger,
            bodies=self._bodies,
            packed=packed,
            now_us=now_us,
            decide=self._decide,
        )
        work: list[Work] = [(group[number].agent, group[number].checked) for number in live]
        done = accept.run(work, careful=careful) if work else Done([], {}, [])
        by_number = dict(zip(live, done.outcomes, strict=True))
        done.outcomes = [
            by_number.get(number) or _not_taken(request) for number, request in enumerate(group)
        ]
        for number in fresh:
            _note_seen(tx, group[number], now_us)
        return set(range(len(group))) - set(fresh), done

    def _decide(self, action: str, agent: bytes, reason: str, now_us: int) -> Envelope:
        """A `review` object as the operator's decisions make it, by the hub itself."""
        said = {
            "action": action,
            "subject": ids.show(agent),
            "reason": reason,
            "by": audit.HUB.who,
            "at": now_us,
            "nonce": self._random(16),
        }
        return make("review", said, self._key)

    def _answer(
        self, tx: Tx, group: Sequence[_Request], replayed: set[int], done: Done, now_us: int
    ) -> list[bytes | VerifyError]:
        head = leaves.live(tx)
        assert head is not None
        checkpoint = self._ledger.sign(head)
        self._last.write(checkpoint)
        answers = Answers(
            tx, self._ledger, Committed(head=head, checkpoint=checkpoint, leaves=done.leaves)
        )
        backed_up_to = int(meta.get(tx, BACKED_UP_KEY) or 0)
        made: list[bytes | VerifyError] = []
        for number, request in enumerate(group):
            if number in replayed:
                made.append(VerifyError(Code.REPLAYED, field="nonce"))
                continue
            behind = self._ledger.ahead.judge(request.agent.id, request.batch.checkpoint, head)
            if behind is not None:
                made.append(behind)
                continue
            proofs, verdicts = answers.receipt_and_verdicts(
                request.agent, done.outcomes[number], request.batch.checkpoint
            )
            waiting = inbox.waiting(tx, request.agent.id, request.batch.inbox, now_us)
            answer = Answer(
                request=request.body_sha256,
                generation=head.generation,
                items=tuple(verdicts),
                receipt=proofs,
                inbox=_fitting([one.raw for one in waiting]),
                time=now_us,
                backed_up_to=backed_up_to,
                nonce=self._random(16),
            )
            made.append(make("answer", answer, self._key).raw)
            point("answer.ready")
        return made


def _use_nonces(tx: Tx, group: Sequence[_Request], now_us: int) -> list[int]:
    """Numbers of the requests whose nonce was new, in order; used up from now on."""
    seen = nonces.used(tx, [request.nonce for request in group])
    fresh: list[int] = []
    for number, request in enumerate(group):
        one = (request.nonce.key, request.nonce.nonce)
        if one not in seen:
            seen.add(one)
            fresh.append(number)
    nonces.insert_all(tx, [group[number].nonce for number in fresh], now_us)
    return fresh


def _not_taken(request: _Request) -> list[Outcome]:
    """An agent that waits or is suspended keeps everything: nothing is accepted or refused."""
    seconds = WAITING_S if request.agent.state is AgentState.WAITING else SUSPENDED_S
    return [Later(seconds) for _ in request.batch.items]


def _note_seen(tx: Tx, request: _Request, now_us: int) -> None:
    row, batch = request.agent, request.batch
    acknowledged = (row.inbox_generation, row.inbox_number)
    if (
        now_us - row.seen_us > SEEN_EVERY_US
        or batch.inbox != acknowledged
        or batch.software != row.software
    ):
        agents.seen(tx, row.id, now_us, batch.inbox, batch.software)


def _fitting(waiting: list[bytes]) -> tuple[bytes, ...]:
    """The first inbox messages that fit; the others come with the next answer or poll."""
    sizes = itertools.accumulate(map(len, waiting))
    pairs = zip(waiting, sizes, strict=True)
    return tuple(raw for raw, end in pairs if end <= INBOX_BYTES)


def _size(item: messages.Item) -> int:
    return 0 if isinstance(item, messages.EvidenceItem) else len(item.raw)


def _fail(request: _Request, error: BaseException) -> None:
    if not request.answer.done():
        request.answer.set_exception(error)
