"""Every way in which a command of `shanmen` can end is told in Chinese where the machine speaks it."""

from pathlib import Path

import pytest

from hub.owner import cli
from hub.owner.state import Memory
from tests.house.test_texts import english_in, is_chinese
from tests.owner.test_read import run
from tests.owner.world import World

PASS = ["--passphrase-file", "{}/phrase"]
READ = ["read", "east-gate", "--key", "{}/owner.key", *PASS]
ADD = ["principal", "add", "--key", "{}/owner.key", "--hub"]
TOKEN = ["--token", World().token.text]

#: Words, with the folder for {}, and the exit code.
ENDS = {
    "key-exists": (["key", "new", "{}/owner.key", *PASS], cli.USAGE),
    "key-short": (["key", "new", "{}/k", "--passphrase-file", "{}/short"], cli.USAGE),
    "key-no-folder": (["key", "new", "{}/none/k", *PASS], cli.USAGE),
    "key-folder-is-file": (["key", "new", "{}/phrase/k", *PASS], cli.USAGE),
    "key-none": (["key", "show", "{}/none"], cli.USAGE),
    "key-is-folder": (["key", "show", "{}"], cli.USAGE),
    "key-not-ours": (["key", "show", "{}/phrase"], cli.USAGE),
    "key-shape": (["key", "show", "{}/empty.json"], cli.USAGE),
    "key-shown": (["key", "show", "{}/owner.key"], cli.OK),
    "backup-exists": (["key", "backup", "{}/owner.key", "{}/phrase", *PASS], cli.USAGE),
    "backup-no-folder": (["key", "backup", "{}/owner.key", "{}/none/k", *PASS], cli.USAGE),
    "backup-done": (["key", "backup", "{}/owner.key", "{}/copy", *PASS], cli.OK),
    "wrong-passphrase": ([*READ[:4], "--passphrase-file", "{}/short"], cli.USAGE),
    "no-passphrase-file": ([*READ[:4], "--passphrase-file", "{}/none"], cli.USAGE),
    "empty-passphrase": ([*READ[:4], "--passphrase-file", "{}/empty"], cli.USAGE),
    "no-descriptor": ([*READ[:4], "--passphrase-fd", "999"], cli.USAGE),
    "no-hub": (READ, cli.USAGE),
    "hub-unknown": ([*READ, "--hub", "https://h"], cli.USAGE),
    "no-time": ([*READ, "--since", "yesterday at noon"], cli.USAGE),
    "token-typed-wrong": ([*ADD, "https://h", "--token", "SM1-x"], cli.USAGE),
    "hub-is-no-url": ([*ADD, "hub", *TOKEN], cli.REFUSED),
    "plain-http": ([*ADD, "http://h", *TOKEN], cli.REFUSED),
    "ca-none": ([*ADD, "https://h", *TOKEN, "--ca", "{}/none"], cli.REFUSED),
    "ca-not-pem": ([*ADD, "https://h", *TOKEN, "--ca", "{}/phrase"], cli.REFUSED),
    "nobody-there": ([*ADD, "http://127.0.0.1:9", *TOKEN], cli.REFUSED),
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")


def check(text: str) -> None:
    lines = text.splitlines()
    assert is_chinese(text)
    assert [found for line in lines for found in english_in(line)] == []


@pytest.mark.parametrize("name", ENDS)
async def test_command_ends_in_chinese(
    name: str, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (key.parent / "short").write_text("short\n")
    (key.parent / "empty").write_text("\n")
    (key.parent / "empty.json").write_text("{}")
    words, code = ENDS[name]
    status, _, err = await run(capsys, *(word.replace("{}", str(key.parent)) for word in words))
    assert status == code, err
    check(err)


async def test_damaged_memory_of_hubs(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Memory(key).path.write_text("[]")
    status, _, err = await run(capsys, *(word.replace("{}", str(key.parent)) for word in READ))
    assert status == cli.USAGE
    check(err)


async def test_reading_ends_in_chinese(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    world.fill()
    words = [word.replace("{}", str(key.parent)) for word in READ]
    async with world.server() as server:
        url = str(server.make_url("")).rstrip("/")
        added = ["principal", "add", "--key", str(key), "--hub", url, *TOKEN]
        for command in (added, added, words, [*words, "--csv"], ["read", "nothing", *words[2:]]):
            _, _, err = await run(capsys, *command)
            check(err)
    status, _, err = await run(capsys, *words)
    assert status == cli.REFUSED, "the server is gone"
    check(err)
