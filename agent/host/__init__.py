"""agent/host/ — this machine and its configuration: time, keys, files of the operator, words.

config, settings, plan, kept: agent.toml, read by `protocol.program.walk`
keyring, identity: keys on the disk, and who this gateway is
clock, health: time and state
logs, notify: the log, systemd
messages, faults, version: the agent's own words and exit codes
"""
