"""All SQL of the hub, and the files that hold segment bodies.

One file per noun (`agents`, `sites`, `tokens`, `segments` …). A function of this package is plain
and synchronous and takes the transaction (`Tx`) first, so that what is atomic can be read from its
signature. It is run by the store, one function to a transaction and one hop to the thread that
owns the connection:

    await store.write("site.add", sites.add, site)       # BEGIN IMMEDIATE … COMMIT
    agent = await store.read(agents.get, agent_id)       # a snapshot, on a reading connection

Several steps that belong together are one function (or lambda) of the caller's that takes `tx`
and hands it on: they commit together or not at all, and a cancelled request cannot leave half a
transaction open. Rows leave this package as frozen structs, never as database rows.

Every function that changes something a person may ask about calls `audit.record` in the same
transaction. Nothing outside this package knows which engine keeps the rows.
"""
