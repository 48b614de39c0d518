"""`printable` escapes control and format characters, and changes no ordinary name."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_mhe._printable import printable

pytestmark = pytest.mark.once

# Short texts of the characters that matter.
_ALPHABET = "ax5cu0 \\\x1b\n\u200d\u202e👩😀\ufe0f"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\x1b]0;title\x07", r"a\x1b]0;title\x07"),
        ("a\r\nb\tc\0", r"a\x0d\x0ab\x09c\x00"),
        ("\x7f\x85\x9b", r"\x7f\x85\x9b"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("a\u200bb\xad\ufeff", r"a\u200bb\xad\ufeff"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("a\ud800", r"a\ud800"),
        ("\ue000\uffff\U000e0041", r"\ue000\uffff\U000e0041"),
        # A joiner that joins no emoji.
        ("a\u200db", r"a\u200db"),
        # Spaces that look like a column, like no space or like another one.
        ("a   b", r"a \x20\x20b"),
        (" a ", r"\x20a\x20"),
        ("a\xa0b\u2003c", r"a\xa0b\u2003c"),
    ],
)
def test_control_and_format_characters_are_escaped(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text",
    ["", "block 1/dense", "café", "e\u0301", "模型\u3000一", "слой", "שכבה", "[red] :x: $x_1$",
     "a:0", "👩‍💻", "👩🏽‍💻", "❤️‍🔥", "👨‍👩‍👧", "1️⃣", "🇫🇷", r"C:\models\new\users.keras"],
)  # fmt: skip
def test_ordinary_names_stay_as_they_are(text):
    assert printable(text) == text


def test_a_name_that_looks_like_an_escape_differs_from_the_escape():
    assert printable("\x1b") == r"\x1b"
    assert printable(r"\x1b") == r"\x5cx1b"


@given(st.text(_ALPHABET, max_size=8), st.text(_ALPHABET, max_size=8))
def test_different_texts_stay_different(one, other):
    assert (printable(one) == printable(other)) == (one == other)


@given(st.text())
def test_only_visible_characters_and_joiners_are_left(text):
    left = [character for character in printable(text) if character not in " \u3000\u200d"]
    assert not {unicodedata.category(character)[0] for character in left} & {"C", "Z"}
