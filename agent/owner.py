"""Waits for the owner's principal: until it is verified under the pin, nothing sealed leaves.

The pin says whose signature counts; the principal brings the sealing key to wrap to. The hub only
hands it over, and one that does not verify under the pin is an alarm, not an owner.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from agent.commands.enrol import fetch_owner
from agent.core import Core
from agent.host.health import Health
from agent.host.identity import IdentityFiles, Pin
from agent.link.hub_client import HubClient, UnrecognisedError
from agent.store.ports import Identity
from protocol import ids
from protocol.errors import ShanmenError, UnavailableError, VerifyError

_LOG: Final = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 300.0


class OwnerWatch:
    """One task; ends when the owner is confirmed."""

    def __init__(
        self,
        *,
        client: HubClient,
        stored: IdentityFiles,
        pin: Pin,
        core: Core,
        health: Health,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sleep = sleep
        self._client = client
        self._stored = stored
        self._pin = pin
        self._core = core
        self._health = health

    async def run(self) -> None:
        """Ask until there is an owner to wrap to."""
        if self._core.identity.owner_confirmed:
            await self._finish()
            return
        wait_s = FIRST_WAIT_S
        while self._pin.owner is not None and not await self._ask():
            self._health.raise_alarm("owner-unconfirmed")
            await self._sleep(wait_s)
            wait_s = min(LONGEST_WAIT_S, wait_s * 2)
        if self._pin.owner is None:
            self._health.raise_alarm("owner-unconfirmed")  # only the configuration can help
        else:
            self._health.clear_alarm("owner-unconfirmed")

    async def _finish(self) -> None:
        """The principal was kept, and the process ended before the wraps were: make them now."""
        for lane in (self._core.main, self._core.vault):
            if lane is not None and await lane.epochs.has_unwrapped():
                await self._confirm(self._core.identity)
                return

    async def _confirm(self, identity: Identity) -> None:
        """Make the wraps; a full file takes none, so until there is room again."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                await self._core.confirm_owner(identity)
            except UnavailableError as error:
                _LOG.debug("owner not confirmed", extra={"reason": error.code.key})
                await self._sleep(wait_s)
                wait_s = min(LONGEST_WAIT_S, wait_s * 2)
            else:
                return

    async def _ask(self) -> bool:
        try:
            owner = await fetch_owner(self._client, self._stored, self._pin)
        except UnrecognisedError as error:
            _LOG.debug("owner not fetched", extra={"reason": error.code.key})
            return False
        except VerifyError as error:
            self._health.raise_alarm("untrusted", reason=error.code.key)
            return False
        except ShanmenError as error:
            _LOG.debug("owner not fetched", extra={"reason": error.code.key})
            return False
        if owner is None:
            return False
        identity = dataclasses.replace(
            self._core.identity, owner=owner, owner_basis=self._pin.basis, owner_confirmed=True
        )
        await self._confirm(identity)
        _LOG.info("owner confirmed", extra={"owner": ids.show(owner.principal)})
        return True
