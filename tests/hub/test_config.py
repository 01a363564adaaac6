"""Settings, keys and the documents about them."""

import re
import stat
from pathlib import Path

import msgspec
import pytest

from hub import config as configs
from hub import keys
from hub.arguments import parser
from hub.cli import RUNS
from hub.config import HubConfig
from hub.faults import Exit
from hub.making import toml_of
from hub.messages import speaking, text
from protocol.errors import ConfigError
from protocol.program.settings import ConfigProblems
from protocol.program.walk import Problem, options
from tests.shared import ROOT

DOCUMENT = ROOT / "docs" / "hub-operations.md"


def load(source: str) -> HubConfig:
    return configs.load(source, file="hub.toml")


def problems(source: str) -> dict[str, Problem]:
    with pytest.raises(ConfigProblems) as raised:
        load(source)
    assert raised.value.file == "hub.toml"
    return {one.path: one for one in raised.value.problems}


def test_empty_settings_are_whole() -> None:
    assert load("") == HubConfig()


def test_every_problem_is_named_at_once() -> None:
    found = problems(
        """
        colour = "red"
        [hub]
        name = 7
        region = "33"
        [listen]
        port = 70000
        hots = "127.0.0.1"
        [limits]
        connections = "many"
        item_seconds = 0
        enrol_total = true
        [log]
        level = "loud"
        [metrics]
        loopback = 1
        """
    )
    assert set(found) == {
        "colour", "hub.name", "hub.region", "listen.port", "listen.hots", "limits.connections",
        "limits.item_seconds", "limits.enrol_total", "log.level", "metrics.loopback",
    }  # fmt: skip
    assert found["listen.port"].value == "70000"
    bounds = {"expected": "whole-between", "low": "0", "high": "65535"}
    assert found["listen.port"].fields == bounds
    assert "host" in found["listen.hots"].fields["near"]
    assert found["log.level"].fields["choices"] == "debug, info, warning, error"
    assert found["hub.name"].key == "wrong-type"


def test_what_is_impossible_together_is_not_hidden_by_another_mistake() -> None:
    found = problems(
        """
        [listen]
        host = "0.0.0.0"
        port = "x"
        url = "http://hub.example.org"
        [log]
        level = "loud"
        """
    )
    assert {path: one.key for path, one in found.items()} == {
        "listen.port": "wrong-type",
        "log.level": "impossible",
        "listen.host": "plain-listen",
        "listen.url": "plain-http",
    }
    found = problems('[listen]\ncertificate = "a.pem"\nport = -1\nhost = "0.0.0.0"\n')
    assert {path: one.key for path, one in found.items()} == {
        "listen.port": "impossible",
        "listen.key": "pair",
    }


def test_what_is_impossible_together() -> None:
    assert "listen.key" in problems('[listen]\ncertificate = "a.pem"\n')
    assert "listen.certificate" in problems('[listen]\nkey = "a.pem"\n')
    assert "listen.host" in problems('[listen]\nhost = "0.0.0.0"\n')
    both = '[listen]\nhost = "0.0.0.0"\ncertificate = "a.pem"\nkey = "b.pem"\n'
    assert load(both).listen.key == "b.pem"


@pytest.mark.parametrize("source", ["[", "a = ", "[hub]\n[hub]\n", "hub = 3", "\x00"])
def test_what_is_no_toml_is_one_problem(source: str) -> None:
    assert len(problems(source)) == 1


def test_values_are_shown_short() -> None:
    found = problems(f'[hub]\nregion = "{"9" * 500}"\n')
    assert len(found["hub.region"].value) <= 60


def test_what_init_writes_is_read_back() -> None:
    source = toml_of({"hub": {"name": '景区 "东" \\ \n'}, "listen": {"port": 0}})
    loaded = load(source)
    assert loaded.hub.name == '景区 "东" \\ \n'
    assert loaded.listen.port == 0


def test_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    made = keys.make(tmp_path, lambda n: bytes(range(n)))
    for path in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert keys.read(tmp_path).hub == made.hub
    with pytest.raises(ConfigError):
        keys.make(tmp_path, lambda n: bytes(n))
    assert keys.read(tmp_path).hub == made.hub


def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    keys.make(tmp_path, lambda n: bytes(range(n)))
    path = tmp_path / "keys" / "log.key"
    path.chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        keys.read(tmp_path)
    assert "0600" in str(caught.value)


@pytest.mark.parametrize("content", ["", "SMHK1 log AAAA\n", "SMHK1 signing\n", "x" * 9999, "é"])
def test_damaged_keys_are_named(tmp_path: Path, content: str) -> None:
    keys.make(tmp_path, lambda n: bytes(range(n)))
    path = tmp_path / "keys" / "signing.key"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        keys.read(tmp_path)
    assert str(path) in str(caught.value)


def test_every_option_stands_in_the_document() -> None:
    """`docs/hub-operations.md` has a row for every key of hub.toml, and none too many."""
    rows = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", DOCUMENT.read_text(), re.MULTILINE))
    assert rows == set(options(HubConfig))


def test_every_default_stands_in_the_document() -> None:
    lines = dict(
        re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| `([^`]*)` \|", DOCUMENT.read_text(), re.MULTILINE)
    )
    for section in msgspec.structs.fields(HubConfig):
        for field in msgspec.structs.fields(section.type):
            shown = lines[f"{section.name}.{field.name}"]
            default = field.default
            assert shown == (
                str(default).lower() if isinstance(default, bool) else f"{default}"
            ).replace("30.0", "30"), field.name


def test_every_command_and_exit_code_stands_in_the_document() -> None:
    document = DOCUMENT.read_text()
    for code in Exit:
        assert re.search(rf"^\| {code.value} \|", document, re.MULTILINE), code
    for name in RUNS:
        assert f"`shanmen-hub {name.replace('-', ' ')}" in document, name
    for option in ("--config", "--data", "--json", "--hours", "--owner", "--read", "--site",
                   "--name", "--region", "--host", "--port", "--certificate", "--key", "--url",
                   "--reason", "--minutes"):  # fmt: skip
        assert option in document, option


def test_a_text_that_is_missing_is_its_key() -> None:
    assert text("no.such.key", "zh") == "no.such.key"


def test_what_would_be_right_is_said_in_chinese() -> None:
    """No English phrase in a Chinese sentence; names and numbers stand as they are."""
    zh, en = speaking("zh"), speaking("en")
    assert zh.phrase("28 base32 characters") == "28 个 base32 字符"
    assert en.phrase("28 base32 characters") == "28 base32 characters"
    assert zh.phrase("at least 2/7, which was signed") == "至少 2/7（已签名）"
    assert zh.phrase("a phrase that nobody translated") == ""
    assert zh.phrase("text/plain") == "text/plain"


@pytest.mark.parametrize("language", ["zh", "en"])
def test_help_has_no_missing_text(language, capsys) -> None:
    for words in ([], ["init"], ["serve"], ["site", "add"], ["token", "new"], ["agent", "list"],
                  ["restore"], ["backup"], ["agent", "suspend"]):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            parser(language).parse_args([*words, "--help"])
        assert ended.value.code == 0
        assert "help." not in capsys.readouterr().out
