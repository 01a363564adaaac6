"""A car park of 60 bays whose sensors speak LoRaWAN through a ChirpStack v4 network server.

    python -m devices.simulators.carpark --broker mqtt://127.0.0.1:1883 --books park.jsonl

Half the bays have a Bosch TPS110, half a Dingtek DO201. As in the field: two gateways hear one
uplink and it is published twice; a confirmed uplink is repeated; a sensor joins anew and counts
from 0, and protobuf-JSON leaves the 0 out; a 16-bit counter wraps; uplinks get lost on the air; a
parameter packet on the port of reports says nothing about the bay. The guidance system publishes
the lot's totals on a plain JSON topic.
"""

import base64
import json
import random
from dataclasses import dataclass, field

from devices.simulators import payloads
from devices.simulators.books import Book, Content, Fact
from devices.simulators.command import Clock, Orders, orders, rfc3339, run, ticks
from devices.simulators.publisher import Message, Publisher

BAYS = 60
APPLICATION = "17c82e96-be03-4f38-aef3-f83d48582d97"
TOPIC = "application/{application}/device/{eui}/event/{event}"
LOT_TOPIC = "p1/guidance/lot"

#: Local names of the resources these devices feed.
BAY_RESOURCE = "p1-bays"
HEALTH_RESOURCE = "p1-sensors"
LINK_RESOURCE = "p1-links"
LOT_RESOURCE = "p1-lot"

#: Each fifth message is the lot's.
LOT_EVERY = 5

#: What a message that is not about the bay's state says of the sensor.
_ALIVE: dict[str, Fact] = {"state": "online"}
_DATA_RATE = 5

_GATEWAYS = ("0016c001f153a14c", "0016c001f153a1d7")


@dataclass(slots=True)
class Uplink:
    """One frame of one sensor and what it means to the resources."""

    port: int
    payload: bytes
    bay: dict[str, Fact] | None  # fields of parking.bay, if it says something about the bay
    health: dict[str, Fact] | None  # fields of device.health
    link: dict[str, Fact]  # fields of device.link besides those of the reception


@dataclass(slots=True)
class Sensor:
    """One bay's sensor with its radio session."""

    number: int
    kind: str
    eui: str
    address: int
    counter: int = 0  # as on the air: 16 bit
    session: int = 0
    frame: int = 0  # uplinks since power-up: identity in the books
    occupied: bool = False
    centivolt: int = 360
    started: bool = False  # it has joined and not yet said so
    bay_no: str = field(init=False)

    def __post_init__(self) -> None:
        self.bay_no = f"A{self.number + 1:03d}"

    @property
    def key(self) -> str:
        """Identity of the frame that is being sent."""
        return f"{self.eui}/{self.session}/{self.frame}"

    def bay(self) -> dict[str, Fact]:
        """What a record of the bay holds now."""
        return {"bay_no": self.bay_no, "state": "occupied" if self.occupied else "free"}


def park(chance: random.Random) -> list[Sensor]:
    """The sensors at the start; some are near the wrap of their 16-bit counter."""
    found = []
    for number in range(BAYS):
        bosch = number % 2 == 0
        prefix = "fcd6bd00000" if bosch else "a84041000000"[:11]
        sensor = Sensor(
            number=number,
            kind="bosch" if bosch else "dingtek",
            eui=f"{prefix}{number:05x}",
            address=chance.getrandbits(25),
            centivolt=chance.randrange(330, 368),
        )
        if number % 6 < 2:
            sensor.counter = 0xFFFF - chance.randrange(5, 20)
        found.append(sensor)
    return found


def measure(sensor: Sensor, chance: random.Random) -> Uplink:
    """What the sensor has to say now."""
    if sensor.started:
        sensor.started = False
        if sensor.kind == "bosch":
            start = payloads.bosch_startup(occupied=sensor.occupied)
            firmware: dict[str, Fact] = {"firmware": "0.29.2"}
            port = payloads.BOSCH_STARTUP_PORT
            return Uplink(port, start, sensor.bay(), _ALIVE, firmware)
    changed = chance.random() < 0.85
    if changed:
        sensor.occupied = not sensor.occupied
    if sensor.kind == "bosch":
        return _bosch(sensor, chance, changed=changed)
    if not changed:
        parameters = payloads.dingtek_parameters()
        return Uplink(payloads.DINGTEK_PORT, parameters, None, _ALIVE, {"firmware": "1.1"})
    return _dingtek(sensor, chance)


def _bosch(sensor: Sensor, chance: random.Random, *, changed: bool) -> Uplink:
    if changed:
        status = payloads.bosch_status(occupied=sensor.occupied)
        return Uplink(payloads.BOSCH_STATUS_PORT, status, sensor.bay(), None, {})
    temperature = chance.randrange(-10, 40)
    beat = payloads.bosch_heartbeat(occupied=sensor.occupied, temperature_c=temperature)
    link: dict[str, Fact] = {"temp_c": float(temperature)}
    return Uplink(payloads.BOSCH_HEARTBEAT_PORT, beat, sensor.bay(), _ALIVE, link)


def _dingtek(sensor: Sensor, chance: random.Random) -> Uplink:
    report = payloads.DingtekReport(
        occupied=sensor.occupied,
        level_mm=chance.randrange(100, 400) if sensor.occupied else chance.randrange(1500, 2500),
        centivolt=sensor.centivolt,
        magnet=(chance.randrange(-200, 200), chance.randrange(-200, 200), -16),
        temperature_c=chance.randrange(-10, 40),
        humidity_pct=chance.randrange(20, 95),
        frame=sensor.frame,
    )
    link: dict[str, Fact] = {
        "battery_v": sensor.centivolt / 100,
        "distance_mm": report.level_mm,
        "magnet_x": report.magnet[0],
        "magnet_y": report.magnet[1],
        "magnet_z": report.magnet[2],
        "temp_c": float(report.temperature_c),
        "rh_pct": float(report.humidity_pct),
    }
    return Uplink(payloads.DINGTEK_PORT, payloads.dingtek_report(report), sensor.bay(), None, link)


class CarPark:
    """The sensors, the network server in front of them, and the guidance system."""

    def __init__(self, seed: int, publisher: Publisher, book: Book) -> None:
        self._chance = random.Random(seed)
        self._sensors = park(self._chance)
        self._publisher = publisher
        self._book = book
        self._clock = Clock()
        self._lot = 0
        self._run = f"{seed:x}-{self._clock.now_us():x}"

    async def step(self, number: int) -> None:
        """One message, and what belongs to it."""
        if number % LOT_EVERY == LOT_EVERY - 1:
            await self._guidance()
            return
        sensor = self._sensors[self._chance.randrange(BAYS)]
        if self._chance.random() < 0.01:
            await self._join(sensor)
        await self._uplink(sensor)

    async def _uplink(self, sensor: Sensor) -> None:
        chance = self._chance
        uplink = measure(sensor, chance)
        confirmed = chance.random() < 0.1
        await self._publish(sensor, uplink, gateway=0, confirmed=confirmed)
        if chance.random() < 0.1:  # the second gateway's copy came too late to be merged
            await self._publish(sensor, uplink, gateway=1, confirmed=confirmed)
        if confirmed and chance.random() < 0.5:  # the acknowledgement got lost on the air
            await self._publish(sensor, uplink, gateway=0, confirmed=confirmed)
        sensor.frame += 1
        lost_on_air = chance.randrange(1, 4) if chance.random() < 0.03 else 0
        sensor.counter = (sensor.counter + 1 + lost_on_air) & 0xFFFF

    async def _publish(
        self, sensor: Sensor, uplink: Uplink, *, gateway: int, confirmed: bool
    ) -> None:
        time_us = self._clock.now_us()
        rssi, snr = self._chance.randrange(-120, -60), self._chance.randrange(-40, 28) / 2
        event = self._event(sensor, time_us) | {
            "dr": _DATA_RATE,
            "fPort": uplink.port,
            "data": base64.b64encode(uplink.payload).decode(),
            "rxInfo": [
                {"gatewayId": _GATEWAYS[gateway], "uplinkId": time_us, "rssi": rssi, "snr": snr}
            ],
            "txInfo": {"frequency": 486_300_000, "modulation": {"lora": {"bandwidth": 125_000}}},
        }
        if sensor.counter:  # protobuf-JSON leaves defaults out
            event["fCnt"] = sensor.counter
        if confirmed:
            event["confirmed"] = True
        rows = []
        if uplink.bay is not None:
            rows.append((BAY_RESOURCE, Content(time_us, uplink.bay)))
        if uplink.health is not None:
            rows.append((HEALTH_RESOURCE, Content(time_us, uplink.health)))
        reception: dict[str, Fact] = {
            "rssi": rssi,
            "snr": snr,
            "gateway": _GATEWAYS[gateway],
            "data_rate": _DATA_RATE,
            "frame_counter": sensor.counter,
        }
        rows.append((LINK_RESOURCE, Content(time_us, uplink.link | reception)))
        self._book.made(sensor.key, "A", sensor.eui, rows)
        await self._send(sensor, "up", event, sensor.key)

    async def _join(self, sensor: Sensor) -> None:
        sensor.session += 1
        sensor.counter = 0
        sensor.started = True
        sensor.address = self._chance.getrandbits(25)
        await self._send(sensor, "join", self._event(sensor, self._clock.now_us()), "")

    def _event(self, sensor: Sensor, time_us: int) -> dict[str, object]:
        return {
            "deduplicationId": str(self._chance.getrandbits(128)),
            "time": rfc3339(time_us),
            "deviceInfo": {
                "tenantName": "ChirpStack",
                "applicationId": APPLICATION,
                "applicationName": "P1",
                "deviceProfileName": sensor.kind,
                "deviceName": sensor.bay_no,
                "devEui": sensor.eui,
            },
            "devAddr": f"{sensor.address:08x}",
        }

    async def _send(self, sensor: Sensor, event: str, body: dict[str, object], key: str) -> None:
        topic = TOPIC.format(application=APPLICATION, eui=sensor.eui, event=event)
        await self._publisher.send(Message(key, topic, json.dumps(body).encode()))

    async def _guidance(self) -> None:
        self._lot += 1
        key, time_us = f"lot-{self._run}-{self._lot}", self._clock.now_us()
        occupied = sum(sensor.occupied for sensor in self._sensors)
        values: dict[str, Fact] = {
            "lot_id": "P1",
            "total": BAYS,
            "free": BAYS - occupied,
            "occupied": occupied,
        }
        self._book.made(key, "A", "p1-guidance", [(LOT_RESOURCE, Content(time_us, values))])
        body = {"id": key, "ts": rfc3339(time_us), **values}
        await self._publisher.send(Message(key, LOT_TOPIC, json.dumps(body).encode()))


async def simulate(told: Orders) -> None:
    """Run the car park until its orders end."""
    book = Book(told.books)
    try:
        async with Publisher(told.broker, f"chirpstack-{told.seed:x}", book) as publisher:
            site = CarPark(told.seed, publisher, book)
            async for number in ticks(told):
                await site.step(number)
    finally:
        book.close()


if __name__ == "__main__":
    run(simulate, orders(__doc__.splitlines()[0], rate=200.0))
