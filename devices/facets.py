"""What clause 8.2 asks for out of an identity number, so that the number itself can be dropped.

客源地, 年龄, 性别 (T/ADEDS 02-2023 §8.2) stand in the 18 digits of GB 11643: region (GB/T
2260), day of birth, sex; the last is a check digit (ISO 7064 MOD 11-2). Pure; nothing here keeps
or shows a number.
"""

from datetime import date
from typing import Final, NamedTuple

_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS: Final = "10X98765432"
_DIGITS: Final = 18
#: Lowest age of each band of the packs, in years.
_BANDS: Final = (
    (65, "65+"), (60, "60-64"), (45, "45-59"), (35, "35-44"), (25, "25-34"),
    (18, "18-24"), (14, "14-17"), (7, "7-13"), (0, "0-6"),
)  # fmt: skip


class Facets(NamedTuple):
    """What may be kept of an identity number."""

    region: str  # 6 digits, GB/T 2260
    age_band: str
    sex: str  # GB/T 2261.1: 1 male, 2 female


def facets_of(number: str, day: str) -> Facets | None:
    """The facets of an 18-digit identity number on a day; None if it is not one.

    day: ISO date of the event at the site, for the age.
    """
    text = number.strip().upper()
    digits = text[:-1]
    if len(text) != _DIGITS or not (digits.isascii() and digits.isdigit()):
        return None
    check = sum(int(one) * weight for one, weight in zip(digits, _WEIGHTS, strict=True)) % 11
    if text[-1] != _CHECKS[check]:
        return None
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return None
    today = date.fromisoformat(day)
    age = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
    band = next((name for least, name in _BANDS if age >= least), None)
    if band is None:  # born after today
        return None
    return Facets(text[:6], band, "1" if int(text[16]) % 2 else "2")
