"""The offline bundle in a bare Debian root without network: install, upgrade, uninstall, purge.

Wants root, debootstrap and a mirror for the bare root itself, so it runs in CI (`-m bare_root`) and
not in `make test`. What runs inside the root has no network: a network namespace with nothing in it.
"""

import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.shared import ROOT

pytestmark = pytest.mark.bare_root

BARE = Path("/var/tmp/shanmen-bare-root")


def mirror() -> str:
    """The package mirror that this machine uses."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return listed.stdout.split()[0]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minimal Debian with Python and nothing else; kept between runs, used as a copy."""
    if not (BARE / "usr/bin/python3").exists():
        shutil.rmtree(BARE, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv", "bookworm"]
        subprocess.run(
            [*command, str(BARE), mirror()], check=True, timeout=600, capture_output=True
        )
    root = tmp_path_factory.mktemp("root")
    subprocess.run(["cp", "-a", f"{BARE}/.", str(root)], check=True, timeout=120)
    return root


@pytest.fixture(scope="module")
def bundle() -> Path:
    machine = platform.machine()
    command = [sys.executable, str(ROOT / "packaging" / "bundle.py"), "--machine", machine]
    subprocess.run(command, check=True, cwd=ROOT, timeout=900)
    return next((ROOT / "dist").glob(f"shanmen-*-{machine}.tar.gz"))


def inside(root: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run in the bare root, without network."""
    return subprocess.run(
        ["unshare", "--net", "chroot", str(root), "/bin/sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
    )


def done(root: Path, command: str) -> str:
    result = inside(root, command)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_a_machines_life(bare: Path, bundle: Path) -> None:
    with tarfile.open(bundle) as archive:
        archive.extractall(bare / "root", filter="data")
    folder = next(p.name for p in (bare / "root").iterdir() if p.name.startswith("shanmen-"))
    installer = f"/root/{folder}/install.sh"

    done(bare, f"{installer} all")
    assert done(bare, "stat -c '%a %U' /var/lib/shanmen-agent").split() == ["700", "shanmen-agent"]
    assert done(bare, "stat -c '%a %U' /var/lib/shanmen-hub").split() == ["700", "shanmen-hub"]
    assert done(bare, "stat -c '%a' /etc/shanmen/agent.toml").strip() == "640"
    assert "shanmen-agent" in done(bare, "ls /etc/systemd/system/shanmen-agent.service")
    version = done(bare, "/opt/shanmen/bin/shanmen-agent --version")
    assert (ROOT / "pyproject.toml").read_text().split('version = "')[1].split('"')[0] in version

    done(
        bare,
        "echo spool > /var/lib/shanmen-agent/spool.db; echo '# mine' >> /etc/shanmen/agent.toml",
    )
    before = done(bare, "readlink /opt/shanmen/current")
    done(bare, f"{installer} agent")
    assert done(bare, "readlink /opt/shanmen/current") != before
    assert done(bare, "cat /var/lib/shanmen-agent/spool.db") == "spool\n"
    assert "# mine" in done(bare, "cat /etc/shanmen/agent.toml")

    done(bare, f"{installer} --uninstall agent")
    assert done(bare, "cat /var/lib/shanmen-agent/spool.db") == "spool\n"
    assert inside(bare, "test -e /opt/shanmen/bin/shanmen-agent").returncode == 1
    assert inside(bare, "test -e /opt/shanmen/bin/shanmen-hub").returncode == 0

    done(bare, f"{installer} --uninstall --purge all")
    left = "/var/lib/shanmen-agent /var/lib/shanmen-hub /etc/shanmen/agent.toml /opt/shanmen"
    for path in left.split():
        assert inside(bare, f"test -e {path}").returncode == 1, path


def test_what_is_not_supported_is_refused_by_name(bare: Path, bundle: Path) -> None:
    with tarfile.open(bundle) as archive:
        archive.extractall(bare / "root", filter="data")
    folder = next(p.name for p in (bare / "root").iterdir() if p.name.startswith("shanmen-"))
    done(
        bare,
        "mkdir -p /tmp/fake; printf '#!/bin/sh\\necho armv7l\\n' > /tmp/fake/uname; chmod +x /tmp/fake/uname",
    )
    refused = inside(bare, f"PATH=/tmp/fake:$PATH /root/{folder}/install.sh agent")
    assert refused.returncode == 3
    assert "armv7l" in refused.stderr
    assert "32 bit" in refused.stderr
    assert inside(bare, f"/root/{folder}/install.sh").returncode == 2
    assert inside(bare, f"/root/{folder}/install.sh --purge agent").returncode == 2
