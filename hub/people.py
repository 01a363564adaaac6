"""People: who may log in, what the operator decides about them, and the sessions of their browsers.

    login ─▶ attempts of account and address ─▶ Argon2id, off the loop ─▶ a fresh token ─▶ cookie
    page  ─▶ hash of the cookie's token ─▶ session, if neither too old nor idle for too long

A session is a random token of 256 bits of which the hub keeps the hash. It ends with its time, with
another passphrase, with `user disable` and with a restore. Names stand in the audit trail, never in
the ledger, which is public and forgets nothing.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hub.attempts import Attempts
from hub.commands import Answer, UserAdd, UserChange, UserCommand, UserList, UserPasswd
from hub.config import ConsoleSection
from hub.domain.users import NAME, Role
from hub.passwords import Passwords
from hub.store import audit, sessions, users
from hub.store.audit import Actor
from hub.store.engine import Store, Tx
from hub.store.users import UserRow
from protocol.errors import Code, ConfigError, RefusedError

log = logging.getLogger(__name__)

TOKEN_BYTES: Final = 32
ATTEMPTS_KEPT: Final = 10_000  # in ten minutes, of everybody: a bound of memory
SEEN_EVERY_US: Final = 60_000_000  # how stale a session's "last seen" may be
_HASH: Final = re.compile(r"\$argon2id\$v=19\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/$]{40,160}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody who is logged in."""

    id: bytes  #: hash of the token, as the hub keeps it
    user: int
    name: str
    role: Role
    csrf: str  #: what forms of this session carry

    def fits(self, token: str) -> bool:
        """Tell whether a form carries this session's token; takes as long either way."""
        return hmac.compare_digest(self.csrf.encode(), token.encode())


class LoginError(Exception):
    """A login that was not let in; `wait_s`: seconds until the next may be tried, 0: at once."""

    def __init__(self, wait_s: float = 0.0) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class Operators:
    """What the operator of the machine decides about people; works without a serving hub."""

    def __init__(self, store: Store, clock_us: Callable[[], int]) -> None:
        self._store = store
        self._clock_us = clock_us

    async def do(self, command: UserCommand, by: Actor) -> Answer:
        """Do one command. Raises ConfigError, RefusedError."""
        match command:
            case UserAdd():
                return await self._add(command, by)
            case UserPasswd():
                return await self._store.write("user.passwd", self._passwd, command, by)
            case UserChange():
                return await self._store.write("user.change", self._change, command, by)
            case UserList():
                found = await self._store.read(users.all_of)
                return {"users": [_shown(one) for one in found]}

    async def _add(self, asked: UserAdd, by: Actor) -> Answer:
        if not NAME.fullmatch(asked.name):
            raise ConfigError(
                Code.COMMAND_INVALID,
                field="name",
                value=asked.name,
                expected="letters, digits and .@-_",
            )
        _check_hash(asked.hash)
        role, now_us = Role(asked.role), self._clock_us()
        made = await self._store.write(
            "user.add",
            lambda tx: users.add(
                tx, name=asked.name, role=role, secret_hash=asked.hash, by=by, now_us=now_us
            ),
        )
        return _shown(made)

    def _passwd(self, tx: Tx, asked: UserPasswd, by: Actor) -> Answer:
        _check_hash(asked.hash)
        row = _known(tx, asked.name)
        users.set_hash(tx, row, asked.hash, by, self._clock_us())
        return _shown(row) | {"ended": sessions.end_of_user(tx, row.id)}

    def _change(self, tx: Tx, asked: UserChange, by: Actor) -> Answer:
        row = _known(tx, asked.name)
        users.set_disabled(tx, row, by, self._clock_us(), disabled=asked.disabled)
        ended = sessions.end_of_user(tx, row.id)
        return _shown(_known(tx, asked.name)) | {"ended": ended}


class People:
    """Logins and sessions of the serving hub."""

    def __init__(
        self,
        store: Store,
        passwords: Passwords,
        settings: ConsoleSection,
        clock_us: Callable[[], int],
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._idle_us = settings.session_idle_minutes * 60_000_000
        self._whole_us = settings.session_hours * 3_600_000_000
        self._clock_us = clock_us
        per_account, per_address = settings.logins_per_account, settings.logins_per_address
        self._by_account = Attempts(per_address=per_account, total=ATTEMPTS_KEPT)
        self._by_address = Attempts(per_address=per_address, total=ATTEMPTS_KEPT)

    async def login(self, name: str, passphrase: str, address: str, *, old: str = "") -> str:
        """Begin a session; returns its token, always a new one. `old` (the cookie before) ends.

        Attempts are counted before the passphrase is looked at and given back when it was right,
        so that many at once are no way around the limit. Raises LoginError, UnavailableError.
        """
        account = hashlib.sha256(name.encode()).hexdigest()
        now_s = self._clock_us() / 1e6
        wait_s = self._by_address.admit(address, now_s) or self._by_account.admit(account, now_s)
        if wait_s:
            log.warning("login refused: too many", extra={"address": address})
            raise LoginError(wait_s)
        row = await self._store.read(users.get, name)
        is_open = row is not None and not row.disabled
        fits = await self._passwords.verify(row.hash if row is not None else None, passphrase)
        if row is None or not fits or not is_open:
            log.warning("login failed", extra={"address": address})
            raise LoginError
        self._by_address.give_back(address)
        self._by_account.give_back(account)
        token = secrets.token_bytes(TOKEN_BYTES)
        await self._store.write("login", self._begin, row, token, _bytes_of(old), address)
        return base64.urlsafe_b64encode(token).decode().rstrip("=")

    def _begin(self, tx: Tx, row: UserRow, token: bytes, old: bytes, address: str) -> None:
        now_us = self._clock_us()
        # Between the look at the hash and now an operator may have changed it.
        again = users.by_id(tx, row.id)
        if again is None or again.disabled or again.hash != row.hash:
            raise LoginError
        if old:
            sessions.end(tx, sessions.digest(old))
        sessions.sweep(
            tx,
            created_before_us=now_us - self._whole_us,
            seen_before_us=now_us - self._idle_us,
        )
        sessions.add(tx, token=token, user_id=row.id, now_us=now_us)
        by = Actor(who=f"user:{row.name}", source=address)
        audit.record(tx, by, now_us, "user.login", row.name, before=None, after=None)

    async def session(self, token: str) -> Session | None:
        """Who holds this cookie, if it still counts; this request keeps the session from idling."""
        raw = _bytes_of(token)
        if not raw:
            return None
        digest = sessions.digest(raw)
        now_us = self._clock_us()
        row = await self._store.read(sessions.find, digest)
        if row is None or not self._counts(row, now_us):
            return None
        if now_us - row.seen_us > SEEN_EVERY_US:
            await self._store.write("session.seen", sessions.seen, digest, now_us)
        return Session(id=digest, user=row.user, name=row.name, role=row.role, csrf=_csrf(raw))

    async def lives(self, session: Session) -> bool:
        """Tell whether a session still counts; asking does not keep it from idling."""
        row = await self._store.read(sessions.find, session.id)
        return row is not None and self._counts(row, self._clock_us())

    def _counts(self, row: sessions.SessionRow, now_us: int) -> bool:
        if row.disabled or now_us - row.created_us > self._whole_us:
            return False
        return now_us - row.seen_us <= self._idle_us

    async def logout(self, session: Session) -> None:
        """End a session."""
        await self._store.write("logout", sessions.end, session.id)


def _csrf(token: bytes) -> str:
    digest = hashlib.sha256(b"shanmen/csrf\x00" + token).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _bytes_of(token: str) -> bytes:
    """The token's bytes; none for what cannot be one."""
    if len(token) != (TOKEN_BYTES * 4 + 2) // 3:
        return b""
    try:
        return base64.b64decode(token + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _check_hash(text: str) -> None:
    """Raise ConfigError unless this is what the command line makes of a passphrase."""
    if not _HASH.fullmatch(text):
        raise ConfigError(Code.COMMAND_INVALID, field="hash", expected="an Argon2id hash")


def _known(tx: Tx, name: str) -> UserRow:
    row = users.get(tx, name)
    if row is None:
        raise RefusedError(Code.NOT_FOUND, field="name", value=name)
    return row


def _shown(row: UserRow) -> Answer:
    return {
        "name": row.name,
        "role": row.role.value,
        "disabled": row.disabled,
        "created_us": row.created_us,
        "changed_us": row.changed_us,
    }
