"""A settings file: text in, a table or its problems out; problems in, lines for people out.

All problems of a file are told in one run: whoever repairs it at a site or in a county's machine
room has one visit, not six.
"""

import tomllib
from collections.abc import Sequence
from typing import Any, Final

from protocol.program.messages import Messages
from protocol.program.walk import Problem, show

FILE_BYTES_MAX: Final = 4 << 20
PROBLEMS_SHOWN_MAX: Final = 100


class ConfigProblems(Exception):  # noqa: N818 - it is a list of findings, and is shown as one
    """Everything that is wrong with one settings file, in the order of the file's walk."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        super().__init__(f"{file}: {len(problems)} problems")
        self.file = file
        self.problems = tuple(problems)


def parse(text: bytes | str, file: str) -> dict[str, Any]:
    """Read TOML text. Raises ConfigProblems for anything that is not, and nothing else."""
    if len(text) > FILE_BYTES_MAX:
        raise ConfigProblems(file, [Problem("", "too-large", "", {"size": str(len(text))})])
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
        return tomllib.loads(decoded)
    except UnicodeDecodeError as error:
        problem = Problem("", "not-utf8", "", {"position": str(error.start)})
    except tomllib.TOMLDecodeError as error:
        # The library's sentence names line and column; it repeats no more than one character.
        problem = Problem("", "not-toml", "", {"where": show(str(error)).strip('"')})
    except RecursionError:
        problem = Problem("", "too-deep", "", {})
    raise ConfigProblems(file, [problem])


def problem_lines(found: ConfigProblems, say: Messages) -> list[str]:
    """Every problem of a file, one line each, under a line that counts them."""
    lines = [say("config.head", file=found.file, count=len(found.problems))]
    lines += [
        say("config.line", where=one.path or found.file, what=_sentence(one, say))
        for one in found.problems[:PROBLEMS_SHOWN_MAX]
    ]
    rest = len(found.problems) - PROBLEMS_SHOWN_MAX
    if rest > 0:
        lines.append(say("config.more", count=rest))
    return lines


def _sentence(problem: Problem, say: Messages) -> str:
    fields = dict(problem.fields) | {"value": problem.value}
    expected = f"expect.{fields.get('expected', '')}"
    if say.fits(expected, fields):
        fields["expected"] = say(expected, **fields)
    key = f"config.{problem.key}"
    if say.fits(key, fields):
        return say(key, **fields)
    # A plug-in's problem may have no text here; what it knows is said all the same.
    return say("config.foreign", value=problem.value, expected=fields.get("expected", problem.key))
