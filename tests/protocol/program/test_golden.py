"""What a person reads of settings with every kind of mistake, and of a mistyped command, in zh and en.

`SHANMEN_GOLDEN=write pytest tests/protocol/program/test_golden.py` writes the files anew; look at the diff.
"""

import argparse
import os
import re
from pathlib import Path

import pytest

from agent import cli as agent
from hub import cli as hub
from hub.owner import cli as owner
from tests.house.test_texts import english_in, is_chinese

GOLDEN = Path(__file__).parent / "golden"
MAINS = {"shanmen-agent": agent.main, "shanmen-hub": hub.main, "shanmen": owner.main}

#: One of each kind: unknown key with and without a near one, wrong type, impossible value, bound of
#: a unit, missing, list, table, and options that contradict each other, of the agent and of devices.
AGENT = """
data = "relative"
ownr = "x"
[hub]
url = "http://hub.example.org"
retry_min = "50s"
retry_max = "2s"
batch = "9MiB"
quark = 1
[seal]
records = "many"
age = 5
[inbox]
allow = ["live", "reboot"]
[log]
level = "loud"
[[resource]]
id = "bays"
pack = "parking.bay"
grade = "fully-open"
classification = { theme = 7 }
[[resource]]
id = "bays"
pack = "parking.bya"
coordinates = { longitude = 200.0 }
[[mqtt]]
id = "site"
url = "http://broker"
pasword = "hunter2"
keepalive = "soon"
in_flight = 0
[[device]]
id = "gate"
profile = "mqtt/json"
resource = "gates"
connection = { mqtt = "siet", topic = "a", qos = 7, devices = "x" }
time = { trust = "perhaps", bulk_old_ok = 1 }
map = { persons = { path = 3, counter = { reset = 0, wrap = 1 } } }
[[device]]
id = "gate"
profile = "lorawan/bosch-tps11"
"""

HUB = """
colour = "red"
[hub]
nam = "x"
region = "33"
approve_agents = "yes"
[listen]
host = "0.0.0.0"
port = 70000
url = "http://hub.example.org"
[limits]
connections = "many"
item_seconds = 0
[log]
level = "loud"
"""

HUB_PAIR = """
[listen]
certificate = "a.pem"
port = "x"
"""

COMMANDS = {
    "no-command": [],
    "unknown-command": ["frobnicate"],
    "unknown-option": {
        "shanmen-agent": ["check", "--frobnicate"],
        "shanmen-hub": ["serve", "--frobnicate"],
        "shanmen": ["key", "show", "--frobnicate"],
    },
    "missing-argument": {
        "shanmen-agent": ["enrol"],
        "shanmen-hub": ["site", "add"],
        "shanmen": ["read"],
    },
    "missing-value": {
        "shanmen-agent": ["enrol", "x", "--owner"],
        "shanmen-hub": ["init", "--name"],
        "shanmen": ["read", "x", "--hub"],
    },
    "help": ["--help"],
    "help-of-one": {
        "shanmen-agent": ["enrol", "--help"],
        "shanmen-hub": ["token", "new", "--help"],
        "shanmen": ["read", "--help"],
    },
    "contradiction": {
        "shanmen-hub": ["token", "new", "--owner", "--read"],
        "shanmen": ["read", "x", "--csv", "--jsonl"],
    },
    "one-of": {"shanmen-hub": ["token", "new"]},
    "wrong-type": {
        "shanmen-hub": ["init", "--port", "x"],
        "shanmen": ["key", "new", "--passphrase-fd", "x"],
    },
}
LINES = [
    (program, name, words if isinstance(words, list) else words[program])
    for name, words in COMMANDS.items()
    for program in MAINS
    if isinstance(words, list) or program in words
]


@pytest.fixture(params=["en", "zh"])
def lang(request, monkeypatch):
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", {"en": "en_US.UTF-8", "zh": "zh_CN.UTF-8"}[request.param])
    monkeypatch.setenv("COLUMNS", "100")
    kept = {name: vars(argparse)[name] for name in ("_", "ngettext")}
    yield request.param
    vars(argparse).update(kept)


def compare(name: str, lang: str, text: str) -> None:
    path = GOLDEN / f"{name}.{lang}.txt"
    if os.environ.get("SHANMEN_GOLDEN") == "write":
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8"), f"{path.name} differs"


def in_chinese(text: str) -> None:
    # Names of commands and options are what one types.
    typed = re.sub(r"用法：.*?(?=\n\n|\nshanmen|\Z)", "", text, flags=re.DOTALL)
    for line in re.sub(r"^shanmen[\w -]*：", "", typed, flags=re.MULTILINE).splitlines():
        assert english_in(line) == [], line


@pytest.mark.parametrize(
    ("program", "name", "file", "settings"),
    [
        ("shanmen-agent", "agent-toml", "agent.toml", AGENT),
        ("shanmen-hub", "hub-toml", "hub.toml", HUB),
        ("shanmen-hub", "hub-toml-pair", "hub.toml", HUB_PAIR),
    ],
)
def test_every_problem_of_settings_is_told_at_once(
    program, name, file, settings, lang, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(file).write_text(settings)
    words = {"shanmen-agent": ["check"], "shanmen-hub": ["serve"]}[program]
    assert MAINS[program]([*words, "--config", file]) == 3
    told = capsys.readouterr().err
    compare(name, lang, told)
    assert "hunter2" not in told
    if lang == "zh":
        in_chinese(told)
        assert all(is_chinese(line) for line in told.splitlines())


@pytest.mark.parametrize(
    ("program", "name", "words"), LINES, ids=[f"{program}-{name}" for program, name, _ in LINES]
)
def test_a_command_line_is_explained(program, name, words, lang, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        MAINS[program](words)
    assert ended.value.code == (0 if "--help" in words else 2)
    told = capsys.readouterr()
    text = told.out + told.err
    compare(f"{program}.{name}", lang, text)
    if lang == "zh":
        in_chinese(text)
        for word in ("usage", "error", "options", "positional", "required", "invalid", "expected"):
            assert word not in text
