"""The demo's own parts must not lie: the reconciliation finds every kind of error, the link breaks as asked."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from devices.demo.beside import p99, waits_ms
from devices.demo.figures import Bar, Figures, bars, is_ok
from devices.demo.proxy import Link
from devices.demo.reconcile import Account, reconcile
from devices.demo.report import Station, tell
from devices.simulators.books import Content, Made
from protocol.times import show_time

T0 = 1_790_000_000_000_000


def made(
    key: str, number: int, *, promise: str = "A", acked: int = 1, device: str = "d", **values
) -> Made:
    return Made(key, "r", promise, device, [Content(T0 + number * 1000, values)], 1, acked)


def row(number: int, *, device: str = "d", quality=(), **values) -> dict:
    return {
        "event_time": show_time(T0 + number * 1000),
        "device": device,
        "quality": list(quality),
        **values,
    }


def account(*args) -> Account:
    return reconcile(*args, "r")


def findings(found: Account) -> tuple[int, int, int, int]:
    return found.lost, found.duplicated, found.altered, found.unknown


BOOK = [made("a", 1, state="free"), made("b", 2, state="occupied"), made("c", 3, state="free")]
ROWS = [row(1, state="free"), row(2, state="occupied"), row(3, state="free")]


def test_all_there_once_is_kept() -> None:
    found = account(BOOK, ROWS)
    assert findings(found) == (0, 0, 0, 0)
    assert found.kept
    assert (found.produced, found.acknowledged, found.read) == (3, 3, 3)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (ROWS[:2], (1, 0, 0, 0)),
        ([*ROWS, ROWS[0]], (0, 1, 0, 0)),
        ([*ROWS[:2], row(3, state="occupied")], (0, 0, 1, 0)),
        ([*ROWS[:2], row(4, state="free")], (1, 0, 0, 1)),
        ([*ROWS[:2], row(3, state="free", device="e")], (1, 0, 0, 1)),
        ([*ROWS[:2], row(3)], (0, 0, 1, 0)),
        # one lost and one twice: the counts agree, the identities do not
        ([ROWS[0], ROWS[0], ROWS[1]], (1, 1, 0, 0)),
    ],
)
def test_every_kind_of_error_is_found(rows: list, expected: tuple) -> None:
    found = account(BOOK, rows)
    assert findings(found) == expected
    assert not found.kept
    assert found.examples


def test_marked_copy_breaks_class_a_and_is_allowed_in_class_b() -> None:
    again = [*ROWS, row(1, state="free", quality=["maybe_repeat"])]
    assert findings(account(BOOK, again)) == (0, 1, 0, 0)
    book = [made(one.key, n, promise="B", **one.forms[0].values) for n, one in enumerate(BOOK, 1)]
    found = account(book, again)
    assert findings(found) == (0, 0, 0, 0)
    assert found.repeats_marked == 1
    assert findings(account(book, [*ROWS, ROWS[0]])) == (0, 1, 0, 0)


def test_what_was_never_acknowledged_may_be_missing() -> None:
    book = [*BOOK[:2], made("c", 3, acked=0, state="free")]
    assert account(book, ROWS[:2]).kept


def test_nothing_at_all_is_not_kept() -> None:
    assert not account([], []).kept
    assert not account(BOOK, []).kept


def test_either_form_of_one_observation_is_right_but_not_both() -> None:
    book = [
        Made(
            "a",
            "r",
            "A",
            "d",
            [Content(T0, {"rssi": -80}), Content(T0 + 1000, {"rssi": -90})],
            2,
            2,
        )
    ]
    assert account(book, [row(1, rssi=-90)]).kept
    assert findings(account(book, [row(1, rssi=-80)]))[2] == 1
    assert findings(account(book, [row(0, rssi=-80), row(1, rssi=-90)])) == (0, 1, 0, 0)


def test_pseudonyms_must_follow_the_tickets() -> None:
    book = [made(str(n), n, ticket_ref=ticket) for n, ticket in enumerate(["t1", "t2", "t1"])]
    right = [row(0, ticket_ref="aa"), row(1, ticket_ref="bb"), row(2, ticket_ref="aa")]
    assert account(book, right).kept
    assert account(book, [*right[:2], row(2, ticket_ref="cc")]).altered == 1
    assert account(book, [right[0], row(1, ticket_ref="aa"), right[2]]).altered == 1
    assert (
        account(book, [row(n, ticket_ref=t) for n, t in enumerate(["t1", "t2", "t1"])]).altered == 3
    )


def counted(number: int, total: int) -> Made:
    values = {"in_total": total % 100, "out_total": 0, "in_sum": total, "out_sum": 0}
    return made(str(number), number, promise="D", **values)


def passed(number: int, total: int, step: int) -> dict:
    return row(number, in_count=step, out_count=0, in_total_raw=total % 100, out_total_raw=0)


def test_class_d_totals_are_exact_though_reports_may_be_missing() -> None:
    book = [counted(0, 95), counted(1, 99), counted(2, 104), counted(3, 110)]
    assert account(book, [passed(0, 95, 0), passed(2, 104, 9), passed(3, 110, 6)]).kept
    lost = account(book, [passed(0, 95, 0), passed(3, 110, 6)])
    assert (lost.lost, lost.kept) == (9, False)
    twice = account(
        book, [passed(0, 95, 0), passed(1, 99, 4), passed(2, 104, 9), passed(3, 110, 6)]
    )
    assert (twice.duplicated, twice.kept) == (4, False)
    wrong = account(book, [passed(0, 95, 0), passed(3, 111, 15)])
    assert wrong.altered == 1


def silent_line() -> tuple[list[Made], dict]:
    """S is silent from 1 s to 9 s; O answers each 100 ms, and once 300 ms late, at 4.3 s."""
    late = {*range(41, 43)}
    made_ = [made(f"s{at}", at, device="S") for at in (0, 500, 1000, 9000, 9500)]
    made_ += [made(f"o{n}", n * 100, device="O") for n in range(100) if n not in late]
    return made_, {"silent": "S", "others": ["O"]}


def test_wait_beside_a_silent_unit_is_counted_from_the_answer_before() -> None:
    book, who = silent_line()
    rows = [row(at, device="O") for at in (510, 2005, 4310, 5010, 9610)]
    # Beside it, so not those at 0.51 s and 9.61 s; others' rows do not count.
    assert waits_ms(book, [*rows, row(3000, device="T")], killed_us=[], **who) == [105, 310, 110]


@pytest.mark.parametrize(("killed", "left"), [(4100, 2), (3500, 2), (2500, 3), (4311, 3)])
def test_wait_over_a_kill_of_the_agent_is_the_kills(killed: int, left: int) -> None:
    book, who = silent_line()
    rows = [row(at, device="O") for at in (2005, 4310, 6010)]
    found = waits_ms(book, rows, killed_us=[T0 + killed * 1000], **who)
    assert len(found) == left
    assert (310 in found) is (left == 3)


def test_nothing_was_silent_where_nothing_was_answered() -> None:
    assert waits_ms([], [row(1, device="O")], silent="S", others=["O"], killed_us=[]) == []
    assert p99([]) is None
    assert p99([float(n) for n in range(1, 101)]) == 99
    assert p99([1.0, 2.0]) == 2


def test_ok_is_computed_from_value_bar_and_direction() -> None:
    assert is_ok(3, Bar("", at_least=3))
    assert not is_ok(2.9, Bar("", at_least=3))
    assert is_ok(3, Bar("", at_most=3))
    assert not is_ok(3.1, Bar("", at_most=3))
    assert not is_ok(None, Bar("", at_most=3))
    assert not is_ok(float("nan"), Bar("", at_most=3))
    assert not is_ok(None, Bar(""))


def test_figure_that_is_missing_fails_the_run(tmp_path: Path) -> None:
    figures = Figures("demo", "demo")
    for name, bar in bars("demo").items():
        assert not figures.ok
        figures.add(name, bar.at_least if bar.at_least is not None else bar.at_most)
    assert figures.ok
    unmeasured = Figures("demo", "demo")
    (missing, *_) = [
        r for r in json.loads(unmeasured.write(tmp_path).read_text()) if r["name"] == "lost"
    ]
    assert (missing["value"], missing["ok"], missing["bar"]) == (None, False, "<= 0")
    assert missing["machine"]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait for the connection's end, whichever way it comes."""
    with contextlib.suppress(ConnectionError):
        assert await reader.read(1) == b""


async def test_link_forwards_is_cut_swallows_and_is_restored() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, asyncio.timeout(20), Link(server.sockets[0].getsockname()[1]) as link:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"

        await link.cut()
        await ended(reader)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", link.port)

        await link.restore()
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"two")
        assert await reader.readexactly(3) == b"two"

        await link.half_open()
        writer.write(b"gone")
        late_reader, late_writer = await asyncio.open_connection("127.0.0.1", link.port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await reader.read(1)
        late_writer.write(b"too")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await late_reader.read(1)
        assert link.swallowed == len(b"gone" + b"too")
        await link.restore()
        await ended(reader)
        late_writer.close()
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"three")
        assert await reader.readexactly(5) == b"three"
        writer.close()


def test_verdict_speaks_chinese_where_the_machine_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    good, bad = account(BOOK, ROWS), account(BOOK, ROWS[:2])
    tell([good, bad], {"r": Station(3, 3, 3)})
    said = capsys.readouterr().out
    assert "守诺 r：恰好一次" in said
    assert "违诺 r：恰好一次；各环节不一致" in said
