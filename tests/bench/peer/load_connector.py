"""A connector of the peer's that hands over the load; runs in the peer's process, knows none of ours.

Put into the peer's `extensions` (its documented way for connectors of one's own). It reads the prepared
hand-overs (`load`: one JSON array a line of [device, [[ms, values], …]]), makes the peer's own objects of them,
waits for the file `go`, and hands them to `send_to_storage` as fast as it takes them. The time at which
it began goes to the file `report`.
"""

import gc
import json
import os
import time
from threading import Thread

from thingsboard_gateway.connectors.connector import Connector
from thingsboard_gateway.gateway.entities.converted_data import ConvertedData
from thingsboard_gateway.gateway.entities.datapoint_key import DatapointKey
from thingsboard_gateway.gateway.entities.telemetry_entry import TelemetryEntry


class LoadConnector(Thread, Connector):
    """What `class` in tb_gateway.json names."""

    def __init__(self, gateway, config, connector_type):
        super().__init__(name="load", daemon=True)
        self.gateway, self.config, self.type = gateway, config, connector_type
        self.stopped = False

    def open(self):
        self.start()

    def run(self):
        keys = {}
        with open(self.config["load"]) as lines:
            made = [self._made(json.loads(line), keys) for line in lines]
        gc.collect()
        gc.freeze()  # as our side does: the load is no part of the gateway's garbage
        with open(self.config["ready"], "w"):
            pass
        while not os.path.exists(self.config["go"]):
            time.sleep(0.05)
        began = time.time()
        for one in made:
            self.gateway.send_to_storage(self.get_name(), self.get_id(), one)
        partial = self.config["report"] + ".tmp"
        with open(partial, "w") as report:
            json.dump({"began": began, "handed": time.time()}, report)
        os.replace(partial, self.config["report"])

    @staticmethod
    def _made(hand_over, keys):
        device, records = hand_over
        data = ConvertedData(device_name=device, device_type="default")
        for ts, values in records:
            named = {keys.setdefault(k, DatapointKey(k)): v for k, v in values.items()}
            data.add_to_telemetry(TelemetryEntry(named, ts))
        return data

    def close(self):
        self.stopped = True

    def get_id(self):
        return self.config.get("id", "load")

    def get_name(self):
        return self.config.get("name", "load")

    def get_type(self):
        return self.type

    def get_config(self):
        return self.config

    def is_connected(self):
        return True

    def is_stopped(self):
        return self.stopped

    def on_attributes_update(self, content):
        """Nobody sets attributes here."""

    def server_side_rpc_handler(self, content):
        """Nobody calls here."""
