"""A connection that is lost between two reads of a body is a lost link, and not the agent's end."""

import asyncio
from types import SimpleNamespace

import aiohttp
import pytest
from aiohttp.streams import StreamReader

from agent.link.hub_client import _pieces, _read


def lost_body() -> StreamReader:
    protocol = SimpleNamespace(connected=False)
    return StreamReader(protocol, 1 << 16, loop=asyncio.get_running_loop())


async def test_loss_before_the_next_piece_is_a_client_error() -> None:
    with pytest.raises(aiohttp.ClientConnectionError):
        await anext(_pieces(lost_body().iter_any()))


async def test_loss_within_an_answer_is_a_client_error() -> None:
    response = SimpleNamespace(content_length=None, content=lost_body())
    with pytest.raises(aiohttp.ClientConnectionError):
        await _read(response, 100)
