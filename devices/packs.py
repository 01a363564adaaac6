"""Domain packs (领域数据字典, T/ADEDS 02-2023 §8.1) from `dictionary/*.toml`."""

import tomllib
from importlib import resources

from protocol.errors import Code, ConfigError, ConfigProblem
from protocol.packs import Pack, parse_pack


def load_packs() -> dict[str, Pack]:
    """All packs that are delivered with us, by id.

    Raises ConfigError with every problem of every file; a delivered dictionary has none.
    """
    packs: dict[str, Pack] = {}
    problems: list[ConfigProblem] = []
    for name, text in _files():
        try:
            pack = parse_pack(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            problems.append(ConfigProblem(name, str(error), "TOML"))
        except ConfigError as error:
            problems += [
                ConfigProblem(f"{name}: {one.path}", one.value, one.expected)
                for one in error.problems
            ]
        else:
            if f"{pack.id}.toml" != name:
                problems.append(ConfigProblem(name, pack.id, "a file named after its pack"))
            packs[pack.id] = pack
    if problems:
        raise ConfigError(Code.PACK_INVALID, problems=tuple(problems))
    return packs


def _files() -> list[tuple[str, str]]:
    folder = resources.files("devices").joinpath("dictionary")
    found = [one for one in folder.iterdir() if one.name.endswith(".toml")]
    return sorted((one.name, one.read_text("utf-8")) for one in found)
