"""agent/ — from a driver's reading to sealed, signed, receipted segments (采集代理).

    driver ─▶ pipeline ─▶ journal ═▶ sealer ─▶ spool ═▶ uplink ─▶ hub
              check,      commit     segment,   until a   batches,
              bind        groups     chain      receipt   answers

The steps meet only at the two durable queues (═): the pipeline writes the journal, the sealer reads
it and writes the spool, the uplink reads the spool. Nothing is acknowledged before its COMMIT,
nothing leaves the spool but on a verified receipt.

The core, in the order in which data meets it:

    ports        what the core is given: identity, clock, settings
    pipeline     the one door for readings; groups: what one commit will write; seen: class A once
    journal      commit groups; commits: what one is made of; acknowledge: what follows it
    register     the first record makes entry and stream (天生注册)
    epochs       epoch keys by event time (周期密钥)
    sealer       rows to segments (原生加密); building, due: how, and when
    spool        what waits for a receipt; batch: what goes next
    answers, resend, forks: what an answer changes
    resume, regain  watermarks that travel with records, and what they give back after an image
    covered      what the hub's evidence says of a resource, folded page by page
    losses       what a file could not take: counted, declared in gap notes
    quarantine   what was refused at the door, with its reason
    tap          what was just committed, for who watches; tap_socket, tap_lines: to their terminal
    vault        key-protected data (重点保护级), which never leaves
    keeping      the house: evict, forget keys, fold receipts, correction notes
    database     one file, one connection, one thread (worker); disk: how full it is
    schema, segments, memory, resources, runs, rest, points: the words of that file
    wal, salvage, recovery, adoption, mending: from a damaged file back to a running agent
    lane, core   one file with all that works on it; all of it put together

The shell around it:

    cli          the commands; enrol, doctor, probe, status, snapshot, vault_export: what they do
    service      `run`: the only place where core and shell are put together
    config, settings, plan, kept: agent.toml, read by `protocol.program.walk`
    keyring, identity: keys on the disk; owner: the pin
    supervisor, context: runs the drivers and lends them what they need
    uplink, hub_client, hub_time, hub_faults, readmission, tls: the conversation with the hub
    report: what waits here, said with each sync and poll
    inbox, effects: what the hub may ask, and what it moves
    clock, health, watch: time, state, progress
    logs, notify, files: the log, systemd, small durable files
    messages, faults, version: the agent's own words and exit codes
"""
