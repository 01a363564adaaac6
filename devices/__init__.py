"""devices/ — from the signals of devices to records: 采集, the edge of T/ADEDS 02-2023.

What flows in: bytes of a device or broker. What flows out: `Reading`s of records
(`protocol.records.Record`), each with what the source needs so that nothing is lost and nothing is
counted twice.

    driver.py      the interface: Driver, Reading, Watermark, Rejected, Promise, DriverContext
    loader.py      explicit list of built-in drivers, plug-ins, configuration tables -> drivers
    packs.py       dictionary/*.toml -> domain packs (领域数据字典)
    counting.py    totals of counters -> increments: rollover, daily reset, rebasing
    mapping.py     [device.map] -> values; transforms.py: the closed list of transforms
    document.py    a decoded message -> map, time, pseudonyms, rejections; for every driver
    facets.py      region, age band and sex out of an identity number, which is then dropped
    frames.py      bytes of a serial line -> frames; framing.py: what a frame is; checksums.py
    mqtt/          JSON topics and the one connection to a broker
    modbus/        counters and bays that are asked, on RS-485 lines and over TCP
    lorawan/       ChirpStack uplinks and payload codecs on top of mqtt
    serial_line/   readers and ticket gates on serial lines, answered after the commit
    profiles/      payload codecs of real sensors as tables
    kit.py         the test kit for drivers, ours and yours
    simulators/    honest other ends, with books of their own

Words: a *driver* talks to one kind of device; a *profile* says what a model's messages mean; a
*decoder* is pure (bytes or JSON -> values), the *shell* around it does the IO.

How to add a driver: `docs/drivers/adding-a-driver.md`. In short: a folder with `config.py`,
`decoder.py`, `driver.py`, `README.md`, `sample.toml`, `checklist.toml`; an entry point in the group
`shanmen.drivers`; field reports as folders under `tests/devices/<driver>/cases/`.
"""
