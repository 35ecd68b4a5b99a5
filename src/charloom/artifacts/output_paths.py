"""The output policy: what charloom may write where, and which files it may replace. No other module decides that.

An output never replaces a file that the command reads. It may replace an empty file, or a file of the same kind that
charloom made. Any other file at its path belongs to the user or another program. See docs/design/outputs.md.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from charloom.artifacts.files import atomic_write, cannot_write, require_writable_folder
from charloom.errors import OutputError


@dataclass(frozen=True)
class OutputKind:
    """A kind of file that charloom writes.

    Attributes:
        noun: what a file of this kind is called.
        example: an example of a file name.
        fallback_word: part of a default output's name if the usual name is taken: book.WORD.html.
        is_own: returns whether charloom made the nonempty regular file at a path.
        keeps_earlier: whether the file of an earlier command is kept under another name.
        owner: see `atomic_write`.
    """

    noun: str
    example: str
    fallback_word: str
    is_own: Callable[[Path], bool]
    keeps_earlier: bool = False
    owner: str = "file"


class InputFiles:
    """The files that a command reads, recognized by any path: through links, hard links, in upper or lower case."""

    def __init__(self, paths: Iterable[str | os.PathLike[str]] = (), *, standard_input: bool = False):
        self._paths: set[str] = set()
        self._files: set[tuple[int, int]] = set()
        for path in paths:
            self._paths.add(_place(path))
            self._add(path)
        if standard_input:  # it may be redirected from a file
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
    """Returns the device and inode that identify a regular file under any of its names."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) and found.st_ino else None


NO_INPUTS = InputFiles()


class Output:
    """A file that a command may write any number of times.

    A command replaces the files that it wrote itself. It keeps an earlier command's model as NAME.previous.safetensors.
    It does not replace the model of a command that runs at the same time. Otherwise two commands that take turns would
    keep one more file each time.

    Attributes:
        path: where the file is written.
        kept: where the earlier model is kept; None if there was none.
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
        """Checks that the file can be written, without writing it.

        Args:
            path: where to write.
            kind: the kind of file.
            inputs: the files that the command reads.
            is_default: whether `path` is a default that the user did not ask for. If it is taken, another name is used.
            force: whether to replace an earlier model without keeping it.
            own: SHA-256 digests of files that the same run wrote before and may replace.
            record: called with the SHA-256 digest of each model before the model is written.

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
                self.path = next(one for one in _names(path, kind.fallback_word) if self._taken(one) is None)
            elif taken := self._taken(path):
                raise self._refused(taken)
            require_writable_folder(self.path)
            if kind.keeps_earlier and not force and self._anothers_digest() is not None:
                _free(_earlier_names(self.path))  # may be too long
        except OSError as error:
            raise OutputError(cannot_write(self.path, error)) from error

    def write(self, data: bytes) -> None:
        """Writes the file atomically.

        Raises:
            OutputError: the file cannot be written, or the path has been taken meanwhile. The file there is unchanged.
        """
        try:
            if taken := self._taken(self.path):
                raise self._refused(taken)
        except OSError as error:
            raise OutputError(cannot_write(self.path, error)) from error
        if not self._kind.keeps_earlier:
            with atomic_write(self.path, self._kind.owner) as file:
                file.write(data)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        self._record(sha256)
        with atomic_write(self.path, self._kind.owner, lambda: self._keep_earlier(sha256)) as file:
            file.write(data)
        self._own.add(sha256)
        self._has_written = True

    @property
    def is_taken(self) -> bool:
        """Whether the path is taken by now, or cannot be checked."""
        try:
            return self._taken(self.path) is not None
        except OSError:
            return True

    def fallback(self) -> "Output":
        """Returns an output next to this one, for when this path can no longer be written.

        Raises:
            OutputError: no such file can be written.
        """
        other = next(_names(self.path, self._kind.fallback_word, first=False))
        return Output(other, self._kind, self._inputs, is_default=True, force=self._force, record=self._record)

    def finish(self) -> Path | None:
        """Returns where an earlier model is kept, after the last write. An identical model is not kept twice."""
        if self.kept is not None and _sha256(self.kept) == _sha256(self.path):
            self.kept.unlink()
            self.kept = None
        return self.kept

    def _taken(self, path: Path) -> str | None:
        """Returns why `path` must not be replaced; None if it may be."""
        if self._inputs.has(path):
            return "it is one of the files to read"
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(found.st_mode):
            return "it is a folder"
        if not stat.S_ISREG(found.st_mode):
            return "it is not a regular file"
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
        """Returns the SHA-256 digest of the file at the path; None if it is missing, empty, or written by this run."""
        if not os.path.exists(self.path) or not os.path.getsize(self.path):
            return None
        found = _sha256(self.path)
        return None if found in self._own else found

    def _keep_earlier(self, sha256: str) -> None:
        """Gives the file at the path another name, so that it is kept when the path is overwritten.

        Raises:
            OutputError: another command has written the file since this one last wrote.
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
                os.link(os.path.realpath(self.path), kept)  # the old file stays at the path until it is replaced
            except FileExistsError:
                continue
            except OSError:  # the file system has no hard links
                os.rename(os.path.realpath(self.path), kept)
            self.kept = kept
            return


_ANOTHERS = "another command has written its model there in the meantime"


def remove_own(path: Path, kind: OutputKind) -> None:
    """Removes a file that charloom no longer needs, but only if charloom made it.

    Raises:
        OutputError: the file cannot be removed.
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
    # A link's target can only be given another name in its own folder.
    return _names(Path(os.path.realpath(path)) if path.is_symlink() else path, "previous", first=False)


def _free(names: Iterator[Path]) -> Path:
    """Returns the first of `names` that does not exist.

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
