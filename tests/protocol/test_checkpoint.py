"""Signed notes and checkpoints: C2SP's example, ours, and everything that is not one."""

import base64

import pytest

from protocol.checkpoint import (
    LogKey,
    generation_of,
    log_origin,
    make_note,
    open_note,
    parse_note,
    same_log,
    sign_note,
    verify_note,
    vkey_text,
)
from protocol.errors import DecodeError, ShanmenError, TooLargeError, VerifyError
from tests.protocol.makers import HUB, LOG, STRANGER
from tests.shared import SHARED

ORIGIN = log_origin(HUB.principal, 3)
ROOT = bytes(range(32))
NOTE = make_note(ORIGIN, 42, ROOT, LOG)
VKEY = vkey_text(ORIGIN, LOG.public)


@pytest.mark.skipif(SHARED is None, reason="shared vectors may be absent")
def test_public_note():
    assert SHARED is not None
    vkey, _, note = (SHARED / "vectors/signed-note.txt").read_text().partition("\n")
    assert open_note(note, vkey) == "This is an example message.\n"
    assert LogKey.parse(vkey).text == vkey
    with pytest.raises(VerifyError):
        open_note(note.replace("example message", "exemple message"), vkey)


def test_a_note_says_what_was_signed():
    checkpoint = verify_note(NOTE, VKEY)
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (ORIGIN, 42, ROOT)
    assert checkpoint.generation == 3
    assert checkpoint.text == NOTE
    assert NOTE.startswith(f"{ORIGIN}\n42\n{base64.b64encode(ROOT).decode()}\n\n— {ORIGIN} ")
    assert make_note(ORIGIN, 42, ROOT, LOG) == NOTE


def test_lines_of_unknown_keys_are_ignored_and_bad_lines_of_ours_are_not():
    other = sign_note(NOTE.split("\n\n")[0] + "\n", "witness.example/w", STRANGER).split("\n\n")[1]
    assert verify_note(NOTE + other, VKEY).size == 42
    mine = NOTE.split("\n\n")[1]
    bad = mine[:-12] + ("A" if mine[-12] != "A" else "B") + mine[-11:]
    with pytest.raises(ShanmenError):
        verify_note(NOTE + bad, VKEY)


def test_note_with_other_key_name():
    other = sign_note(NOTE.split("\n\n")[0] + "\n", ORIGIN + "0", LOG)
    with pytest.raises(VerifyError):
        verify_note(other, VKEY)
    with pytest.raises(VerifyError):
        verify_note(NOTE, vkey_text(ORIGIN, STRANGER.public))
    moved = sign_note(NOTE.split("\n\n")[0].replace("/3", "/4") + "\n", ORIGIN, LOG)
    with pytest.raises(VerifyError):
        verify_note(moved, VKEY)


@pytest.mark.parametrize("mark", ["\r", "\t", "\x00", "\x1b"])
def test_note_with_control_characters(mark):
    with pytest.raises(DecodeError):
        sign_note(f"a{mark}b\n", "name", LOG)
    with pytest.raises(ShanmenError):
        verify_note(NOTE.replace("shanmen-hub", f"shanmen{mark}hub"), VKEY)


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n42\n",  # no root
        f"{ORIGIN}\n042\n{base64.b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n-1\n{base64.b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n99999999999999999999\n{base64.b64encode(ROOT).decode()}\n",
        f"{ORIGIN}\n42\n{base64.b64encode(ROOT[:31]).decode()}\n",
        f"{ORIGIN}\n42\n{base64.b64encode(ROOT).decode()}\nextension\n",
        f"{ORIGIN}\n42\n{base64.b64encode(ROOT).decode()[:-1]}\n",
        f"\n42\n{base64.b64encode(ROOT).decode()}\n",
        f"no-generation\n42\n{base64.b64encode(ROOT).decode()}\n",
        f"shanmen-hub/x/03\n42\n{base64.b64encode(ROOT).decode()}\n",
    ],
)
def test_signed_and_still_no_checkpoint(text):
    note = sign_note(text, ORIGIN, LOG)
    with pytest.raises(DecodeError):
        parse_note(note)
    with pytest.raises(ShanmenError):
        verify_note(note, VKEY)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a+b+c",
        VKEY + "A",
        VKEY.replace("+", "-"),
        "na me" + VKEY[10:],
        VKEY.replace(ORIGIN, ORIGIN + "1"),
    ],
)
def test_broken_verifier_keys(vkey):
    with pytest.raises(DecodeError):
        LogKey.parse(vkey)


def test_notes_without_or_with_too_many_signatures():
    for wrong in (
        "",
        "\n\n",
        NOTE.split("\n\n")[0],
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("—", "-"),
    ):
        with pytest.raises(DecodeError):
            parse_note(wrong)
    with pytest.raises(TooLargeError):
        parse_note(NOTE.split("\n\n")[0] + "\n\n" + "— a AAAAAAA=\n" * 17)
    with pytest.raises(TooLargeError):
        parse_note(NOTE + "x" * 5000)


def test_generations_of_one_log():
    assert generation_of(ORIGIN) == 3
    assert same_log(ORIGIN, log_origin(HUB.principal, 9))
    assert not same_log(ORIGIN, log_origin(STRANGER.principal, 3))
