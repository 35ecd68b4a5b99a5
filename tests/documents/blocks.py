"""The fenced blocks of the documents, and how each is to be run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = ("sh", "python", "javascript")
"""The languages of blocks that are commands; the others are output or files."""

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
        for pattern, shorter in _SHORTER:
            text = pattern.sub(shorter, text)
        return text


def pages() -> list[Path]:
    """Returns the README and the documents."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(markdown: str) -> Iterator[Block]:
    """Yields a page's blocks of commands, in their order.

    Raises:
        ValueError: a comment above a block is unknown.
    """
    for found in _BLOCK.finditer(markdown):
        if found["language"] not in LANGUAGES:
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
