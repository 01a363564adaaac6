"""Enrol this gateway with a one-time token: keys first, durable; then ask; believe; store; use.

The request is kept and sent again byte for byte until it is answered, so a lost answer burns no
token: the hub gives the same answer to the same object.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from agent.host.clock import Clock
from agent.host.faults import Exit, Fault
from agent.host.identity import IdentityFiles, Pin, parse_owner
from agent.host.keyring import AgentKeys, Keyring
from agent.host.settings import AS_HUB_SAYS, AgentConfig
from agent.host.version import SOFTWARE
from agent.link.hub_client import HubClient
from agent.link.hub_faults import fault_of
from protocol import envelope, ids, limits
from protocol.enrolment import Enrolled, Enrolment, make_enrolment, open_enrolled
from protocol.envelope import Envelope
from protocol.errors import Code, ShanmenError, VerifyError
from protocol.ids import PrincipalId
from protocol.principal import Principal, open_principal
from protocol.times import ClockReading
from protocol.token import Token, parse_token


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an enrolment came to."""

    agent: PrincipalId
    enrolled: Enrolled
    pin: Pin
    owner: Principal | None


def read_token(text: str) -> Token:
    """Parse a token. Raises Fault; the token's text, a secret, is never repeated."""
    try:
        return parse_token(text)
    except ShanmenError as error:
        raise Fault(Exit.USAGE, "token-malformed") from error


async def enrol(
    config: AgentConfig, *, token: Token, owner: str | None, host: str, clock: Clock
) -> Outcome:
    """Enrol, or finish an enrolment whose answer was lost. Raises Fault.

    owner: fingerprint or `as-hub-says` from the command line; host: name when none is configured.
    """
    folder = Path(config.data) / "keys"
    keyring, stored = Keyring(folder), IdentityFiles(folder)
    wanted = owner if owner is not None else config.owner
    pinned = None if wanted in {None, AS_HUB_SAYS} else parse_owner(wanted or "")
    keys = keyring.keys_or_new(keyring.root_key())
    _refuse_second(stored, keys, token, Path(config.data))
    request = _request(stored, keys, token, owner=pinned, name=config.name or host, clock=clock)
    # The key is the agent's, so that the owner's principal can be asked for right after.
    client = HubClient(config.hub, clock, hub=token.hub, key=keys.signing)
    try:
        await client.open()
        raw = await client.enrol(request.raw)
        enrolled = open_enrolled(
            raw,
            hub=token.hub,
            request=request.object_id,
            agent=keys.signing.principal,
            record_hash=request.record_hash,
        )
        stored.save_enrolled(raw, wanted)
        pin = stored.pin(config.owner, enrolled)
        if (wrong := mismatched(pin, enrolled)) is not None:
            raise wrong  # enrolled; the pin stands
        found = await fetch_owner(client, stored, pin)
    except ShanmenError as error:
        raise fault_of(error, url=config.hub.url, ca=config.hub.ca, clock=clock) from error
    finally:
        await client.close()
    return Outcome(keys.signing.principal, enrolled, pin, found)


def mismatched(pin: Pin, enrolled: Enrolled) -> Fault | None:
    """The fault to tell when the hub's answer named another owner of the site than the pin."""
    if pin.owner is None or enrolled.owner in {None, pin.owner}:
        return None
    return mismatch(pin.owner, enrolled.owner)


def mismatch(pinned: PrincipalId, hub_says: PrincipalId | None) -> Fault:
    """The hub names another owner than the one pinned here; the pin stands."""
    said = "–" if hub_says is None else ids.show(hub_says)
    return Fault(Exit.UNTRUSTED, "owner-mismatch", owner=ids.show(pinned), hub_owner=said)


async def fetch_owner(client: HubClient, stored: IdentityFiles, pin: Pin) -> Principal | None:
    """Ask the hub for the owner's principal and believe it only under the pin.

    None while the hub does not have it or does not let us. Raises VerifyError for a false one.
    """
    if pin.owner is None:
        return None
    try:
        raw = await client.get(f"/v1/objects/{ids.show(pin.owner)}", limit=limits.OBJECT_BYTES_MAX)
    except VerifyError:
        raise
    except ShanmenError:
        return None
    owner = open_principal(envelope.parse(raw), pin.owner)
    if owner.kind != "owner":
        raise VerifyError(Code.BINDING_MISMATCH, field="kind", value=owner.kind, expected="owner")
    stored.save_owner(raw)
    return owner


def _refuse_second(stored: IdentityFiles, keys: AgentKeys, token: Token, folder: Path) -> None:
    """A gateway has one identity; the same token again only finishes what was begun."""
    pending = stored.pending()
    if stored.enrolled(keys) is None or pending is None:
        return
    if envelope.decode_payload(pending, Enrolment).token_id != token.token_id:
        agent = ids.show(keys.signing.principal)
        raise Fault(Exit.IN_USE, "already-enrolled", agent=agent, folder=folder)


def _request(
    stored: IdentityFiles,
    keys: AgentKeys,
    token: Token,
    *,
    owner: PrincipalId | None,
    name: str,
    clock: Clock,
) -> Envelope:
    pending = stored.pending()
    if pending is not None:
        asked = envelope.decode_payload(pending, Enrolment)
        same_keys = asked.signing_key == keys.signing.public
        if asked.token_id == token.token_id and same_keys:
            return pending
    mark = clock.mark()
    made = make_enrolment(
        token,
        signing=keys.signing,
        sealing_public=keys.sealing.public,
        owner=owner,
        name=name[: limits.NAME_CHARS_MAX],
        software=SOFTWARE,
        clock=ClockReading(
            wall_us=clock.now_us(),
            offset_us=mark.offset_us,
            error_us=mark.error_us,
            source=mark.source,
        ),
        nonce=secrets.token_bytes(16),
    )
    stored.save_pending(made)
    return made
