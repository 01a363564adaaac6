"""Settings of the whole suite: what may be skipped where."""

import os
import shutil
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "house", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("house")

IN_CI = os.environ.get("CI") == "true"

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
COMPILER = shutil.which("cc") or shutil.which("gcc")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what a user's machine cannot run; in CI everything must be there."""
    wants = (
        ("needs_mosquitto", MOSQUITTO),
        ("needs_compiler", COMPILER),
        ("needs_chromium", CHROMIUM),
        ("needs_systemd", shutil.which("systemd-analyze")),
    )
    for item in items:
        for marker, program in wants:
            if item.get_closest_marker(marker) and not program:
                if IN_CI:
                    pytest.exit(f"{marker}: CI must have it (.ci/run installs it)", 2)
                item.add_marker(pytest.mark.skip(reason=f"{marker}: not on this machine"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a skip is a failure, unless the test is about a folder that CI may lack."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "may be absent" not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {reason}"
