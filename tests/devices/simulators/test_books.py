from pathlib import Path

import pytest

from devices.simulators.books import Book, Content, read_books


def written(path: Path) -> None:
    book = Book(path)
    book.made(
        "k1", "A", "dev", [("bays", Content(1, {"state": "free"})), ("links", Content(1, {}))]
    )
    book.sent("k1")
    book.acked("k1")
    book.made("k1", "A", "dev", [("bays", Content(2, {"state": "free"}))])
    book.sent("k1")
    book.close()


def test_one_observation_sent_twice_is_one_with_two_forms(tmp_path: Path) -> None:
    written(tmp_path / "b")
    books = read_books([tmp_path / "b"])
    (bay,) = books["bays"]
    assert [form.time_us for form in bay.forms] == [1, 2]
    assert (bay.sent, bay.acked, bay.promise, bay.device) == (2, 1, "A", "dev")
    assert [form.time_us for form in books["links"][0].forms] == [1]


def test_books_are_continued_by_the_next_process(tmp_path: Path) -> None:
    written(tmp_path / "b")
    more = Book(tmp_path / "b")
    more.made("k2", "B", "dev", [("bays", Content(9, {}))])
    more.close()
    assert [made.key for made in read_books([tmp_path / "b"])["bays"]] == ["k1", "k2"]


def test_torn_last_line_is_left_out_and_a_torn_middle_is_an_error(tmp_path: Path) -> None:
    written(tmp_path / "b")
    whole = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(whole + b'["made","k9","A"')
    assert [made.key for made in read_books([tmp_path / "b"])["bays"]] == ["k1"]
    (tmp_path / "b").write_bytes(b'["made","k9"\n' + whole)
    with pytest.raises(ValueError, match="Expecting"):
        read_books([tmp_path / "b"])


def test_acknowledgement_of_what_was_never_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b'["acked","nobody"]\n')
    with pytest.raises(KeyError):
        read_books([tmp_path / "b"])
