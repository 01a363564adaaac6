"""The body of a frame -> a document of named fields; pure, compiled once.

Everything is text until the map says otherwise; a field of the pack that is a number is read as a
decimal number. What cannot be read is told with its place, never replaced and never guessed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from devices.facets import facets_of
from devices.mapping import Fault

#: Around fields of fixed width, and at the ends of lines (R09).
_PADDING: Final = " \x00\t\r\n\u3000"
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,15}\.[0-9]{1,15}", re.ASCII)
_IDENTITY_SHAPE: Final = re.compile(r"[0-9]{17}[0-9Xx]", re.ASCII)

Document = dict[str, Any]


class UnreadableError(Exception):
    """A body that is not what the table says; `reason` is a message key under `reject.`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRule:
    """A `message` table, ready to use."""

    encoding: str
    part: tuple[int, int] | None = None  # offset and size in bytes; the rest is never decoded
    pattern: re.Pattern[str] | None = None
    separator: str | None = None
    fields: tuple[str, ...] = ()
    slices: Mapping[str, tuple[int, int]]
    numbers: frozenset[str] = frozenset()  # fields that the map reads as numbers
    identity_number: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """Every field that a document can have."""
        found = {"text", *self.fields, *self.slices} - {"-"}
        found |= set(self.pattern.groupindex) if self.pattern else set()
        return frozenset(found | ({"region", "age_band", "sex"} if self.identity_number else set()))

    def read(self, body: bytes, day: str) -> tuple[Document, list[Fault]]:
        """The document of a body, and what of it must not be used; raises UnreadableError.

        day: ISO date at the site, for ages.
        """
        text = self._text(body)
        document: Document = {"text": text.strip(_PADDING)}
        document.update(self._fields(text))
        for name, value in document.items():
            document[name] = _number(value) if name in self.numbers else (value or None)
        return document, self._facets(document, day)

    def _text(self, body: bytes) -> str:
        if self.part is not None:
            offset, size = self.part
            if len(body) < offset + size:
                raise UnreadableError("too-short", f"{len(body)} bytes")
            body = body[offset : offset + size]
        if self.encoding == "hex":
            return body.hex().upper()
        try:
            return body.decode(self.encoding)
        except UnicodeDecodeError as error:
            where = f"byte {error.start} is not {self.encoding}"
            raise UnreadableError("bad-encoding", where) from None

    def _fields(self, text: str) -> Document:
        if self.pattern is not None:
            found = self.pattern.fullmatch(text.strip(_PADDING))
            if found is None:
                raise UnreadableError("no-match", f"{len(text)} characters")
            return {k: (v or "").strip(_PADDING) for k, v in found.groupdict().items()}
        if self.separator is not None:
            parts = text.strip("\r\n\x00").split(self.separator)
            if len(parts) != len(self.fields):
                raise UnreadableError("field-count", f"{len(parts)} instead of {len(self.fields)}")
            named = zip(self.fields, parts, strict=True)
            return {name: part.strip(_PADDING) for name, part in named if name != "-"}
        return {
            name: text[first : first + size].strip(_PADDING)
            for name, (first, size) in self.slices.items()
        }

    def _facets(self, document: Document, day: str) -> list[Fault]:
        """Region, age and sex out of an identity number; a wrong number is not used at all."""
        name = self.identity_number
        if name is None:
            return []
        number = str(document.get(name) or "")
        facets = facets_of(number, day)
        if facets is not None:
            document.update(region=facets.region, age_band=facets.age_band, sex=facets.sex)
        elif _IDENTITY_SHAPE.fullmatch(number):
            document[name] = document["text"] = None
            return [Fault("bad-identity-number", name, name)]
        return []


def _number(text: str) -> int | float | str | None:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text or None
