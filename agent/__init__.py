"""agent/ — 采集代理: from a device's reading to a record that is sealed, signed and receipted.

What flows in: `devices.driver.Reading`s. What flows out: segments and objects to the hub, and
nothing that the hub said decides over what is kept here but a verified receipt.

    driver → pipeline → journal ← sealer → spool ← uplink → hub
                          one SQLite file: database.py, one writer

Core (the data path): pipeline, groups, journal, register, sealer, spool, epochs, quarantine,
recovery, wal, vault; composed in core.py. Shell: config, walk, settings (agent.toml), keyring and
identity (keys at rest), clock, supervisor (drivers), hub_client, uplink, inbox, enrol (the hub),
health, status, doctor, logs, notify, messages (people and systemd), cli. `service.py` is the only
place where core and shell meet.
"""
