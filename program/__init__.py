"""What our programs do alike: read settings, speak to people in zh and en, log, talk to systemd.

`agent` and `hub` may not import each other, and `protocol` is what both ends of the wire agree on,
which none of this is; so it has a place of its own (docs/decisions/0009). It knows no word that
belongs to one program: those stand in the packages and are laid over the texts here.

    walk        a parsed TOML table -> typed structs, or every problem at once; pure
    units       durations and sizes as people write them; pure
    settings    TOML text -> table; problems -> lines for people
    messages    texts by key and language: one catalogue laid over another; phrases
    faults      what stops a command, with its remedy; errors of the protocol in words
    arguments   argparse's own words in the reader's language
    logs        JSON lines for journald, limited by message
    notify      sd_notify
    hosts       is this address this machine
    files       durable writes of small files
"""
