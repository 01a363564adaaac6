"""The hub (中台): verifies what agents send, makes it durable, records it in a ledger, serves it.

    agent ──POST /v1/sync─▶ api ─▶ ingest: verify ─▶ pack of bodies ─▶ transaction ─▶ checkpoint
                                                       │                 │              │
                                                  store/bodies    store/*, ledger    answer ─▶ agent
    owner ◀── api ◀── reading: segments, parts, wraps, objects, entries ◀── store

Layers, each seeing only those before it: `domain` (rules, no SQL, no HTTP) < `store` (all SQL and
files) < use cases (`ingest`, `ledger`, `reading`, `enrol`, `sweeper`, `maintenance`) < `api` <
`app` and `cli`, where everything is put together.

Words: a *group* is what arrived while the group before it was committing; its bodies become one
*pack*, its rows one transaction, its batches one *leaf* each; one *checkpoint* then answers all.
A *generation* is one life of the ledger: a restore from a backup begins the next.

The files, in the order in which a request meets them:

    app, opening, cli      put together: the server; the data; the commands
    config, folder, making hub.toml, the data folder, `init`
    api/                   HTTP in and out; pool: its memory, attempts: its patience
    bells, reports         who polls now, and what gateways say of what waits with them
    leases, tap, overview  the live page: short segments asked for, values, everything as it stands
    enrol, readmission     who is let in, and let in again after a restore
    console/               the pages: HTML over the same use cases; people, passwords: logins
    admin, commands, arguments, lists: tokens, sites, agents
    operator, operator_service: the operator's way into a running hub
    ingest, verify, judge, judged, accept, evidence, answers: one group, bytes to answers
    registry, record       registration entries; one signed object, one leaf
    ledger, last_checkpoint, ahead: the tree, its proofs, the checkpoint outside the database
    reading                what owners and the catalog may fetch
    sweeper, maintenance, restoring: orphans, backup, the next generation
    keys, tls, metrics, messages, faults, version: around all of it
    logs, notify, files, catalogues: the log, systemd, small durable files, where texts are read
    owner/                 the owner's tool `shanmen`: of the rest it uses `files` and `catalogues`
"""
