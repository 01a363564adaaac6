"""A message of the hub to every agent it knows, queued while the hub is away."""

import secrets
from pathlib import Path

from hub import keys
from hub.store import agents, inbox, leaves
from hub.store.engine import Store, Tx
from hub.store.inbox import InboxRow
from protocol.ids import PrincipalId
from protocol.inbox import Budget, InboxMessage, InboxNumber, make_inbox


async def queue_message(hub: Path) -> None:
    """Put a budget that changes nothing into the inbox of each agent. Nobody serves the folder."""
    signing = keys.read(hub).signing
    far = 4_000_000_000_000_000

    def put(tx: Tx) -> None:
        head = leaves.live(tx)
        assert head is not None
        for agent in agents.all_of(tx, site=None):
            n = inbox.next_number(tx, agent.id, head.generation)
            message = InboxMessage(
                agent=PrincipalId(agent.id),
                number=InboxNumber(head.generation, n),
                expires=far,
                message=Budget(batch_bytes=4 << 20, bytes_per_s=0),
                nonce=secrets.token_bytes(16),
            )
            raw = make_inbox(message, signing).raw
            inbox.put(
                tx,
                InboxRow(agent=agent.id, generation=head.generation, n=n, expires_us=far, raw=raw),
            )

    store = Store(hub / "hub.db")
    try:
        await store.write("torture", put)
    finally:
        await store.close()
