"""Make dist/shanmen-<version>-<machine>.tar.gz: all that an installation without network needs.

Wheels of the locked dependencies for Python 3.11 to 3.13 (the hashes of constraints.txt decide),
our own wheel, the installer, systemd units, examples and manuals. Run by `make bundle`;
`ARGS="--machine aarch64"` makes one machine's bundle only.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from lock import GLIBCS, LEGACY, MACHINES, PYTHONS, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("agent", "hub")
HERE = Path(__file__).resolve().parent


def closure(requirements: list[str]) -> set[str]:
    """Names of all distributions that the requirements bring, read from what is installed."""
    wanted: set[str] = set()
    queue = [Requirement(r) for r in requirements]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        extras = requirement.extras or {""}
        if name in wanted and not requirement.extras:
            continue
        wanted.add(name)
        for line in distribution(name).requires or ():
            child = Requirement(line)
            if not child.marker or any(child.marker.evaluate({"extra": e}) for e in extras):
                queue.append(child)
    return wanted


def runtime_lock(names: set[str]) -> str:
    """The part of constraints.txt that a gateway or a hub needs, hashes included."""
    text = (ROOT / "constraints.txt").read_text("utf-8")
    blocks = re.findall(r"^[a-z0-9-]+==(?:.*\\\n)+.*\n", text, re.MULTILINE)
    chosen = [b for b in blocks if b.split("==")[0] in names]
    missing = names - {b.split("==")[0] for b in chosen}
    if missing:
        sys.exit(f"not in constraints.txt: {', '.join(sorted(missing))}; run `make lock`")
    return "".join(chosen)


def download(lock: Path, machine: str, target: Path) -> None:
    """Fetch the wheels of one machine for every Python that we support."""
    platforms = [f"manylinux_{g}_{machine}" for g in GLIBCS] + [f"{t}_{machine}" for t in LEGACY]
    for python in PYTHONS:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "-r", str(lock), "--only-binary", ":all:"]
        command += ["--python-version", python, "--implementation", "cp", "-d", str(target)]
        command += [arg for platform in platforms for arg in ("--platform", platform)]
        subprocess.run(command, check=True, timeout=900)


def build(machine: str, project: dict[str, object]) -> Path:
    """One bundle; returns the archive's path."""
    version = str(project["version"])
    name = f"shanmen-{version}-{machine}"
    folder = ROOT / "build" / "bundle" / name
    shutil.rmtree(folder, ignore_errors=True)
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    extras: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    wanted = list(project["dependencies"])  # type: ignore[call-overload]
    wanted += [r for extra in EXTRAS for r in extras[extra]]
    lock = folder / "requirements.txt"
    lock.write_text(runtime_lock(closure(wanted)), "utf-8")
    download(lock, machine, wheels)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    shutil.copy(HERE / "bundle" / "install.sh", folder / "install.sh")
    shutil.copytree(HERE / "systemd", folder / "systemd")
    shutil.copytree(HERE / "examples", folder / "examples")
    (folder / "doc").mkdir()
    for manual in ("quickstart.md", "agent-operations.md", "hub-operations.md", "console.md"):
        shutil.copy(ROOT / "docs" / manual, folder / "doc" / manual)
    (folder / "VERSION").write_text(version + "\n")
    (folder / "MACHINE").write_text(machine + "\n")
    archive = ROOT / "dist" / f"{name}.tar.gz"
    archive.parent.mkdir(exist_ok=True)
    with tarfile.open(archive, "w:gz", compresslevel=1) as out:
        out.add(folder, arcname=name)
    return archive


def main() -> None:
    """Parse the arguments and build."""
    parser = argparse.ArgumentParser(description="offline bundle of Shanmen")
    parser.add_argument("--machine", choices=MACHINES, action="append")
    chosen = parser.parse_args().machine or MACHINES
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for machine in chosen:
        print(build(machine, project).relative_to(ROOT))


if __name__ == "__main__":
    main()
