"""The identity of an uplink: R44 and R10, and any order of delivery."""

from hypothesis import given
from hypothesis import strategies as st

from devices.lorawan.envelope import Join, Uplink
from devices.lorawan.session import UNREMEMBERED, Session, joined, place

EUI = "0101010101010101"
S = 1_000_000


class Sensor:
    """A sensor's session as the agent keeps it, through its watermark each time."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.seen: set[bytes] = set()

    def up(self, f_cnt: int, at_s: float, *, addr="00000001", data=b"\x01"):
        uplink = Uplink(
            dev_eui=EUI, dev_addr=addr, f_cnt=f_cnt, port=1, data=data,
            time_us=None if at_s is None else int(at_s * S),
        )  # fmt: skip
        placed = place(self.session, uplink)
        self.session = Session.load(placed.session.dump())
        fresh = placed.identity not in self.seen
        self.seen.add(placed.identity)
        return fresh, placed

    def join(self, at_s: float, *, addr: str) -> bool:
        after = joined(self.session, Join(dev_eui=EUI, dev_addr=addr, time_us=int(at_s * S)))
        self.session = after or self.session
        return after is not None


def test_R44_two_gateways_and_a_confirmed_repeat_are_one_uplink():
    sensor = Sensor()
    assert sensor.up(7, 100)[0]
    assert not sensor.up(7, 100.4)[0]  # the second gateway
    assert not sensor.up(7, 130)[0]  # confirmed, not heard, sent again
    assert sensor.up(8, 160)[0]


def test_R44_rejoin_starts_again_at_zero():
    sensor = Sensor()
    assert sensor.up(0, 100)[0]
    assert sensor.up(1, 200)[0]
    sensor.join(300, addr="00000002")
    assert sensor.up(0, 301, addr="00000002")[0]
    assert sensor.up(1, 400, addr="00000002")[0]
    assert not sensor.up(1, 200)[0]  # delivered again after a crash


def test_R44_rejoin_is_known_by_the_address_alone():
    sensor = Sensor()
    sensor.up(50, 100)
    fresh, placed = sensor.up(0, 200, addr="00000002")
    assert fresh
    assert placed.restarted
    assert not sensor.up(50, 100)[0]


def test_R44_rejoin_that_keeps_its_address_is_known_by_the_join():
    sensor = Sensor()
    sensor.up(0, 100)
    assert sensor.join(200, addr="00000001")
    assert sensor.up(0, 210)[0]
    assert not sensor.up(0, 210)[0]
    assert not sensor.up(0, 100)[0]
    assert not sensor.join(200, addr="00000001")  # the join again


def test_R44_restart_without_a_join():
    """ABP sensors begin at 0 after a change of battery."""
    sensor = Sensor()
    sensor.up(5000, 100)
    fresh, placed = sensor.up(0, 4000)
    assert fresh
    assert placed.restarted
    assert sensor.up(1, 5000)[0]


def test_R44_lost_uplinks_are_counted():
    sensor = Sensor()
    sensor.up(10, 100)
    assert sensor.up(14, 200)[1].lost == 3


def test_R10_sixteen_bit_frame_counter_wraps():
    sensor = Sensor()
    sensor.up(65_534, 100)
    assert sensor.up(65_535, 200)[0]
    fresh, placed = sensor.up(0, 300)
    assert fresh
    assert (placed.lost, placed.restarted) == (0, False)
    assert not sensor.up(65_535, 200)[0]
    assert sensor.up(1, 400)[1].lost == 0


def test_R10_thirty_two_bit_frame_counter_is_taken_as_it_is():
    sensor = Sensor()
    sensor.up(70_000, 100)
    fresh, placed = sensor.up(3, 20_000)
    assert fresh
    assert placed.restarted


def test_R45_frames_without_server_time_are_still_told_apart():
    sensor = Sensor()
    assert sensor.up(3, None)[0]
    assert not sensor.up(3, None)[0]
    assert sensor.up(4, None)[0]
    assert not sensor.up(3, None)[0]


def test_frame_of_a_session_that_nobody_remembers_stands_for_itself():
    sensor = Sensor()
    for number in range(12):
        sensor.up(0, 1000 + number, addr=f"{number + 2:08x}")
    fresh, placed = sensor.up(9, 10, addr="000000ff")
    assert fresh
    assert not sensor.up(9, 10, addr="000000ff")[0]
    assert int.from_bytes(placed.identity[15:19], "big") == UNREMEMBERED


@st.composite
def lives(draw):
    """A sensor's life: frames of 16 bit with losses, rejoins; (address, counter, second, data)."""
    frames, addr, counter, second = [], 1, draw(st.sampled_from([0, 100, 65_500])), 1000
    for _ in range(draw(st.integers(1, 40))):
        second += draw(st.integers(20, 4000))
        if draw(st.integers(0, 9)) == 0:
            addr, counter = addr + 1, 0
        frames.append(
            (f"{addr:08x}", counter & 0xFFFF, second, draw(st.binary(min_size=1, max_size=2)))
        )
        counter += draw(st.sampled_from([1, 1, 1, 2, 5]))
    return frames


@given(lives(), st.data())
def test_every_frame_counts_once_whatever_is_delivered_again(life, data):
    """At any moment a bounded window of old messages may come again, in any order."""
    sensor = Sensor()
    for number, (addr, counter, second, payload) in enumerate(life):
        assert sensor.up(counter, second, addr=addr, data=payload)[0]
        window = life[max(0, number - 7) : number + 1]
        for old in data.draw(st.lists(st.sampled_from(window), max_size=4)):
            fresh, _ = sensor.up(old[1], old[2], addr=old[0], data=old[3])
            assert not fresh
    assert len(sensor.seen) == len(life)
