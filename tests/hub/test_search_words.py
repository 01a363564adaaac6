"""What a question finds in a text, by the rules alone; the engines are held to the same answers."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hub.domain import search
from tests.hub.finding import finds

HAN = st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF)
CHINESE = st.text(HAN, min_size=1, max_size=20)
LATIN = st.text(
    st.characters(categories=["Ll", "Lu", "Nd"], max_codepoint=0x24F), min_size=1, max_size=12
)
#: Few characters, so that pairs of a question stand apart in texts and not only together.
CROWDED = st.text(st.sampled_from("停车场票a1 ,"), max_size=14)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("停车场", ["停车", "车场", "场"]),
        ("票", ["票"]),
        ("parking.bay 停车场P3", ["parking", "bay", "停车", "车场", "场", "p3"]),
        ("ＰＡＲＫＩＮＧ　５０％", ["parking", "50"]),
        ("gate_no", ["gate", "no"]),
        ("330523-00000012", ["330523", "00000012"]),
        ("人民路〇〇一号々", ["人民", "民路", "路〇", "〇〇", "〇一", "一号", "号々", "々"]),
        ("ཁ་ཆེ།", ["ཁ", "ཆེ"]),
        ("ꆈꌠ", ["ꆈꌠ", "ꌠ"]),
        ("Straße", ["strasse"]),
        ("—，。！ 🧨", []),
        ("x" * 70, ["x" * 64]),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert search.tokens(text) == tokens


def phrase(*tokens: str, is_open: bool = False) -> search.Phrase:
    return search.Phrase(tokens, is_open)


@pytest.mark.parametrize(
    ("asked", "phrases"),
    [
        ("停车", [phrase("停车")]),
        ("停车场", [phrase("停车", "车场")]),
        ("票", [phrase("票", is_open=True)]),
        ("Park", [phrase("park", is_open=True)]),
        ("东门 票　Park 东门", [phrase("东门"), phrase("票", is_open=True), phrase("park", is_open=True)]),
        ("车场P", [phrase("车场", "场", "p", is_open=True)]),
        ("P3停车", [phrase("p3", "停车")]),
        ("P3停", [phrase("p3", "停", is_open=True)]),
        ("330523-0000", [phrase("330523", "0000", is_open=True)]),
        ("%", []),
        ("", []),
    ],
)  # fmt: skip
def test_questions(asked: str, phrases: list[search.Phrase]) -> None:
    assert list(search.question(asked)) == phrases


@given(CHINESE, st.data())
def test_every_piece_of_a_chinese_text_finds_it(text: str, data: st.DataObject) -> None:
    text = search.normal(text)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    assert finds(text[start:end], [text])


@given(LATIN, st.data())
def test_every_beginning_of_a_word_finds_it(word: str, data: st.DataObject) -> None:
    end = data.draw(st.integers(1, len(word)))
    assert finds(word[:end], [f"东门 {word} 停车"])
    assert finds(word[:end].upper(), [f"东门 {word} 停车"]) or not word.isascii()


@given(st.lists(CROWDED, min_size=1, max_size=3), CROWDED)
def test_nothing_else_is_found(fields: list[str], asked: str) -> None:
    """Each word of a question stands in one field, from the beginning of a run of letters on."""
    words = asked.replace(",", " ").split()
    assume(words and "," not in asked)

    def stands(word: str) -> bool:
        # Blanks and punctuation part nothing, but a question's first letters begin a word.
        for field in fields:
            runs = field.replace(",", " ")
            for at in range(len(runs)):
                before = runs[at - 1 : at]
                begins = not (word[0].isascii() and before.isascii() and before.isalnum())
                if begins and _follows(runs[at:], word):
                    return True
        return False

    assert finds(asked, fields) == all(stands(word) for word in words)


def _follows(text: str, word: str) -> bool:
    """Whether the word stands at the beginning of the text, blanks allowed between runs."""
    at = 0
    for number, character in enumerate(word):
        if number and _kind(word[number - 1]) != _kind(character):
            while text[at : at + 1] == " ":
                at += 1
        if text[at : at + 1] != character:
            return False
        at += 1
        following = word[number + 1 : number + 2]
        # Inside the question a run must be whole in the text too.
        if (
            following
            and _kind(following) != _kind(character)
            and text[at : at + 1] not in {"", " "}
        ):
            if _kind(text[at]) == _kind(character):
                return False
    return True


def _kind(character: str) -> bool:
    return character.isascii()


@given(st.text(max_size=40))
def test_any_text_is_its_own_question(text: str) -> None:
    word = "".join(search.normal(text).split())
    assert finds(word, [word]) or not search.tokens(word)
    assert search.normal(search.normal(text)) == search.normal(text)


@given(st.lists(st.text(max_size=30), max_size=4))
def test_tokens_are_fit_for_every_engine(fields: list[str]) -> None:
    """No blank, no ASCII but letters and digits, nothing longer than the shortest bound."""
    for token in search.document(fields):
        assert 1 <= len(token) <= search.WORD_CHARS_MAX
        assert all(not c.isascii() or (c.isalnum() and c == c.lower()) for c in token)
        assert not any(c.isspace() for c in token)
        assert token == search.BREAK or search.BREAK not in token


def test_no_phrase_reaches_from_field_to_field() -> None:
    assert finds("停车", ["停车"])
    assert not finds("停车", ["停", "车"])
    assert not finds("门票", ["东门", "票"])
    assert finds("门 票", ["东门", "票"])
    assert not finds("停车场", ["停车", "车场"])
    assert not finds("停车场", ["停车 车场"])


def test_traditional_and_simplified_are_two_words() -> None:
    assert not finds("停車", ["停车场"])
