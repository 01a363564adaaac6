"""The commands in process: what they print, what they return, what `doctor` finds."""

import contextlib
import json
import re
import sqlite3
import subprocess
import sys

import pytest
from aiohttp import web

from agent import cli
from agent.commands import doctor
from agent.commands.doctor import Doctor
from agent.commands.enrol import enrol
from agent.commands.status import StatusServer, alarm_text, lines
from agent.host.clock import Clock, SystemState
from agent.host.faults import Fault
from agent.host.messages import Messages
from agent.host.plan import read_file
from agent.link.hub_faults import fault_of
from agent.store.ports import Paths
from protocol import envelope, ids
from protocol.errors import Code, RefusedError
from tests.agent.test_enrol import PIN, EnrolHub
from tests.agent.test_uplink import serving
from tests.protocol.objects import STRANGER, TOKEN

CONFIG = """
data = "{data}"
name = "gw"
[hub]
url = "{url}"
[[resource]]
id = "p1-bays"
pack = "parking.bay"
"""


@pytest.fixture(autouse=True)
def _english(monkeypatch):
    for name in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "en_US.UTF-8")


def config_at(tmp_path, url="https://hub.example.org", more=""):
    path = tmp_path / "agent.toml"
    path.write_text(CONFIG.format(data=tmp_path / "data", url=url) + more)
    return path


def run(*words):
    return cli.main([str(one) for one in words])


def test_check_prints_every_problem_and_returns_three(tmp_path, capsys):
    path = tmp_path / "agent.toml"
    path.write_text(
        '[hub]\nurl = 5\nretry_min = "x"\n[[device]]\nid = 3\n[[resource]]\nid = "a"\npack = "no.such"\n'
    )
    assert run("check", "-c", path) == 3
    text = capsys.readouterr().err
    for where in ("data", "hub.url", "hub.retry_min", "device[0]"):
        assert where in text
    assert run("-c", path, "check") == 3  # the option is taken before and after


def test_configuration_opens_grade(tmp_path, capsys):
    """A gateway's configuration can only protect more; opening is the owner's, by a signed object."""
    path = config_at(tmp_path, more='grade = "fully-open"\n')
    assert run("check", "-c", path) == 3
    text = capsys.readouterr().err
    assert "more open than the default of pack parking.bay" in text
    assert "only the owner may open" in text
    assert run("check", "-c", config_at(tmp_path, more='grade = "shareable"\n')) == 0
    secret = 'grade = "shareable"\nsecrecy = "secret"\n'
    assert run("check", "-c", config_at(tmp_path, more=secret)) == 3
    assert "forces the grade key-protected" in capsys.readouterr().err


def test_check_of_a_good_configuration(tmp_path, capsys):
    assert run("check", "-c", config_at(tmp_path)) == 0
    text = capsys.readouterr().out
    assert "no problems. 1 resources" in text
    assert "Not enrolled yet" in text


def test_a_configuration_that_is_not_there(tmp_path, capsys):
    assert run("check", "-c", tmp_path / "none.toml") == 3
    assert "There is no configuration" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["status", "--json"]])
def test_status_of_no_agent(tmp_path, capsys, command):
    (tmp_path / "data").mkdir()
    assert run(*command, "-c", config_at(tmp_path)) == 8
    assert "systemctl start" in capsys.readouterr().err


def test_the_command_line_is_wrong(tmp_path):
    for words in (["fly"], [], ["enrol"], ["vault"]):
        with pytest.raises(SystemExit) as raised:
            run(*words)
        assert raised.value.code == 2


def test_vault_export_without_a_vault_and_onto_a_file(tmp_path, capsys):
    path = config_at(tmp_path)
    (tmp_path / "data").mkdir()
    assert run("vault", "export", tmp_path / "out", "-c", path) == 11
    assert "There is no vault" in capsys.readouterr().err
    sqlite3.connect(tmp_path / "data" / "vault.db").close()
    (tmp_path / "out").write_text("precious")
    assert run("vault", "export", tmp_path / "out", "-c", path) in {2, 9}
    assert (tmp_path / "out").read_text() == "precious"


class Talking(EnrolHub):
    """Tells the time as well, `off` seconds ahead of the machine."""

    def __init__(self, off=0.0, refusal=None, **more):
        super().__init__(**more)
        self.off = off
        self.refusal = refusal

    async def __call__(self, request):
        if request.path == "/v1/streams":
            if self.refusal is not None:
                status, key = self.refusal
                return web.json_response({"error": {"key": key}}, status=status)
            assert request.headers["Signature"]
            return web.json_response({"streams": []})
        if request.path == "/v1/time":
            payload = {
                "time": Clock().now_us() + int(self.off * 1e6),
                "nonce": bytes.fromhex(request.query["nonce"]),
            }
            return web.Response(body=envelope.make("time", payload, self.hub).raw)
        return await super().__call__(request)


async def examine(tmp_path, hub, *, enrolled=True, clock=None):
    async with serving(hub) as url:
        plan = read_file(config_at(tmp_path, url))
        (tmp_path / "data").mkdir(exist_ok=True)
        if enrolled:
            await enrol(plan.config, token=TOKEN, owner=PIN, host="gw", clock=Clock())
        findings = [one async for one in Doctor(plan, Messages("en"), clock or Clock()).findings()]
    return {one.name: one for one in findings}, findings


async def test_doctor_of_a_good_installation(tmp_path):
    found, _ = await examine(tmp_path, Talking())
    assert {name for name, one in found.items() if one.level == "fail"} == set()
    assert found["identity"].fields["site"] == "lake"
    assert found["sqlite"].fields["version"] == sqlite3.sqlite_version
    assert found["keys"].key == "keys-file"
    assert found["owner"].key == "owner-confirmed"
    assert found["agent"].key == "agent-stopped"


async def test_doctor_names_the_remedy_of_every_failure(tmp_path):
    clock = Clock(system=lambda: SystemState(synchronised=False, error_us=0))
    _, findings = await examine(tmp_path, Talking(owner=False, off=-3_600), clock=clock)
    say = Messages("en")
    failed = {one.name: one.lines(say) for one in findings if one.level != "ok"}
    assert "timedatectl" in failed["clock"][1]
    assert "off by -3600 s" in failed["clock"][0]
    assert "shanmen principal add" in failed["owner"][1]
    for name, text in failed.items():
        assert len(text) == 2, (name, text)


async def test_doctor_does_not_ask_to_set_a_synchronised_clock_to_a_wrong_hubs(tmp_path):
    clock = Clock(system=lambda: SystemState(synchronised=True, error_us=1))
    found, _ = await examine(tmp_path, Talking(off=-3_600), clock=clock)
    text, remedy = found["clock"].lines(Messages("en"))
    assert "the hub's clock is off by -3600 s" in text
    assert "hub's admin" in remedy
    assert "timedatectl" not in remedy


@pytest.mark.parametrize(
    ("refusal", "fault", "remedy"),
    [
        ((401, "unknown-key"), "agent-unknown", "shanmen-hub agent list"),
        ((403, "unknown-agent"), "agent-unknown", "shanmen-hub agent list"),
        ((403, "agent-waiting"), "agent-waiting", "shanmen-hub agent approve"),
        ((403, "agent-suspended"), "agent-suspended", "shanmen-hub agent resume"),
        ((401, "signature-invalid"), "hub-refused", "admin"),
    ],
)
async def test_doctor_asks_the_hub_whether_it_takes_this_gateway(tmp_path, refusal, fault, remedy):
    """The hub's time is told to anybody: only a signed request shows what stands in the way."""
    found, _ = await examine(tmp_path, Talking(refusal=refusal))
    assert found["hub"].level == "ok"
    assert found["admission"].level == "fail"
    assert found["admission"].fault.key == fault
    assert remedy in found["admission"].lines(Messages("en"))[1]


async def test_doctor_says_the_state_of_the_agent_once(tmp_path):
    (tmp_path / "data").mkdir()

    async def snapshot():
        return {"state": "running", "alarms": []}

    server = StatusServer(tmp_path / "data", snapshot)
    await server.start()
    found, _ = await examine(tmp_path, Talking(), enrolled=False)
    await server.stop()
    text = found["agent"].lines(Messages("en"))[0]
    assert text.count("running") == 1


async def test_doctor_shows_an_owner_other_than_the_hubs(tmp_path):
    async with serving(Talking()) as url:
        plan = read_file(config_at(tmp_path, url))
        (tmp_path / "data").mkdir(exist_ok=True)
        wrong = ids.show(STRANGER.principal)
        with pytest.raises(Fault):
            await enrol(plan.config, token=TOKEN, owner=wrong, host="gw", clock=Clock())
        say = Messages("en")
        findings = [one async for one in Doctor(plan, say, Clock()).findings()]
    (told,) = [one for one in findings if one.fault and one.fault.key == "owner-mismatch"]
    text = "\n".join(told.lines(say))
    assert told.level == "fail"
    assert wrong in text
    assert PIN in text


async def test_doctor_before_enrolment_and_without_a_hub(tmp_path):
    found, _ = await examine(tmp_path, Talking(), enrolled=False)
    assert found["identity"].fault.key == "not-enrolled"
    plan = read_file(config_at(tmp_path, "http://127.0.0.1:9"))
    async with serving(Talking()) as url:
        here = read_file(config_at(tmp_path, url))
        await enrol(here.config, token=TOKEN, owner=PIN, host="gw", clock=Clock())
    names = {one.name: one async for one in Doctor(plan, Messages("en"), Clock()).findings()}
    assert names["hub"].fault.key == "unreachable"


async def test_doctor_meets_another_hub(tmp_path):
    async with serving(Talking()) as url:
        here = read_file(config_at(tmp_path, url))
        (tmp_path / "data").mkdir()
        await enrol(here.config, token=TOKEN, owner=PIN, host="gw", clock=Clock())
    from tests.protocol.objects import STRANGER

    async with serving(Talking(hub=STRANGER)) as url:
        plan = read_file(config_at(tmp_path, url))
        found = {one.name: one async for one in Doctor(plan, Messages("en"), Clock()).findings()}
    assert found["hub"].level == "fail"


async def test_doctor_shows_the_alarms_of_the_running_agent(tmp_path):
    (tmp_path / "data").mkdir()

    async def snapshot():
        alarm = {"key": "certificate", "since_us": 1, "fields": {"reason": "expired"}}
        return {"state": "disk-full", "alarms": [alarm]}

    server = StatusServer(tmp_path / "data", snapshot)
    await server.start()
    found, findings = await examine(tmp_path, Talking(), enrolled=False)
    await server.stop()
    assert found["agent"].level == "warn"
    assert found["alarms"].level == "fail"
    assert "expired" in found["alarms"].lines(Messages("en"))[0]


async def test_the_summary_and_the_exit_code(tmp_path):
    printed = []
    plan = read_file(config_at(tmp_path))
    (tmp_path / "data").mkdir()
    clock = Clock(system=lambda: SystemState(synchronised=True, error_us=1))
    code = await doctor.examine(plan, Messages("zh"), printed.append, clock)
    assert code == 1
    assert "需处理" in printed[-1]


def test_status_lines_in_both_languages():
    snapshot = {
        "name": "gw\x1b[2J",
        "state": "running",
        "owner": "",
        "alarms": [
            {"key": "fork", "since_us": 0, "fields": {"resource": "r", "headers": "3"}},
        ],
        "hub": {"url": "https://h", "link": "trying", "last_receipt_us": 5},
        "clock": {"source": "hub", "offset_us": 1500, "error_us": 900},
        "spool": dict.fromkeys(("due", "due_bytes", "journal", "quarantine", "used", "budget"), 7),
        "resources": [
            dict.fromkeys(("records", "accepted", "lost", "duplicates"), 1)
            | {"name": "r", "grade": "general-protected"}
        ],
        "grades_kept": {"r": "general-protected", "s": "key-protected"},
        "drivers": [{"name": "mqtt/x", "promise": "A", "running": False, "last_error": "gone"}],
        "devices": [
            {"name": "d", "state": "garbled", "detail": why, "last_seen_us": None, "counters": {}}
            for why in ("not-json", "a plug-in's own", "port-missing: /dev/serial/by-id/x{y}")
        ],
    }
    for lang, why, port in (
        ("en", "not understood (the message is not JSON)", "x{y} does not exist: plug"),
        ("zh", "（消息不是", "x{y} 不存在：请插好"),
    ):
        text = "\n".join(lines(json.loads(json.dumps(snapshot)), Messages(lang)))
        assert "\x1b" not in text
        assert "mqtt/x" in text
        assert "key-protected" in text
        assert why in text
        assert port in text
        assert "{" not in text.replace("{y}", "")


def test_a_bug_is_one_log_line_and_an_exit_code(tmp_path):
    code = (
        "import sys; from agent import cli; from agent.host import logs; logs.setup('info', 60);"
        "sys.excepthook = cli.report_bug; raise RuntimeError('line one\\nline two')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    (line,) = done.stderr.splitlines()
    assert "line two" in json.loads(line)["trace"]


BROKEN_THROUGHOUT = """
data = "{data}"
typo = 1
[hub]
url = "http://hub.example.org"
bach = "4MiB"
retry_min = "50s"
retry_max = "2s"
ca = 7
[[resource]]
id = "p1"
pack = "parking.bys"
colour = "red"
[[resource]]
id = "p1"
pack = "parking.bay"
grade = "fully-open"
description = 4
[[device]]
id = "gates"
profile = "mqtt/json"
resource = "p9"
pack = "no.such"
colour = "red"
map = {{}}
[device.connection]
mqtt = "none"
topic = "a/#/b"
"""


def test_one_bad_option_hides_no_other(tmp_path, capsys):
    """Unknown keys and wrong types beside them keep nothing from being checked to the end."""
    path = tmp_path / "agent.toml"
    path.write_text(BROKEN_THROUGHOUT.format(data=tmp_path / "data"))
    assert run("check", "-c", path) == 3
    lines = capsys.readouterr().err.splitlines()[1:]
    assert {line.strip().partition(":")[0] for line in lines} == {
        "typo",
        "hub.bach",
        "hub.ca",
        "hub.url",
        "hub.retry_min",
        "resource[0].colour",
        "resource[0].pack",
        "resource[1].id",
        "resource[1].description",
        "resource[1].grade",
        "device[0].colour",
        "device[0].connection.mqtt",
        "device[0].pack",
    }


WRONG_IN_EVERY_WAY = """
data = "relative"
owner = "x"
[hub]
url = "x"
connect_timeout = "1"
retry_min = 5
batch = "1GiB"
[site]
timezone = 1
[seal]
records = 0
[inbox]
allow = "live"
[log]
level = "loud"
[[resource]]
id = "a b"
[[resource]]
id = "b"
pack = "parking.bay"
region = "1"
grade = "fully-open"
coordinates = { longitude = 200.0 }
classification = 3
[[mqtt]]
id = "a b"
url = "http://x"
client_id = ""
login = "user:password"
protocol = "4"
keepalive = "soon"
in_flight = 0
key = "k.pem"
[[mqtt]]
id = "m"
url = "mqtt://x"
client_id = "c"
key = "k.pem"
[[device]]
id = "d"
profile = "mqtt/json"
resource = "b"
connection = { mqtt = 5, qos = 7, device_level = 99, devices = "x" }
time = { trust = "perhaps", bulk_old_ok = 1 }
only = { path = "p", equals = [] }
map = 3
policy = { repeat_memory = -1 }
[[device]]
id = "e"
profile = "mqtt/json"
resource = "t"
pack = "ticket.check"
connection = { mqtt = "m", topic = "a" }
[device.map]
persons = { path = "p", scale = "one", counter = { reset = "noon" } }
gate_no = { path = "g", scale = "2" }
result = { path = "r", codes = { ok = "fine" } }
direction = { const = 5 }
[[device]]
id = "f"
profile = "lorawan/bosch-tps110"
resource = "b"
connection = { mqtt = "m", dev_eui = { x = "1" } }
policy = { reset = "noon", occupied_below = 0 }
[[device]]
id = "g"
"""


def test_a_chinese_check_says_what_is_right_in_chinese(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    path = tmp_path / "agent.toml"
    path.write_text(WRONG_IN_EVERY_WAY)
    assert run("check", "-c", path) == 3
    told = capsys.readouterr().err.splitlines()[1:]
    assert len(told) > 35
    for line in told:
        what = line.partition("：")[2]
        right = what.partition("正确写法：")[2] or what
        # Keys and values are as they are written; a phrase of words would be somebody's English.
        quoted = re.sub(r'"[^"]*"', "", right)
        assert any(one > "\u2e80" for one in right) or not re.search(r"[a-z]+ [a-z]+", quoted), line


@pytest.mark.parametrize("command", [[], ["enrol"], ["status"], ["vault"], ["vault", "export"]])
def test_help_is_in_the_language_of_the_operator(command, capsys, monkeypatch):
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    with pytest.raises(SystemExit):
        run(*command, "--help")
    text = capsys.readouterr().out
    assert "配置文件" in text
    for english in ("fingerprint", "find every", "gateway"):
        assert english not in text


def test_an_error_of_the_protocol_is_said_in_the_language_of_the_reader():
    error = RefusedError(Code.MALFORMED, field="time", expected="28 base32 characters")
    fault = fault_of(error, url="https://h", ca=None, clock=Clock())
    assert "malformed: at time" in fault.lines(Messages("en"))[0]
    text = fault.lines(Messages("zh"))[0]
    assert "数据无法解析（time）" in text
    assert "base32" not in text
    alarm = {"key": "unrecognised", "since_us": 0, "fields": {"reason": "unknown-key"}}
    assert "不认识该密钥" in alarm_text(alarm, Messages("zh"))
    for code in Code:
        assert Messages("zh").has(f"code.{code.key}"), code


def test_check_says_that_a_stricter_grade_stays(tmp_path, capsys):
    """What is registered is not opened by an editor of agent.toml, and he is told."""
    path = config_at(tmp_path)
    (tmp_path / "data").mkdir()
    with contextlib.closing(sqlite3.connect(Paths(folder=tmp_path / "data").spool)) as spool:
        spool.execute("CREATE TABLE resource(local TEXT, grade INT)")
        spool.execute("INSERT INTO resource VALUES('p1-bays', 2), ('gone', 1)")
        spool.commit()
    assert run("check", "-c", path) == 0
    told = capsys.readouterr().out
    assert "resource p1-bays keeps the grade general-protected" in told
    assert "gone" not in told
    path.write_text(path.read_text() + 'grade = "general-protected"\n')
    assert run("check", "-c", path) == 0
    assert "keeps" not in capsys.readouterr().out
