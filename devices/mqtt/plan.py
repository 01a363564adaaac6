"""A connection and everything on it, before any library of MQTT is imported."""

from dataclasses import dataclass

from devices.driver import Driver, DriverContext, Promise, weakest
from devices.lorawan.source import LorawanSource
from devices.mqtt.config import MqttTable
from devices.mqtt.source import JsonSource
from devices.mqtt.topics import covers, subscriptions


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttConfig:
    """One connection with everything on it, checked and compiled by `devices.loader`."""

    table: MqttTable
    json: tuple[JsonSource, ...] = ()
    lorawan: tuple[LorawanSource, ...] = ()
    folder: str = ""  # where relative certificate files stand

    @property
    def filters(self) -> list[tuple[str, int]]:
        """What to subscribe to: the fewest filters, each with the highest QoS asked for."""
        wanted = [(one.topic, one.qos) for one in self.json]
        wanted += [(one.topic, 1) for one in self.lorawan]
        chosen = subscriptions(topic for topic, _ in wanted)
        return [(one, max(q for t, q in wanted if t == one or covers(one, t))) for one in chosen]

    @property
    def promises(self) -> dict[str, Promise]:
        """The promise of each resource: of its weakest source."""
        found: dict[str, list[Promise]] = {}
        for one in self.json:
            found.setdefault(one.resource, []).append(one.promise)
        for other in self.lorawan:
            for name in other.resources:
                found.setdefault(name, []).append(Promise.A)
        return {name: weakest(promises) for name, promises in found.items()}


def make(config: MqttConfig, context: DriverContext) -> Driver:
    """Construct the driver; paho and aiomqtt are imported here, when a connection is configured."""
    from devices.mqtt.driver import MqttDriver

    return MqttDriver(config, context)
