"""Text from outside (names, files, requests) made safe to print: one line that steers no terminal and forges no log."""

import os
import re
import shlex

MOST_PRINTED = 300
"""Characters of a value that an error quotes; the rest is cut."""


def one_line(text: str) -> str:
    """Returns `text` with control characters, line ends, bidirectional marks and lone surrogates escaped.

    >>> one_line("a\\x1b[31mb\\nc\\u202ed")
    'a\\\\x1b[31mb\\\\nc\\\\u202ed'
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def shortened(text: str, most: int = MOST_PRINTED) -> str:
    """Returns `text` on one line, cut to `most` characters.

    >>> shortened("a\\nbcd", most=4)
    'a\\\\nb…'
    """
    line = one_line(text[: most + 1])
    return line if len(line) <= most else f"{line[:most]}…"


# What steers a terminal or reorders what it shows: controls, line separators, bidirectional marks, surrogates.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def lines_shown(text: str) -> str:
    """Returns a text of several lines with what steers a terminal escaped; newlines and tabs stay.

    >>> lines_shown("a\\tb\\n\\x1b[31mc\\r\\xa0")
    'a\\tb\\n\\\\x1b[31mc\\\\r\\xa0'
    """
    return _STEERING.sub(lambda found: repr(found[0])[1:-1], text)


def quoted(value: object, most: int = MOST_PRINTED) -> str:
    """Returns `repr(value)` on one line, cut to `most` characters, for an error that quotes what it was given.

    >>> quoted("x" * 400, most=10)
    "'xxxxxxxxx…"
    """
    if isinstance(value, int) and value.bit_length() > 4 * most:  # Python refuses to write down the longest ones
        return f"an integer of {value.bit_length():,} bits"
    # A text is cut first: the representation of megabytes takes time that its beginning does not.
    text = one_line(repr(value[: most + 1] if isinstance(value, str | bytes) else value))
    return text if len(text) <= most else f"{text[:most]}…"


def shell_word(text: str) -> str:
    """Returns `text` as a word that a shell reads back, on one line; what is not printable is escaped in `$'…'`.

    >>> print(shell_word("a b"), shell_word("it's"), shell_word("red\\x1b"))
    'a b' 'it'"'"'s' $'red\\033'
    """
    if text.isprintable():
        return shlex.quote(text)
    escaped = ("\\" + one if one in "\\'" else one if one.isprintable() else _bytes_of(one) for one in text)
    return f"$'{''.join(escaped)}'"


def shell_path(path: str | os.PathLike[str]) -> str:
    """Returns a path as a word of a command line, which no command takes for an option or for standard input.

    >>> shell_path("-x.txt")
    './-x.txt'
    """
    text = os.fspath(path)
    return shell_word(f"./{text}" if text.startswith("-") else text)


def _bytes_of(character: str) -> str:
    # Three digits in base eight end by themselves, whatever follows.
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
