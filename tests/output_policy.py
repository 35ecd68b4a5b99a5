"""The table of the output policy: what is at a path, what writes there, and the result.

`python -m tests.output_policy` runs all cases and prints how many files of a user or another program were replaced.
"""

import io
import json
import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from charloom.artifacts import InputFiles, Output, tensor_file_bytes
from charloom.cli.run import run
from charloom.errors import OutputError
from charloom.model import MODEL, TextModel
from charloom.models import Network
from charloom.reports import PAGE
from charloom.runs.checkpoint import write_checkpoint
from charloom.settings import NetworkSettings
from charloom.studies.reproduce import RESULTS
from charloom.text import Vocabulary

TEXT = "the quick brown fox jumps over the lazy dog\n" * 12
_PAGE = "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
_OWN_PAGE = f'{_PAGE}<meta name="generator" content="charloom">\n'


def model(seed: int = 0) -> TextModel:
    vocabulary, shape = Vocabulary.of_texts([TEXT]), NetworkSettings(hidden=4, embedding=2)
    network = Network.init(shape, vocabulary.size, vocabulary.start_id, np.random.default_rng(seed))
    return TextModel(network, vocabulary, shape)


def _checkpoint() -> bytes:
    return tensor_file_bytes({"a": np.zeros(3, np.float32)}, {"checkpoint_version": 3, "progress": {}})


CONTENTS: dict[str, bytes] = {
    "an empty file": b"",
    "a text": TEXT.encode(),
    "another's page": f"{_PAGE}<title>mine</title>{TEXT}".encode(),
    "a page about charloom": f'{_PAGE}<title>content="charloom"</title>{TEXT}{_OWN_PAGE}'.encode(),
    "a page": f"{_OWN_PAGE}<title>a report</title>{TEXT}".encode(),
    "another's safetensors": save({"w": np.ones(3, np.float32)}, {"format": "pt"}),
    "safetensors without metadata": save({"w": np.ones(3, np.float32)}),
    "another's charloom key": save({"w": np.ones(3, np.float32)}, {"charloom": "the weaver"}),
    "a model": model(1).to_bytes(),
    "a truncated model": model(1).to_bytes()[:-40],
    "a model with half a header": model(1).to_bytes()[:100],
    "a huge header": (2**62).to_bytes(8, "little") + b"{}",
    "a checkpoint": _checkpoint(),
    "a pickle": pickle.dumps({"weights": [1, 2, 3]}),
    "results": json.dumps({"version": "0.0.1", "run": {}, "studies": {}, "results_version": 1}).encode(),
    "another's JSON": json.dumps({"results": [1, 2]}).encode(),
    "half a JSON": b'{"version": "0.0.1", "studies": ',
}
OWN = {"a page", "a model", "a truncated model", "a checkpoint", "results", "an empty file"}
"""Files that charloom made, or that are empty. All others belong to a user or another program."""


def _link(path: Path, content: str | None) -> None:
    target = path.parent / "elsewhere" / "target"
    target.parent.mkdir()
    if content:
        target.write_bytes(CONTENTS[content])
    path.symlink_to(target)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, chdir(path.parent):  # a socket's path must be short
        one.bind(path.name)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "nothing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a named pipe": os.mkfifo,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/null"),
    "a link to nothing": lambda path: _link(path, None),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a model": lambda path: _link(path, "a model"),
    "a link to a text": lambda path: _link(path, "a text"),
}


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        writes: what writes; a key of `WRITERS`.
        existing: what is at the path; a key of `CONTENTS` or `SPECIAL`.
        result: "written", "kept" (written, and the earlier file has another name), "aside" (written under another name)
            or "refused".
        is_default: whether the path is a default.
        force: whether `--force` is given.
        reads: how the command reads the existing file; a key of `READS`.
    """

    writes: str
    existing: str
    result: str
    is_default: bool = field(default=False, kw_only=True)
    force: bool = field(default=False, kw_only=True)
    reads: str = field(default="not", kw_only=True)

    def __str__(self) -> str:
        words = [self.writes, *["by default"] * self.is_default, *["with force"] * self.force, "over", self.existing]
        return " ".join([*words, *(["read", self.reads] if self.reads != "not" else []), "is", self.result])


def _other_name(path: Path, make: Callable[[Path, Path], None]) -> Path:
    other = path.with_name("other")
    make(path, other)
    return other


READS: dict[str, Callable[[Path], Path]] = {
    "itself": lambda path: path,
    "by a link": lambda path: _other_name(path, lambda path, other: other.symlink_to(path)),
    "by a hard link": lambda path: _other_name(path, lambda path, other: other.hardlink_to(path)),
    "by a way around": lambda path: path.parent / ".." / path.parent.name / path.name,
    "in its folder": lambda path: path.parent,
    "by a pattern": lambda path: path.with_name("*"),
}


@dataclass(frozen=True)
class Place:
    """The paths of a case: the output, what the command reads, and a model."""

    path: Path
    read: Path
    model: Path


def _claimed(case: Case, place: Place) -> InputFiles:
    return InputFiles([place.read] if case.reads != "not" else [])


def _write(kind: object, data: bytes) -> Callable[[Case, Place], None]:
    def write(case: Case, place: Place) -> None:
        inputs = _claimed(case, place)
        Output(place.path, kind, inputs, is_default=case.is_default, force=case.force).write(data)  # type: ignore[arg-type]

    return write


def _command(*arguments: object) -> None:
    errors = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(errors):
        status = run([str(argument) for argument in arguments])
    lines = [line for line in errors.getvalue().splitlines() if line.startswith("charloom: ")]
    if status == 1 and len(lines) == 1:
        raise OutputError(lines[0])
    assert status == 0, errors.getvalue()


def _report(case: Case, place: Place) -> None:
    default = place.path.with_suffix(".safetensors")
    used = default if case.is_default else place.model
    used.write_bytes(model().to_bytes())
    text = [place.read] if case.reads != "not" else []
    _command("report", used, *text, *(() if case.is_default else ("--out", place.path)))


def _score(case: Case, place: Place) -> None:
    place.model.write_bytes(model().to_bytes())
    _command("score", place.model, place.read, "--html", place.path, "--unknown", "skip")


_TINY = ("--steps", 1, "--hidden", 4, "--embedding", 2, "--batch-size", 1, "--sequence-length", 8, "--bytes")


def _train(case: Case, place: Place) -> None:
    forced = ["--force"] if case.force else []
    with chdir(place.path.parent):
        if case.is_default:
            source = place.read if case.reads != "not" else place.path.with_suffix(".txt")
            if case.reads == "not":
                source.write_text(TEXT)
            _command("train", source, *_TINY, *forced)
        else:
            _command("train", place.read, "--out", place.path, *_TINY, *forced)


def _train_from_pipe(case: Case, place: Place) -> None:
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(TEXT.encode()))
    try:
        with chdir(place.path.parent):
            _command("train", "-", *_TINY)
    finally:
        sys.stdin = before


def _train_page(case: Case, place: Place) -> None:
    _command("train", place.read, "--out", place.path.with_suffix(".safetensors"), "--report", *_TINY)


WRITERS: dict[str, tuple[str, Callable[[Case, Place], None]]] = {
    "a model": ("out.safetensors", _write(MODEL, model(2).to_bytes())),
    "a page": ("out.html", _write(PAGE, CONTENTS["a page"] + b"new")),
    "results": ("results.json", _write(RESULTS, CONTENTS["results"] + b" ")),
    "a checkpoint": (
        "epoch-0001.safetensors",
        lambda case, place: write_checkpoint(place.path, {"a": np.ones(2, np.float32)}, {}) and None,
    ),
    "save": ("out.safetensors", lambda case, place: model(2).save(place.path, force=case.force)),
    "report": ("out.html", _report),
    "score --html": ("out.html", _score),
    "train": ("out.safetensors", _train),
    "train -": ("model.safetensors", _train_from_pipe),
    "train --report": ("out.html", _train_page),
}

_FOREIGN = [
    *("a text", "another's page", "another's safetensors", "safetensors without metadata", "another's charloom key"),
    *("a model with half a header", "a huge header", "a pickle", "another's JSON", "half a JSON"),
    *("a page about charloom", "a folder", "a named pipe", "a socket", "a device", "a link to a text"),
]
_UNREADABLE_AS_OUTPUT = ["a link to itself"]

CASES = [
    # A model replaces only a model or an empty file, and keeps the earlier model.
    *(Case("a model", stands, "refused") for stands in [*_FOREIGN, *_UNREADABLE_AS_OUTPUT, "a page", "a checkpoint"]),
    *(Case("a model", stands, "refused", force=True) for stands in ("another's safetensors", "a text", "a checkpoint")),
    *(Case("a model", stands, "aside", is_default=True) for stands in [*_FOREIGN, "a page", "a checkpoint"]),
    *(Case("a model", stands, "kept") for stands in ("a model", "a truncated model", "a link to a model")),
    *(Case("a model", stands, "written", force=True) for stands in ("a model", "a link to a model")),
    *(Case("a model", stands, "written") for stands in ("nothing", "an empty file", "a link to nothing")),
    Case("a model", "a model", "kept", is_default=True),
    *(Case("a model", "a model", "refused", reads=reads) for reads in ("itself", "by a link", "by a hard link")),
    Case("a model", "an empty file", "refused", reads="itself"),
    Case("a model", "a model", "refused", reads="itself", force=True),
    Case("a model", "a model", "aside", reads="by a way around", is_default=True),
    Case("save", "a model", "kept"),
    Case("save", "a model", "written", force=True),
    *(Case("save", stands, "refused") for stands in ("a text", "another's safetensors", "a checkpoint", "a folder")),
    # A page replaces only a page.
    *(Case("a page", stands, "refused") for stands in [*_FOREIGN, "a model", "results"]),
    *(Case("a page", stands, "aside", is_default=True) for stands in [*_FOREIGN, "a model"]),
    *(Case("a page", stands, "written") for stands in ("nothing", "an empty file", "a page", "a link to nothing")),
    *(Case("a page", "a page", "refused", reads=reads) for reads in ("itself", "by a link", "by a hard link")),
    Case("a page", "a page", "aside", reads="by a way around", is_default=True),
    # Results and checkpoints, whose names charloom chooses.
    *(
        Case("results", stands, "refused")
        for stands in ("another's JSON", "half a JSON", "a text", "a folder", "a page")
    ),
    Case("results", "results", "written"),
    *(Case("a checkpoint", stands, "aside") for stands in ("another's safetensors", "a model", "a pickle", "a folder")),
    *(Case("a checkpoint", stands, "written") for stands in ("a checkpoint", "nothing")),
    # The same through the commands.
    *(Case("report", "a text", "refused", reads=reads) for reads in ("not", "itself", "by a link", "by a hard link")),
    *(Case("report", stands, "aside", is_default=True, reads="itself") for stands in ("a text", "another's page")),
    Case("report", "a page", "aside", is_default=True, reads="in its folder"),
    Case("report", "a page", "written"),
    *(Case("score --html", "a text", "refused", reads=reads) for reads in ("not", "itself", "by a pattern")),
    Case("score --html", "a page", "refused", reads="itself"),
    Case("score --html", "a page", "written"),
    Case("train", "another's safetensors", "refused"),
    Case("train", "another's safetensors", "aside", is_default=True),
    Case("train", "a model", "kept"),
    Case("train", "a model", "written", force=True),
    *(Case("train", "a model", "refused", reads=reads) for reads in ("itself", "in its folder", "by a pattern")),
    Case("train", "a model", "aside", is_default=True, reads="itself"),
    Case("train -", "another's safetensors", "aside", is_default=True),
    Case("train -", "a model", "kept", is_default=True),
    *(Case("train --report", "another's page", "aside", is_default=True, reads=reads) for reads in ("not", "itself")),
    Case("train --report", "a page", "written", is_default=True),
]


def _snapshot(folder: Path) -> dict[Path, tuple[str, bytes]]:
    """Returns the kind of everything in `folder`, and the content of files."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path] = "link", os.fsencode(os.readlink(path))
        elif path.is_file():
            found[path] = "file", path.read_bytes()
        else:
            found[path] = f"{path.stat().st_mode:o}", b""
    return found


def play(case: Case, folder: Path) -> tuple[str, list[Path]]:
    """Runs a case in an empty folder; returns the result, and the paths of what was lost."""
    name, write = WRITERS[case.writes]
    path = folder / "work" / name
    path.parent.mkdir()
    (folder / "text.txt").write_text(TEXT)
    if case.existing in CONTENTS:
        path.write_bytes(CONTENTS[case.existing])
    else:
        SPECIAL[case.existing](path)
    read = READS[case.reads](path) if case.reads != "not" else folder / "text.txt"
    before = _snapshot(folder)
    refused = False
    try:
        write(case, Place(path, read, folder / "m.safetensors"))
    except OutputError:
        refused = True
    after = _snapshot(folder)
    assert not [left for left in after if left.name.startswith(".charloom")]
    place = Path(os.path.realpath(path)) if path.is_symlink() else path
    own = case.existing in OWN or case.existing == "a link to a model"
    may_go = {place} if own and case.reads == "not" and not refused else set()
    lost = [one for one, content in before.items() if one not in may_go and after.get(one) != content]
    contents = [content for kind, content in after.values() if kind == "file"]
    if "model" in case.existing and not case.force and place in may_go and before[place][1] not in contents:
        lost.append(place)
    new = after.keys() - before.keys()
    if refused:
        return "refused", [*lost, *new & {path, place}]
    if before.get(place) == after.get(place):
        return "aside" if any(path.stem in one.name for one in new) else "nothing", lost
    return "kept" if any(".previous." in one.name or one.name == "target.previous" for one in new) else "written", lost


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


def main() -> None:
    replaced, differing = 0, []
    for case in CASES:
        with _folder() as folder:
            result, lost = play(case, folder)
            replaced += len(lost)
            differing += [f"{case}: {result}"] * (result != case.result)
    print("\n".join(differing))
    print(f"files of another program or of the user replaced: {replaced} of {len(CASES)} cases")


if __name__ == "__main__":
    main()
