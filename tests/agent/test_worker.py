"""The worker thread: order, errors, what was cancelled, the end."""

import asyncio
import threading

import pytest

from agent.store.worker import Worker


@pytest.fixture
def worker():
    made = Worker("w")
    yield made
    made.close()


async def test_functions_run_in_order_on_one_thread_of_that_name(worker):
    seen = []

    def note(n):
        seen.append((n, threading.current_thread().name))
        return n

    assert await asyncio.gather(*(worker.run(note, n) for n in range(20))) == list(range(20))
    assert seen == [(n, "w") for n in range(20)]


async def test_what_it_raises_is_raised_where_it_is_awaited(worker):
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 / 0)
    assert await worker.run(lambda: "goes on") == "goes on"


async def test_a_call_that_was_cancelled_before_it_began_is_not_made(worker):
    gate, calls = threading.Event(), []
    first = worker.run(gate.wait)
    second = worker.run(calls.append, "second")
    third = worker.run(calls.append, "third")
    second.cancel()
    gate.set()
    await first
    await third
    assert calls == ["third"]


async def test_close_waits_for_what_was_queued():
    worker, done = Worker("w"), []
    future = worker.run(done.append, 1)
    worker.close()
    assert done == [1]
    await future
