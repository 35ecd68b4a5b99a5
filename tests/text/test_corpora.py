import hashlib
from types import MappingProxyType

import pytest
import requests

from charloom.errors import SourceError
from charloom.settings import TextSettings
from charloom.text import CORPORA, corpora, read_corpus, read_named_corpus_bytes


@pytest.fixture
def small_corpus(monkeypatch, tmp_path):
    """Adds one corpus, with an empty cache."""
    monkeypatch.delenv("CHARLOOM_DATA", raising=False)
    monkeypatch.setattr(corpora, "_cache_folder", lambda: tmp_path / "cache")
    entry = corpora.CorpusEntry(
        description="a text",
        url="http://127.0.0.1:9/tiny.txt",
        sha256=hashlib.sha256(b"tiny").hexdigest(),
        file_name="tiny.txt",
    )
    monkeypatch.setitem(CORPORA, "tiny", entry)
    return tmp_path


def test_the_python_reference_needs_no_file():
    corpus = read_corpus(["python-reference"], TextSettings())
    assert corpus.characters > 100_000
    assert "assignment" in corpus.documents[0]


def test_charloom_data_is_searched_first(small_corpus, monkeypatch):
    (small_corpus / "data").mkdir()
    (small_corpus / "data" / "tiny.txt").write_bytes(b"tiny")
    monkeypatch.setenv("CHARLOOM_DATA", str(small_corpus / "data"))
    assert read_named_corpus_bytes("tiny") == b"tiny"


def test_a_copy_with_another_hash_is_refused(small_corpus, monkeypatch):
    (small_corpus / "tiny.txt").write_bytes(b"tampered")
    monkeypatch.setenv("CHARLOOM_DATA", str(small_corpus))
    with pytest.raises(SourceError, match="is not the corpus tiny: its SHA-256 differs"):
        read_named_corpus_bytes("tiny")


def test_without_a_network_the_error_says_what_to_do(small_corpus):
    with pytest.raises(SourceError, match=r"cannot download tiny .*CHARLOOM_DATA.*python-reference") as caught:
        read_named_corpus_bytes("tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"tiny", b"something else"])
def test_a_download_is_checked_and_cached(small_corpus, monkeypatch, content):
    class Response:
        headers = MappingProxyType({})

        def raise_for_status(self): ...
        def iter_content(self, chunk_size):
            yield content

        def __enter__(self):
            return self

        def __exit__(self, *_): ...
        def close(self): ...

    monkeypatch.setattr(requests, "get", lambda *_, **__: Response())
    if content == b"tiny":
        assert read_named_corpus_bytes("tiny") == b"tiny"
        assert corpora.local_copy("tiny") == small_corpus / "cache" / "tiny.txt"
    else:
        with pytest.raises(SourceError, match="its SHA-256 differs"):
            read_named_corpus_bytes("tiny")
        assert corpora.local_copy("tiny") is None


@pytest.mark.parametrize("name", ["nietzsche", "tinyshakespeare", "names"])
def test_the_corpora_have_their_hashes(data_folder, name):
    assert hashlib.sha256(read_named_corpus_bytes(name)).hexdigest() == CORPORA[name].sha256
