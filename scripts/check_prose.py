#!/usr/bin/env python3
"""Checks the documents' prose: no sentence of more than 35 words, and none of the phrases that nobody would say.

Code, tables and links do not count.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
MOST_WORDS = 35
PHRASES = (
    *("gone on with", "go on with", "goes on with", "comes to the same", "come to the same", "a text of its own"),
    *("for itself", "is waited for", "no honest", "that there is", "whatever changes", "anew", "in the place of"),
    *("but for", "beside it", "of one's own", "is told of", "are told of"),
)
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
# "A name is no path" is odd; "there is no path" is not.
_PHRASE = re.compile(rf"\b(?:{'|'.join(map(re.escape, PHRASES))}|(?<!there )is no)\b", re.IGNORECASE)


def pages() -> list[Path]:
    """Returns the documents that are checked."""
    return [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]


def problems(text: str) -> Iterator[str]:
    """Yields what is wrong with a document in Markdown, in its order."""
    for sentence in sentences(text):
        words = sentence.split()
        if len(words) > MOST_WORDS:
            yield f"{len(words)} words: {' '.join(words[:12])} …"
        if found := _PHRASE.search(sentence):
            yield f'"{found[0]}": {sentence[:80]}'


def sentences(text: str) -> Iterator[str]:
    """Yields the sentences of a document, without code, tables, comments and the targets of links."""
    text = re.sub(r"<!--.*?-->", "", _FENCE.sub("\n", text), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "#", ":::"))]
    # A paragraph's lines belong together; an item of a list begins another.
    text = re.sub(r"\n(?=\s*(?:[-*]|\d+\.|\[\^\w+\]:)\s)", "\n\n", "\n".join(lines))
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = re.sub(r"`[^`]*`", "code", paragraph)
        for sentence in re.split(r"(?<=[.!?:])(?:\*\*|\[\^\w+\])*\s+", " ".join(paragraph.split())):
            if sentence:
                yield sentence


def mean_length(text: str) -> float:
    """Returns a document's mean number of words per sentence."""
    lengths = [len(sentence.split()) for sentence in sentences(text)]
    return sum(lengths) / max(1, len(lengths))


def main() -> None:
    """Prints what is wrong, and exits with 1 if anything is. With `--lengths`, prints mean sentence lengths instead."""
    texts = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in pages()}
    if sys.argv[1:] == ["--lengths"]:
        print(*(f"{mean_length(text):5.1f}  {page}" for page, text in texts.items()), sep="\n")
        return
    found = [f"{page}: {one}" for page, text in texts.items() for one in problems(text)]
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
