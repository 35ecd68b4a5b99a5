"""Makes text from outside (names, files, requests) safe to print: it cannot control a terminal or forge a log."""

import os
import re
import shlex

MAX_PRINTED = 300
"""How many characters of a value an error quotes; the rest is cut."""


def one_line(text: str) -> str:
    """Returns `text` with control characters, line ends, bidirectional marks and lone surrogates escaped.

    >>> one_line("a\\x1b[31mb\\nc\\u202ed")
    'a\\\\x1b[31mb\\\\nc\\\\u202ed'
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def shortened(text: str, max_characters: int = MAX_PRINTED) -> str:
    """Returns `text` on one line, cut to `max_characters`.

    >>> shortened("a\\nbcd", max_characters=4)
    'a\\\\nb…'
    """
    line = one_line(text[: max_characters + 1])
    return line if len(line) <= max_characters else f"{line[:max_characters]}…"


# Characters that control a terminal or reorder its text: controls, line separators, bidirectional marks, surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable_lines(text: str) -> str:
    """Returns a text of several lines with control characters escaped; newlines and tabs stay.

    >>> printable_lines("a\\tb\\n\\x1b[31mc\\r\\xa0")
    'a\\tb\\n\\\\x1b[31mc\\\\r\\xa0'
    """
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def quoted(value: object, max_characters: int = MAX_PRINTED) -> str:
    """Returns `repr(value)` on one line, cut to `max_characters`, for an error that quotes what it was given.

    >>> quoted("x" * 400, max_characters=10)
    "'xxxxxxxxx…"
    """
    if isinstance(value, int) and value.bit_length() > 4 * max_characters:  # Python refuses to print the longest ones
        return f"an integer of {value.bit_length():,} bits"
    # Cut a text first, because repr() of megabytes is slow.
    text = one_line(repr(value[: max_characters + 1] if isinstance(value, str | bytes) else value))
    return text if len(text) <= max_characters else f"{text[:max_characters]}…"


def shell_word(text: str) -> str:
    """Returns `text` quoted for a shell, on one line. Unprintable characters are escaped in `$'…'`.

    >>> print(shell_word("a b"), shell_word("it's"), shell_word("red\\x1b"))
    'a b' 'it'"'"'s' $'red\\033'
    """
    if text.isprintable():
        return shlex.quote(text)
    escaped = ("\\" + one if one in "\\'" else one if one.isprintable() else _bytes_of(one) for one in text)
    return f"$'{''.join(escaped)}'"


def shell_path(path: str | os.PathLike[str]) -> str:
    """Returns a path quoted for a command line, so that no command mistakes it for an option or standard input.

    >>> shell_path("-x.txt")
    './-x.txt'
    """
    text = os.fspath(path)
    return shell_word(f"./{text}" if text.startswith("-") else text)


def _bytes_of(character: str) -> str:
    # Always three octal digits, so that a digit may follow.
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
