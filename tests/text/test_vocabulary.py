import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.errors import UnknownCharacterError
from charloom.text import Vocabulary, describe_characters

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@given(texts)
def test_decode_undoes_encode(text):
    vocabulary = Vocabulary.of_texts([text])
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.size == len(set(text))
    assert list(vocabulary.characters) == sorted(set(text))


@given(texts)
def test_bytes_round_trip_any_text(text):
    vocabulary = Vocabulary.of_bytes()
    ids = vocabulary.encode(text)
    assert bytes(ids.tolist()) == text.encode()
    assert vocabulary.decode(ids) == text
    assert vocabulary.unknown_characters(text) == []


@given(texts, st.lists(st.integers(1, 7), max_size=30))
def test_a_decoder_given_pieces_says_the_same(text, cuts):
    for vocabulary in (Vocabulary.of_texts([text]), Vocabulary.of_bytes()):
        ids, decode, decoded, begin = vocabulary.encode(text), vocabulary.decoder(), "", 0
        for cut in cuts:
            decoded += decode(ids[begin : begin + cut])
            begin += cut
        decoded += decode(ids[begin:], final=True)
        assert decoded == text


def test_a_text_longer_than_a_piece_of_encoding():
    text = "ab\n" * 400_000
    vocabulary = Vocabulary.of_texts([text])
    ids = vocabulary.encode(text)
    assert ids.dtype == np.uint8
    assert ids[:6].tolist() == [1, 2, 0, 1, 2, 0]
    assert len(ids) == len(text)
    with pytest.raises(UnknownCharacterError, match=r"'é' \(U\+00E9\) at character 1200000: .* model's 3 characters"):
        vocabulary.encode(text + "é")


def test_the_smallest_integer_type_holds_every_id():
    assert Vocabulary.of_texts([map_range(256)]).encode("Ā".replace("Ā", chr(0))).dtype == np.uint8
    assert Vocabulary.of_texts([map_range(257)]).encode(chr(256)).tolist() == [256]
    assert Vocabulary.of_texts([map_range(257)]).encode(chr(256)).dtype == np.uint16


def map_range(count):
    return "".join(map(chr, range(count)))


def test_unknown_characters_are_refused_skipped_or_replaced():
    vocabulary = Vocabulary.of_texts(["abc "])
    with pytest.raises(UnknownCharacterError, match="--unknown replace"):
        vocabulary.encode("aéb")
    assert vocabulary.decode(vocabulary.encode("aéb", "skip")) == "ab"
    assert vocabulary.decode(vocabulary.encode("aéb", "replace")) == "a b"
    assert vocabulary.unknown_characters("aébé\udcff") == ["é", "é", "\udcff"]
    assert Vocabulary.of_texts(["xyz"]).replacement == "x"


def test_where_a_text_begins():
    assert Vocabulary.of_texts(["a\nb"]).start_id == 0
    assert Vocabulary.of_texts(["\t\nb"]).start_id == 1
    assert Vocabulary.of_texts(["ab"]).start_id is None
    assert Vocabulary.of_bytes().start_id == 10


def test_characters_are_named_at_most_five():
    assert describe_characters("gfedcbaa") == (
        "'a' (U+0061), 'b' (U+0062), 'c' (U+0063), 'd' (U+0064), 'e' (U+0065) and 2 more"
    )
