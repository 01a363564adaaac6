"""The shell's small rooms: log lines, sd_notify, messages, clock, keys at rest, status socket."""

import asyncio
import io
import json
import logging
import os
import socket
import stat

import pytest

from agent.commands.status import FolderLock, StatusServer, ask
from agent.host import logs
from agent.host.clock import BUILD_TIME_US, Clock, SystemState, system_state
from agent.host.faults import Exit, Fault
from agent.host.health import Health
from agent.host.keyring import Keyring
from agent.host.messages import Messages, catalogue
from agent.host.notify import Notifier
from agent.store import files
from devices.driver import DeviceState
from protocol.program.messages import language, plain
from protocol.times import ClockSource


@pytest.fixture
def lines():
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.setup("debug", 60, stream)
    yield stream
    root.handlers[:], level = before[0], before[1]
    root.setLevel(level)


# --- logs ----------------------------------------------------------------------------------------


def test_log_injection(lines):
    evil = 'gate\n{"level":"error","message":"fake"}\r\x1b[2J\u2028\u202e'
    logging.getLogger("agent.x").warning("device changed", extra={"device": evil})
    text = lines.getvalue()
    assert text.count("\n") == 1
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text)["device"] == evil
    assert json.loads(text)["message"] == "device changed"


def test_script_in_device_name(lines, caplog):
    name = "<script>alert(1)</script>\x1b]0;owned\x07\n"
    health = Health(lambda: 1)
    health.changed(name, DeviceState.ABSENT, "gone")
    assert lines.getvalue().count("\n") == 1
    shown = Messages("en")("status.device", name=name, state="absent", seen="–", messages=0)
    assert shown.isprintable()  # a terminal obeys nothing of it; markup is the hub's to escape
    assert "�" in shown


def test_a_message_that_repeats_is_counted(lines):
    now = [0.0]
    limit = logs.RateLimit(3, clock=lambda: now[0])
    log = logging.getLogger("agent.loud")
    logging.getLogger().handlers[0].filters[:] = [limit]
    for number in range(10):
        log.info("same", extra={"number": number})
    log.info("other")
    now[0] = 61.0
    log.info("same")
    rows = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [row["message"] for row in rows] == ["same"] * 3 + ["other", "same"]
    assert rows[-1]["suppressed"] == 7


def test_bytes_are_logged_by_length_only(lines):
    logging.getLogger("agent.x").info("odd", extra={"value": b"\x00" * 32})
    assert json.loads(lines.getvalue())["value"] == "<32 bytes>"


# --- notify --------------------------------------------------------------------------------------


def test_notify_says_ready_alive_and_stopping(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "n"))
        env = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "30000000"}
        notifier = Notifier(env)
        assert "NOTIFY_SOCKET" not in env
        assert notifier.watchdog_s == 30
        notifier.ready("a\nFAKE=1")
        assert other.recv(500) == "READY=1\nSTATUS=a�FAKE=1".encode()
        notifier.alive()
        assert other.recv(500) == b"WATCHDOG=1"
        notifier.stopping()
        assert other.recv(500) == b"STOPPING=1"
        notifier.close()


def test_notify_without_systemd_and_with_a_socket_that_is_gone(tmp_path):
    Notifier({}).alive()
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.alive()
    notifier.close()
    assert Notifier({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}).watchdog_s is None


# --- messages ------------------------------------------------------------------------------------


def test_every_fault_and_every_problem_has_text():
    import ast
    from pathlib import Path

    texts = catalogue("en")
    for path in Path("agent").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(
                node.func, ast.Name | ast.Attribute
            ):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            words = [one.value for one in node.args if isinstance(one, ast.Constant)]
            if name == "Fault" and words:
                assert f"fault.{words[0]}.text" in texts, (path, words)
                assert f"fault.{words[0]}.remedy" in texts, (path, words)
            if name == "Problem" and len(words) > 1 and path.name in {"config.py", "plan.py"}:
                assert f"config.{words[1]}" in texts, (path, words)
            if name == "raise_alarm" and words:
                assert f"alarm.{words[0]}" in texts, (path, words)
            if name == "say" and words and isinstance(words[0], str):
                assert words[0] in texts, (path, words)


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "en_US", "LC_MESSAGES": "zh_TW"}, "zh"),
    ],
)
def test_language_follows_the_environment(env, wanted):
    assert language(env) == wanted


def test_plain_is_one_printable_line():
    assert plain("a\r\nb\x00\u202ec\u2028d") == "a��b��c�d"


# --- clock ---------------------------------------------------------------------------------------


class Times:
    def __init__(self, wall=BUILD_TIME_US + 10**12, *, synchronised=False):
        self.wall = wall
        self.boot = 10**9
        self.state = SystemState(synchronised=synchronised, error_us=900)

    def pass_s(self, seconds):
        self.wall += int(seconds * 1e6)
        self.boot += int(seconds * 1e9)

    def clock(self, **more):
        return Clock(
            wall=lambda: self.wall, boot=lambda: self.boot, system=lambda: self.state, **more
        )


def test_the_kernel_can_be_asked():
    assert system_state().error_us >= 0


def test_the_system_is_trusted_before_the_hub_and_the_hub_before_nobody():
    times = Times()
    clock = times.clock()
    assert clock.mark().source is ClockSource.NONE
    clock.learn_hub(times.wall + 5_000_000, sent_ns=times.boot - 20_000_000, received_ns=times.boot)
    assert clock.mark().source is ClockSource.HUB
    assert clock.mark().offset_us == 5_010_000
    assert clock.mark().error_us == 10_001
    times.state = SystemState(synchronised=True, error_us=800)
    times.pass_s(17)
    assert clock.mark().source is ClockSource.SYSTEM
    assert clock.mark().offset_us == 0


def test_a_worse_measurement_does_not_replace_a_better_one():
    times = Times()
    clock = times.clock()
    clock.learn_hub(times.wall + 1_000_000, sent_ns=times.boot - 2_000, received_ns=times.boot)
    good = clock.hub_offset_us
    clock.learn_hub(times.wall + 900_000, sent_ns=times.boot - 10**9, received_ns=times.boot)
    assert clock.hub_offset_us == good
    clock.learn_hub(times.wall + 9_000_000, sent_ns=times.boot - 10**9, received_ns=times.boot)
    assert clock.hub_offset_us == 9_500_000  # contradicts it: the old one is no longer true


def test_clock_jump_back_moves_the_offset_with_it():
    times = Times()
    clock = times.clock()
    clock.learn_hub(times.wall, sent_ns=times.boot, received_ns=times.boot)
    before = clock.best_us()
    times.wall -= 86_400_000_000
    assert clock.check() == -86_400_000_000
    assert clock.best_us() == before
    assert clock.jumps == 1
    times.pass_s(100)
    assert clock.check() == 0


def test_clock_1970_is_no_time_until_the_hub_tells():
    times = Times(wall=3_600_000_000)
    clock = times.clock()
    assert clock.known_us() is None
    clock.learn_hub(BUILD_TIME_US + 10**10, sent_ns=times.boot, received_ns=times.boot)
    assert clock.known_us() == clock.best_us() == BUILD_TIME_US + 10**10


# --- keys at rest --------------------------------------------------------------------------------


def test_keys_are_made_once_and_only_their_owner_reads_them(tmp_path):
    ring = Keyring(tmp_path / "keys", {})
    keys = ring.keys_or_new(ring.root_key())
    again = Keyring(tmp_path / "keys", {}).keys(ring.root_key())
    assert again.signing.public == keys.signing.public
    assert again.sealing.public == keys.sealing.public
    for path in [tmp_path / "keys", *(tmp_path / "keys").iterdir()]:
        assert not path.stat().st_mode & 0o077, path
    assert ring.root_source == "file"


def test_a_systemd_credential_is_preferred(tmp_path):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "shanmen-root-key").write_bytes(bytes(range(32)))
    ring = Keyring(tmp_path / "keys", {"CREDENTIALS_DIRECTORY": str(credentials)})
    assert ring.root_bytes() == bytes(range(32))
    assert ring.root_source == "credential"
    ring.keys_or_new(ring.root_key())
    assert not (tmp_path / "keys" / "root.key").exists()
    with pytest.raises(Fault) as raised:  # the credential is gone: not a fresh start
        Keyring(tmp_path / "keys", {}).root_bytes()
    assert raised.value.key == "root-key-missing"


@pytest.mark.parametrize("damage", ["mode", "short", "other", "identity"])
def test_keys_that_cannot_be_trusted_stop_the_agent(tmp_path, damage):
    ring = Keyring(tmp_path / "keys", {})
    ring.keys_or_new(ring.root_key())
    root, identity = tmp_path / "keys" / "root.key", tmp_path / "keys" / "identity"
    if damage == "mode":
        root.chmod(0o640)
    elif damage == "short":
        root.write_bytes(b"x")
    elif damage == "other":
        root.write_bytes(bytes(32))
    else:
        sealed = identity.read_bytes()
        identity.write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(Fault) as raised:
        ring.keys(ring.root_key())
    assert raised.value.exit is Exit.KEYS


def test_secrets_of_drivers(tmp_path):
    ring = Keyring(tmp_path / "keys", {})
    root = ring.root_key()
    assert ring.secret("chirpstack", root) is None
    assert ring.secret("../root.key", root) is None
    (tmp_path / "keys" / "secrets").mkdir()
    path = tmp_path / "keys" / "secrets" / "chirpstack"
    path.write_text("user:pass\n")
    path.chmod(0o600)
    assert ring.secret("chirpstack", root) == "user:pass"
    path.chmod(0o644)
    with pytest.raises(Fault):
        ring.secret("chirpstack", root)
    made = ring.secret("pseudonym", root)
    assert len(made) == 64
    assert ring.secret("pseudonym", root) == made


# --- status --------------------------------------------------------------------------------------


async def test_status_over_a_socket_in_a_deep_folder(tmp_path):
    folder = tmp_path / ("deep" * 20) / ("er" * 20)
    folder.mkdir(parents=True)

    async def snapshot():
        return {"state": "running", "big": "x" * 500_000}

    server = StatusServer(folder, snapshot)
    await server.start()
    assert stat.S_IMODE((folder / "status.sock").stat().st_mode) == 0o600
    answers = await asyncio.gather(*(ask(folder) for _ in range(4)))
    assert {len(one["big"]) for one in answers} == {500_000}
    await server.stop()
    with pytest.raises(Fault) as raised:
        await ask(folder)
    assert raised.value.exit is Exit.IN_USE


async def test_the_socket_of_an_agent_that_died_is_replaced(tmp_path):
    async def snapshot():
        return {}

    first = StatusServer(tmp_path, snapshot)
    await first.start()
    second = StatusServer(tmp_path, snapshot)
    await second.start()
    assert await ask(tmp_path) == {}
    await second.stop()
    first._server.close()


def test_one_lock_a_folder(tmp_path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.take()
    with pytest.raises(Fault) as raised:
        second.take()
    assert raised.value.fields["process"] == str(os.getpid())
    first.release()
    second.take()
    second.release()


def test_a_small_file_is_the_old_one_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "f"
    files.save(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "I/O error")))
    with pytest.raises(OSError):
        files.save(path, b"new")
    assert path.read_bytes() == b"old"
    monkeypatch.undo()
    files.save(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
