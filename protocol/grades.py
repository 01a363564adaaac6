"""Grades and secrecy classes: the one place that decides (数据分级, T/ADEDS 02-2023 §7.1).

Where table and prose disagree: the 可管理 column and the prose win over the shifted cell of
一般开放级 (reading A1), and 可公开级 stays encrypted until its owner publishes (reading A4).
"""

from enum import IntEnum
from typing import NamedTuple

from protocol.errors import Code, DecodeError


class Grade(IntEnum):
    """The six grades of table 7-2; the numbers stand in headers and entries."""

    KEY_PROTECTED = 1  # 重点保护级
    GENERAL_PROTECTED = 2  # 一般保护级
    SHAREABLE = 3  # 可共享级
    PUBLICABLE = 4  # 可公开级
    GENERALLY_OPEN = 5  # 一般开放级
    FULLY_OPEN = 6  # 完全开放级


class Secrecy(IntEnum):
    """The four secrecy classes of table 7-1; everything above 公开 never enters."""

    PUBLIC = 0  # 公开型
    SECRET = 1  # 秘密型
    CONFIDENTIAL = 2  # 机密型
    TOP_SECRET = 3  # 绝密型


class GradeRule(NamedTuple):
    """What table 7-2 says about one grade."""

    sealed: bool  # 加密: ciphertext before it touches a disk, readable by key only
    registered: bool  # 可管理: has an entry in register and catalog
    leaves: bool  # may leave the gateway at all (sealed, or signed in clear)
    grant: bool  # 可共享: the owner may grant it to others
    publish: bool  # 可公开: the owner may publish it
    name_zh: str
    name_en: str


_RULES = {
    #                                   sealed registered leaves grant publish
    Grade.KEY_PROTECTED: GradeRule(True, False, False, False, False, "重点保护级", "key-protected"),
    Grade.GENERAL_PROTECTED: GradeRule(
        True, True, True, False, False, "一般保护级", "general-protected"
    ),
    Grade.SHAREABLE: GradeRule(True, True, True, True, False, "可共享级", "shareable"),
    Grade.PUBLICABLE: GradeRule(True, True, True, True, True, "可公开级", "publicable"),
    Grade.GENERALLY_OPEN: GradeRule(
        False, True, True, False, False, "一般开放级", "generally-open"
    ),
    Grade.FULLY_OPEN: GradeRule(False, False, True, False, False, "完全开放级", "fully-open"),
}

_SECRECY_NAMES = {
    Secrecy.PUBLIC: ("公开型", "public"),
    Secrecy.SECRET: ("秘密型", "secret"),
    Secrecy.CONFIDENTIAL: ("机密型", "confidential"),
    Secrecy.TOP_SECRET: ("绝密型", "top-secret"),
}


def rules(grade: Grade) -> GradeRule:
    """Give table 7-2's row. For open grades grant and publish are not needed, hence False."""
    return _RULES[grade]


def effective(grade: Grade, secrecy: Secrecy) -> Grade:
    """Give the grade that holds: any secrecy class above 公开 forces 重点保护级 (reading A8)."""
    return grade if secrecy == Secrecy.PUBLIC else Grade.KEY_PROTECTED


def more_open(a: Grade, b: Grade) -> bool:
    """Say whether `a` protects less than `b`: a step that needs the owner's signature."""
    return a > b


def parse_grade(text: str | int) -> Grade:
    """Read a grade from its number, English name or Chinese name. Raises DecodeError."""
    for grade, rule in _RULES.items():
        if type(text) is not bool and text in (int(grade), rule.name_en, rule.name_zh):
            return grade
    names = ", ".join(rule.name_en for rule in _RULES.values())
    raise DecodeError(Code.OUT_OF_BOUNDS, field="grade", value=text, expected=f"1..6 or {names}")


def parse_secrecy(text: str | int) -> Secrecy:
    """Read a secrecy class from its number, English name or Chinese name. Raises DecodeError."""
    for secrecy, names in _SECRECY_NAMES.items():
        if type(text) is not bool and text in (int(secrecy), *names):
            return secrecy
    known = ", ".join(name for _, name in _SECRECY_NAMES.values())
    raise DecodeError(Code.OUT_OF_BOUNDS, field="secrecy", value=text, expected=f"0..3 or {known}")
