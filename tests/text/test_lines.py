from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.errors import EncodingError
from charloom.settings import TextSettings
from charloom.text import iter_lines
from charloom.text import lines as lines_module
from charloom.text.decoding import text_pieces

PLAIN = TextSettings()
texts = st.text(st.sampled_from("ab\r\n é€𝄞"), max_size=60)


def cut(data, cuts):
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(bounds)]


def all_lines(chunks, settings=PLAIN):
    return [line for lines in iter_lines(chunks, "a pipe", settings) for line in lines]


@given(texts, st.lists(st.integers(0, 120), max_size=8))
def test_joined_lines_are_the_text_for_any_chunks(text, cuts):
    lines = all_lines(cut(text.encode(), cuts))
    whole = "".join(text_pieces([text.encode()], "a pipe", PLAIN))
    assert "".join(line.text + "\n" * line.has_end for line in lines) == whole
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert all(line.has_end for line in lines[:-1])
    assert all("\n" not in line.text for line in lines)


@given(texts, st.lists(st.integers(0, 120), max_size=8), st.integers(4, 9))
def test_a_long_line_is_yielded_in_parts(text, cuts, longest):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "MAX_LINE_BYTES", longest)
        lines = all_lines(cut(text.encode(), cuts))
    assert all(len(line.text.encode()) <= longest for line in lines if not line.is_last)
    joined, starts = {}, {}
    for line in lines:
        assert line.problem is None
        assert line.is_first == (line.number not in joined)
        joined[line.number] = joined.get(line.number, "") + line.text + "\n" * line.has_end
        starts[line.number] = line.is_last
    assert "".join(joined.values()) == "".join(text_pieces([text.encode()], "a pipe", PLAIN))
    assert all(starts.values())


def test_a_line_is_yielded_as_soon_as_it_ends():
    def chunks():
        yield b"one\ntw"
        assert received == ["one"]
        yield b"o\n"
        assert received == ["one", "two"]

    received = []
    for lines in iter_lines(chunks(), "a pipe", PLAIN):
        received += [line.text for line in lines]


def test_invalid_utf8_is_a_problem_of_one_line():
    first, second, third = all_lines([b"good\nb\xff", b"d\nfine"])
    assert (first.text, third.text, third.has_end) == ("good", "fine", False)
    assert (second.number, second.text) == (2, "")
    assert second.problem == "byte 0xff at offset 1 is not UTF-8"


def test_parts_after_a_problem_have_the_same_problem(monkeypatch):
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 8)
    lines = all_lines(cut(b"aaaaaaa\xffbbbbbbbbbbbbbbbb\nfine\n", range(0, 30, 5)))
    problems = [line.problem for line in lines if line.number == 1]
    assert len(problems) > 1
    assert set(problems) == {"byte 0xff at offset 7 is not UTF-8"}
    late = all_lines(cut(b"aaaaaaaaaaaaaaaaaaaa\xff\n", range(0, 30, 5)))
    assert late[-1].problem == "byte 0xff at offset 20 is not UTF-8"
    assert lines[-1].text == "fine"
    assert lines[-1].problem is None


def test_byte_order_marks_encodings_case_and_delimiters():
    assert [line.text for line in all_lines([b"\xef\xbb", b"\xbfab\nc\n"])] == ["ab", "c"]
    assert [line.text for line in all_lines([b"\xef"])] == [""]  # not valid UTF-8
    assert [line.text for line in all_lines(["Äb\r\nc".encode("utf-16")], TextSettings(encoding="utf-16"))] == [
        "Äb",
        "c",
    ]
    with pytest.raises(EncodingError, match="utf-16"):
        all_lines([b"\xff\xfe\x00"], TextSettings(encoding="utf-16"))
    assert [line.text for line in all_lines([b"AB\nC"], TextSettings(lowercase=True))] == ["ab", "c"]
    assert [line.text for line in all_lines([b"ab\nc$$d$", b"$"], TextSettings(delimiter="$$"))] == ["ab\nc", "d"]
    assert [line.text for line in all_lines([b"a\r\n\xff\n"], TextSettings(units="bytes"))] == [b"a\r", b"\xff"]


def test_delimiters_match_the_text_as_it_is():
    assert [line.text for line in all_lines([b"a\r", b"\nb\r\n"], TextSettings(delimiter="\r\n"))] == ["a", "b"]
    assert [line.text for line in all_lines([b"aENDbendC"], TextSettings(delimiter="End", lowercase=True))] == [
        "a",
        "b",
        "c",
    ]
    assert [line.text for line in all_lines([b"aENDbEnd"], TextSettings(delimiter="End"))] == ["aENDb"]


def test_many_lines_are_yielded_a_few_thousand_at_a_time():
    batches = list(iter_lines([b"\n" * 10_000], "a pipe", PLAIN))
    assert max(map(len, batches)) <= 4096
    assert sum(map(len, batches)) == 10_000


def test_a_short_first_line_is_yielded_at_once():
    """The decoder does not wait for a byte order mark that cannot come any more."""
    for encoding in ("utf-8", "cp1252", "utf-16-le", "shift_jis"):
        lines = iter_lines(iter(["a\n".encode(encoding), None]), "a pipe", TextSettings(encoding=encoding))
        assert [line.text for line in next(lines)] == ["a"]
