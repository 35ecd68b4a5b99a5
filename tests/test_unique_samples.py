from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from charloom import TextModel, Vocabulary
from charloom.models import Network
from charloom.settings import NetworkSettings, SamplingSettings, TextSettings
from charloom.text import Corpus
from charloom.unique_samples import KnownText, Tally, unique_samples

RECORDS = TextSettings(delimiter="\n")


def make(characters="ab", text=RECORDS, hidden=4):
    vocabulary = Vocabulary.of_texts([characters], record_end=text.record_end)
    settings = NetworkSettings(hidden=hidden, embedding=4)
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(0))
    return TextModel(network, vocabulary, settings, text)


def search(model, count, length=30, known=None, unique=True):
    tally = Tally()
    found = list(
        unique_samples(
            model.prompted(),
            count,
            length,
            SamplingSettings(temperature=1.0),
            tally,
            seed=5,
            unique=unique,
            known=known,
        )
    )
    return [text for text, _ in found], tally


def known(*records, text=RECORDS):
    return KnownText(Corpus("known", ("\n".join(records),), "0"), text)


def test_no_text_is_repeated_or_copied():
    texts, tally = search(make(), 40, known=known("a", "b", "ab"))
    assert len(texts) == len(set(texts)) == tally.found == 40
    assert not {"a", "b", "ab"} & set(texts)
    assert tally.copies > 0
    assert tally.duplicates > 0
    assert tally.tries == 40 + tally.copies + tally.duplicates + tally.unfinished + tally.empty


def test_unique_samples_are_the_plain_samples_without_the_dropped_ones():
    model = make()
    plain, _ = search(model, 60, unique=False)
    wanted = list(dict.fromkeys(plain))
    assert len(wanted) < 60
    texts, _ = search(model, len(wanted))
    assert texts == wanted


def test_the_search_ends_if_nothing_new_is_possible():
    # There are six records of one or two characters "a" and "b".
    texts, tally = search(make(), 1000, length=3)
    assert set(texts) <= {"a", "b", "aa", "ab", "ba", "bb"}
    assert tally.found == len(texts) == 6
    assert tally.empty > 0
    assert 2000 <= tally.tries < 10_000


def test_unfinished_records_are_dropped():
    model = make()
    bias = jnp.asarray(np.array([-np.inf, 0, 0], np.float32))
    network = replace(model.network, head=replace(model.network.head, bias=bias))
    texts, tally = search(replace(model, network=network), 3)
    assert texts == []
    assert tally.unfinished == tally.tries > 0


def brute_force(text, corpus):
    passages = [text[start:end] for start in range(len(text)) for end in range(start + 1, len(text) + 1)]
    return max(len(passage) for passage in passages if passage in corpus)


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_verbatim_run(seed):
    rng = np.random.default_rng(seed)
    text, corpus = ("".join(rng.choice(list("abc"), size)) for size in (30, 200))
    continuous = KnownText(Corpus("c", (corpus,), "0"), TextSettings())
    assert continuous.longest_run(text, 0) == brute_force(text, corpus) > 3
    assert continuous.longest_run(text, 25) == 25
    assert continuous.longest_run("xyz", 0) == 0
    assert continuous.has(corpus[50:70])
    assert not continuous.has("xyz")


def test_only_whole_records_count_as_copies():
    names = known("emma", "olivia")
    assert names.has("emma")
    assert not names.has("emm")
    assert names.longest_run("emmolivia", 0) == 6


@pytest.mark.parametrize("kernels", ["native", "reference"])
def test_the_unknown_character_is_never_generated(kernels, monkeypatch):
    monkeypatch.setenv("CHARLOOM_KERNELS", kernels)
    vocabulary = Vocabulary.of_texts(["abab", "z"], min_count=2)
    settings = NetworkSettings(hidden=4, embedding=4)
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(0))
    model = TextModel(network, vocabulary, settings, TextSettings(min_count=2))
    for temperature in (0, 1.0, 100.0):
        assert "\ufffd" not in model.generate("a", 300, temperature=temperature)
    assert model.generate("az", 1, unknown="replace").startswith("a\ufffd")
