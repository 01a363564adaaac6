"""What a gateway says of itself: one reading in a query, bounds, a newer agent's more."""

import pytest

from protocol import wire
from protocol.errors import DecodeError
from protocol.report import REPORT_BYTES_MAX, Report, from_query, to_query

REPORT = Report(at=1, records=2, segments=3, bytes=4, sending=0, oldest=None)


def test_there_and_back_within_its_bound() -> None:
    most = Report(at=2**62, records=2**62, segments=2**62, bytes=2**62, sending=2**62, oldest=2**62)
    for one in (REPORT, most):
        assert from_query(to_query(one)) == one
        assert len(wire.encode(one)) <= REPORT_BYTES_MAX
        assert set(to_query(one)) <= set(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        )


def test_a_newer_agent_may_say_more() -> None:
    import base64

    more = wire.encode({**{n: getattr(REPORT, n) for n in REPORT.__struct_fields__}, "mood": "x"})
    assert from_query(base64.urlsafe_b64encode(more).decode()) == REPORT


@pytest.mark.parametrize("text", ["", "!", "a b", "AAAA", "é", "A" * 400, to_query(REPORT)[:-3]])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        from_query(text)
