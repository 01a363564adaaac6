"""The wheel that users install: what is in it, and that nothing locked collides with our names."""

import re
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests.shared import ROOT

OURS = {"agent", "hub", "protocol", "devices"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        timeout=120,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def locked() -> dict[str, str]:
    text = (ROOT / "constraints.txt").read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", text, re.MULTILINE))


def test_wheel_holds_our_packages_and_their_data_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == OURS
    assert any(n.startswith("devices/dictionary/") and n.endswith(".toml") for n in names)
    assert not [n for n in names if "__pycache__" in n or n.endswith(".db")]


def test_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """Import from the unpacked wheel, not from the checkout that happens to be the folder."""
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import agent.cli, hub.cli, hub.owner.cli, "
        "devices.packs; packs = devices.packs.load_packs(); print(agent.__file__, len(packs))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(target)],
        cwd=tmp_path,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    where, packs = done.stdout.split()
    assert where.startswith(str(target))
    assert int(packs) >= 8


def test_no_locked_package_ships_our_names() -> None:
    pins = locked()
    assert len(pins) > 40
    taken = []
    seen = set()
    for dist in distributions():
        name = re.sub(r"[-_.]+", "-", dist.metadata["Name"]).lower()
        if name not in pins:
            continue
        seen.add(name)
        tops = {str(f).split("/")[0] for f in dist.files or ()}
        taken += [f"{name}: {top}" for top in tops & (OURS | {"tests"})]
    assert not taken
    missing = set(pins) - seen - {"colorama"}
    assert not missing, f"not installed, so not looked at: {missing}"


def test_lock_names_no_registry_and_pins_every_line() -> None:
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert "://" not in text
    assert "index" not in text
    for name in locked():
        block = text.split(f"\n{name}==")[1].split("\n", 1)[1]
        assert block.startswith("    --hash=sha256:"), name


def test_packaging_is_not_a_package() -> None:
    """With an __init__.py it would shadow the `packaging` library from the repository's root."""
    assert not (ROOT / "packaging" / "__init__.py").exists()


def test_sdist_has_no_local_files(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        timeout=120,
        capture_output=True,
    )
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        assert not [n for n in archive.getnames() if ".venv" in n or "/build/" in n]
