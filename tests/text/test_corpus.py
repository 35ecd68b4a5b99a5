import hashlib
import io
import os
import sys

import pytest

from charloom.errors import SourceError
from charloom.settings import TextSettings
from charloom.text import Vocabulary, find_sources, read_corpus, read_named_corpus

CHARS = TextSettings()


def test_a_file_is_read_with_its_hash(tmp_path):
    (tmp_path / "book.txt").write_bytes("Töne\r\nund\rmehr\n".encode())
    corpus = read_corpus([tmp_path / "book.txt"], CHARS)
    assert corpus.documents == ("Töne\nund\nmehr\n",)
    assert corpus.name == "book.txt"
    assert corpus.characters == 14
    assert corpus.sha256 == hashlib.sha256("Töne\r\nund\rmehr\n".encode()).hexdigest()


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfabc")
    assert read_corpus([tmp_path / "marked.txt"], CHARS).documents == ("abc",)


def test_an_undecodable_byte_is_named_with_its_offset_and_the_fix(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"\xef\xbb\xbfcaf\xe9")
    with pytest.raises(SourceError, match=rf"cannot decode {path} as utf-8: byte 0xe9 at offset 6. Pass --encoding"):
        read_corpus([path], CHARS)
    assert read_corpus([path], TextSettings(encoding="latin-1")).documents == ("ï»¿café",)


def test_other_encodings(tmp_path):
    (tmp_path / "wide.txt").write_bytes("Töne".encode("utf-16"))
    assert read_corpus([tmp_path / "wide.txt"], TextSettings(encoding="utf-16")).documents == ("Töne",)
    order = "le" if sys.byteorder == "little" else "be"
    for width in ("16", "32"):  # without a mark
        (tmp_path / "wide.txt").write_bytes("Töne".encode(f"utf-{width}-{order}"))
        assert read_corpus([tmp_path / "wide.txt"], TextSettings(encoding=f"utf-{width}")).documents == ("Töne",)


def test_lowercase_and_bytes(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"Ab\r\n\x00\xff")
    assert read_corpus([tmp_path / "x.txt"], TextSettings(units="bytes")).documents == (b"Ab\r\n\x00\xff",)
    (tmp_path / "y.txt").write_bytes(b"Ab\r\nC")
    assert read_corpus([tmp_path / "y.txt"], TextSettings(lowercase=True)).documents == ("ab\nc",)


def test_a_folder_is_read_in_order_without_binary_and_hidden_files(tmp_path):
    for name, data in {
        "b.txt": b"second",
        "a.txt": b"first",
        "sub/c.md": b"third",
        "z.png": b"\x89PNG\x00\x00",
        ".hidden": b"no",
        ".git/config": b"no",
        "empty.txt": b"",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    corpus = read_corpus([tmp_path], CHARS)
    assert corpus.documents == ("first", "second", "third")
    assert corpus.notices == ("left out as binary: z.png",)
    assert str(tmp_path / "z.png") not in find_sources([tmp_path], CHARS).paths
    assert corpus.name == tmp_path.name
    assert read_corpus([str(tmp_path / "*.txt"), tmp_path / "sub"], CHARS).documents == ("first", "second", "third")


def test_a_text_given_twice_is_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    corpus = read_corpus([tmp_path, tmp_path / "a.txt", str(tmp_path / "*.txt")], CHARS)
    assert corpus.documents == ("words",)
    assert corpus.notices == ("left out as given twice: a.txt, a.txt",)
    assert find_sources([tmp_path], CHARS).paths == {str(tmp_path / "a.txt")}


def test_names_and_texts_that_are_not_unicode(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.txt")
    with open(path, "wb") as file:
        file.write(b"words+2AA-")
    assert read_corpus([os.fsdecode(path)], CHARS).name == "caf\ufffd.txt"
    with pytest.raises(SourceError, match=r"cannot decode .* as utf-7"):
        read_corpus([os.fsdecode(path)], TextSettings(encoding="utf-7"))


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe")))
    corpus = read_corpus(["-"], CHARS)
    assert corpus.documents == ("from a pipe",)
    assert corpus.name == "standard input"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none.txt", "no file or folder is named .*none.txt"),
        (lambda folder: "tinyshakespear", "Did you mean tinyshakespeare"),
        (lambda folder: "qqqq", "Use one of nietzsche, "),
        (lambda folder: str(folder / "*.none"), "no file matches"),
        (lambda folder: "", "a source's name is empty"),
        (lambda folder: folder / "empty", "this folder has no files"),
        (lambda folder: folder / "empty.txt", "empty"),
        (lambda folder: folder / "binary.bin", "binary, not text: a zero byte at offset 1"),
        (lambda folder: folder / "pictures", "only binary files. Pass --bytes"),
    ],
)
def test_unreadable_sources_are_refused(tmp_path, make, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "binary.bin").write_bytes(b"a\x00b")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x00")
    with pytest.raises(SourceError, match=words):
        read_corpus([make(tmp_path)], CHARS)


def test_nietzsche_has_the_published_vocabulary(data_folder):
    corpus = read_corpus(["nietzsche"], TextSettings(lowercase=True))
    vocabulary = Vocabulary.of_texts(corpus.documents)
    assert corpus.characters == 600_893
    assert vocabulary.characters == "\n !\"'(),-.0123456789:;=?[]_abcdefghijklmnopqrstuvwxyzäæéë"
    assert vocabulary.size == 57
    assert vocabulary.encode(corpus.documents[0])[:20].tolist() == [
        *(42, 44, 31, 32, 27, 29, 31, 0, 0, 0, 45, 47, 42, 42, 41, 45, 35, 40, 33, 1)
    ]


def test_a_named_corpus_does_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "python-reference").mkdir()
    (tmp_path / "python-reference" / "a.txt").write_text("another text")
    monkeypatch.chdir(tmp_path)
    assert read_corpus(["python-reference"], CHARS).documents == ("another text",)
    corpus = read_named_corpus("python-reference", CHARS)
    assert corpus.name == "python-reference"
    assert len(corpus.documents[0]) > 100_000
