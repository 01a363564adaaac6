"""An error of the system in the reader's language, by the words that the system gave it."""

import errno
import os
import socket
import ssl

import pytest

from devices.catalogues import catalogue
from protocol.program.faults import cause
from protocol.program.messages import Messages

EN, ZH = (Messages(lang, catalogue(lang)) for lang in ("en", "zh"))


def test_every_error_with_chinese_is_one_of_the_system() -> None:
    known = {os.strerror(number) for number in errno.errorcode}
    said = ZH.group("errno")
    assert len(said) > 20
    assert said.keys() <= known


@pytest.mark.parametrize(
    ("error", "en", "zh"),
    [
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), "Permission denied", "没有权限"),
        (socket.gaierror(-2, "Name or service not known"), *["Name or service not known"] * 2),
        # Number 1 is EPERM of the system, and SSL_ERROR_SSL of the library.
        (ssl.SSLError(1, "wrong version number"), *["wrong version number"] * 2),
        (ConnectionResetError(), *["ConnectionResetError"] * 2),
        (TimeoutError(), "It took too long", "超时"),
        (7, 7, 7),
    ],
)
def test_an_error_in_words(error: object, en: object, zh: object) -> None:
    assert (cause(error, EN), cause(error, ZH)) == (en, zh)
