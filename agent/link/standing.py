"""What the hub thinks of this gateway: takes it in, lets it wait, suspends it, or knows it not.

And what is told and done about that: alarms, the way back in after a restore of the hub, evidence
against a hub whose ledger contradicts itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from agent.host.health import Health
from agent.link.hub_client import CertificateError, LaterError, UnrecognisedError
from agent.store import files
from protocol.errors import Code, DecodeError, RefusedError, ShanmenError, VerifyError
from protocol.sync import AgentSync, LedgerError

_LOG: Final = logging.getLogger(__name__)

#: What ends at the hub; until then it is asked for nothing but that.
_UNTIL_LET_IN: Final = frozenset({Code.UNKNOWN_AGENT, Code.AGENT_WAITING, Code.AGENT_SUSPENDED})
_STRANGER: Final = frozenset({Code.UNKNOWN_KEY, Code.UNKNOWN_AGENT})


class Standing:
    """Why the hub takes nothing from us, if so; the uplink asks before it sends."""

    def __init__(
        self,
        *,
        health: Health,
        sync: AgentSync,
        folder: Path,
        refused: Code | None = None,
        readmit: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """refused: why the hub did not take anything when it was last heard of (enrolment).

        readmit: asks a hub that does not know us to let us in again; true if it is to be approved.
        """
        self.refused = refused
        self._health = health
        self._sync = sync
        self._folder = folder
        self._readmit = readmit

    @property
    def is_out(self) -> bool:
        """Whether only a decision at the hub, or our way back in, changes anything."""
        return self.refused in _UNTIL_LET_IN

    def let_in(self) -> None:
        """A hub that took nothing answers a signed question again."""
        self.refused = None
        for alarm in ("suspended", "unknown-at-hub", "unrecognised"):
            self._health.clear_alarm(alarm)

    def answered(self, *, has_accepted: bool) -> None:
        """A sync was answered; what was accepted ends a refusal."""
        for alarm in ("certificate", "untrusted", "unrecognised", "unknown-at-hub", "hub-behind"):
            self._health.clear_alarm(alarm)
        if self.refused is Code.UNKNOWN_AGENT:
            self.refused = None
        if has_accepted:
            self._health.clear_alarm("refused")
            self._health.clear_alarm("suspended")
            self.refused = None

    def heard(self, error: ShanmenError) -> bool:
        """An inbox poll failed; whether it says what only the uplink can follow up."""
        if self.is_out or not self._is_forgotten(error):
            return False
        self.refused = Code.UNKNOWN_AGENT
        return True

    async def failed(self, error: BaseException) -> None:
        """A sync failed: tell it, and do what can be done about it."""
        if isinstance(error, LedgerError):
            await self._keep_evidence(error)
        elif isinstance(error, CertificateError):
            self._health.raise_alarm("certificate", reason=error.expected)
        elif self._is_forgotten(error):
            await self._ask_to_be_let_in()
        elif isinstance(error, VerifyError) and error.code is Code.GENERATION_UNKNOWN:
            self._health.raise_alarm("hub-behind", generation=self._sync.hub.generation)
        elif isinstance(error, UnrecognisedError):
            self._health.raise_alarm("unrecognised", reason=error.code.key)
        elif isinstance(error, VerifyError | DecodeError):
            self._health.raise_alarm("untrusted", reason=error.code.key)
        elif isinstance(error, RefusedError | LaterError):
            self.told(error)

    def told(self, error: RefusedError | LaterError) -> None:
        """Take in a refusal of everything that we send."""
        if error.code is Code.AGENT_SUSPENDED:
            self._health.raise_alarm("suspended")
            self.refused = error.code
        elif isinstance(error, RefusedError) or error.code is Code.AGENT_WAITING:
            self.refused = error.code
            if error.code is not Code.AGENT_WAITING:
                self._health.raise_alarm("refused", reason=str(error))

    def _is_forgotten(self, error: BaseException) -> bool:
        """Whether the hub says that it does not know us, and there is something to show it."""
        if self._readmit is None or not isinstance(error, RefusedError | UnrecognisedError):
            return False
        return error.code in _STRANGER

    async def _ask_to_be_let_in(self) -> None:
        """The hub does not know us: restored from a backup that is older than our enrolment?"""
        assert self._readmit is not None
        self.refused = Code.UNKNOWN_AGENT
        try:
            is_waiting = await self._readmit()
        except ShanmenError as error:
            self._health.raise_alarm("unknown-at-hub", reason=error.code.key)
            return
        self.let_in()
        self.refused = Code.AGENT_WAITING if is_waiting else None
        _LOG.warning("the hub had forgotten this gateway and lets it in again")

    async def _keep_evidence(self, error: LedgerError) -> None:
        """Two checkpoints that cannot both be true: kept for whoever audits the hub."""
        path = self._folder / "ledger-alarm.txt"
        text = f"{error.old}\n\n{error.new}\n"
        if not path.exists():
            await asyncio.to_thread(files.save, path, text.encode())
        self._health.raise_alarm("ledger", reason=error.code.key, file=path)
        if error.code is Code.TREE_SMALLER:
            self._health.raise_alarm("hub-behind", generation=self._sync.hub.generation)
