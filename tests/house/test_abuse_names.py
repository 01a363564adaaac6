"""Every abuse case that the protocol's plan names for this line has a test of that name."""

import re

import pytest

from tests.shared import ROOT, SHARED


@pytest.mark.skipif(SHARED is None, reason="the design documents may be absent")
def test_every_named_abuse_has_its_test() -> None:
    assert SHARED is not None
    plan = (SHARED / "design" / "protocol.md").read_text("utf-8")
    row = next(line for line in plan.splitlines() if line.startswith("Line and site:"))
    wanted = {name.strip() for name in row.removeprefix("Line and site:").split("·")}
    assert len(wanted) > 90
    text = "\n".join(p.read_text("utf-8") for p in (ROOT / "tests").rglob("*.py"))
    assert not wanted - set(re.findall(r"def test_(\w+)", text))
