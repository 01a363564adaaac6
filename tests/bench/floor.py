"""The least that reading QoS 1 messages durably costs on this machine: paho, one SQLite commit, PUBACK.

    python -m tests.bench.floor PORT FILE

One loop, one table, no decoding, no encryption, no acknowledgement but paho's own; the commit is made
on the loop's thread, which an agent may not do. Beside it stands the agent's figure: what is above
this floor is the agent's, what is below it no Python program on these libraries can save.
"""

import asyncio
import contextlib
import sqlite3
import sys
from pathlib import Path

import paho.mqtt.client as paho


def store(path: Path) -> sqlite3.Connection:
    """A file as durable as the agent's: WAL, an fsync a commit."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE journal(id INTEGER PRIMARY KEY, body BLOB)")
    return connection


async def serve(port: int, path: Path) -> None:
    """Take `gate/+` until the process is ended."""
    loop, connection = asyncio.get_running_loop(), store(path)
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="floor", manual_ack=True)

    def on_message(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO journal(body) VALUES(?)", (message.payload,))
        connection.execute("COMMIT")
        client.ack(message.mid, message.qos)
        client.loop_write()

    def on_connect(*_about: object) -> None:
        client.subscribe("gate/+", 1)
        client.loop_write()

    client.on_message, client.on_connect = on_message, on_connect
    client.connect("127.0.0.1", port)
    loop.add_reader(client.socket().fileno(), client.loop_read)
    client.loop_write()
    while True:
        client.loop_misc()
        await asyncio.sleep(1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
