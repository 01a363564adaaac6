"""The peer's package in an environment of its own: build/peer-venv."""

import shutil
import subprocess
import sys
from pathlib import Path

from devices.demo.figures import BUILD
from tests.shared import ROOT

PACKAGE, VERSION = "thingsboard-gateway", "3.8.5"
#: The folder of the peer's extensions that our connector is put into, and its type.
LOAD = "shanmen_load"
_TIMEOUT_S = 900.0


def install(venv: Path = ROOT / BUILD / "peer-venv") -> Path:
    """Where the peer's programs stand; installed if they do not. Raises SubprocessError, OSError."""
    programs = venv / "bin"
    mark = venv / f".{PACKAGE}-{VERSION}"
    if not mark.exists():
        print(f"installing {PACKAGE} {VERSION} into {venv}", flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(venv)])
        pip = [str(programs / "python"), "-m", "pip", "install", "--quiet"]
        _run([*pip, "--disable-pip-version-check", f"{PACKAGE}=={VERSION}"])
        mark.touch()
    where = "import thingsboard_gateway as it; print(it.__path__[0])"
    package = Path(_run([str(programs / "python"), "-c", where]).strip())
    extension = package / "extensions" / LOAD
    extension.mkdir(exist_ok=True)
    shutil.copy(Path(__file__).with_name("load_connector.py"), extension)
    return programs


def _run(words: list[str]) -> str:
    done = subprocess.run(
        words, check=True, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT_S, cwd=ROOT
    )
    return done.stdout
