"""The owner's tool, command `shanmen`: makes and keeps an owner's keys, reads an owner's data.

It believes nothing that a hub says: what `read` prints was verified from the agent's signature and
the ledger's proof down to the last column, and opened with the owner's own key. It runs where no
hub is installed and imports nothing of it but `hub.files` and `hub.catalogues`.

    keyfile   the owner's keys under a passphrase          texts      what it says
    state     what was pinned and last seen of each hub    client     signed requests
    ledger    the hub's log, judged against what was seen  reader     one resource, verified, opened
    account   everything that the ledger names is shown    telling    what is incomplete, in words
    output    records as JSON lines or CSV                 cli        the commands
"""
