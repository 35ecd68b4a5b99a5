"""The policy of outputs: what charloom writes where, and what it replaces. No other module decides that.

An output never replaces a file that the command reads. It may replace an empty file, or a file of the same kind that
charloom made. Any other file at its path belongs to the user or another program. See docs/design/outputs.md.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from charloom.artifacts.files import cannot_write, replacing, require_writable_folder
from charloom.errors import OutputError


@dataclass(frozen=True)
class OutputKind:
    """A kind of file that charloom writes.

    Attributes:
        noun: what one is called.
        example: a name for one.
        aside: stands in the name that a default output gets where its own is taken: book.ASIDE.html.
        is_own: whether charloom made the file at a path, which is an ordinary file and not empty.
        keeps_earlier: whether what an earlier command made is kept under another name.
        owner: as of `replacing`.
    """

    noun: str
    example: str
    aside: str
    is_own: Callable[[Path], bool]
    keeps_earlier: bool = False
    owner: str = "file"


class InputFiles:
    """The files that a command reads, by whatever path: through links, hard links, in upper or lower case."""

    def __init__(self, paths: Iterable[str | os.PathLike[str]] = (), *, standard_input: bool = False):
        self._paths: set[str] = set()
        self._files: set[tuple[int, int]] = set()
        for path in paths:
            self._paths.add(_place(path))
            self._add(path)
        if standard_input:  # which may be a file as well
            self._add(0)

    def _add(self, path: str | os.PathLike[str] | int) -> None:
        if (file := _file_at(path)) is not None:
            self._files.add(file)

    def has(self, path: Path) -> bool:
        """Returns whether `path` leads to one of the files."""
        return _place(path) in self._paths or _file_at(path) in self._files


def _place(path: str | os.PathLike[str]) -> str:
    return os.path.normcase(os.path.realpath(path))


def _file_at(path: str | os.PathLike[str] | int) -> tuple[int, int] | None:
    """Returns what tells an ordinary file from all others, by whatever name."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) and found.st_ino else None


NO_INPUTS = InputFiles()


class Output:
    """A file that a command may write, as often as it likes.

    What the command wrote itself it replaces. The model of an earlier command is kept as NAME.previous.safetensors.
    The model of a command that runs at the same time is not replaced: two that took turns would keep a file per turn.

    Attributes:
        path: where it is written.
        kept: where the earlier model is kept; None where there was none.
    """

    def __init__(
        self,
        path: Path,
        kind: OutputKind,
        inputs: InputFiles = NO_INPUTS,
        *,
        is_default: bool = False,
        force: bool = False,
        own: Iterable[str] = (),
        record: Callable[[str], None] = lambda sha256: None,
    ):
        """Finds out whether the file can be written; nothing is written yet.

        Args:
            path: where to.
            kind: what.
            inputs: what the command reads.
            is_default: whether nobody asked for this path; if it is taken, a name beside it is used.
            force: whether an earlier model is replaced without being kept.
            own: SHA-256 of files that the same run has written before, which it may replace.
            record: is called with the SHA-256 of each model before it is there.

        Raises:
            OutputError: the folder is missing or not writable, or the path is taken.
        """
        self.path = path
        self.kept: Path | None = None
        self._kind = kind
        self._inputs = inputs
        self._force = force
        self._own = set(own)
        self._record = record
        self._has_written = False
        try:
            if is_default:
                self.path = next(one for one in _names(path, kind.aside) if self._taken(one) is None)
            elif taken := self._taken(path):
                raise self._refused(taken)
            require_writable_folder(self.path)
            if kind.keeps_earlier and not force and self._anothers_digest() is not None:
                _free(_earlier_names(self.path))  # may be too long
        except OSError as error:
            raise OutputError(cannot_write(self.path, error)) from error

    def write(self, data: bytes) -> None:
        """Writes the file in one step.

        Raises:
            OutputError: it cannot be written, or something else stands there by now; that is as it was.
        """
        try:
            if taken := self._taken(self.path):
                raise self._refused(taken)
        except OSError as error:
            raise OutputError(cannot_write(self.path, error)) from error
        if not self._kind.keeps_earlier:
            with replacing(self.path, self._kind.owner) as file:
                file.write(data)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        self._record(sha256)
        with replacing(self.path, self._kind.owner, lambda: self._keep_earlier(sha256)) as file:
            file.write(data)
        self._own.add(sha256)
        self._has_written = True

    @property
    def is_taken(self) -> bool:
        """Whether somebody else's file stands there by now, or one that cannot be looked at."""
        try:
            return self._taken(self.path) is not None
        except OSError:
            return True

    def aside(self) -> "Output":
        """Returns the output beside this one that can be written, where this one no longer can.

        Raises:
            OutputError: there is none.
        """
        other = next(_names(self.path, self._kind.aside, first=False))
        return Output(other, self._kind, self._inputs, is_default=True, force=self._force, record=self._record)

    def settle(self) -> Path | None:
        """Returns where an earlier model is kept, after the last write; one that came out the same is kept once."""
        if self.kept is not None and _sha256(self.kept) == _sha256(self.path):
            self.kept.unlink()
            self.kept = None
        return self.kept

    def _taken(self, path: Path) -> str | None:
        """Returns why `path` is not to be replaced; None where it may be."""
        if self._inputs.has(path):
            return "it is one of the files to read"
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(found.st_mode):
            return "it is a folder"
        if not stat.S_ISREG(found.st_mode):
            return "it is not an ordinary file"
        if not os.access(path, os.W_OK):
            return "it is read-only"
        if found.st_size and not self._kind.is_own(path):
            return f"it is not a {self._kind.noun} that charloom made"
        if self._has_written and self._anothers_digest() is not None:
            return _ANOTHERS
        return None

    def _refused(self, taken: str) -> OutputError:
        instead = f"a file, such as {self.path / self._kind.example}" if taken.endswith("folder") else "another name"
        return OutputError(f"cannot write {self.path}: {taken}. Give {instead}.")

    def _anothers_digest(self) -> str | None:
        """Returns the SHA-256 of a file that stands there and that this run did not write; None if there is none."""
        if not os.path.exists(self.path) or not os.path.getsize(self.path):
            return None
        found = _sha256(self.path)
        return None if found in self._own else found

    def _keep_earlier(self, sha256: str) -> None:
        """Gives what stands there another name, so that it stays when its place is taken.

        Raises:
            OutputError: another command has put it there since this one last wrote.
        """
        found = self._anothers_digest()
        if found is not None and self._has_written:
            raise self._refused(_ANOTHERS)
        if found in (None, sha256) or self._force:
            return
        names = _earlier_names(self.path)
        while True:
            kept = _free(names)
            try:
                os.link(os.path.realpath(self.path), kept)  # it stands in its place until the new one does
            except FileExistsError:
                continue
            except OSError:  # a file system without hard links
                os.rename(os.path.realpath(self.path), kept)
            self.kept = kept
            return


_ANOTHERS = "another command has written its model there in the meantime"


def remove_own(path: Path, kind: OutputKind) -> None:
    """Removes a file that charloom no longer needs, if it made it; whatever else stands there stays.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        if path.is_file() and not path.is_symlink() and kind.is_own(path):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror or error}.") from error


def _names(path: Path, word: str, *, first: bool = True) -> Iterator[Path]:
    """Yields book.html, book.WORD.html, book.WORD-2.html and so on."""
    if first:
        yield path
    yield path.with_name(f"{path.stem}.{word}{path.suffix}")
    number = 2
    while True:
        yield path.with_name(f"{path.stem}.{word}-{number}{path.suffix}")
        number += 1


def _earlier_names(path: Path) -> Iterator[Path]:
    # Beside what a link leads to: only there another name can be had.
    return _names(Path(os.path.realpath(path)) if path.is_symlink() else path, "previous", first=False)


def _free(names: Iterator[Path]) -> Path:
    """Returns the first of `names` that nothing has.

    Raises:
        OSError: a name is too long, or cannot be looked up.
    """
    for path in names:
        try:
            path.lstat()
        except FileNotFoundError:
            return path
    raise AssertionError("names do not end")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
