import numpy as np
import pytest

from charloom.errors import UnknownCharacterError
from charloom.inference import Scorer, line_scores, score_lines
from charloom.settings import TextSettings
from charloom.text import Line, Vocabulary, iter_lines
from charloom.text import lines as lines_module
from tests.inference.test_scorer import SHAPES, VOCABULARY, network_of, text_of
from tests.reference import NumpyNetwork

NETWORK = network_of(SHAPES[0])
REFERENCE = NumpyNetwork(NETWORK)
PLAIN = TextSettings()


def nats_of(text):
    return REFERENCE.nats(VOCABULARY.encode(text))


def scored(text, carry=False, settings=PLAIN, cuts=1, **options):
    scorer = Scorer(NETWORK, VOCABULARY, settings, **options)
    data = text.encode()
    size = -(-len(data) // cuts)
    batches = iter_lines([data[at : at + size] for at in range(0, len(data), size)], "a pipe", settings)
    return [line for lines in score_lines(scorer, batches, carry=carry) for line in lines]


def test_each_line_is_scored_as_a_separate_text_with_its_end():
    lines = scored("abc\n\ndefg\nab", cuts=4)
    assert [(line.number, line.text, line.cost.characters) for line in lines] == [
        (1, "abc", 4),
        (2, "", 1),
        (3, "defg", 5),
        (4, "ab", 2),
    ]
    for line, text in zip(lines, ("abc\n", "\n", "defg\n", "ab"), strict=True):
        assert line.cost.nats == pytest.approx(nats_of(text).sum(), abs=1e-4)


@pytest.mark.parametrize("longest", [1 << 20, 50])
def test_scores_of_carried_lines_add_up_to_the_whole_text(longest, monkeypatch):
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", longest)
    text = text_of(2_000)
    lines = scored(text, carry=True, cuts=9)
    whole = nats_of(text)
    assert sum(line.cost.characters for line in lines) == len(text)
    assert sum(line.cost.nats for line in lines) == pytest.approx(whole.sum(), rel=1e-6)
    ends = np.cumsum([line.cost.characters for line in lines])
    expected = [part.sum() for part in np.split(whole, ends[:-1])]
    np.testing.assert_allclose([line.cost.nats for line in lines], expected, atol=1e-3)


def test_a_long_line_in_parts_has_the_score_of_the_whole_line(monkeypatch):
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(line_scores, "SHOWN", 30)
    long = text_of(1_000).replace("\n", "a")
    lines = scored(f"ab\n{long}\ncd\n{long}", cuts=7)
    assert [line.number for line in lines] == [1, 2, 3, 4]
    assert [line.text for line in lines] == ["ab", long[:30], "cd", long[:30]]
    highest = np.sort(nats_of(f"{long}\n"))[-3:]
    assert lines[1].cost.peak_bits == pytest.approx(highest.mean() / np.log(2), abs=1e-4)
    for line, text in zip(lines, ("ab\n", f"{long}\n", "cd\n", long), strict=True):
        assert line.cost.nats == pytest.approx(nats_of(text).sum(), rel=1e-6)


def test_the_last_record_is_scored_with_its_end():
    names = Vocabulary("chars", VOCABULARY.characters, "\n")
    scorer = Scorer(NETWORK, names, TextSettings(delimiter="\n"))
    ((first, second),) = score_lines(scorer, [[Line(1, "ab"), Line(2, "cd", has_end=False)]])
    assert first.cost.nats == pytest.approx(nats_of("ab\n").sum(), abs=1e-4)
    assert second.cost.nats == pytest.approx(nats_of("cd\n").sum(), abs=1e-4)


def test_lines_with_problems_are_returned_in_order():
    batch = [Line(1, "ab"), Line(2, "", problem="bad"), Line(3, "cd")]
    for carry in (False, True):
        ((first, bad, third),) = score_lines(Scorer(NETWORK, VOCABULARY, PLAIN), [batch], carry=carry)
        assert (bad.number, bad.problem, bad.cost.characters) == (2, "bad", 0)
        assert (first.cost.characters, third.cost.characters) == (3, 3)
    long = [Line(1, "ab", is_last=False), Line(1, "", is_first=False, problem="bad"), Line(2, "cd")]
    ((first, second),) = score_lines(Scorer(NETWORK, VOCABULARY, PLAIN), [long])
    assert (first.problem, second.problem, second.cost.characters) == ("bad", None, 3)


def test_lines_before_an_unknown_character_are_scored():
    scorer = Scorer(NETWORK, VOCABULARY, PLAIN)
    found = score_lines(scorer, [[Line(1, "ab"), Line(2, "axb"), Line(3, "cd")]])
    assert [line.number for line in next(found)] == [1]
    with pytest.raises(UnknownCharacterError, match="line 2: cannot encode 'x'"):
        next(found)


def test_bits_per_byte_include_unknown_characters():
    (line,) = scored("axbé", unknown="skip")
    assert (line.cost.characters, line.cost.unknown, line.cost.utf8_bytes) == (2, 2, 5)
    alone = nats_of("ab").sum()
    assert line.cost.bits_per_byte == pytest.approx((alone + 2 * np.log(0x110000 - 0x800)) / np.log(2) / 5, rel=1e-5)


@pytest.mark.parametrize("unknown", ["replace", "skip"])
def test_unknown_characters_are_the_most_surprising_ones_of_a_line(unknown):
    ordinary, odd, very_odd = scored("abca\nab\u00e9ca\n\u00e9\u00e8\u00ea\u00eb\n", unknown=unknown)
    of_unicode = np.log2(0x110000 - 0x800)
    assert ordinary.cost.peak_bits == pytest.approx(np.sort(nats_of("abca\n"))[-3:].mean() / np.log(2), abs=1e-4)
    assert odd.cost.unknown == 1
    assert odd.cost.peak_bits == pytest.approx((of_unicode + sum(sorted(odd.cost.highest)[-2:]) / np.log(2)) / 3)
    assert odd.cost.peak_bits > 2 * odd.cost.bits_per_char
    assert very_odd.cost.peak_bits == pytest.approx(of_unicode)
