"""Documents that lie are worse than none: links, targets and paths that they name exist."""

import re
import subprocess

import pytest

from tests.shared import ROOT

DOCUMENTS = sorted(
    p
    for p in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("devices/*/README.md")]
)
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
_PATH = re.compile(r"`((?:agent|hub|protocol|devices|packaging|tests|docs)/[\w./-]*\w/?)`")
_TARGET = re.compile(r"(?:^|[`$;])\s*make ([a-z]+)", re.MULTILINE)


def tracked() -> list[str]:
    """Files of the repository: tracked, or new and not ignored."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(document) -> None:
    text = document.read_text("utf-8")
    broken = [link for link in _LINK.findall(text) if not (document.parent / link).exists()]
    places = (ROOT, document.parent)
    broken += [p for p in _PATH.findall(text) if not any((at / p).exists() for at in places)]
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_make_targets_that_documents_name_exist(document) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = " ".join(re.findall(r"`[^`]+`|```.*?```", document.read_text("utf-8"), re.DOTALL))
    assert set(_TARGET.findall(code)) <= targets


def test_every_make_target_is_listed_by_help() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    listed = set(re.findall(r"^([a-z]+):.*##", text, re.MULTILINE))
    assert phony - {"help"} <= listed


def test_decisions_say_context_options_decision_consequences() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert len(pages) >= 4
    numbers = [page.name[:4] for page in pages]
    assert numbers == sorted(set(numbers)), "one number, one page"
    for page in pages:
        text = page.read_text("utf-8")
        for part in ("Context", "Options", "Decision", "Consequences"):
            assert part in text, f"{page.name}: {part}"
        assert len(text.splitlines()) <= 60, f"{page.name}: one page"


def test_nothing_is_left_for_later() -> None:
    # The words are put together so that this file does not find itself.
    words = re.compile(
        r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b"
    )
    found = []
    for name in tracked():
        if name.endswith((".py", ".md", ".toml", ".sh", ".c", ".service")):
            for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), 1):
                if words.search(line):
                    found.append(f"{name}:{number}")
    assert not found


def test_files_stay_within_a_readers_reach() -> None:
    """Nine files in ten of the product have at most 400 lines."""
    files = [n for n in tracked() if n.endswith(".py") and not n.startswith("tests/")]
    long = [n for n in files if len((ROOT / n).read_text("utf-8").splitlines()) > 400]
    assert len(long) <= len(files) // 10, long


def test_no_machine_path_and_no_registry_is_committed() -> None:
    paths = re.compile("/" + "work/(main|shared|plan)|/root/" + r"\.pyenv|py" + "pi\\.(org|python)")
    found = [
        name
        for name in tracked()
        if not name.endswith((".png", ".bin"))
        and paths.search((ROOT / name).read_text("utf-8", "replace"))
    ]
    assert not found


PACKAGES_WITH_MAPS = (
    "protocol", "protocol/program", "hub", "agent",
    "agent/store", "agent/host", "agent/intake", "agent/seal", "agent/link", "agent/commands",
)  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES_WITH_MAPS)
def test_the_map_of_a_package_names_its_files(package: str) -> None:
    text = (ROOT / package / "__init__.py").read_text("utf-8")
    files = [p.stem for p in (ROOT / package).glob("*.py") if p.stem != "__init__"]
    missing = [name for name in files if not re.search(rf"\b{name}\b", text)]
    assert not missing


def test_the_pictures_in_the_documents_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()}
    assert "console.png" in sizes
    assert not [name for name, size in sizes.items() if size > 200_000]
