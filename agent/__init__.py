"""agent/ — from a driver's reading to sealed, signed, receipted segments (采集代理).

    driver ─▶ pipeline ─▶ journal ═▶ sealer ─▶ spool ═▶ uplink ─▶ hub
              check,      commit     segment,   until a   batches,
              bind        groups     chain      receipt   answers

The steps meet only at the two durable queues (═): the pipeline writes the journal, the sealer reads
it and writes the spool, the uplink reads the spool. Nothing is acknowledged before its COMMIT,
nothing leaves the spool but on a verified receipt.

The rooms; each may use those above it, none those below (a house test has the table):

    store/       one SQLite file: written, read, repaired
    host/        this machine: configuration, keys, time, log
    intake/      from a hand-over to a durable row
    seal/        from rows to segments that wait for a receipt
    link/        the conversation with the hub
    commands/    enrol, status, watch, doctor

What puts the rooms together:

    pipeline     the one door for readings
    lane, core   one file with all that works on it; all of it put together
    answers, forks, succession: what an answer changes, in every room
    adoption, mending: what a repaired file and the hub make of each other
    keeping      the house: evict, forget keys, fold receipts, correction notes
    owner        the owner's pin
    supervisor, context: runs the drivers and lends them what they need
    report, effects: what waits here, said with each sync and poll; what the hub may move
    snapshot, watch: one look for `status`; alarms and the watchdog
    service      `run`: the only place where core and shell are put together
    cli          the commands
"""
