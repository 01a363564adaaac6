"""The owner's reading in this process: the same functions as `shanmen read`, one unlock a key."""

import functools
import json
from pathlib import Path

from hub.owner import keyfile, passphrase
from hub.owner.output import json_lines
from hub.owner.reading import Interval, open_reading
from protocol.errors import RefusedError
from protocol.records import to_records


@functools.lru_cache
def unlocked(_content: bytes, key: Path) -> keyfile.OwnerKeys:
    """Deriving the key takes most of a second, and copies of a world have the same file."""
    return keyfile.unlock(key, passphrase.from_file(key.with_name("pass")))


async def read_inside(folder: Path, resource: str) -> list[dict[str, object]]:
    """All records of a resource, verified. Raises ShanmenError where something does not verify.

    A resource of which the hub knows nothing has no records: a cut may come before its first.
    """
    key = folder / "owner.key"
    keys = unlocked(key.read_bytes(), key)
    found: list[dict[str, object]] = []
    try:
        async with open_reading(key, keys, resource, hub=None) as reading:
            async for columns in reading.records(Interval()):
                found += [json.loads(line) for line in json_lines(to_records(columns))]
    except RefusedError as error:
        if error.code.key != "unknown-resource":
            raise
    return found
