"""The fenced blocks of the documents, and how each is to be run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from charloom.units import parse_seconds

ROOT = Path(__file__).parents[2]
LANGUAGES = ("sh", "python", "javascript")
"""The languages of blocks that are commands."""
_FILES = ("text", "ini", "json", "nginx", "dockerfile")
"""The languages of output and files."""

_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n\n?)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_NOT_RUN = "not run: "
_KEEPS_RUNNING = "keeps running"
_SHORTER = (
    (re.compile(r"--budget \S+"), "--steps 20 --hidden 16"),
    (re.compile(r"--(?:epochs|steps) \d+"), "--steps 20"),
    (re.compile(r'budget="\w+"'), "steps=20, hidden=16"),
    (re.compile(r"\b(?:epochs|steps)=\d+"), "steps=20"),
)


@dataclass(frozen=True)
class Block:
    """One block of commands.

    Attributes:
        language: one of `LANGUAGES`.
        text: what the reader pastes.
        line: where it begins in its page.
        keeps_running: whether it ends only when the reader stops it.
        not_run: why no test can run it, or nothing.
    """

    language: str
    text: str
    line: int
    keeps_running: bool
    not_run: str

    def shortened(self) -> str:
        """Returns the text with 20 steps instead of any length of training, and a small network instead of a budget.

        A page then takes seconds, and passes or fails however busy the machine is.
        """
        text = self.text
        for budget in re.findall(r"--budget (\S+)|budget=\"(\w+)\"", text):
            parse_seconds("".join(budget))  # raises if charloom would
        for pattern, shorter in _SHORTER:
            text = pattern.sub(shorter, text)
        return text


def pages() -> list[Path]:
    """Returns the README and the documents."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(markdown: str) -> Iterator[Block]:
    """Yields a page's blocks of commands, in their order.

    Raises:
        ValueError: a comment above a block, a block's language or its indentation is unknown.
    """
    found_blocks = list(_BLOCK.finditer(markdown))
    if len(re.findall(r"^ *(?:```|~~~)", markdown, re.MULTILINE)) != 2 * len(found_blocks):
        raise ValueError("a block is indented, is not closed, or has more than a language after ```")
    for found in found_blocks:
        if found["language"] not in (*LANGUAGES, *_FILES):
            raise ValueError(f"the language {found['language']!r} is neither of {LANGUAGES} nor of {_FILES}")
        if found["language"] in _FILES:
            continue
        note = found["note"] or ""
        if note and note != _KEEPS_RUNNING and not note.startswith(_NOT_RUN):
            raise ValueError(f"the comment {note!r} above a block is neither {_KEEPS_RUNNING!r} nor {_NOT_RUN!r}")
        yield Block(
            found["language"],
            found["text"],
            markdown.count("\n", 0, found.start("language")) + 1,
            note == _KEEPS_RUNNING,
            note.removeprefix(_NOT_RUN) if note.startswith(_NOT_RUN) else "",
        )
