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
from hub.config import HubConfig, Problem
from hub.faults import Exit
from hub.making import toml_of
from hub.messages import catalogue, language_of, phrase, text
from protocol.errors import ConfigError
from tests.shared import ROOT

DOCUMENT = ROOT / "docs" / "hub-operations.md"


def problems(source: str) -> dict[str, Problem]:
    found = configs.load(source, "hub.toml")
    assert isinstance(found, list), found
    assert all(one.file == "hub.toml" and one.expected for one in found)
    return {one.key: one for one in found}


def test_empty_settings_are_whole() -> None:
    loaded = configs.load("", "hub.toml")
    assert loaded == HubConfig()


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
    assert found["listen.port"].expected == "a whole number, at least 0, at most 65535"
    assert "host" in found["listen.hots"].expected
    assert found["log.level"].expected == "one of 'debug', 'info', 'warning', 'error'"
    assert found["hub.name"].expected.startswith("a text")


def test_what_is_impossible_together() -> None:
    assert "listen.key" in problems('[listen]\ncertificate = "a.pem"\n')
    assert "listen.certificate" in problems('[listen]\nkey = "a.pem"\n')
    assert "listen.host" in problems('[listen]\nhost = "0.0.0.0"\n')
    both = '[listen]\nhost = "0.0.0.0"\ncertificate = "a.pem"\nkey = "b.pem"\n'
    assert isinstance(configs.load(both, "hub.toml"), HubConfig)


@pytest.mark.parametrize("source", ["[", "a = ", "[hub]\n[hub]\n", "hub = 3", "\x00"])
def test_what_is_no_toml_is_one_problem(source: str) -> None:
    assert len(problems(source)) == 1


def test_values_are_shown_short() -> None:
    found = problems(f'[hub]\nregion = "{"9" * 500}"\n')
    assert len(found["hub.region"].value) <= 60


def test_what_init_writes_is_read_back() -> None:
    source = toml_of({"hub": {"name": '景区 "东" \\ \n'}, "listen": {"port": 0}})
    loaded = configs.load(source, "hub.toml")
    assert isinstance(loaded, HubConfig)
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
    assert rows == set(configs.options())


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


def test_every_text_is_used_with_fields_that_both_languages_have() -> None:
    holes = re.compile(r"\{(\w+)\}")
    for key, english in catalogue("en").items():
        assert set(holes.findall(english)) == set(holes.findall(catalogue("zh")[key])), key


def test_language_follows_settings_then_environment(monkeypatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert language_of() == "zh"
    assert language_of("en") == "en"
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert language_of() == "en"
    assert text("no.such.key", "zh") == "no.such.key"


def test_what_would_be_right_is_said_in_chinese() -> None:
    """No English phrase in a Chinese sentence; names and numbers stand as they are."""
    assert phrase("28 base32 characters", "zh") == "28 个 base32 字符"
    assert phrase("28 base32 characters", "en") == "28 base32 characters"
    assert phrase("no such key; known: host, port", "zh") == "没有这个键；可用：host, port"
    assert phrase("a phrase that nobody translated", "zh") == ""
    assert phrase("text/plain", "zh") == "text/plain"
    broken = '[listen]\nhost = 5\nprot = 1\nport = "x"\n[hub]\nname = 3\nregion = "x"\n'
    texts = [
        broken,
        '[listen]\nhost = "10.0.0.1"',
        '[listen]\nkey = "k"',
        "x = 1",
        "=",
        "listen = 1",
    ]
    expected = set(configs.options().values())
    for one in texts:
        found = configs.load(one, "hub.toml")
        assert isinstance(found, list)
        expected |= {problem.expected for problem in found}
    assert len(expected) > 20
    for one in expected:
        said = phrase(one, "zh")
        assert any("\u2e80" < letter for letter in said), one


@pytest.mark.parametrize("language", ["zh", "en"])
def test_help_has_no_missing_text(language, capsys) -> None:
    for words in ([], ["init"], ["serve"], ["site", "add"], ["token", "new"], ["agent", "list"],
                  ["restore"], ["backup"], ["agent", "suspend"]):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            parser(language).parse_args([*words, "--help"])
        assert ended.value.code == 0
        assert "help." not in capsys.readouterr().out
