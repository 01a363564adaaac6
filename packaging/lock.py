"""Write constraints.txt: every dependency pinned, with the hashes of the wheels that we install.

Hashes cover x86-64 and aarch64 Linux and Python 3.11 to 3.13. The file names no registry: what
it pins can come from any mirror, because the hash decides. Run with `make lock` after a change of
pyproject.toml; pip's resolver does the work, this script only merges its six reports.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
#: Oldest first; pip takes any of them. 2.17 is glibc of 2012, 2.28 of Debian 10.
GLIBCS = ("2_5", "2_12", "2_17", "2_24", "2_26", "2_27", "2_28")
LEGACY = ("manylinux1", "manylinux2010", "manylinux2014")


def requirements() -> list[str]:
    """All requirements of the distribution, its extras and its build backend, ours left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        wanted += [r for r in extra if not r.startswith("shanmen[")]
    wanted += project["build-system"]["requires"]
    return sorted(set(wanted))


def resolve(python: str, machine: str, pins: Path | None) -> list[dict[str, object]]:
    """Pip's report for one target; versions bound to `pins` where they are known already."""
    platforms = [f"manylinux_{glibc}_{machine}" for glibc in GLIBCS]
    platforms += [f"{tag}_{machine}" for tag in LEGACY]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--only-binary", ":all:", "--target", folder]
        command += ["--python-version", python, "--implementation", "cp", "--report", str(report)]
        command += [arg for platform in platforms for arg in ("--platform", platform)]
        command += ["-c", str(pins)] if pins else []
        subprocess.run([*command, *requirements()], check=True, timeout=600)
        installed: list[dict[str, object]] = json.loads(report.read_text())["install"]
        return installed


def main() -> None:
    """Resolve for the six targets and write the merged file."""
    versions: dict[str, str] = {}
    hashes: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        pins: Path | None = None
        for machine in MACHINES:
            for python in PYTHONS:
                for item in resolve(python, machine, pins):
                    meta, info = item["metadata"], item["download_info"]
                    name = meta["name"].lower().replace("_", "-").replace(".", "-")  # type: ignore[index]
                    versions[name] = meta["version"]  # type: ignore[index]
                    digest = info["archive_info"]["hashes"]["sha256"]  # type: ignore[index]
                    hashes.setdefault(name, set()).add(digest)
                pins = Path(folder) / "pins.txt"
                pins.write_text("".join(f"{n}=={v}\n" for n, v in versions.items()))
    lines = ["# Written by `make lock`. Wheels for x86-64 and aarch64 Linux, Python 3.11-3.13."]
    for name in sorted(versions):
        lines.append(f"{name}=={versions[name]} \\")
        lines += [f"    --hash=sha256:{h} \\" for h in sorted(hashes[name])]
        lines[-1] = lines[-1].removesuffix(" \\")
    (ROOT / "constraints.txt").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
