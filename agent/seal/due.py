"""Which rows the next segment takes, and since when they wait."""

from typing import Final

from agent.seal.building import BATCH_BYTES_MAX
from agent.store.resources import JournalRow, Stream

BACKLOG_RECORDS_MAX: Final = 10_000  # of one segment while a backlog is being sealed


def waits_since_us(stream: Stream, now_us: int) -> int:
    """Monotonic time since when the oldest row waits; of an earlier boot: from this one's start."""
    if not stream.rows:
        return now_us
    oldest = stream.rows[0]
    return min(oldest.boot_us, now_us) if oldest.is_this_boot else 0


def run_of(stream: Stream, most: int, record_bytes: float) -> list[JournalRow]:
    """The oldest rows, until the record or byte target is reached; at least one."""
    rows: list[JournalRow] = []
    records = 0
    for row in stream.rows:
        if rows and (
            records + row.count > BACKLOG_RECORDS_MAX
            or (records + row.count) * record_bytes > BATCH_BYTES_MAX
        ):
            break
        rows.append(row)
        records += row.count
        if records >= most:
            break
    return rows
