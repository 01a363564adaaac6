"""Owners' one-time tokens by the key that signs a request with them."""

from sqlalchemy import and_, select

from hub.store import rows
from hub.store.engine import Tx
from hub.store.tables import token
from hub.store.tokens import TokenKind, TokenRow
from protocol import ids

_ANSWERED_AGAIN_US = 24 * 3600 * 1_000_000


def by_key(tx: Tx, key_id: bytes, now_us: int) -> TokenRow | None:
    """The owner's token with that signing key, used or not, until its expiry + 24 h."""
    query = select(token).where(
        and_(
            token.c.kind == TokenKind.OWNER.value, token.c.expires_us > now_us - _ANSWERED_AGAIN_US
        )
    )
    for one in rows.many(TokenRow, list(tx.execute(query))):
        if ids.key_id(one.public, use=ids.Use.SIGNING) == key_id:
            return one
    return None
