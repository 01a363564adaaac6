"""The peer's configuration: its own defaults, and what is changed for speed or for this machine.

Nothing here makes it less durable than its defaults: its default storage is in memory, ours to compare
with is its SQLite storage; its default MQTT session is a clean one, which loses whatever is published
while it is down. docs/comparison.md names every change.
"""

import json
from pathlib import Path
from typing import Any

DEVICE = "gates"
TOPIC = "gate/all"


def service(
    port: int, data: Path, connectors: list[dict[str, Any]], strategy: str = "ON_RECEIVED"
) -> dict[str, Any]:
    """tb_gateway.json."""
    return {
        "thingsboard": {
            "host": "127.0.0.1",
            "port": port,
            "remoteShell": False,
            "remoteConfiguration": False,  # nobody would answer
            "statistics": {"enable": False},  # saves CPU
            "deviceFiltering": {"enable": False},
            "minPackSendDelayMS": 10,  # 50: idle time between two packs
            "checkConnectorsConfigurationInSeconds": 3600,  # 60
            "security": {"type": "accessToken", "accessToken": "bench"},
            "qos": 1,
            "reportStrategy": {"type": strategy},  # ON_RECEIVED; "*" needs it
        },
        "storage": {
            "type": "sqlite",  # memory: lost at each end of the process
            "data_file_path": f"{data}/",
            "max_read_records_count": 5_000,  # 1000 events a pack
            "writing_batch_size": 5_000,  # 1000 events a transaction
        },
        "grpc": {"enabled": False},
        "connectors": connectors,
    }


def mqtt(port: int) -> dict[str, Any]:
    """mqtt.json: the connector of the source broker."""
    return {
        "broker": {
            "host": "127.0.0.1",
            "port": port,
            "clientId": "bench-peer",
            "version": 4,  # 3.1.1: what the broker of the bench speaks
            "maxMessageNumberPerWorker": 10,
            "maxNumberOfWorkers": 1,  # 100: threads of one interpreter; single trials differ by chance
            "cleanSession": False,  # true: what comes while it is down would be lost
            "security": {"type": "anonymous"},
        },
        "mapping": [
            {
                "topicFilter": TOPIC,
                "subscriptionQos": 1,
                "converter": {
                    "type": "json",
                    "deviceInfo": {
                        "deviceNameExpressionSource": "constant",
                        "deviceNameExpression": DEVICE,
                        "deviceProfileExpressionSource": "constant",
                        "deviceProfileExpression": "default",
                    },
                    "sendDataOnlyOnChange": False,
                    "timeout": 60_000,
                    "attributes": [],
                    "timeseries": ["*"],  # less CPU in trials than field by field
                },
            }
        ],
    }


def logs() -> dict[str, Any]:
    """logs.json: errors only, on the console."""
    names = ("service", "connector", "converter", "tb_connection", "storage", "extension")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"short": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"}},
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "formatter": "short",
                "level": 0,
                "stream": "ext://sys.stdout",
            }
        },
        "loggers": {
            one: {"handlers": ["console"], "level": "ERROR", "propagate": False} for one in names
        },
        "root": {"level": "ERROR", "handlers": ["console"]},
    }


def write(folder: Path, *, port: int, connector: dict[str, Any], name: str) -> None:
    """Write the folder `config` of one gateway with one connector of type `name`."""
    config = folder / "config"
    config.mkdir(parents=True)
    (folder / "logs").mkdir()
    (folder / "data").mkdir()
    entry = {"name": name, "type": name, "configuration": f"{name}.json"}
    strategy = "ON_RECEIVED"
    if name != "mqtt":
        entry["class"] = "LoadConnector"
        strategy = "DISABLED"  # a step that lets everything pass; only "*" above needs it
    files = {
        "tb_gateway.json": service(port, folder / "data", [entry], strategy),
        f"{name}.json": connector,
        "logs.json": logs(),
    }
    for file, content in files.items():
        (config / file).write_text(json.dumps(content, indent=1))
