"""Every named crash point of the agent's data path, in the order in which a record meets them.

A point is `sys.audit("shanmen.point", name)`: inert unless a test adds an audit hook. A transaction
`x` has `x.before` and `x.after` around its COMMIT. A test compares this list with the code.
"""

from typing import Final

#: Transactions of `Database.write`, with what is atomic in each.
TRANSACTIONS: Final[dict[str, str]] = {
    "open": "schema, commit number and the run of this start",
    "recover": "what was salvaged, new streams and gap notes after damage",
    "run": "a new run with its journal key (each day)",
    "commit": "journal rows, watermarks, seen, next row; first record: stream and registration",
    "epoch": "epoch keys and the owner's wraps, before their first use",
    "seal": "chain and body in, journal range out, next seq, head",
    "receipt": "bodies to grace, leaves, acknowledged seq, checkpoint: one for a whole answer;"
    " of a restored hub: all that is held is due again",
    "fork": "covered rows and bodies out, new stream, resume taken back",
    "refuse": "body to bad, header-only item and note into the outbox",
    "evict": "at most 1,000 bodies in grace; of the vault, all that was carried out",
    "forget": "epoch keys and runs that nothing needs any more, old identities of messages",
    "owner": "wraps for keys that were made before the owner was known; held bodies become due",
    "correct": "correction notes for what an unsynchronised clock stamped",
    "note": "a gap note or another object of the agent's own",
    "resend": "what the hub turns out to lack becomes due again: a chain, a registration",
    "keep": "a small value of the shell: inbox number, time floor",
}

#: Points that are not around a COMMIT.
STEPS: Final[tuple[str, ...]] = (
    "spool.opened",  # files walked, SQLite open, nothing written yet
    "damage.copied",  # damaged files stand aside, the originals are untouched
    "damage.rebuilt",  # the rebuilt file is in place, its notes not yet written
    "journal.acknowledged",  # after COMMIT, acknowledgements given
    "checkpoint.before",
    "checkpoint.after",
    "reserve.released",
    "reserve.restored",
)


def all_points() -> frozenset[str]:
    """The names of all points of the data path."""
    around = (f"{name}.{side}" for name in TRANSACTIONS for side in ("before", "after"))
    return frozenset(around) | frozenset(STEPS)
