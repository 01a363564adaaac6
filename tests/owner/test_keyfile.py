"""The owner's keys: private where they lie, bound as a whole, copied only after they open."""

import json
import stat
from pathlib import Path

import pytest

from hub.files import save
from hub.owner import keyfile, passphrase
from protocol.errors import Code, ConfigError, ShanmenError, VerifyError
from protocol.ids import show
from tests.owner.conftest import CHEAP, PASSPHRASE
from tests.owner.world import World, rand


def test_file_is_0600_opens_with_its_passphrase_and_shows_the_fingerprint_without(
    key: Path,
) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    keys = keyfile.unlock(key, PASSPHRASE)
    world = World()
    assert keys.owner == world.owner.principal
    assert keys.sealing.key_id == world.owner_sealing.key_id
    name, principal = keyfile.read_public(key)
    assert (name, principal.principal, principal.kind) == ("青城山", keys.owner, "owner")


def test_private_keys_are_nowhere_in_the_file_nor_in_a_repr(key: Path) -> None:
    keys = keyfile.unlock(key, PASSPHRASE)
    shown = repr(keys) + str(keys)
    for secret in (rand("owner", 32), rand("owner-s", 32)):
        assert secret.hex() not in shown
        assert secret not in key.read_bytes()


def test_wrong_passphrase_is_refused(key: Path) -> None:
    with pytest.raises(VerifyError) as found:
        keyfile.unlock(key, PASSPHRASE + b"!")
    assert found.value.code is Code.AUTHENTICATION_FAILED


@pytest.mark.parametrize("field", ["name", "principal", "object", "nonce", "box", "salt", "passes"])
def test_changing_any_field_is_noticed(key: Path, field: str) -> None:
    text = json.loads(key.read_bytes())
    other = World(owner=type(World().owner)(rand("thief", 32)))
    changed = {
        "name": "别人",
        "principal": show(other.owner.principal),
        "nonce": text["nonce"][::-1],
        "box": "AAAA" + text["box"][4:],
        "passes": 2,
        "salt": "AAAA" + text["kdf"]["salt"][4:],
        "object": "AAAA" + text["object"][4:],
    }[field]
    (text["kdf"] if field in text["kdf"] else text)[field] = changed
    key.write_text(json.dumps(text))
    with pytest.raises(ShanmenError):
        keyfile.unlock(key, PASSPHRASE)


@pytest.mark.parametrize(
    ("field", "value"),
    [("memory_bytes", 1 << 40), ("passes", 10**9), ("name", "scrypt"), ("salt", "AA==")],
)
def test_cost_that_no_file_of_ours_has_is_refused_before_it_is_paid(
    key: Path, field: str, value: object
) -> None:
    text = json.loads(key.read_bytes())
    text["kdf"][field] = value
    key.write_text(json.dumps(text))
    with pytest.raises(ConfigError):
        keyfile.unlock(key, PASSPHRASE)


def test_keys_are_never_overwritten(key: Path) -> None:
    before = key.read_bytes()
    with pytest.raises(FileExistsError):
        keyfile.create(key, "x", PASSPHRASE, randomness=lambda n: rand("z", n), cost=CHEAP)
    assert key.read_bytes() == before
    assert [one.name for one in key.parent.iterdir() if one.name.startswith(".")] == []


def test_backup_opens_both_and_refuses_what_it_cannot_open(key: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.key"
    keyfile.copy(key, target, PASSPHRASE)
    assert target.read_bytes() == key.read_bytes()
    with pytest.raises(VerifyError):
        keyfile.copy(key, tmp_path / "second.key", b"wrong")
    assert not (tmp_path / "second.key").exists()
    with pytest.raises(FileExistsError):
        keyfile.copy(key, target, PASSPHRASE)


def test_no_key_file_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        keyfile.read_public(tmp_path / "none")
    (tmp_path / "junk").write_bytes(b"\x00" * 100)
    with pytest.raises(ConfigError):
        keyfile.read_public(tmp_path / "junk")


def test_durable_write_leaves_old_content_if_the_new_cannot_be_named(tmp_path: Path) -> None:
    save(tmp_path / "a", b"one")
    save(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_passphrase_comes_from_a_file_or_descriptor_without_its_line_break(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(b"phrase one\r\nrest")
    assert passphrase.from_file(path) == b"phrase one"
    with path.open("rb") as file:
        assert passphrase.from_descriptor(file.fileno()) == b"phrase one"
    path.write_bytes(b"\n")
    with pytest.raises(ConfigError):
        passphrase.from_file(path)
    with pytest.raises(ConfigError):
        passphrase.from_file(tmp_path / "none")
