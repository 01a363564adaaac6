"""The peer: what users run today, on the same records, on the same machine, in the same call.

`make bench PEER=thingsboard` installs thingsboard-gateway beside us (install.py), gives both the same
load through one MQTT broker (broker_run.py) and in process (in_process.py), kills both (kills.py) and
prints two tables (tables.py). docs/comparison.md says what is compared, and what is not.
"""
