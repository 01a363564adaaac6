"""Passphrases: Argon2id (RFC 9106) on two threads of their own, so that the loop never waits."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from protocol.errors import Code, UnavailableError

THREADS: Final = 2
WAITING_MAX: Final = 16  # logins in the queue; each takes about 0.1 s and 64 MiB
_HASHER: Final = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)
#: Of no passphrase: what a login of an unknown name is held against, so that it takes as long.
_NOBODY: Final = (
    "$argon2id$v=19$m=65536,t=3,p=1$c2hhbm1lbi1ub2JvZHktMQ"
    "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)


def hash_of(passphrase: str) -> str:
    """Hash a passphrase with a fresh salt. Blocks for about 0.1 s."""
    return _HASHER.hash(passphrase)


class Passwords:
    """Verifies passphrases off the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "passwords")
        self._waiting = 0

    async def verify(self, secret_hash: str | None, passphrase: str) -> bool:
        """Tell whether a passphrase is the right one; without a hash it takes as long, for nothing.

        Raises UnavailableError BUSY while too many wait: memory for hashing is bounded.
        """
        if self._waiting >= WAITING_MAX:
            raise UnavailableError(Code.BUSY, field="login")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            fits = await loop.run_in_executor(
                self._threads, _verify, secret_hash or _NOBODY, passphrase
            )
        finally:
            self._waiting -= 1
        return fits and secret_hash is not None

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _verify(secret_hash: str, passphrase: str) -> bool:
    try:
        return _HASHER.verify(secret_hash, passphrase)
    except (VerifyMismatchError, InvalidHashError):
        return False
