"""Durations and sizes as a technician writes them: `30s`, `5m`, `24h`, `64MiB`."""

import re
from typing import ClassVar, Final, NamedTuple, Self

_US: Final = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_BYTES: Final = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "KB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
}


class Between(NamedTuple):
    """Bounds of a unit, both inclusive: `Annotated[Duration, Between("1s", "60s")]`.

    msgspec cannot bound our own types; `protocol.program.walk` does.
    """

    low: str
    high: str


class Unit(int):
    """A number with a unit; `expectation` is what would be right, a key under `expect.`."""

    __slots__ = ()
    expectation: ClassVar[str]
    _pattern: ClassVar[re.Pattern[str]]
    _factors: ClassVar[dict[str, int]]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `30s`; raises ValueError for anything else than one number and one unit."""
        match = cls._pattern.fullmatch(text)
        if match is None:
            raise ValueError(text)
        return cls(int(match[1]) * cls._factors[match[2]])


class Duration(Unit):
    """A span of time in microseconds, written as a whole number and one of ms, s, m, h, d."""

    __slots__ = ()
    expectation = "duration"
    _pattern = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
    _factors = _US

    @property
    def seconds(self) -> float:
        """The same span in seconds, for timeouts."""
        return int(self) / 1_000_000

    def __str__(self) -> str:
        for unit in ("d", "h", "m", "s"):
            if self and self % _US[unit] == 0:
                return f"{int(self) // _US[unit]}{unit}"
        return f"{int(self) // 1000}ms"


class Size(Unit):
    """A number of bytes, written as a whole number and one of B, KiB, MiB, GiB, KB, MB, GB."""

    __slots__ = ()
    expectation = "size"
    _pattern = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB|KB|MB|GB)")
    _factors = _BYTES

    def __str__(self) -> str:
        for unit in ("GiB", "MiB", "KiB"):
            if self and self % _BYTES[unit] == 0:
                return f"{int(self) // _BYTES[unit]}{unit}"
        return f"{int(self)}B"
