"""What a technician reads when something is wrong, in both languages; each names the remedy.

`SHANMEN_GOLDEN=write pytest tests/agent/test_golden.py` writes the files anew; look at the diff.
"""

import errno
import os
import re
from pathlib import Path

import pytest

from agent import cli
from agent.commands.enrol import mismatch
from agent.commands.status import FolderLock
from agent.host.clock import Clock, SystemState
from agent.host.faults import Fault
from agent.host.messages import Messages
from agent.link.hub_client import CertificateError, LaterError
from agent.link.hub_faults import fault_of
from agent.link.tls import CaFileError
from agent.store import files
from protocol.envelope import SigningKey
from protocol.errors import Code, RefusedError, VerifyError
from protocol.token import make_token

GOLDEN = Path(__file__).parent / "golden"
LANGUAGES = ["en", "zh"]
NOW_US = 1_796_000_000_000_000
URL = "https://hub.example.org"

CONFIG = """
data = "{data}"
[hub]
url = "https://hub.example.org"
[[resource]]
id = "p1-bays"
pack = "parking.bay"
"""

UNKNOWN_CODEC = """
[[mqtt]]
id = "site"
url = "mqtt://127.0.0.1:1883"
client_id = "gw"
[[device]]
id = "bays"
profile = "lorawan/dingtek-d0201"
resource = "p1-bays"
connection = { mqtt = "site", dev_eui = { "0011223344556677" = "B-01" } }
"""


def compare(name: str, lang: str, text: str, tmp_path: Path) -> str:
    text = text.replace(str(tmp_path), "/var/lib/shanmen-agent")
    text = re.sub(r"(process|进程) \d+", r"\1 4711", text)
    path = GOLDEN / f"{name}.{lang}.txt"
    if os.environ.get("SHANMEN_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text(), f"{path.name} differs"
    remedy = "To do:" if lang == "en" else "处理："
    assert remedy in text or "Did you mean" in text or "是否想写" in text or "Known" in text
    assert "{" not in text
    return text


def run(monkeypatch, capsys, lang: str, *words: str) -> tuple[int, str]:
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", {"en": "en_US.UTF-8", "zh": "zh_CN.UTF-8"}[lang])
    code = cli.main(words)
    return code, capsys.readouterr().err


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG.format(data=tmp_path / "data"))
    return path


@pytest.mark.parametrize("lang", LANGUAGES)
def test_wrong_token(monkeypatch, capsys, tmp_path, config, lang):
    secret = "SM1-AAAABBBBCCCCDDDD"
    code, text = run(monkeypatch, capsys, lang, "enrol", secret, "-c", str(config))
    assert code == 2
    assert secret not in compare("token", lang, text, tmp_path)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_unknown_codec(monkeypatch, capsys, tmp_path, config, lang):
    config.write_text(config.read_text() + UNKNOWN_CODEC)
    code, text = run(monkeypatch, capsys, lang, "check", "-c", str(config))
    assert code == 3
    assert "dingtek-do201" in compare("codec", lang, text, tmp_path)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_data_folder_in_use(monkeypatch, capsys, tmp_path, config, lang):
    (tmp_path / "data").mkdir()
    lock = FolderLock(tmp_path / "data")
    lock.take()
    token = make_token(bytes(8), bytes(16), SigningKey(bytes(32)).principal)
    code, text = run(monkeypatch, capsys, lang, "enrol", token.text, "-c", str(config))
    lock.release()
    assert code == 8
    compare("in-use", lang, text, tmp_path)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_disk_full(monkeypatch, capsys, tmp_path, config, lang):
    def full(path, data, *, mode=0o600):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.parent))

    monkeypatch.setattr(files, "save", full)
    token = make_token(bytes(8), bytes(16), SigningKey(bytes(32)).principal)
    code, text = run(monkeypatch, capsys, lang, "enrol", token.text, "-c", str(config))
    assert code == 9
    compare("disk-full", lang, text, tmp_path)


def clock(offset_us=0):
    one = Clock(
        wall=lambda: NOW_US,
        boot=lambda: 10**9,
        system=lambda: SystemState(synchronised=False, error_us=0),
    )
    if offset_us:
        one.learn_hub(NOW_US + offset_us, sent_ns=10**9, received_ns=10**9)
    return one


def explained(error, *, offset_us=0) -> Fault:
    return fault_of(error, url=URL, ca="/etc/shanmen/ca.pem", clock=clock(offset_us))


FAULTS = {
    "clock": (VerifyError(Code.CLOCK_SKEW), 93 * 86_400_000_000),
    "ca": (
        CertificateError(
            Code.SIGNATURE_INVALID,
            field="certificate",
            expected="unable to get local issuer certificate",
        ),
        0,
    ),
    "ca-file": (CaFileError(Code.CONFIG_INVALID, field="hub.ca"), 0),
    "token-used": (RefusedError(Code.TOKEN_USED), 0),
    "token-expired": (RefusedError(Code.TOKEN_EXPIRED), 0),
    "token-unknown": (RefusedError(Code.TOKEN_UNKNOWN), 0),
    "unreachable": (LaterError(Code.UNREACHABLE, expected="Connection refused"), 0),
    "version": (RefusedError(Code.VERSION_UNSUPPORTED, expected="1; this batch has 0"), 0),
    "false-hub": (VerifyError(Code.WRONG_HUB, field="hub_keys"), 0),
}


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_the_conversation(tmp_path, name, lang):
    error, offset_us = FAULTS[name]
    lines = explained(error, offset_us=offset_us).lines(Messages(lang))
    compare(
        name,
        lang,
        re.sub(r"shanmen-agent [0-9.]+", "shanmen-agent X", "\n".join(lines)) + "\n",
        tmp_path,
    )


@pytest.mark.parametrize("lang", LANGUAGES)
def test_wrong_owner(tmp_path, lang):
    pinned, other = SigningKey(bytes(32)).principal, SigningKey(bytes(range(32))).principal
    lines = mismatch(pinned, other).lines(Messages(lang))
    compare("owner", lang, "\n".join(lines) + "\n", tmp_path)
