"""One thread that does one function after another, for a loop that waits for each result.

`ThreadPoolExecutor` with `run_in_executor` costs a lock, a semaphore and two chained futures a call
(measured: 90 µs, more than the commit of 64 records itself); here it is one queue and one future.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Call = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Worker:
    """`run` is for the loop's thread; functions run in the order in which they were given."""

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        # A daemon: a disk that hangs must not keep the process from ending (service.STOP_S).
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def run(self, fn: Callable[..., T], *args: object) -> "asyncio.Future[T]":
        """Queue `fn`; the future has what it returns or raises. Cancelled before it began, it is
        not called; what has begun is finished.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put((loop, future, fn, args))
        return future

    def close(self, *, wait: bool = True) -> None:
        """Let the thread end after what is queued; blocks until then unless told not to."""
        self._queue.put(None)
        if wait:
            self._thread.join()

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            loop, future, fn, args = call
            if future.cancelled():
                continue
            result: object = None
            failure: BaseException | None = None
            try:
                result = fn(*args)
            except BaseException as error:  # noqa: BLE001 - belongs to whoever awaits the future
                failure = error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, future, result, failure)
            del call, future, fn, args, result, failure  # hold nothing while waiting


def _settle(future: "asyncio.Future[Any]", result: object, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
