"""Lists for people: header, whether an agent is away, times one can read."""

import asyncio
from pathlib import Path

import pytest

from hub.commands import AgentList
from hub.lists import table
from tests.hub.shell import Gateway, serving

ROW = {"agent": "abcd", "away": True, "seen_us": 1_795_262_400_123_456, "name": "东门\x1b[2J"}
COLUMNS = ("agent", "away", "seen_us", "name")


def test_a_list_has_a_header_words_and_times() -> None:
    lines = table([ROW, ROW | {"away": False, "seen_us": 0}, {"agent": "x"}], COLUMNS, "en")
    assert lines == [
        "AGENT  AWAY  LAST BATCH            NAME",
        "abcd   yes   2026-11-21T12:00:00Z  东门�[2J",
        "abcd   no    never                 东门�[2J",
        "x      ?     never",
    ]
    assert table([ROW], COLUMNS, "zh")[0].split() == ["采集代理", "失联", "最近批次", "名称"]
    assert table([ROW], COLUMNS, "zh")[1].split()[1] == "是"


@pytest.mark.parametrize("polls", [True, False])
async def test_an_agent_without_a_poll_is_listed_as_away(tmp_path: Path, polls: bool) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        if polls:
            shell.parts.bells.heard(gateway.id, asyncio.get_running_loop().time())
        else:
            shell.parts.bells._began_s -= 15
        answer = await shell.do(AgentList(site=""))
        line = table(answer["agents"], ("state", "away", "seen_us"), "en")[1].split()
    assert line[:2] == ["active", "no" if polls else "yes"]
