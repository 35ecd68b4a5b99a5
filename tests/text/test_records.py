import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.errors import RecordError, SettingError, SourceError
from charloom.settings import TextSettings
from charloom.text import Vocabulary, one_record, split_records

LINES = TextSettings(delimiter="\n")


@given(st.lists(st.text("abc é\t", min_size=1), min_size=1), st.sampled_from(["\n", "\n\n", "--"]))
def test_splitting_undoes_joining(records, delimiter):
    settings = TextSettings(delimiter=delimiter)
    assert split_records([delimiter.join(records)], settings) == records
    assert split_records([delimiter.join(records) + delimiter], settings) == records
    as_bytes = TextSettings(units="bytes", delimiter=delimiter)
    assert split_records([delimiter.join(records).encode()], as_bytes) == [record.encode() for record in records]


def test_documents_are_split_separately_and_empty_records_are_left_out():
    assert split_records(["a\n\nb", "c\n"], LINES) == ["a", "b", "c"]


def test_a_delimiter_is_lowercased_like_the_text():
    assert split_records(["one end two end "], TextSettings(lowercase=True, delimiter=" END ")) == ["one", "two"]


def test_texts_without_records_or_with_the_record_end_are_refused():
    with pytest.raises(SourceError, match="has no records between"):
        split_records(["\n\n"], LINES)
    with pytest.raises(SourceError, match=r"U\+001E"):
        split_records(["a\x1eb;c"], TextSettings(delimiter=";"))
    with pytest.raises(SettingError, match="empty"):
        TextSettings(delimiter="")
    with pytest.raises(SettingError, match="must be valid Unicode text"):
        TextSettings(units="bytes", delimiter="\udcff")  # the command line decodes a byte that is not UTF-8 like this


@pytest.mark.parametrize(
    ("text", "settings", "record"),
    [
        ("anna", LINES, "anna"),
        ("anna\n", LINES, "anna"),
        ("\n", LINES, ""),
        ("a\nb\n", TextSettings(), "a\nb\n"),
        ("anna%%", TextSettings(delimiter="%%"), "anna"),
        ("anna\x1e", TextSettings(delimiter="%%"), "anna"),
        ("a\nb end ", TextSettings(delimiter=" END ", lowercase=True), "a\nb"),
        (b"anna\r\n", TextSettings(units="bytes", delimiter="\r\n"), b"anna"),
        (b"anna\n", TextSettings(units="bytes", delimiter="\r\n"), b"anna"),
    ],
)
def test_one_delimiter_after_a_record_is_removed(text, settings, record):
    assert one_record(text, settings) == record


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("anna\n\n", LINES),
        ("anna\nbob", LINES),
        ("anna%%\x1e", TextSettings(delimiter="%%")),
        ("anna%%bob", TextSettings(delimiter="%%")),
        (b"anna\n\r\n", TextSettings(units="bytes", delimiter="\r\n")),
    ],
)
def test_a_second_delimiter_is_refused(text, settings):
    with pytest.raises(RecordError, match="a record ends inside"):
        one_record(text, settings)


def test_the_record_end_is_in_the_vocabulary_and_starts_records():
    lines = Vocabulary.of_texts(["ab", "ba"], record_end="\n")
    assert lines.characters == "\nab"
    assert lines.start_id == lines.end_id == 0
    others = Vocabulary.of_texts(["a\n", "b"], record_end="\x1e")
    assert others.characters == "\n\x1eab"
    assert others.start_id == others.end_id == 1
    assert Vocabulary.of_bytes("\n").end_id == 10
    assert Vocabulary.of_texts(["a\n"]).end_id is None


@given(st.lists(st.text("abcdef", max_size=9), min_size=1), st.integers(2, 4))
def test_rare_characters_become_one_replacement_character(texts, min_count):
    whole = "".join(texts)
    vocabulary = Vocabulary.of_texts(texts, min_count)
    frequent = {character for character in whole if whole.count(character) >= min_count}
    rare = set(whole) - frequent
    assert set(vocabulary.characters) == frequent | ({"\ufffd"} if rare else set())
    assert (vocabulary.unknown_id is None) == (not rare)
    if whole:
        folded = "".join(character if character in frequent else "\ufffd" for character in whole)
        assert vocabulary.decode(vocabulary.encode(whole, "replace")) == folded
