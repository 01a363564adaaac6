"""Remembered identities: against a plain set, through restarts, within their bounds."""

import sqlite3

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.intake.seen import KEY_BYTES, Seen, Table
from agent.store import schema
from protocol.times import ClockSource
from tests.agent.kit import DAY_US, NOW_US, FakeClock, Site

HOUR_US = 3_600_000_000


def fresh() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in schema.TABLES:
        connection.execute(statement)
    return connection


def key(number: int) -> bytes:
    import hashlib

    return hashlib.blake2b(b"%d" % number, digest_size=KEY_BYTES).digest()


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 60), min_size=1, max_size=8, unique=True),
            st.just("restart"),
            st.just("lost commit"),
        ),
        max_size=40,
    )
)
def test_like_a_set_as_long_as_the_bounds_hold(steps):
    connection = fresh()
    seen = Seen(age_us=HOUR_US, count_max=10_000)
    model: set[int] = set()
    at_us = 0
    for step in steps:
        at_us += 1000
        if step == "restart":
            seen = Seen(age_us=HOUR_US, count_max=10_000)
            seen.load(connection, trusted_us=at_us, monotonic_us=at_us)
        elif step == "lost commit":
            connection.execute("BEGIN")
            seen.write(connection, [key(10**6 + at_us)], at_us)
            connection.execute("ROLLBACK")
        else:
            new = [number for number in step if key(number) not in seen]
            assert set(new) == set(step) - model
            if new:
                keys = [key(number) for number in new]
                seen.move(keys, seen.write(connection, keys, at_us), at_us)
            model |= set(new)
    assert all(key(number) in seen for number in model)
    assert key(999) not in seen
    connection.close()


def test_bounded_by_count():
    connection = fresh()
    seen = Seen(age_us=HOUR_US, count_max=2000)
    for start in range(0, 20_000, 10):
        keys = [key(n) for n in range(start, start + 10)]
        seen.move(keys, seen.write(connection, keys, start), start)
    assert seen._young.count + seen._old.count <= 2 * 2000
    assert all(key(n) in seen for n in range(18_000, 20_000))
    (rows,) = connection.execute("SELECT count(*) FROM seen").fetchone()
    assert rows <= 2 * 2000 // 10 + 200
    connection.close()


def test_just_above_a_turn_the_newest_are_all_remembered():
    seen = Seen(age_us=HOUR_US, count_max=2000)
    for number in range(2001):
        seen.move([key(number)], number + 1, 0)
    assert all(key(number) in seen for number in range(1, 2001))


def test_what_was_read_shortly_before_a_turn_keeps_its_whole_age():
    seen = Seen(age_us=HOUR_US, count_max=2000)
    for number, minute in enumerate((0, 29, 31, 59, 61, 88)):
        seen.move([key(number)], number + 1, minute * 60_000_000)
    assert all(key(number) in seen for number in range(1, 6))


def test_bounded_by_age():
    connection = fresh()
    seen = Seen(age_us=HOUR_US, count_max=10_000)
    seen.move([key(1)], seen.write(connection, [key(1)], 0), 0)
    for n in range(2, 6):
        at_us = n * HOUR_US
        seen.move([key(n)], seen.write(connection, [key(n)], at_us), at_us)
    assert key(1) not in seen
    again = Seen(age_us=HOUR_US, count_max=10_000)
    again.load(connection, trusted_us=5 * HOUR_US, monotonic_us=0)
    assert key(5) in again
    assert key(2) not in again
    connection.close()


def test_age_counts_only_between_times_of_a_trusted_clock():
    connection = fresh()
    seen = Seen(age_us=HOUR_US, count_max=10_000)
    for number, trusted_us in ((1, 9 * HOUR_US), (2, None), (3, 5 * HOUR_US), (4, 9 * HOUR_US)):
        seen.write(connection, [key(number)], trusted_us)
    again = Seen(age_us=HOUR_US, count_max=10_000)
    again.load(connection, trusted_us=9 * HOUR_US, monotonic_us=0)
    assert [number for number in range(1, 5) if key(number) in again] == [1, 2, 4]
    unsure = Seen(age_us=HOUR_US, count_max=10_000)
    unsure.load(connection, trusted_us=None, monotonic_us=0)
    assert all(key(number) in unsure for number in range(1, 5))
    connection.close()


async def test_a_boot_in_1970_and_the_right_one_after_it(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1, identity=b"one")
        await site.drain()
    site.clock = FakeClock(wall_us=60_000_000, source=ClockSource.NONE)
    site.boot = b"boot-id-16-byte2"
    async with site.running():
        await site.give(2, identity=b"two")  # committed; its PUBACK is lost with the power
    site.clock = FakeClock(wall_us=NOW_US + HOUR_US, boot_us=4_000_000)
    site.boot = b"boot-id-16-byte3"
    async with site.running():
        await site.give(2, identity=b"two")
        await site.give(1, identity=b"one")
        await site.drain()
    assert site.hub.numbers() == [1, 2]


async def test_a_boot_eight_days_ahead(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1, identity=b"one")
        await site.drain()
    site.clock = FakeClock(wall_us=NOW_US + 8 * DAY_US, source=ClockSource.NONE)
    site.boot = b"boot-id-16-byte2"
    async with site.running():
        await site.give(1, identity=b"one")
        await site.drain()
    assert site.hub.numbers() == [1]


async def test_a_clock_that_is_set_while_running_forgets_nothing(tmp_path):
    site = Site(tmp_path)
    site.clock = FakeClock(wall_us=60_000_000, source=ClockSource.NONE)
    async with site.running():
        for number in (1, 2, 3, 1, 2):
            await site.give(number, identity=b"%d" % number)
            site.clock.wall_us += 20 * 365 * DAY_US
        await site.drain()
    assert site.hub.numbers() == [1, 2, 3]


@given(st.sets(st.integers(1, 2**64 - 1), max_size=300))
def test_table_holds_what_was_added(numbers):
    table = Table()
    table.add(numbers)
    assert table.count == len(numbers)
    assert all(number in table for number in numbers)
    assert 2**64 - 1 in table or 2**64 - 1 not in numbers


async def test_no_walk_through_the_spool(tmp_path):
    """What is asked every second or at each batch goes by an index, however full the spool is."""
    from agent.keeping import _evictable
    from agent.seal.batch import next_batch

    connection = fresh()
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    next_batch(connection, 10, 10, [b"held"], bytes(32))
    _evictable(connection, 0, 0, pressed=False, limit=1)
    connection.set_trace_callback(None)
    assert len(asked) == 4
    for sql in asked:
        plan = " ".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql))
        assert any(
            f"USING INDEX {name}" in plan or f"USING COVERING INDEX {name}" in plan
            for name in ("body_due", "body_grace", "outbox_due")
        ), plan
    connection.close()
