"""Abuse of what says who may read: wraps, entries, inbox messages, notes."""

import pytest
from msgspec import structs

from protocol import envelope as env
from protocol.envelope import make
from protocol.errors import Code, DecodeError, RefusedError, VerifyError
from protocol.grades import Grade, Secrecy
from protocol.inbox import make_inbox, open_inbox
from protocol.notes import open_note
from protocol.registration import classify, make_registration, open_registration
from protocol.wraps import Wrap, open_wrap
from tests.protocol import objects as o
from tests.protocol.objects import AGENT, HUB, STRANGER, wrapped
from tests.protocol.test_abuse_objects import failing

# --- wraps ---------------------------------------------------------------------------------------


def test_wrap_opens_for_its_recipient():
    agent = o.public_keys(AGENT).get
    assert open_wrap(wrapped(), o.OWNER_SEALING, agent) == o.epoch_key()


def test_wrap_for_wrong_grantee():
    agent = o.public_keys(AGENT).get
    with failing(Code.BINDING_MISMATCH, VerifyError):
        open_wrap(wrapped(), o.STRANGER_SEALING, agent)
    with failing(Code.BINDING_MISMATCH, VerifyError):
        open_wrap(wrapped(), o.OWNER_SEALING, agent, recipient=STRANGER.principal)
    # The same wrap, its recipient rewritten and signed again by the agent: the box says no.
    moved = structs.replace(
        env.decode_payload(wrapped(), Wrap), recipient_key=o.STRANGER_SEALING.key_id
    )
    with failing(Code.AUTHENTICATION_FAILED, VerifyError):
        open_wrap(make("wrap", moved, AGENT), o.STRANGER_SEALING, agent)


@pytest.mark.parametrize("changes", [{"resource": bytes(16)}, {"epoch": 20_575}, {"group": 0}])
def test_wrap_context_swapped(changes):
    moved = structs.replace(env.decode_payload(wrapped(), Wrap), **changes)
    with failing(Code.BINDING_MISMATCH, VerifyError):
        open_wrap(make("wrap", moved, AGENT), o.OWNER_SEALING, o.public_keys(AGENT).get)


def test_wrap_commitment_mismatch():
    moved = structs.replace(env.decode_payload(wrapped(), Wrap), commitment=bytes(32))
    with failing(Code.COMMITMENT_MISMATCH, VerifyError):
        open_wrap(make("wrap", moved, AGENT), o.OWNER_SEALING, o.public_keys(AGENT).get)


def test_box_resigned_by_other_maker():
    keys = o.public_keys(AGENT, STRANGER).get
    body = env.decode_payload(wrapped(), Wrap)
    with failing(Code.WRONG_SIGNER, VerifyError):
        open_wrap(make("wrap", body, STRANGER), o.OWNER_SEALING, keys)
    stolen = structs.replace(body, maker=STRANGER.principal)
    with failing(Code.BINDING_MISMATCH, VerifyError):
        open_wrap(make("wrap", stolen, STRANGER), o.OWNER_SEALING, keys)


# --- entries and inbox ---------------------------------------------------------------------------


@pytest.mark.parametrize("secrecy", [Secrecy.SECRET, Secrecy.CONFIDENTIAL, Secrecy.TOP_SECRET])
def test_key_protected_and_secret_entries_are_refused_without_echo(secrecy):
    for changes, code in (
        ({"secrecy": secrecy}, Code.SECRECY_FORBIDDEN),
        ({"grade": Grade.KEY_PROTECTED}, Code.GRADE_FORBIDDEN),
    ):
        bad = o.entry(**changes)
        with failing(code, RefusedError):
            make_registration(bad, AGENT)
        with pytest.raises(RefusedError) as caught:
            open_registration(make("registration", bad, AGENT), AGENT.public)
        assert "东门" not in str(caught.value)
        assert caught.value.value == "None"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"resource": bytes(16)}, Code.BINDING_MISMATCH),
        ({"agent": STRANGER.principal}, Code.BINDING_MISMATCH),
        ({"local_name": "e\u0301"}, Code.MALFORMED),
        ({"version": 2}, Code.BINDING_MISMATCH),
        ({"previous": bytes(32)}, Code.BINDING_MISMATCH),
        ({"owner": None, "owner_key": None}, Code.BINDING_MISMATCH),
        ({"owner_basis": "none"}, Code.BINDING_MISMATCH),
        ({"producer": None}, Code.BINDING_MISMATCH),
        ({"schema_hash": bytes(32)}, Code.HASH_MISMATCH),
        ({"record_index": ("nothing",)}, Code.BINDING_MISMATCH),
        ({"kind": "spatial"}, Code.BINDING_MISMATCH),
        ({"kind": "unstructured"}, Code.BINDING_MISMATCH),
        ({"agent_key": STRANGER.key_id}, Code.WRONG_SIGNER),
        ({"classification": classify(Grade.GENERALLY_OPEN, "structured")}, Code.BINDING_MISMATCH),
    ],
)
def test_entry_that_contradicts_itself(changes, code):
    bad = o.entry(**changes)
    with pytest.raises((DecodeError, VerifyError)) as caught:
        open_registration(make("registration", bad, AGENT), AGENT.public)
    assert caught.value.code is code
    with pytest.raises((DecodeError, VerifyError)):
        make_registration(bad, AGENT)


def test_fully_open_entry_is_a_description_and_nothing_else_is():
    opened = o.entry(
        grade=Grade.FULLY_OPEN, classification=classify(Grade.FULLY_OPEN, "structured")
    )
    made = make_registration(opened, AGENT)
    assert made.kind == "description"
    assert open_registration(made, AGENT.public) == opened
    for kind, body in (("registration", opened), ("description", o.entry())):
        with failing(Code.BINDING_MISMATCH, VerifyError):
            open_registration(make(kind, body, AGENT), AGENT.public)


def test_inbox_message_replayed():
    hub = o.public_keys(HUB).get
    message = make_inbox(o.inbox_message(), HUB)
    opened = open_inbox(message, hub, agent=AGENT.principal, applied=(1, 3), now_us=0)
    assert opened == o.inbox_message()
    for applied in ((1, 4), (1, 9), (2, 0)):
        with failing(Code.REPLAYED, VerifyError):
            open_inbox(message, hub, agent=AGENT.principal, applied=applied, now_us=0)
    with failing(Code.EXPIRED, VerifyError):
        open_inbox(message, hub, agent=AGENT.principal, applied=(1, 3), now_us=2**62)


def test_inbox_for_other_agent():
    hub = o.public_keys(HUB).get
    message = make_inbox(o.inbox_message(agent=STRANGER.principal), HUB)
    with failing(Code.WRONG_AGENT, VerifyError):
        open_inbox(message, hub, agent=AGENT.principal, applied=(1, 3), now_us=0)
    with failing(Code.UNKNOWN_KEY, VerifyError):
        open_inbox(
            make_inbox(o.inbox_message(), STRANGER),
            hub,
            agent=AGENT.principal,
            applied=(1, 3),
            now_us=0,
        )


def test_gap_that_ends_before_it_begins():
    keys = o.public_keys(AGENT).get
    for bad in (o.gap(first=17), o.gap(first=-1), o.correction(first_seq=3)):
        kind = "gap" if hasattr(bad, "unit") else "correction"
        with failing(Code.BINDING_MISMATCH, VerifyError):
            open_note(make(kind, bad, AGENT), keys)
