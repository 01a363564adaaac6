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
"""
