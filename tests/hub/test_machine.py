"""Agents do as they like, the hub is killed and restored: a small model says what must be there."""

import asyncio
import contextlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hub.maintenance import begin_generation, check_start
from hub.store import audit
from protocol.leaf import State
from protocol.messages import SegmentItem
from protocol.segment import Segment
from tests.hub.kit import BY, Agent, HubCore, Killed, Source, head, item, kill_at, verdicts
from tests.hub.test_durability import POINTS, check_whole


@dataclass
class Chain:
    """What the model believes the hub has of one resource's present stream."""

    source: Source
    accepted: list[tuple[Segment, State]] = field(default_factory=list)
    older: list[tuple[Segment, State]] = field(default_factory=list)  # of streams before
    streams: int = 1

    def everything(self) -> list[tuple[Segment, State]]:
        return self.older + self.accepted


class HubMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.generation = 1
        self.hub: HubCore | None = None
        self.start()
        self.chains: list[Chain] = []
        for name in ("a", "b"):
            agent = Agent(name)
            self.run(agent.enrol(self.hub))
            for local in ("bays", "gates"):
                source = agent.resource(local)
                outcome = self.run(agent.send(self.hub, source.registration))
                assert verdicts(outcome) == ["Accepted"]
                self.chains.append(Chain(source))

    def run(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    def start(self) -> None:
        async def go() -> None:
            self.hub = HubCore(self.folder)
            await self.hub.open()
            await self.hub.store.read(check_start, self.hub.ledger, self.hub.last.read())
            self.task = asyncio.ensure_future(self.hub.ingest.run())

        self.run(go())

    def stop(self) -> None:
        async def go() -> None:
            self.hub.ingest.stop()
            with contextlib.suppress(Killed):
                await self.task
            await self.hub.close()

        self.run(go())

    def teardown(self) -> None:
        try:
            self.run(check_whole(self.hub))
            for chain in self.chains:
                rows = self.run(self.hub.reading.segments_of(chain.source.id))
                have = {row.id: row.state for row in rows}
                assert have == {one.id: state for one, state in chain.everything()}
                for one, state in chain.everything():
                    if state is State.BODY:
                        assert self.run(self.hub.reading.segment(one.id)) == one.raw
            assert self.run(self.hub.store.read(audit.verify)) is None
        finally:
            self.stop()
            self.loop.close()
            shutil.rmtree(self.folder)

    def send(self, chain: Chain, *sent):
        return self.run(chain.source.agent.send(self.hub, *sent))

    which = st.integers(0, 3)

    @rule(n=which, count=st.integers(1, 4), body=st.booleans())
    def append(self, n: int, count: int, body: bool) -> None:
        chain = self.chains[n]
        sealed = chain.source.many(count)
        outcome = self.send(chain, *(item(one) if body else head(one) for one in sealed))
        state = State.BODY if body else State.HEADER
        assert [one.state for one in outcome.items] == [state] * count
        chain.accepted += [(one, state) for one in sealed]

    @rule(n=which, data=st.data())
    def send_again(self, n: int, data) -> None:
        chain = self.chains[n]
        if not chain.everything():
            return
        at = data.draw(st.integers(0, len(chain.everything()) - 1))
        one, state = chain.everything()[at]
        outcome = self.send(chain, head(one))
        assert outcome.items[0].accepted
        assert outcome.items[0].state is state

    @rule(n=which, data=st.data())
    def complete(self, n: int, data) -> None:
        chain = self.chains[n]
        for some in (chain.older, chain.accepted):
            waiting = [at for at, (_one, state) in enumerate(some) if state is State.HEADER]
            if waiting:
                at = data.draw(st.sampled_from(waiting))
                outcome = self.send(chain, item(some[at][0]))
                assert outcome.items[0].state is State.BODY
                some[at] = (some[at][0], State.BODY)
                return

    @rule(n=which)
    def leave_a_gap(self, n: int) -> None:
        source = self.chains[n].source
        far = source.sealed(seq=source.seq + 2, prev=b"\x07" * 32)
        outcome = self.send(self.chains[n], item(far))
        assert verdicts(outcome) == ["Missing"]
        assert outcome.items[0].verdict.have == (source.seq - 1 if source.seq else None)

    @rule(n=which, data=st.data())
    def fork(self, n: int, data) -> None:
        chain = self.chains[n]
        if not chain.accepted:
            return
        at = data.draw(st.integers(0, len(chain.accepted) - 1))
        old = chain.accepted[at][0]
        other = chain.source.sealed(
            seq=old.header.seq, prev=old.header.prev, value=99,
            rows=((b"run-fork", 0, 2),), continues=old.header.continues,
        )  # fmt: skip
        outcome = self.send(chain, item(other))
        assert verdicts(outcome) == ["Fork"]
        shown = [(one.id, one.state) for one in outcome.items[0].evidence]
        assert shown == [(one.id, state) for one, state in chain.accepted[at:]]

    @rule(n=which, data=st.data())
    def overlap(self, n: int, data) -> None:
        chain = self.chains[n]
        if not chain.everything():
            return
        one, state = data.draw(st.sampled_from(chain.everything()))
        run, first, _last = one.header.rows[0]
        outcome = self.send(chain, item(chain.source.sealed(rows=((run, first, first),))))
        assert verdicts(outcome) == ["Overlap"]
        assert [(e.id, e.state) for e in outcome.items[0].evidence] == [(one.id, state)]

    @rule(n=which)
    def damaged_body(self, n: int) -> None:
        chain = self.chains[n]
        one = chain.source.sealed()
        torn = SegmentItem(one.raw[:-1] + bytes([one.raw[-1] ^ 1]))
        assert verdicts(self.send(chain, torn)) == ["Refused"]

    @rule(n=which)
    def new_stream(self, n: int) -> None:
        chain = self.chains[n]
        source = chain.source
        if not chain.accepted:
            return
        chain.streams += 1
        said = source.follow(bytes([chain.streams]) * 16)
        outcome = self.send(chain, item(source.seal(continues=said)))
        assert verdicts(outcome) == ["Accepted"]
        chain.older += chain.accepted
        # What was just accepted is read back from the source's own head.
        rows = self.run(self.hub.reading.segments_of(source.id, after=0))
        newest = max(rows, key=lambda row: row.change)
        assert newest.id == source.prev
        raw = self.run(self.hub.reading.segment(newest.id))
        from protocol.segment import parse

        made = parse(raw).verify(source.agent.signing.public)
        chain.accepted = [(made, State.BODY)]

    @rule(n=which, name=st.sampled_from(POINTS))
    def killed(self, n: int, name: str) -> None:
        """Whatever the point: after the restart the same batch is proven, once."""
        chain = self.chains[n]
        sealed = chain.source.many(2)
        with kill_at(name), contextlib.suppress(Killed):
            self.send(chain, *map(item, sealed))  # not passed if the pack is there already
        self.stop()
        self.start()
        outcome = self.send(chain, *map(item, sealed))
        assert [one.state for one in outcome.items] == [State.BODY] * 2
        chain.accepted += [(one, State.BODY) for one in sealed]

    @precondition(lambda self: self.generation < 4)
    @rule()
    def restored(self) -> None:
        """The operator opens a new generation: what agents ask about is proven in it."""
        self.run(
            begin_generation(
                self.hub.store,
                self.hub.bodies,
                self.hub.ledger,
                self.hub.last.read(),
                by=BY,
                now_us=self.hub.now,
            )  # fmt: skip
        )
        self.generation += 1

    @invariant()
    def one_leaf_names_what_stands_there(self) -> None:
        assert self.run(self.hub.generation()) == self.generation


HubMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestHubMachine = HubMachine.TestCase
