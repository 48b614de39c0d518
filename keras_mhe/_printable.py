"""Makes texts that come from files safe to show."""

import re
import unicodedata

# A text that looks like an escape. Escaping its backslash keeps different texts different.
_ESCAPE = re.compile(r"\\(?=x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
# The usual space, and that of Chinese and Japanese.
_SPACES = " \u3000"
_JOINER = "\u200d"
# The emoji style and the tones of skin may stand between an emoji and a joiner.
_MODIFIERS = "\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"


def _joins_emoji(text: str, index: int) -> bool:
    """Whether the character is a joiner between two emoji, as in the sign for a family."""
    before, after = text[max(0, index - 3) : index].rstrip(_MODIFIERS)[-1:], text[index + 1 :][:1]
    return text[index] == _JOINER and all(
        part and unicodedata.category(part) == "So" for part in (before, after)
    )


def _is_visible(text: str, index: int) -> bool:
    character = text[index]
    if character in _SPACES:
        # Two spaces look like a column of a table, and a space at an end like none.
        return 0 < index < len(text) - 1 and text[index - 1] not in _SPACES
    # C: control, format, surrogate, private and unassigned characters. Z: other separators.
    return unicodedata.category(character)[0] not in "CZ" or _joins_emoji(text, index)


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str) -> str:
    r"""A text with visible escapes such as `\x1b` in place of control and format characters.

    Such characters in a name could move the cursor of a terminal, start a line, or reverse the
    direction of the text, and so forge what a report says. Letters of all scripts, single spaces
    and emoji stay as they are. Different texts stay different. Call this once, where a text leaves
    the package: it would escape its own escapes.
    """
    if text.isprintable() and text == text.strip() and "  " not in text and "\\" not in text:
        return text
    text = _ESCAPE.sub(r"\\x5c", text)
    return "".join(
        character if _is_visible(text, index) else _escaped(character)
        for index, character in enumerate(text)
    )
