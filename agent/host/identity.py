"""Who this gateway is, as its key folder says: enrolment, the hub's answer, the owner's pin.

Every file is verified again at each start, by the same code that believed it first: a file that was
swapped is found here and not by the hub. The pin moves only at the gateway (configuration or
`enrol --owner`) or by an owner-signed object; never by what a hub says.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from agent.host.faults import Exit, Fault
from agent.host.keyring import AgentKeys
from agent.host.settings import AS_HUB_SAYS
from agent.store import files
from agent.store.ports import Identity
from protocol import envelope, ids
from protocol.enrolment import Enrolled, Enrolment, open_enrolled
from protocol.envelope import Envelope
from protocol.errors import ShanmenError
from protocol.ids import PrincipalId
from protocol.principal import Principal, open_principal
from protocol.sync import HubIdentity

_BYTES_MAX: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class Pin:
    """Whom this gateway takes for the owner of its data, and on whose word."""

    owner: PrincipalId | None
    basis: Literal["local", "hub"]


class IdentityFiles:
    """The files of enrolment in the key folder; blocking and small."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pending(self) -> Envelope | None:
        """The enrolment that was last made; it is sent again until it is answered."""
        raw = self._read("enrolment")
        try:
            return None if raw is None else envelope.parse(raw)
        except ShanmenError:
            return None  # half a file of an older crash: a new one is made

    def save_pending(self, made: Envelope) -> None:
        """Keep an enrolment before it is sent for the first time."""
        files.make_folder(self._folder)
        files.save(self._folder / "enrolment", made.raw)

    def save_enrolled(self, raw: bytes, pin: str | None) -> None:
        """Keep the hub's verified answer, the pin first: without it nothing else counts."""
        if pin is not None:
            files.save(self._folder / "pin", pin.encode())
        files.save(self._folder / "enrolled", raw)

    def save_owner(self, raw: bytes) -> None:
        """Keep the owner's principal, verified under the pin."""
        files.save(self._folder / "owner", raw)

    def enrolled(self, keys: AgentKeys) -> Enrolled | None:
        """The hub's answer, verified again; None before enrolment. Raises Fault if swapped."""
        raw = self._read("enrolled")
        made = self.pending()
        if raw is None or made is None:
            return None
        try:
            asked = envelope.decode_payload(made, Enrolment)
            return open_enrolled(
                raw,
                hub=asked.hub,
                request=made.object_id,
                agent=keys.signing.principal,
                record_hash=made.record_hash,
            )
        except ShanmenError as error:
            where = self._folder / "enrolled"
            raise Fault(Exit.KEYS, "identity-unreadable", file=where) from error

    def enrolled_raw(self) -> bytes | None:
        """The hub's answer as it came, to be shown to the hub again."""
        return self._read("enrolled")

    def pin(self, configured: str | None, enrolled: Enrolled) -> Pin:
        """Whom to take for the owner: the configuration first, then what `enrol` was told."""
        text = configured
        if text is None:
            raw = self._read("pin")
            text = None if raw is None else raw.decode("ascii", "replace")
        if text is None:
            return Pin(None, "local")
        if text == AS_HUB_SAYS:
            return Pin(enrolled.owner, "hub")
        return Pin(parse_owner(text), "local")

    def owner(self, pin: Pin) -> Principal | None:
        """The owner's principal if it is here and verifies under the pin."""
        raw = self._read("owner")
        if raw is None or pin.owner is None:
            return None
        try:
            return open_principal(envelope.parse(raw), pin.owner)
        except ShanmenError:
            return None  # the pin was moved since; the new owner's principal is fetched

    def identity(self, keys: AgentKeys, configured_owner: str | None) -> Identity | None:
        """All of it together; None before enrolment. Raises Fault."""
        enrolled = self.enrolled(keys)
        if enrolled is None:
            return None
        pin = self.pin(configured_owner, enrolled)
        owner = self.owner(pin)
        return Identity(
            agent=keys.signing.principal,
            signing=keys.signing,
            sealing=keys.sealing,
            site=enrolled.site,
            region=enrolled.region,
            hub=hub_identity(enrolled),
            owner=owner,
            owner_basis=pin.basis,
            owner_confirmed=owner is not None,
        )

    def _read(self, name: str) -> bytes | None:
        try:
            with (self._folder / name).open("rb") as file:
                return file.read(_BYTES_MAX)
        except FileNotFoundError:
            return None


def hub_identity(enrolled: Enrolled) -> HubIdentity:
    """Whom the agent believes, out of the verified answer."""
    return HubIdentity(
        hub=enrolled.hub,
        signing_public=enrolled.hub_keys.signing,
        log_vkey=enrolled.log_key,
        generation=enrolled.generation,
    )


def parse_owner(text: str) -> PrincipalId:
    """A fingerprint as a person typed it. Raises Fault."""
    try:
        return PrincipalId(ids.parse(text))
    except ShanmenError as error:
        raise Fault(Exit.CONFIG, "owner-malformed", owner=text[:60]) from error
