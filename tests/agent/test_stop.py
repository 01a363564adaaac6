"""SIGTERM counts from its arrival, also in a start that takes long."""

import asyncio
import os
import signal
from types import SimpleNamespace

import pytest

from agent import service
from agent.host.faults import Exit, Fault
from agent.host.notify import Notifier


async def test_sigterm_in_a_long_repair_bounds_the_stop_from_then_on(tmp_path, monkeypatch):
    forced = []
    bounded = asyncio.Event()

    def end_by_force_after(seconds):
        forced.append(seconds)
        bounded.set()

    async def repair(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await bounded.wait()
        raise Fault(Exit.DISK, "storage", folder=tmp_path, reason="the test's end")

    monkeypatch.setattr(service, "_end_by_force_after", end_by_force_after)
    monkeypatch.setattr(service, "put_together", repair)
    loop = asyncio.get_running_loop()
    try:
        with pytest.raises(Fault) as raised:
            await service.run(SimpleNamespace(folder=tmp_path), Notifier({}))
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    assert raised.value.fields["reason"] == "the test's end"
    assert forced == [service.STOP_S]
