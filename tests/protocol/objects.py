"""One deterministic example of every signed object, to be bent by tests."""

import dataclasses

from msgspec import structs

from protocol.checkpoint import log_origin, make_note, vkey_text
from protocol.enrolment import Enrolled, HubKeys, make_enrolled, make_enrolment
from protocol.envelope import Envelope, SealingKey, SigningKey
from protocol.grades import Grade, Secrecy
from protocol.ids import KeyId, PrincipalId, ResourceId, StreamId, resource_id
from protocol.inbox import InboxMessage, InboxNumber, Live
from protocol.keys import EpochKey
from protocol.leaf import event_leaf
from protocol.merkle import leaf_hash, node_hash
from protocol.notes import Correction, Gap
from protocol.packs import Field, schema_hash
from protocol.principal import make_principal
from protocol.registration import (
    Coordinates,
    Encryption,
    Registration,
    classify,
    make_registration,
)
from protocol.times import ClockReading, ClockSource
from protocol.token import make_token
from protocol.wire import encode
from protocol.wraps import make_wrap

AGENT = SigningKey(bytes(range(32)))
AGENT_SEALING = SealingKey(bytes(range(32, 64)))
OWNER = SigningKey(bytes(range(64, 96)))
OWNER_SEALING = SealingKey(bytes(range(96, 128)))
HUB = SigningKey(bytes(range(128, 160)))
HUB_SEALING = SealingKey(bytes(range(160, 192)))
LOG = SigningKey(bytes(range(192, 224)))
STRANGER = SigningKey(bytes(range(224, 256)))
STRANGER_SEALING = SealingKey(b"\x5a" * 32)

NONCE = bytes(range(16))
LOCAL_NAME = "east-gate/checks"
RESOURCE: ResourceId = resource_id(AGENT.principal, LOCAL_NAME)
STREAM = StreamId(bytes(range(100, 116)))
TOKEN = make_token(b"\x01\x23\x45\x67\x89\xab\xcd\xef", bytes(range(16, 32)), HUB.principal)
CLOCK = ClockReading(
    wall_us=1_777_600_000_000_000, offset_us=-1500, error_us=20_000, source=ClockSource.HUB
)

FIELDS = (
    Field(
        name="gate_no",
        zh="闸机",
        en="gate",
        type="string",
        length_max=32,
        grade=Grade(4),
        index=True,
    ),
    Field(
        name="direction",
        zh="方向",
        en="direction",
        type="code",
        codes=("in", "out"),
        grade=Grade(4),
    ),
    Field(
        name="persons",
        zh="通过人数",
        en="persons",
        type="int",
        unit="人",
        minimum=1,
        maximum=999,
        grade=Grade(4),
    ),
    Field(
        name="ticket_ref",
        zh="票号",
        en="ticket",
        type="token",
        personal="personal",
        group="personal",
        grade=Grade(3),
    ),
)


def epoch_key(**changes: object) -> EpochKey:
    """The epoch key of the example resource."""
    key = EpochKey(
        resource=RESOURCE,
        epoch=20_574,
        group=1,
        key=bytes(range(200, 232)),
        from_us=1_777_593_600_000_000,
        to_us=1_777_680_000_000_000,
    )
    return structs.replace(key, **changes)


def entry(**changes: object) -> Registration:
    """A complete entry of a shareable resource."""
    schema = encode(FIELDS)
    made = Registration(
        resource=RESOURCE,
        agent=AGENT.principal,
        local_name=LOCAL_NAME,
        version=1,
        previous=None,
        kind="structured",
        name_zh="东门检票",
        name_en="East gate ticket checks",
        description="每次检票一条记录",
        pack="ticket.check",
        pack_version=1,
        schema=schema,
        schema_hash=schema_hash(schema),
        record_index=("gate_no",),
        storage_address="shanmen:segments",
        access_method="GET /v1/resources/{id}/segments",
        rhythm="event",
        extent=None,
        owner=OWNER.principal,
        owner_basis="local",
        producer=AGENT.principal,
        provider=None,
        users=(),
        user_policy="by grant",
        data_type="records",
        registered_at=CLOCK,
        region="513221",
        place="东门",
        coordinates=Coordinates(longitude=103.6, latitude=31.0),
        classification=classify(Grade.SHAREABLE, "structured"),
        grade=Grade.SHAREABLE,
        secrecy=Secrecy.PUBLIC,
        encryption=Encryption(suite=1, epoch_s=86_400, groups=("data", "personal")),
        owner_key=OWNER_SEALING.key_id,
        agent_key=AGENT.key_id,
        nonce=NONCE,
    )
    return structs.replace(made, **changes)


def registration(**changes: object) -> Envelope:
    """The entry, signed by the agent."""
    return make_registration(entry(**changes), AGENT)


def enrolment(*, owner: PrincipalId | None = None) -> Envelope:
    """The agent's request to be let in."""
    return make_enrolment(
        TOKEN,
        signing=AGENT,
        sealing_public=AGENT_SEALING.public,
        owner=OWNER.principal if owner is None else owner,
        name="gateway-1",
        software="shanmen-agent 0.1.0",
        clock=CLOCK,
        nonce=NONCE,
    )


@dataclasses.dataclass
class Answered:
    """A hub's answer to an enrolment, in a tree of two leaves."""

    payload: Enrolled
    envelope: Envelope


def enrolled(request: Envelope, *, hub: SigningKey = HUB, **changes: object) -> Answered:
    """What the hub answers to a request; changes are signed too."""
    origin = log_origin(hub.principal, 1)
    leaf = event_leaf("enrolment", request.object_id, request.record_hash, 1_777_600_001_000_000)
    first = leaf_hash(b"another leaf")
    payload = Enrolled(
        request=request.object_id,
        hub=hub.principal,
        hub_keys=HubKeys(signing=hub.public, sealing=HUB_SEALING.public),
        log_key=vkey_text(origin, LOG.public),
        generation=1,
        agent=AGENT.principal,
        site="lake",
        region="513221",
        state="active",
        owner=OWNER.principal,
        suites=(1,),
        checkpoint=make_note(origin, 2, node_hash(first, leaf_hash(leaf)), LOG),
        leaf=leaf,
        index=1,
        path=(first,),
        inbox=InboxNumber(1, 0),
        nonce=NONCE,
    )
    payload = structs.replace(payload, **changes)
    return Answered(payload, make_enrolled(payload, hub))


def gap(**changes: object) -> Gap:
    """A declared loss of seven rows."""
    made = Gap(
        resource=RESOURCE,
        stream=STREAM,
        unit="row",
        first=10,
        last=16,
        count=7,
        reason="disk-full",
        nonce=NONCE,
    )
    return structs.replace(made, **changes)


def correction(**changes: object) -> Correction:
    """What the first three segments' times meant."""
    made = Correction(stream=STREAM, first_seq=0, last_seq=2, offset_us=5_000_000, nonce=NONCE)
    return structs.replace(made, **changes)


def inbox_message(**changes: object) -> InboxMessage:
    """Live mode for one resource."""
    made = InboxMessage(
        agent=AGENT.principal,
        number=InboxNumber(1, 4),
        expires=1_777_600_600_000_000,
        message=Live(resources=(RESOURCE,), until=1_777_600_300_000_000),
        nonce=NONCE,
    )
    return structs.replace(made, **changes)


def owner_principal(**changes: SealingKey) -> Envelope:
    """The owner as it introduces itself."""
    return make_principal(
        OWNER, changes.get("sealing", OWNER_SEALING).public, kind="owner", nonce=NONCE
    )


def wrapped(**changes: object) -> Envelope:
    """The example epoch key, wrapped by the agent to its owner."""
    given = dict(
        recipient=OWNER.principal,
        recipient_sealing=OWNER_SEALING.public,
        maker=AGENT,
        seen=None,
        nonce=NONCE,
        box_seed=bytes(32),
    )
    return make_wrap(changes.pop("key", epoch_key()), **{**given, **changes})


def public_keys(*keys: SigningKey) -> dict[KeyId, bytes]:
    """A key book: `.get` is the lookup that verifiers want."""
    return {key.key_id: key.public for key in keys}
