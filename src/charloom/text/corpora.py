"""Well-known corpora by name: downloaded once, checked by SHA-256, and cached.

charloom first looks in the folder that the environment variable `CHARLOOM_DATA` names.
"""

import hashlib
import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from charloom.errors import SourceError

_DOWNLOAD_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class CorpusEntry:
    """A corpus that charloom knows by name.

    Attributes:
        description: what the text is, in a few words.
        url: where it is downloaded from; None if it comes with Python.
        sha256: the digest of the file; None if it comes with Python and depends on Python's version.
        file_name: its name in the cache and in the folder that `CHARLOOM_DATA` names.
    """

    description: str
    url: str | None = None
    sha256: str | None = None
    file_name: str | None = None


CORPORA: dict[str, CorpusEntry] = {
    "nietzsche": CorpusEntry(
        description="works of Nietzsche in English, 600,893 characters",
        url="https://s3.amazonaws.com/text-datasets/nietzsche.txt",
        sha256="23cf69874ab69d3d256099ab530ea4be24d47d9675b673bcc67cbcd6298ec647",
        file_name="nietzsche.txt",
    ),
    "tinyshakespeare": CorpusEntry(
        description="plays of Shakespeare, 1,115,394 characters",
        url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        file_name="tinyshakespeare.txt",
    ),
    "names": CorpusEntry(
        description="32,033 first names, one per line",
        url="https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
        sha256="0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
        file_name="names.txt",
    ),
    "python-reference": CorpusEntry(
        description="the Python language reference that ships with this Python",
    ),
}


def read_named_corpus_bytes(name: str) -> bytes:
    """Returns the UTF-8 bytes of the corpus `name`, and downloads it if necessary.

    Raises:
        SourceError: there is no copy and the download failed, or the SHA-256 of a copy is wrong.
    """
    entry = CORPORA[name]
    if entry.url is None:
        return _python_reference().encode()
    path = local_copy(name)
    if path is None:
        path = _download(name, entry)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}.") from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise SourceError(
            f"{path} is not the corpus {name}: its SHA-256 differs. Delete the file, and charloom downloads it again."
        )
    return data


def unknown_corpus_message(name: str) -> str:
    """Returns the error message for a name that is not a corpus, with the most similar name."""
    nearest = get_close_matches(name, CORPORA, n=1)
    hint = f"Did you mean {nearest[0]}?" if nearest else f"Use one of {', '.join(CORPORA)}."
    return f"no corpus is named {name}. {hint}"


def local_copy(name: str) -> Path | None:
    """Returns the path of the corpus `name` on this machine; None if there is no copy."""
    file_name = CORPORA[name].file_name
    if file_name is None:
        return None
    folders = [_cache_folder()]
    if os.environ.get("CHARLOOM_DATA"):
        folders.insert(0, Path(os.environ["CHARLOOM_DATA"]))
    return next((folder / file_name for folder in folders if (folder / file_name).is_file()), None)


def _cache_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("charloom") / "corpora"


def _download(name: str, entry: CorpusEntry) -> Path:
    import pooch
    import requests
    from filelock import FileLock

    assert entry.url is not None  # only the corpus that comes with Python has no URL
    assert entry.file_name is not None
    folder = _cache_folder()
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{entry.file_name}.lock"):
            return Path(
                pooch.retrieve(
                    entry.url,
                    known_hash=f"sha256:{entry.sha256}",
                    fname=entry.file_name,
                    path=folder,
                    downloader=pooch.HTTPDownloader(timeout=_DOWNLOAD_TIMEOUT_SECONDS),
                )
            )
    except requests.exceptions.RequestException as error:
        raise SourceError(
            f"cannot download {name} ({_reason(error)}). Save {entry.url} as {entry.file_name} in a folder "
            "and set CHARLOOM_DATA to that folder, or train on python-reference, which needs no network."
        ) from error
    except ValueError as error:  # pooch raises it if the hash differs
        raise SourceError(
            f"{entry.url} is not the corpus {name}: its SHA-256 differs. "
            f"Save a good copy as {entry.file_name} in a folder and set CHARLOOM_DATA to that folder."
        ) from error
    except OSError as error:
        raise SourceError(f"cannot write {name} to {folder}: {error.strerror or error}.") from error
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.exceptions.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection to the network"
    if isinstance(error, requests.exceptions.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code}"
    return type(error).__name__


def _python_reference() -> str:
    from pydoc_data.topics import topics

    return "\n".join(topics[topic] for topic in sorted(topics))
