from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.errors import SourceError
from charloom.settings import TextSettings
from charloom.text import decoding, normalize, text_pieces

texts = st.text(st.sampled_from("aΣσ ’\r\n😀日İ"), max_size=40)


@given(text=texts, cuts=st.lists(st.integers(0, 200)), lowercase=st.booleans())
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-le", "gb18030"])
def test_the_text_does_not_depend_on_the_chunks(encoding, text, cuts, lowercase):
    settings = TextSettings(encoding=encoding, lowercase=lowercase)
    data = text.encode(encoding)
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[begin:end] for begin, end in pairwise(bounds)]
    assert "".join(text_pieces(chunks, "a.txt", settings)) == normalize(data.decode(encoding), settings)


@given(cuts=st.lists(st.integers(0, 20)))
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (b"caf\xe9 and more", "byte 0xe9 at offset {}"),
        ("日本".encode()[:-1], "byte 0xe6 at offset {}"),
        (b"caf\0 and", "a zero byte at offset {}"),
    ],
)
def test_an_error_names_the_offset_in_the_file(mark, wrong, words, cuts):
    data = mark + wrong
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[begin:end] for begin, end in pairwise(bounds)]
    with pytest.raises(SourceError, match=words.format(len(mark) + 3)):
        list(text_pieces(chunks, "a.txt", TextSettings()))


def test_a_text_without_spaces_is_not_buffered_whole():
    pieces = text_pieces([b"a" * 1_000_000] * 3, "a.txt", TextSettings())
    assert [len(piece) for piece in pieces] == [0, 2_000_000, 0, 0, 1_000_000]  # the last two come at the end


@given(text=st.text(st.sampled_from("a\r\n"), max_size=40), cuts=st.lists(st.integers(0, 40)))
def test_a_line_end_stays_whole_when_a_long_word_is_cut(text, cuts):
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[begin:end].encode() for begin, end in pairwise(bounds)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_MAX_WORD_LENGTH", 2)
        assert "".join(text_pieces(chunks, "a.txt", TextSettings())) == normalize(text, TextSettings())


def test_a_word_document_is_named_as_such():
    with pytest.raises(SourceError, match=r"book\.docx is a zip file, as Word .* Save the document as plain text"):
        list(text_pieces([b"PK\x03\x04\x14\0\x06\0"], "book.docx", TextSettings()))
