import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from charloom.inference import sampling
from charloom.inference.sampling import SamplingRule, choose, seed_words, uniforms
from charloom.settings import SamplingSettings

LOGITS = jnp.array([0.0, 2.0, -1.0, 2.0, 1.0])


def frequencies(logits, rule_settings, count=20_000):
    rule = SamplingRule.of(rule_settings)
    draws = jnp.arange(count) / count + 0.5 / count  # evenly over [0, 1)
    tokens = jax.vmap(lambda draw: choose(logits, draw, rule))(draws)
    return np.bincount(np.asarray(tokens), minlength=len(logits)) / count


def draws_of(seed, stream, positions):
    return np.asarray(uniforms(jnp.array(seed, jnp.uint32), jnp.uint32(stream), jnp.array(positions, jnp.uint32)))


def softmax(logits):
    exps = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return exps / exps.sum()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_tokens_come_as_often_as_the_softmax_says(temperature):
    got = frequencies(LOGITS, SamplingSettings(temperature=temperature))
    np.testing.assert_allclose(got, softmax(np.asarray(LOGITS) / temperature), atol=2e-4)


def test_temperature_zero_takes_the_first_of_the_largest():
    assert frequencies(LOGITS, SamplingSettings(temperature=0)).tolist() == [0, 1, 0, 0, 0]


def test_a_tiny_temperature_neither_overflows_nor_strays():
    got = frequencies(jnp.array([1e3, 2e3, -1e3]), SamplingSettings(temperature=1e-30))
    assert got.tolist() == [0, 1, 0]
    for tiny in ({"temperature": 1e-300}, {"temperature": 1.0, "top_p": 1e-300}):
        assert frequencies(LOGITS, SamplingSettings(**tiny)).tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("top_k", [20, 100])
def test_what_is_left_out_of_a_large_vocabulary_never_comes(top_k):
    logits = np.random.default_rng(0).normal(size=1000).astype(np.float32) * 3
    rule = SamplingRule.of(SamplingSettings(temperature=1.0, top_k=top_k))
    left = set(np.argsort(-logits, kind="stable")[:top_k].tolist())
    # Just where one token's share ends and another's begins.
    edges = np.cumsum(np.where(np.isin(np.arange(1000), list(left)), np.exp(logits), 0))
    draws = np.concatenate([np.float32(edges / edges[-1]) + step * 2.0**-24 for step in range(-6, 7)])
    draws = jnp.asarray(draws.clip(0, 1 - 2.0**-24), jnp.float32)
    tokens = jax.jit(jax.vmap(lambda draw: choose(jnp.asarray(logits), draw, rule)))(draws)
    assert set(np.asarray(tokens).tolist()) <= left


def test_top_k_keeps_exactly_k():
    got = frequencies(LOGITS, SamplingSettings(temperature=1, top_k=1))
    assert got.tolist() == [0, 1, 0, 0, 0]  # of two equal ones the lower
    got = frequencies(LOGITS, SamplingSettings(temperature=1, top_k=3))
    np.testing.assert_allclose(got[[1, 3, 4]], softmax([2, 2, 1]), atol=2e-4)
    assert got[[0, 2]].tolist() == [0, 0]
    np.testing.assert_array_equal(
        frequencies(LOGITS, SamplingSettings(temperature=1, top_k=99)),
        frequencies(LOGITS, SamplingSettings(temperature=1)),
    )


def test_top_p_keeps_the_fewest_that_reach_p():
    probabilities = softmax(LOGITS)  # 0.05 0.37 0.02 0.37 0.14... descending: 1, 3, 4, 0, 2
    got = frequencies(LOGITS, SamplingSettings(temperature=1, top_p=float(probabilities[1]) + 0.01))
    np.testing.assert_allclose(got, [0, 0.5, 0, 0.5, 0], atol=2e-4)
    got = frequencies(LOGITS, SamplingSettings(temperature=1, top_p=1e-9))
    assert got.tolist() == [0, 1, 0, 0, 0]
    got = frequencies(LOGITS, SamplingSettings(temperature=1, top_p=1.0))
    np.testing.assert_allclose(got, probabilities, atol=2e-4)


EIGHTHS = st.integers(-400, 400).map(lambda eighths: eighths / 8)


@given(
    # Of a few sizes: each is compiled.
    st.sampled_from([1, 2, 40]).flatmap(lambda size: st.lists(EIGHTHS, min_size=size, max_size=size)),
    st.one_of(st.sampled_from([0.0, 1 - 2**-24]), st.floats(0, 1, exclude_max=True, width=32)),
    st.one_of(st.none(), st.integers(1, 5)),
    st.one_of(st.none(), st.floats(0.01, 1.0)),
)
@settings(max_examples=100, deadline=None)
def test_a_choice_is_always_a_token_that_is_left(logits, draw, top_k, top_p):
    rule = SamplingRule.of(SamplingSettings(temperature=0.7, top_k=top_k, top_p=top_p))
    token = int(jax.jit(choose)(jnp.array(logits, jnp.float32), jnp.float32(draw), rule))
    assert 0 <= token < len(logits)
    rank = sum(other > logits[token] for other in logits)
    assert rank < (top_k or len(logits))


def weights_in_whole_numbers(logits, temperature):
    """The same in Python's integers, from the same tables."""
    weights = []
    for logit in logits:
        distance = np.float32(np.float32(max(logits) - logit) / np.float32(temperature)) * sampling._STEPS_PER_NAT
        steps = int(min(distance, np.float32(31 << 22)))
        coarse, fine = int(sampling._COARSE[steps >> 11 & 2047]), int(sampling._FINE[steps & 2047])
        weights.append((coarse * fine >> 32) >> (steps >> 22))
    halvings = max(0, (sum(weight >> 16 for weight in weights) + len(logits)).bit_length() - 16)
    return [weight >> halvings for weight in weights]


def choice_in_whole_numbers(logits, draw, temperature, top_k, top_p):
    """The same in Python's integers, from the same tables."""
    logits = [np.float32(logit) for logit in logits]
    weights = weights_in_whole_numbers(logits, temperature)
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    kept = order[: top_k or len(order)]
    if top_p not in (None, 1):
        share = sum(weights[token] for token in kept) * (int(np.float32(top_p) * np.float32(2**24)) << 8) >> 32
        kept = [kept[0]] + [t for at, t in enumerate(kept) if at and sum(weights[k] for k in kept[:at]) < share]
    left = [weight if token in kept else 0 for token, weight in enumerate(weights)]
    point = sum(left) * (int(draw * 2**24) << 8) >> 32
    return next(token for token in range(len(left)) if sum(left[: token + 1]) > point)


@given(
    st.lists(st.floats(-60, 60, width=32), min_size=30, max_size=30),
    st.integers(0, 2**24 - 1),
    st.sampled_from([0.01, 0.5, 0.8, 1.0, 3.0]),
    st.one_of(st.none(), st.integers(1, 31)),
    st.one_of(st.none(), st.floats(0.01, 1.0)),
)
@settings(max_examples=200, deadline=None)
def test_choices_are_exactly_those_of_whole_numbers(logits, draw, temperature, top_k, top_p):
    rule = SamplingRule.of(SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p))
    token = jax.jit(choose)(jnp.array(logits, jnp.float32), jnp.float32(draw / 2**24), rule)
    assert int(token) == choice_in_whole_numbers(logits, draw / 2**24, temperature, top_k, top_p)


def test_weights_are_the_softmax_and_add_up_to_32_bits():
    for size in (1, 2, 3, 57, 256, 70_000):
        logits = jnp.asarray(np.random.default_rng(size).normal(size=size) * 4, jnp.float32)
        for of in (logits, jnp.zeros(size)):
            weights = np.asarray(sampling._weights(of, jnp.float32(1.0)), np.float64)
            assert weights.sum() < 2**32
            np.testing.assert_allclose(weights / weights.sum(), softmax(of), rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("whole", [1, 3, 7])
@pytest.mark.parametrize("parts", [1, 3, 6, 29])
def test_weights_that_all_but_fill_their_bits_are_halved_as_often_as_whole_numbers_are(whole, parts):
    # These are 2, 4 or 8 times the largest weight together, or a last bit more or less.
    for step in (-1e-6, 0.0, 1e-6):
        logits = np.array([0.0] * whole + [step - np.log(parts)] * parts, np.float32)
        weights = np.asarray(sampling._weights(jnp.asarray(logits), jnp.float32(1.0))).tolist()
        assert weights == weights_in_whole_numbers(logits, 1.0)
        assert 2**30 <= sum(weights) < 2**32


WORDS = st.one_of(st.sampled_from([0, 1, 0xFFFF, 0x10000, 0xFFFF0000, 2**32 - 1]), st.integers(0, 2**32 - 1))


@given(*[hnp.arrays(np.uint32, 64, elements=WORDS, fill=st.nothing())] * 2)
@settings(max_examples=50, deadline=None)
def test_high_products_are_those_of_whole_numbers(a, b):
    wanted = [x * y >> 32 for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert np.asarray(sampling._high_product(jnp.asarray(a), jnp.asarray(b))).tolist() == wanted


@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1, 2**32, 2**63 + 7, 2**64 - 1])
def test_a_seed_is_all_of_its_64_bits(seed):
    high, low = seed_words(seed).tolist()
    assert (high, low) == divmod(seed, 2**32)
    (writer,) = sampling.native_writers(SamplingSettings(), seed, [4])
    assert writer["seed"].tolist() == [high, low]


def test_the_counter_decides_and_nothing_else():
    whole = draws_of([0, 7], 3, range(100))
    np.testing.assert_array_equal(whole[40:60], draws_of([0, 7], 3, range(40, 60)))
    assert not np.array_equal(whole, draws_of([0, 7], 4, range(100)))
    assert not np.array_equal(whole, draws_of([1, 7], 3, range(100)))


def threefry_2x32(key, counter):
    """Salmon et al., 2011, in Python integers."""
    mask = 2**32 - 1
    keys = [*key, 0x1BD11BDA ^ key[0] ^ key[1]]
    x0, x1 = (counter[0] + keys[0]) & mask, (counter[1] + keys[1]) & mask
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x0 = (x0 + x1) & mask
            x1 = ((x1 << rotation | x1 >> (32 - rotation)) & mask) ^ x0
        x0 = (x0 + keys[(group + 1) % 3]) & mask
        x1 = (x1 + keys[(group + 2) % 3] + group + 1) & mask
    return x0, x1


def test_the_numbers_are_threefry():
    assert threefry_2x32((0, 0), (0, 0)) == (0x6B200159, 0x99BA4EFE)  # the authors' known answer
    got = draws_of([5, 9], 2, range(4))
    assert got.tolist() == [(threefry_2x32((5, 9), (2, p))[0] >> 8) / 2**24 for p in range(4)]


def test_the_numbers_are_uniform():
    draws = draws_of([0, 0], 0, range(100_000))
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = 0.001
