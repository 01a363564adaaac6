"""What our programs do alike, without what touches the machine: pure like all of `protocol`.

`agent` and `hub` may not import each other; this is the half that both need of the same words and
rules (docs/decisions/0009). Files, sockets, the environment and the log stay in thin shells that
each program has for itself. No word here belongs to one program: those stand in the packages and
are laid over the texts here (`messages/`). Nothing of it is part of the wire.

    walk        a parsed TOML table -> typed structs, or every problem at once
    units       durations and sizes as people write them
    settings    TOML text -> table; problems -> lines for people
    messages    texts by key and language: one catalogue laid over another; phrases
    faults      what stops a command, with its remedy; errors of the protocol in words
    arguments   argparse's own words in the reader's language
    lines       one JSON object a log line, and no message too often
    systemd     what sd_notify says, and what it is told
    hosts       is this address this machine
"""
