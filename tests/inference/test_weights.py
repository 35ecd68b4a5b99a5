"""Generation from packed weights: bfloat16 and 8 bits next to float32."""

import jax
import numpy as np
import pytest

import charloom as cl
from charloom.errors import SettingError
from charloom.inference import read_prompt
from charloom.inference.exact_table import exact_projection_table
from charloom.inference.prediction import logits_of
from charloom.models import Network
from charloom.settings import NetworkSettings, SamplingSettings

VOCAB = 30
NETWORKS = {
    "lstm": NetworkSettings(hidden=70),
    "gru with two layers": NetworkSettings(cell="gru", layers=2, hidden=40),
    "elman, one-hot": NetworkSettings(cell="elman", hidden=33, inputs="one-hot"),
    "scalar, no head": NetworkSettings(hidden=VOCAB, inputs="scalar", head="logits"),
}

every_network = pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
native = pytest.mark.usefixtures("native_library")


def network_of(settings, start_id=0):
    """Returns a network whose states are as large as those of a trained one."""
    network = Network.init(settings, VOCAB, start_id, np.random.default_rng(0))
    scale = 1 if settings.cell == "elman" else 4  # a larger recurrent kernel would be chaotic
    return jax.tree.map(lambda weights: scale * weights, network)


@every_network
@pytest.mark.parametrize("start_id", [0, None])
def test_the_exact_table_is_the_table(settings, start_id):
    network = network_of(settings, start_id)
    np.testing.assert_allclose(exact_projection_table(network), network.projection_table(), rtol=0, atol=1e-5)


@native
@every_network
def test_logits_are_near_those_of_float32(settings):
    network, prompt = network_of(settings), np.arange(20) % VOCAB
    full = logits_of(read_prompt(network, prompt))
    for weights, apart in (("bfloat16", 0.05), ("int8", 0.1)):
        got = logits_of(read_prompt(network, prompt, None, weights))
        assert 0 < np.abs(got - full).max() < apart * np.abs(full).max()


@native
def test_what_cannot_be_packed_is_refused(monkeypatch):
    prompt = np.arange(20)
    for settings, weights, window in (
        (NetworkSettings(cell="mingru", hidden=8), "bfloat16", None),
        (NetworkSettings(cell="elman", hidden=8, cell_activation="relu"), "int8", None),
        (NetworkSettings(hidden=8), "int8", 10),
    ):
        with pytest.raises(SettingError, match="weights"):
            read_prompt(network_of(settings), prompt, window, weights)
    monkeypatch.setenv("CHARLOOM_KERNELS", "reference")
    with pytest.raises(SettingError, match="where no native kernels generate"):
        read_prompt(network_of(NetworkSettings(hidden=8)), prompt, None, "int8")


@native
def test_a_model_generates_from_bytes(tmp_path):
    (tmp_path / "book.txt").write_text("a man a plan a canal panama\n" * 100)
    model = cl.train(tmp_path / "book.txt", steps=400, hidden=40, batch_size=4, sequence_length=16, learning_rate=0.01)
    wanted = "a man a plan a canal panama\na man a plan"
    for weights in ("float32", "bfloat16", "int8"):
        assert model.generate("a man", 35, temperature=0, weights=weights) == wanted
    prompted = model.prompted("a ", weights="int8")
    together = prompted.stream_many(30, SamplingSettings(), seed=3, stream_indexes=range(5))
    alone = ["".join(prompted.stream(30, SamplingSettings(), seed=3, stream_index=index)) for index in range(5)]
    assert ["".join(text) for text in together] == alone
