"""Puts the load into the peer's SQLite storage; runs in the peer's environment, knows none of ours.

    <peer's python> storage_alone.py LOAD FOLDER

Makes of each hand-over the event that the gateway would put, puts it, and prints the seconds from the
first to the moment when all of them are in the file.
"""

import json
import logging
import sqlite3
import sys
import threading
import time
from pathlib import Path

from simplejson import dumps
from thingsboard_gateway.tb_utility.tb_logger import TbLogger

logging.setLoggerClass(TbLogger)

from thingsboard_gateway.storage.sqlite.sqlite_event_storage import SQLiteEventStorage  # noqa: E402


def main() -> None:
    made = []
    with Path(sys.argv[1]).open() as lines:
        for line in lines:
            device, records = json.loads(line)
            telemetry = [{"ts": ts, "values": values} for ts, values in records]
            made.append(
                {
                    "deviceName": device,
                    "deviceType": "default",
                    "telemetry": telemetry,
                    "attributes": {},
                }
            )
    log = logging.getLogger("storage")
    log.setLevel("ERROR")
    folder = Path(sys.argv[2])
    options = {"data_file_path": f"{folder}/", "writing_batch_size": 5_000}
    storage = SQLiteEventStorage(options, log, threading.Event())
    time.sleep(0.5)
    began = time.monotonic()
    for one in made:
        storage.put(dumps(one, separators=(",", ":"), skipkeys=True, ignore_nan=True))
    found = sqlite3.connect(folder / "data.db")
    while found.execute("SELECT count(*) FROM messages").fetchone()[0] < len(made):
        time.sleep(0.005)
    print(time.monotonic() - began)
    storage.stop()


if __name__ == "__main__":
    main()
