"""agent/ — from a driver's reading to sealed, signed, receipted segments (采集代理).

    driver ─▶ pipeline ─▶ journal ═▶ sealer ─▶ spool ═▶ uplink ─▶ hub
              check,      commit     segment,   until a   batches,
              bind        groups     chain      receipt   answers

The steps meet only at the two durable queues (═): the pipeline writes the journal, the sealer reads
it and writes the spool, the uplink reads the spool. Nothing is acknowledged before its COMMIT,
nothing leaves the spool but on a verified receipt.

The core, in the order in which data meets it:

    ports        what the core is given: identity, clock, settings
    pipeline     the one door for readings; groups: what one commit will write
    journal      commit groups; register: first record makes entry and stream (天生注册)
    epochs       epoch keys by event time (周期密钥); building, sealer: rows to segments (原生加密)
    spool        what waits for a receipt; receipts, forks: what an answer changes
    quarantine   what was refused at the door, with its reason
    vault        key-protected data (重点保护级), which never leaves
    keeping      the house: evict, forget keys, fold receipts, correction notes
    database     one file, one connection, one thread; disk: how full it is
    schema, segments, memory, runs, rest, points: the words of that file
    wal, salvage, recovery: from a damaged file back to a running agent
    core         all of it put together for `service`

Around it stands the shell: configuration, keyring, clock, supervisor, uplink, inbox, commands.
"""
