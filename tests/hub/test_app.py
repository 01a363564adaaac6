"""The real command: start, stop, certificate, service manager, and what it says when it cannot."""

import asyncio
import contextlib
import io
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from devices.simulators.broker import free_port
from hub.cli import main
from hub.commands import SiteAdd, TokenNew, checked
from hub.faults import Exit
from hub.messages import speaking, text
from protocol.errors import ConfigError
from tests.certificates import Authority
from tests.hub.shell import Gateway, serving
from tests.shared import ROOT

COMMAND = [sys.executable, "-m", "hub.cli"]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*words: str, LC_ALL: str = "C.UTF-8") -> Done:
    """A command in this process: what it prints, and its exit code."""
    out, err, root = io.StringIO(), io.StringIO(), logging.getLogger()
    handlers, level, umask = list(root.handlers), root.level, os.umask(0o077)
    old = os.environ.get("LC_ALL")
    os.environ["LC_ALL"] = LC_ALL
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        os.umask(umask)
        os.environ.pop("LC_ALL") if old is None else os.environ.update(LC_ALL=old)
    return Done(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def served(folder: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """`shanmen-hub serve` as a process of its own, listening."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--data", str(folder)],
        cwd=ROOT,
        env=os.environ | env,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "hub serves" in line, line
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def speaks_plainly(port: int) -> bool:
    """Whether the port answers HTTP without TLS."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            return plain.recv(100).startswith(b"HTTP/")
    return False


def peer_name(port: int) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    subject = x509.load_der_x509_certificate(der).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_certificate_is_read_again_on_sighup(tmp_path: Path) -> None:
    folder, port = tmp_path / "hub", free_port()
    folder.mkdir()
    county = Authority(tmp_path / "ca.pem")
    files = folder / "cert.pem", folder / "key.pem"
    county.issue(*files, subject="first")
    made = run("init", str(folder), "--host", "127.0.0.1", "--port", str(port),
               "--certificate", "cert.pem", "--key", "key.pem")  # fmt: skip
    assert made.returncode == 0, made.stderr
    with served(folder) as process:
        assert peer_name(port) == "first"
        assert not speaks_plainly(port)
        county.issue(*files, subject="second")
        process.send_signal(signal.SIGHUP)
        assert "certificate read again" in process.stderr.readline()
        assert peer_name(port) == "second"
        (folder / "cert.pem").write_text("broken")
        process.send_signal(signal.SIGHUP)
        line = json.loads(process.stderr.readline())
        assert line["level"] == "error"
        assert "the old one stays" in line["message"]
        assert peer_name(port) == "second"


def test_stops_within_ten_seconds_and_tells_the_service_manager(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    assert run("init", str(folder), "--port", "0").returncode == 0
    ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ear.settimeout(20)
    ear.bind(str(tmp_path / "notify"))
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    heard: list[str] = []
    with ear, served(folder, **env) as process:
        while "WATCHDOG=1" not in "\n".join(heard):
            heard.append(ear.recv(1000).decode())
        process.send_signal(signal.SIGHUP)
        while "RELOADING=1" not in "\n".join(heard):
            heard.append(ear.recv(1000).decode())
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in "\n".join(heard):
            heard.append(ear.recv(1000).decode())
        assert process.wait(timeout=15) == 0
        assert time.monotonic() - begun < 10
    assert heard[0].startswith("READY=1")
    assert not (folder / "admin.sock").exists()


def test_commands_with_and_without_a_running_hub_have_one_writer(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    assert run("init", str(folder), "--port", "0").returncode == 0
    made = run("site", "add", "lake", "--name", "湖区", "--data", str(folder))
    assert (made.returncode, made.stdout) == (0, "lake\n")
    with served(folder):
        sock = folder / "admin.sock"
        assert sock.stat().st_mode & 0o777 == 0o600
        again = run("site", "add", "lake", "--data", str(folder))
        assert again.returncode == Exit.REFUSED
        assert "lake" in again.stderr
        second = run("serve", "--data", str(folder))
        assert second.returncode == Exit.IN_USE
        assert second.stderr.splitlines() == [
            text("fault.folder-in-use.text", "en", folder=folder),
            text("fault.remedy", "en", remedy=text("fault.folder-in-use.remedy", "en")),
        ]
        commands = [
            subprocess.Popen(
                [*COMMAND, "token", "new", "--site", "lake", "--data", str(folder)],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        tokens = {one.communicate(timeout=60)[0].strip() for one in commands}
        assert len(tokens) == 2
        assert all(one.startswith("SM1-") for one in tokens)
    listed = run("site", "list", "--json", "--data", str(folder))
    assert [one["site"] for one in json.loads(listed.stdout)["sites"]] == ["lake"]


@pytest.mark.parametrize(
    ("command", "field", "expected"),
    [
        (TokenNew(kind="site", site="lake", hours=-1), "hours", "1–8760"),
        (TokenNew(kind="site", site="lake", hours=99_999_999), "hours", "1–8760"),
        (TokenNew(kind="site", site="x" * 65), "site", "at most 64"),
        (SiteAdd(site="x" * 5_000, name="x"), "site", "1 to 64 letters A-Z, digits and -"),
        (SiteAdd(site="east/gate", name="x"), "site", "1 to 64 letters A-Z, digits and -"),
    ],
)
def test_bounds_of_commands_hold_on_the_command_line_too(command, field, expected) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(command)
    assert (caught.value.field, caught.value.expected) == (field, expected)
    assert field == "hours" or speaking("zh").phrase(expected) != expected


def test_a_command_out_of_bounds_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    assert run("init", str(folder), "--port", "0").returncode == 0
    refused = run("site", "add", "x" * 5_000, "--data", str(folder))
    assert refused.returncode == Exit.REFUSED
    assert "1 to 64 letters" in refused.stderr
    listed = run("site", "list", "--json", "--data", str(folder))
    assert json.loads(listed.stdout)["sites"] == []


@pytest.mark.parametrize("lang", ["C.UTF-8", "zh_CN.UTF-8"])
def test_what_cannot_be_done_names_its_remedy(tmp_path: Path, lang: str) -> None:
    language = "zh" if lang.startswith("zh") else "en"
    folder = tmp_path / "hub"

    def golden(done: Done, code: Exit, key: str) -> None:
        assert done.returncode == code, done.stderr
        remedy = text(f"fault.{key}.remedy", language)
        assert done.stderr.splitlines()[-1] == text("fault.remedy", language, remedy=remedy)
        assert "Traceback" not in done.stderr

    missing = run("serve", "--data", str(folder), LC_ALL=lang)
    golden(missing, Exit.CONFIG, "config-missing")
    assert run("init", str(folder), "--port", "0").returncode == 0
    golden(run("init", str(folder), LC_ALL=lang), Exit.IN_USE, "exists")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (folder / "hub.toml").write_text(f"[listen]\nport = {port}\n")
        done = run("serve", "--data", str(folder), LC_ALL=lang)
        golden(done, Exit.IN_USE, "port-in-use")
        assert str(port) in done.stderr
    (folder / "hub.toml").write_text('[listen]\nhost = "0.0.0.0"\nprot = 1\n')
    wrong = run("serve", "--data", str(folder), LC_ALL=lang)
    assert wrong.returncode == Exit.CONFIG
    told = wrong.stderr.splitlines()
    assert len(told) == 3
    assert "listen.prot" in told[1]
    assert "listen.host" in told[2]
    (folder / "hub.toml").write_text('[listen]\ncertificate = "no.pem"\nkey = "no.key"\n')
    golden(run("serve", "--data", str(folder), LC_ALL=lang), Exit.CONFIG, "certificate")
    (folder / "hub.toml").write_text("")
    (folder / "keys" / "signing.key").chmod(0o644)
    golden(run("serve", "--data", str(folder), LC_ALL=lang), Exit.KEYS, "keys-unusable")
    listed = run("site", "list", "--data", str(folder), LC_ALL=lang)
    golden(listed, Exit.KEYS, "keys-unusable")
    assert ("权限 0600" if language == "zh" else "mode 0600") in listed.stderr


async def test_backup_and_restore_over_the_line(tmp_path: Path) -> None:
    """What was accepted after the backup comes again; the hub says what happened to it."""
    from hub import admin
    from hub.folder import read_config
    from hub.maintenance import check_start  # noqa: F401  # the check under test runs at opening
    from hub.restoring import bring_settings, restore
    from hub.store.audit import Actor
    from tests.hub import kit

    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        bays = gateway.resource()
        first, second = bays.seal(), bays.seal()
        await gateway.exchange(bays.registration, kit.item(first))
        made = await shell.do(admin.BackupMake(folder=str(tmp_path / "backup")))
        assert made["packs"] == 1
        outcome = await gateway.exchange(kit.item(second))
        assert outcome.backed_up_to == made["size"]
    database = (tmp_path / "backup" / "hub.db").read_bytes()
    root = tmp_path / "hub"
    for path in root.glob("hub.db*"):
        path.unlink()
    (root / "hub.db").write_bytes(database)
    from hub.faults import Fault

    with pytest.raises(Fault) as caught:  # put back behind the hub's back
        async with serving(tmp_path):
            pass
    assert caught.value.exit is Exit.RESTORE
    config = root / "hub.toml"
    bring_settings(tmp_path / "backup", config)
    _, folder = read_config(config)
    done = await restore(folder, tmp_path / "backup", by=Actor(who="test", source="console"))
    async with serving(tmp_path) as shell:
        gateway.shell = shell
        outcome = await gateway.exchange(kit.item(second))
        assert outcome.new_generation
        assert outcome.hub.generation == done.generation
        assert len((await gateway.exchange(kit.item(second))).items) == 1
        # The frozen tree is still served.
        assert (await shell.call("GET", f"/log/{done.generation - 1}/checkpoint")).status == 200


def test_a_backup_restores_on_a_new_machine(tmp_path: Path) -> None:
    old, new, copy = tmp_path / "old", tmp_path / "new", tmp_path / "copy"
    identity = run("init", str(old), "--port", "0").stdout
    run("site", "add", "lake", "--data", str(old))
    assert run("backup", str(copy), "--data", str(old)).returncode == 0
    done = run("restore", str(copy), "--data", str(new), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lost_bodies"] == 0
    assert run("site", "list", "--data", str(new)).stdout.splitlines()[1].startswith("lake ")
    with served(new):
        pass
    assert identity
    empty = run("restore", str(tmp_path / "nothing"), "--data", str(old))
    assert empty.returncode == Exit.DISK
    assert "backup.json" in empty.stderr


async def test_stopping_answers_what_is_running(tmp_path: Path) -> None:
    """A batch under way when SIGTERM comes gets its answer."""
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        bays = gateway.resource()
        running = asyncio.create_task(gateway.exchange(bays.registration))
        async with asyncio.timeout(10):
            while not shell.parts.pool.used and not running.done():
                await asyncio.sleep(0)
        shell.app.stop()
        assert len((await running).accepted) == 1


def test_init_for_settings_that_exist(tmp_path: Path) -> None:
    """The package's way: settings in one place, data in another, made by `init --config`."""
    from hub import config as configs

    example = (ROOT / "packaging" / "examples" / "hub.toml").read_text()
    configs.load(example, file="hub.toml")
    settings = tmp_path / "etc" / "hub.toml"
    settings.parent.mkdir()
    settings.write_text(example.replace("/var/lib/shanmen-hub", str(tmp_path / "var")))
    made = run("init", "--config", str(settings))
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "var" / "keys" / "signing.key").is_file()
    assert run("init", "--config", str(settings)).returncode == Exit.IN_USE
    assert run("site", "add", "lake", "--config", str(settings)).returncode == 0
    assert sorted(one.name for one in settings.parent.iterdir()) == ["hub.toml"]
