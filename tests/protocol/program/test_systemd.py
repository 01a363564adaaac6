"""What systemd tells and is told: pure, so every odd environment is one line."""

import pytest

from protocol.program.systemd import address, datagram, watchdog_s


@pytest.mark.parametrize(
    ("name", "wanted"), [("", ""), ("/run/n", "/run/n"), ("@ab", "\0ab"), ("@", "\0")]
)
def test_the_socket(name: str, wanted: str) -> None:
    assert address({"NOTIFY_SOCKET": name}) == wanted


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "x"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog(told: dict[str, str], wanted: float | None) -> None:
    assert watchdog_s(told, 7) == wanted


def test_a_value_makes_no_line_and_no_datagram_that_is_too_long() -> None:
    assert datagram({"READY": 1, "STATUS": "a\nFAKE=1"}) == "READY=1\nSTATUS=a�FAKE=1".encode()
    assert len(datagram({"STATUS": "x" * 9999})) == len("STATUS=") + 500
