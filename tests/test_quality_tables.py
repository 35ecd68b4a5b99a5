import json

import numpy as np
import pytest
from benchmarks.quality.ngram import NgramModel
from benchmarks.quality.results import README, RESULTS, standard_error, with_tables


def test_the_tables_of_the_readme_match_the_results():
    page = README.read_text()
    assert with_tables(page, json.loads(RESULTS.read_text())) == page


def test_a_table_replaces_the_previous_one():
    names = {"seconds": 119.51, "parameters": 567, "nats_per_char": 1.9, "standard_error": 0.0121}
    run = {"seconds": 77.04, "parameters": 1234, "nats_per_char": 1.5, "dynamic_nats_per_char": 1.25}
    page = "a\n<!-- budgets -->\nold\n<!-- end of budgets -->\nb\n<!-- texts -->\n<!-- end of texts -->\nc\n"
    changed = with_tables(page, {"shakespeare-77s": run, "makemore-2m": names})
    assert "| names, 2 min | 2.741 ± 0.017 |  | 2.770: [makemore]" in changed
    assert "old" not in changed
    assert "| tiny Shakespeare, 77 s | **2.164** | 2.721: [nanoGPT]" in changed
    assert with_tables(changed, {"shakespeare-77s": run, "makemore-2m": names}) == changed
    assert changed.startswith("a\n")
    assert changed.endswith("<!-- end of texts -->\nc\n")


def test_the_standard_error_matches_the_bootstrap():
    rng = np.random.default_rng(0)
    characters = rng.integers(3, 12, 400)
    nats = rng.gamma(2.0, 1.0, 400) * characters
    drawn = rng.integers(0, 400, (4000, 400))
    means = nats[drawn].sum(axis=1) / characters[drawn].sum(axis=1)
    assert standard_error(nats, characters) == pytest.approx(means.std(), rel=0.05)


def test_an_n_gram_model_predicts_what_always_followed():
    def bits_per_char(train, text, order):
        bits = NgramModel(train, order, train + text).bits(text, before=train)
        assert len(bits) == len(text)
        return sum(bits) / len(bits)

    assert bits_per_char("ab" * 1000, "ab" * 50, 3) < 1e-5
    # With no context a character costs what its share of the text says: here two bits.
    assert abs(bits_per_char("abcd" * 5000, "dcba" * 10, 1) - 2) < 0.01
    # What never came costs more than an even chance, and less than nothing is known of it.
    assert 5 < bits_per_char("ab" * 1000, "z", 3) < 40
