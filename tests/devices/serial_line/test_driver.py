"""The shell on a real pty: answers after the commit, pulled plugs, busy ports, silence, questions."""

import asyncio
import os
import sys
from contextlib import aclosing, asynccontextmanager

import pytest

from agent.host.messages import Messages
from devices.driver import DeviceState, DriverError, Promise
from devices.kit import Bench, load
from devices.serial_line import driver as shell
from devices.serial_line import port as ports
from devices.serial_line import probe as probing
from protocol.times import Quality
from tests.devices.serial_line.line import Plug, check

GATE = """
[[device]]
id = "E1"
profile = "serial_line/gate"
resource = "gate-checks"
pack = "ticket.check"
connection = {{ port = "{port}" }}
map = {{ gate_no = {{ const = "E1" }} }}
"""
SCANNER = """
[[device]]
id = "S1"
profile = "serial_line/{profile}"
resource = "scans"
pack = "ticket.check"
connection = {{ port = "{port}" {more} }}
policy = {{ silence_alarm = "10m" }}
map = {{ ticket_ref = {{ path = "text", transform = "pseudonym" }} }}
"""
ID_CARD = """
[[device]]
id = "I1"
profile = "serial_line/idcard-sam"
resource = "id-checks"
pack = "ticket.check"
connection = {{ port = "{port}" }}
framing = {{ idle = "50ms" }}
poll = {{ every = "1ms", timeout = "50ms" }}
"""


@pytest.fixture
def plug(tmp_path):
    one = Plug(tmp_path)
    one.plug_in()
    yield one
    one.pull()


def scanner(plug, profile="gm65", more=""):
    return SCANNER.format(port=plug.path, profile=profile, more=more)


class Running:
    """A driver whose readings are pulled by hand."""

    def __init__(self, config: str, bench: Bench) -> None:
        loaded = load(config)
        assert not loaded.problems, loaded.problems
        self.driver = loaded.drivers[0].make(bench)
        self.bench = bench

    @asynccontextmanager
    async def session(self):
        async with aclosing(self.driver.run()) as readings:
            self._next = asyncio.ensure_future(anext(readings))
            self._readings = readings
            try:
                yield self
            finally:
                self._next.cancel()
                await asyncio.gather(self._next, return_exceptions=True)

    async def opened(self):
        """Until the driver has the port."""
        async with asyncio.timeout(10):
            while not any(s is DeviceState.ONLINE for s in self.bench.health.states.values()):
                await asyncio.sleep(0.001)
        return self

    async def reading(self):
        async with asyncio.timeout(10):
            found = await self._next
        self._next = asyncio.ensure_future(anext(self._readings))
        return found

    async def until(self, counter: str, n: int):
        async with asyncio.timeout(10):
            while self.bench.health.total(counter) < n:
                await asyncio.sleep(0.001)

    async def failure(self) -> DriverError:
        with pytest.raises(DriverError) as caught:
            async with asyncio.timeout(10):
                await self._next
        return caught.value


async def test_the_answer_follows_the_commit_and_never_precedes_it(plug):
    bench = Bench()
    async with Running(GATE.format(port=plug.path), bench).session() as gate:
        await gate.opened()
        plug.send(check(1, "T1", 20))
        first = await gate.reading()
        assert first.identity
        assert first.promise is Promise.A
        assert plug.received() == b""
        bench.commit(first)
        assert await plug.answer(3) == b"\x061\r"
        plug.send(check(2, "T2", 21)[:-1] + b"\x00")  # damaged
        bad = await gate.reading()
        assert plug.received() == b""
        bench.commit(bad)
        assert await plug.answer(2) == b"\x15\r"


async def test_a_frame_that_is_sent_again_before_its_commit_gets_one_answer(plug):
    bench = Bench()
    async with Running(GATE.format(port=plug.path), bench).session() as gate:
        await gate.opened()
        plug.send(check(1, "T1", 20) * 2)
        first, again = await gate.reading(), await gate.reading()
        assert again.ack is None
        assert [bench.commit(first), bench.commit(again)] == [True, False]
        assert await plug.answer(3) == b"\x061\r"
        plug.send(check(1, "T1", 20))  # the answer was lost: it is given again
        bench.commit(await gate.reading())
        assert await plug.answer(3) == b"\x061\r"
        assert bench.repeats == 2


async def test_noise_before_a_frame_gets_no_answer_of_its_own(plug):
    """One sending, one answer: a gate would take the second for that to its next check."""
    bench = Bench()
    async with Running(GATE.format(port=plug.path), bench).session() as gate:
        await gate.opened()
        plug.send(b"\x02~U" + check(1, "T1", 20))
        noise, first = await gate.reading(), await gate.reading()
        assert noise.rejected
        assert noise.ack is None
        bench.commit(noise)
        bench.commit(first)
        assert await plug.answer(3) == b"\x061\r"
        assert plug.received() == b""


async def test_killed_between_commit_and_answer_the_gate_sends_again_and_is_recognised(plug):
    bench = Bench()
    async with Running(GATE.format(port=plug.path), bench).session() as gate:
        await gate.opened()
        plug.send(check(1, "T1", 20))
        bench.commit(await gate.reading(), ack=False)
    bench.health.states.clear()
    async with Running(GATE.format(port=plug.path), bench).session() as gate:
        await gate.opened()
        assert plug.received() == b""
        plug.send(check(1, "T1", 20))
        assert not bench.commit(await gate.reading())
        assert await plug.answer(3) == b"\x061\r"
    assert len(bench.committed) == 1


async def test_killed_between_receipt_and_commit_nothing_was_answered(plug):
    bench = Bench()
    async with Running(GATE.format(port=plug.path), bench).session() as gate:
        await gate.opened()
        plug.send(check(1, "T1", 20))
        await gate.reading()
    bench.health.states.clear()
    async with Running(GATE.format(port=plug.path), bench).session() as gate:
        await gate.opened()
        assert plug.received() == b""
        plug.send(check(1, "T1", 20))
        assert bench.commit(await gate.reading())


async def test_pulled_plug_keeps_the_half_apart_and_the_same_path_is_read_again(plug, monkeypatch):
    monkeypatch.setattr(ports, "LOOK_EVERY_S", 0.01)
    bench = Bench()
    running = Running(GATE.format(port=plug.path), bench)
    async with running.session() as gate:
        await gate.opened()
        whole = check(1, "T1", 20)
        plug.send(whole)
        pending = await gate.reading()
        plug.send(whole[:9])
        await asyncio.sleep(0.02)
        plug.pull()
        half = await gate.reading()
        assert [one.reason for one in half.rejected] == ["half-frame"]
        failure = await gate.failure()
        assert (failure.field, failure.retry, failure.was_read) == ("port-lost", True, True)
        assert bench.health.states["E1"] is DeviceState.ABSENT
        bench.commit(pending)
        assert bench.health.total("answered_late") == 1
    async with running.session() as gate:  # the supervisor comes back: the same instance
        await asyncio.sleep(0.05)
        assert bench.health.states["E1"] is DeviceState.ABSENT
        plug.plug_in()
        await gate.opened()
        plug.send(whole[9:] + whole)
        again = await gate.reading()
        assert not bench.commit(again)
        assert await plug.answer(3) == b"\x061\r"


async def test_first_frame_of_a_new_connection_may_be_the_last_one_of_the_old(plug):
    bench = Bench()
    config = (
        GATE.format(port=plug.path)
        + 'policy = { dedup_key = [] }\nreply = { accepted = "\\u0006\\r" }\n'
    )
    running, marks = Running(config, bench), []
    for _ in range(2):
        async with running.session() as gate:
            await gate.opened()
            for _ in range(2):
                plug.send(check(1, "T1", 20))
                got = await gate.reading()
                assert got.promise is Promise.B
                bench.commit(got)
                assert await plug.answer(2) == b"\x06\r"
                marks.append(bool(got.rows[0].records[0].quality & Quality.MAYBE_REPEAT))
                bench.now_us += 3_600_000_000  # long after `reply.resend`
        bench.health.states.clear()
    assert marks == [False, False, True, False]


async def test_port_is_waited_for_and_health_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ports, "LOOK_EVERY_S", 0.01)
    told = []
    bench = Bench()
    monkeypatch.setattr(bench.health, "changed", lambda *about: told.append(about))
    plug = Plug(tmp_path)
    async with Running(scanner(plug), bench).session():
        async with asyncio.timeout(10):
            while not told:
                await asyncio.sleep(0.001)
        assert told == [("S1", DeviceState.ABSENT, f"port-missing: {plug.path}")]
        plug.plug_in()
        async with asyncio.timeout(10):
            while len(told) < 2:
                await asyncio.sleep(0.001)
        assert told[1] == ("S1", DeviceState.ONLINE)
    plug.pull()


async def test_port_is_ours_alone(plug):
    bench, other = Bench(), Bench()
    async with Running(scanner(plug), bench).session() as one:
        await one.opened()
        async with Running(scanner(plug), other).session() as two:
            failure = await two.failure()
        assert (failure.field, failure.was_read) == ("port-busy", False)
        assert other.health.states["S1"] is DeviceState.ABSENT


async def test_half_lines_are_given_up_when_the_line_is_quiet(plug):
    bench = Bench()
    config = scanner(plug) + 'framing = { idle = "30ms" }\n'
    async with Running(config, bench).session() as one:
        await one.opened()
        plug.send(b"T12")
        half = await one.reading()
        assert [r.reason for r in half.rejected] == ["half-frame"]
        plug.send(b"T34\r")
        rest = await one.reading()
        assert [r.reason for r in rest.rejected] == ["half-frame"]
        plug.send(b"T56\r")
        (rows,) = (await one.reading()).rows
        assert rows.records[0].values["ticket_ref"]


async def test_a_line_long_after_a_half_one_is_a_line(plug, monkeypatch):
    silent = asyncio.Event()

    class Telling(shell.Framer):
        def idle(self):
            found = super().idle()
            if not self.is_in_tail:
                silent.set()
            return found

    monkeypatch.setattr(shell, "TAIL_S", 0.05)
    monkeypatch.setattr(shell, "Framer", Telling)
    config = scanner(plug) + 'framing = { idle = "30ms" }\n'
    async with Running(config, Bench()).session() as one:
        await one.opened()
        plug.send(b"x")  # noise that looks like text, hours before the next scan
        half = await one.reading()
        assert [r.reason for r in half.rejected] == ["half-frame"]
        async with asyncio.timeout(10):
            await silent.wait()
        plug.send(b"T34\r")
        (rows,) = (await one.reading()).rows
        assert rows.records[0].values["ticket_ref"]


async def test_one_card_held_is_one_record(plug):
    bench = Bench()
    async with Running(scanner(plug), bench).session() as one:
        await one.opened()
        plug.send(b"T1\r\n" * 20 + b"T2\r\n")
        first, second = await one.reading(), await one.reading()
        assert first.promise is Promise.C
        assert len(first.rows) == len(second.rows) == 1
        assert bench.health.total("repeat") == 19


async def test_rubbish_makes_a_reader_garbled_and_a_frame_online_again(plug):
    bench = Bench()
    async with Running(GATE.format(port=plug.path), bench).session() as gate:
        await gate.opened()
        for number in range(3):
            plug.send(b"\x02\x81\x93\x03%d" % number)
            await gate.reading()
        assert bench.health.states["E1"] is DeviceState.GARBLED
        plug.send(check(1, "T1", 20))
        await gate.reading()
        assert "E1" in bench.health.last_seen


async def test_silence_is_told(plug, monkeypatch):
    monkeypatch.setattr(shell, "TICK_S", 0.01)
    bench = Bench()
    async with Running(scanner(plug), bench).session() as one:
        await one.opened()
        bench.now_us += 11 * 60_000_000
        async with asyncio.timeout(10):
            while bench.health.states["S1"] is not DeviceState.SILENT:
                await asyncio.sleep(0.001)


async def test_identity_card_reader_is_asked_in_three_steps(plug):
    from tests.devices.serial_line.test_samples import card, sam

    bench = Bench()
    find, select, read = (
        bytes.fromhex(f"aaaaaa96690003{one}") for one in ("200122", "200221", "300132")
    )
    async with Running(ID_CARD.format(port=plug.path), bench).session() as reader:
        assert await plug.answer(10) == find
        plug.send(sam("000080"))  # no card: quietly asked again
        assert await plug.answer(10) == find
        plug.send(sam("00009f00000000"))
        assert await plug.answer(10) == select
        plug.send(sam("0000900000000000000000"))
        assert await plug.answer(10) == read
        answer = card("510107199003071234")
        for at in range(0, len(answer), 200):
            plug.send(answer[at : at + 200])
        got = await reader.reading()
        values = got.rows[0].records[0].values
        assert values["origin_region"] == "510107"
        assert values["medium"] == "id_card"
        assert not got.rejected
        await reader.until("unanswered", shell.UNANSWERED_AFTER)
        assert bench.health.states["I1"] is DeviceState.SILENT


async def test_a_slow_agent_stops_the_reading_and_loses_nothing(plug, monkeypatch):
    monkeypatch.setattr(ports, "BUFFER_BYTES_MAX", 64)
    bench = Bench()
    config = scanner(plug) + 'policy = { repeat_window = "1ms" }\n'
    config = config.replace('policy = { silence_alarm = "10m" }\n', "")
    async with Running(config, bench).session() as one:
        await one.opened()
        sent = [b"T%05d\r" % n for n in range(500)]
        for data in sent:
            plug.send(data)
            bench.now_us += 1_000_000
        for _ in sent:
            assert len((await one.reading()).rows) == 1


# --- what doctor tries ---------------------------------------------------------------------------


async def probe(config: str, while_open=None):
    driver = load(config).drivers[0].make(Bench())
    asking = asyncio.ensure_future(driver.probe())
    if while_open is not None:
        await while_open()
    (result,) = await asking
    for lang in ("en", "zh"):  # whatever is found has a text that its fields fill
        say = Messages(lang)
        for key in (f"probe.{result.key}", f"probe.{result.key}.remedy"):
            assert say.fits(key, result.fields) or (result.ok and key.endswith("remedy")), key
    return result


@pytest.fixture
def quick(monkeypatch):
    real = probing.examine
    monkeypatch.setattr(shell, "examine", lambda s: real(s, listen_s=0.3, other_s=0.1))


async def test_probe_names_a_missing_port(tmp_path, quick):
    result = await probe(scanner(Plug(tmp_path)))
    assert (result.ok, result.key) == (False, "port-missing")
    assert "others" in result.fields


async def test_probe_names_what_is_no_port(tmp_path, quick):
    plug = Plug(tmp_path)
    plug.path.write_text("")
    assert (await probe(scanner(plug))).key == "port-not-serial"


async def test_probe_names_settings_that_the_port_cannot_do(plug, quick):
    result = await probe(scanner(plug, more=', format = "8E1"'))  # a pty takes no parity
    assert (result.ok, result.key) == (False, "port-settings")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can take its own rights away")
def test_probe_names_missing_rights(plug, tmp_path):
    os.chmod(os.path.realpath(plug.path), 0o600)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(folder, 0o755)
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65_534)
        os.setuid(65_534)
        error = None
        try:
            os.open(plug.path, os.O_RDWR | os.O_NOCTTY)
        except OSError as caught:
            error = caught
        os._exit(0 if error and ports._reason_of(error) == "port-denied" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ports._reason_of(PermissionError(13, "x")) == "port-denied"


async def test_probe_names_who_has_the_port(plug, quick):
    code = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY);"
        "fcntl.flock(fd, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(plug.path),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert await holder.stdout.readline() == b"held\n"
    # A file lock of another program, not of the pty's other end in this process.
    result = await probe(scanner(plug))
    holder.stdin.close()
    await holder.wait()
    assert (result.ok, result.key) == (False, "port-busy")
    assert f"({holder.pid})" in result.fields["holder"]


async def test_probe_hears_a_reader(plug, quick):
    async def scan():
        await asyncio.sleep(0.1)
        plug.send(b"T1\r\n")

    assert (await probe(scanner(plug))).key == "port-quiet"
    result = await probe(scanner(plug), scan)
    assert (result.ok, result.key) == (True, "port-speaks")
    assert (await probe(ID_CARD.format(port=plug.path))).key == "port-no-answer"


async def test_probe_of_a_garbled_line_looks_at_other_speeds(plug, quick, monkeypatch):
    """A pty has no speed: the test makes the line garbled unless 115200 is set."""
    real = ports.create_serial_connection
    speeds = []

    async def speaking(loop, factory, path, **settings):
        found = await real(loop, factory, path, **settings)
        speeds.append(settings["baudrate"])
        plug.send(b"T1\r" if settings["baudrate"] == 115_200 else b"\x81\x02\r")
        return found

    monkeypatch.setattr(ports, "create_serial_connection", speaking)
    result = await probe(scanner(plug))
    assert (result.ok, result.key, result.fields["right"]) == (False, "port-wrong-baud", "115200")
    monkeypatch.setattr(probing, "BAUDS", (9600, 57_600))
    assert (await probe(scanner(plug))).key == "port-garbled"
    assert 115_200 in speeds


def test_twins_are_told_apart_by_socket_only():
    class Usb:
        def __init__(self, device, serial):
            self.device, self.vid, self.pid, self.serial_number = device, 0x1A86, 0x7523, serial

    alike = [Usb("/dev/ttyUSB0", None), Usb("/dev/ttyUSB1", None)]
    assert ports.twins_of("/dev/ttyUSB0", alike) == ["/dev/ttyUSB1"]
    named = [Usb("/dev/ttyUSB0", "A1"), Usb("/dev/ttyUSB1", "A2")]
    assert ports.twins_of("/dev/ttyUSB0", named) == []
    assert ports.twins_of("/dev/ttyS9", alike) == []
