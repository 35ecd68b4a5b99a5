import itertools
from itertools import count as counted

import jax
import numpy as np
import pytest

from charloom import TextModel, Vocabulary
from charloom.inference import ParallelTexts, generate_tokens, parallel_texts
from charloom.inference.decoding_batch import DecodingBatch, NativeDecodingBatch
from charloom.models import Network
from charloom.settings import NetworkSettings, SamplingSettings, TextSettings

RULES = [
    SamplingSettings(temperature=1.0),
    SamplingSettings(temperature=0),
    SamplingSettings(temperature=1.5, top_k=4),
    SamplingSettings(temperature=2.0, top_p=0.8),
]


def make(cell="lstm", layers=1, records=True, units="chars", scale=3):
    end = "\n" if records else None
    vocabulary = Vocabulary.of_bytes(end) if units == "bytes" else Vocabulary.of_texts(["abcdefg\n"], record_end=end)
    settings = NetworkSettings(cell=cell, layers=layers, hidden=12, embedding=4)
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(2))
    network = jax.tree.map(lambda weight: weight * (1.5 if cell == "elman" else scale), network)
    return TextModel(network, vocabulary, settings, TextSettings(delimiter=end))


def tokens_alone(prompted, index, length, rule):
    blocks = list(generate_tokens(prompted.network, prompted.state, length, rule, 5, [index]))
    return np.concatenate(blocks, axis=1)[0].tolist()


def text_of(tokens, vocabulary, stop):
    """Returns the text of tokens, which may continue after its end, and why it ended."""
    reason = "length"
    if vocabulary.end_id in tokens:
        tokens, reason = tokens[: tokens.index(vocabulary.end_id)], "end"
    text = vocabulary.decode(tokens)
    return (text.partition(stop)[0], "stop") if stop and stop in text else (text, reason)


def texts_of(prompted, count, length, rule=RULES[0], stop=None):
    streams = prompted.stream_many(length, rule, seed=5, stream_indexes=range(count), stop=stop)
    return [("".join(stream), stream.stopped) for stream in streams]


@pytest.mark.parametrize(("cell", "layers"), [("lstm", 1), ("lstm", 2), ("gru", 1), ("gru", 2), ("elman", 1)])
@pytest.mark.parametrize("records", [True, False])
def test_texts_equal_those_that_are_generated_alone(cell, layers, records):
    prompted = make(cell, layers, records).prompted("a")
    reasons = set()
    for rule in RULES if records else RULES[:1]:
        alone = [tokens_alone(prompted, index, 90, rule) for index in range(200)]
        for stop, length, count in itertools.product([None, "b", "ab"], [90, 3], [1, 5, 64, 200]):
            wanted = [text_of(tokens[:length], prompted.model.vocabulary, stop) for tokens in alone[:count]]
            assert texts_of(prompted, count, length, rule, stop) == wanted
            reasons |= {reason for _, reason in wanted}
    assert reasons == {"length", "stop", *(["end"] if records else [])}


@pytest.mark.parametrize("stop", [None, "é", "\ufffd", "a\ufffd"])
def test_texts_of_bytes_equal_those_that_are_generated_alone(stop):
    prompted = make(units="bytes", scale=1).prompted()
    alone = [tokens_alone(prompted, index, 400, RULES[0]) for index in range(150)]
    wanted = [text_of(tokens, prompted.model.vocabulary, stop) for tokens in alone]
    assert texts_of(prompted, 150, 400, RULES[0], stop) == wanted
    assert {reason for _, reason in wanted} >= ({"end"} if stop in (None, "é") else {"stop"})


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_reference_implementation_generates_the_same_texts_alone_and_in_order(cell, monkeypatch):
    monkeypatch.setenv("CHARLOOM_KERNELS", "reference")
    prompted = make(cell).prompted("a")
    alone = [tokens_alone(prompted, index, 70, RULES[0]) for index in range(5)]
    assert texts_of(prompted, 5, 70, stop="ab") == [
        text_of(tokens, prompted.model.vocabulary, "ab") for tokens in alone
    ]


@pytest.mark.usefixtures("kernels")
def test_texts_can_be_read_in_any_order_and_piece_by_piece():
    prompted = make().prompted()
    wanted = texts_of(prompted, 200, 60)
    streams = list(prompted.stream_many(60, RULES[0], seed=5, stream_indexes=range(200)))
    pieces = [iter(stream) for stream in streams]
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(200), 80)).tolist()
    found = [""] * 200
    for index in order:
        found[index] += next(pieces[index], "")
    assert [(text, stream.stopped) for text, stream in zip(found, streams, strict=True)] == wanted


def test_the_first_characters_come_long_before_the_text_is_complete():
    prompted = make(records=False).prompted()
    (stream,) = prompted.stream_many(10**9, RULES[0], seed=5, stream_indexes=[0])
    assert 0 < len(next(iter(stream))) < 100


def test_a_batch_stays_full_while_texts_wait(monkeypatch):
    sizes = []
    generate = NativeDecodingBatch.generate_refilled

    def watched(batch, steps, waiting):
        sizes.append((len(batch), len(waiting.stream_indexes)))
        return generate(batch, steps, waiting)

    monkeypatch.setattr(NativeDecodingBatch, "generate_refilled", watched)
    texts = texts_of(make().prompted(), 3000, 100)
    tokens = sum(len(text) + 1 for text, _ in texts)
    assert all(size == NativeDecodingBatch.USEFUL_TEXTS for size, waiting in sizes if waiting)
    assert len(sizes) < tokens / NativeDecodingBatch.USEFUL_TEXTS / 4


def test_few_texts_are_held_behind_a_long_one(monkeypatch):
    monkeypatch.setattr(parallel_texts, "_MAX_HELD_CHARACTERS", 20_000)
    taken = []

    def indexes():
        for index in counted():
            taken.append(index)
            yield index

    # Python then finds all ends.
    monkeypatch.setattr(NativeDecodingBatch, "generate_refilled", DecodingBatch.generate_refilled)
    prompted = make(scale=0).prompted()  # all tokens are equally likely: short records
    streams = prompted.stream_many(100_000, RULES[0], seed=5, stream_indexes=indexes())
    first = next(streams)
    first._stop_detector._end_id = None  # the first text does not end, so all others wait for it
    pieces = iter(first)
    created = []
    for _ in range(300):
        next(pieces)
        created.append(len(taken))
    assert created[-1] == created[100] < 1000


def test_generation_ends_with_the_texts_that_have_been_read(monkeypatch):
    generate, calls = NativeDecodingBatch.generate_refilled, []

    def interrupted(batch, *arguments):
        calls.append(len(batch))
        if len(calls) > 8:
            raise KeyboardInterrupt
        return generate(batch, *arguments)

    prompted = make().prompted()
    wanted = texts_of(prompted, 400, 60)
    monkeypatch.setattr(NativeDecodingBatch, "generate_refilled", interrupted)
    found = []

    def read():
        for stream in prompted.stream_many(60, RULES[0], seed=5, stream_indexes=counted()):
            found.append(("".join(stream), stream.stopped))

    with pytest.raises(KeyboardInterrupt):
        read()
    assert 0 < len(found) < 10**6
    assert found[:400] == wanted[: len(found)]


def test_before_each_block_the_caller_is_told():
    told = []
    prompted = make(records=False).prompted()
    streams = prompted.stream_many(
        1000, RULES[0], seed=5, stream_indexes=[0], before_generating=lambda: told.append(len(read))
    )
    read = ""
    for piece in next(streams):
        read += piece
    assert told[0] == 0
    assert len(told) > 3
    assert told == sorted(set(told))  # once per block


def test_no_texts():
    prompted = make().prompted()
    streams = prompted.stream_many(10, RULES[0], seed=5, stream_indexes=[])
    assert isinstance(streams, ParallelTexts)
    assert list(streams) == []
