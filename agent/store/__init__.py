"""agent/store/ — one SQLite file: how it is written, what its rows mean, how it is repaired.

Knows nothing of drivers, hub or network. `ports` is what the core is given from outside.

    ports        identity, clock, randomness, settings of the core
    database     one file, one connection, one thread (worker); disk: how full it is
    schema, points: tables and states; the named steps at which a test may kill
    resources, runs, segments: the words of the file: resources, process starts, closed segments
    rest         sealing at rest under the root key; files: small durable files beside it
    wal, salvage, recovery: from a damaged file back to a running agent
"""
