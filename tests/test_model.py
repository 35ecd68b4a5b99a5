import json
import struct
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.artifacts import read_tensor_file, write_tensor_file
from charloom.description import summary
from charloom.errors import ModelFileError, RecordError, SettingError, UnknownCharacterError
from charloom.inference import StopDetector
from charloom.model import FORMAT_VERSION, TextModel, load
from charloom.models import CELLS, Network
from charloom.models.cells import ElmanCell
from charloom.settings import NetworkSettings, SamplingSettings, TextSettings
from charloom.text import Vocabulary
from tests.reference import NumpyNetwork, softmax


def make(text="abc \nABC", lowercase=False, vocabulary=None, **settings):
    vocabulary = vocabulary or Vocabulary.of_texts([text])
    shape = NetworkSettings(**{"hidden": 8, "embedding": 4} | settings)
    network = Network.init(shape, vocabulary.size, vocabulary.start_id, np.random.default_rng(0))
    network = jax.tree.map(lambda weight: weight * 5, network)
    return TextModel(
        network,
        vocabulary,
        shape,
        TextSettings(units=vocabulary.units, lowercase=lowercase),
        {"name": "t", "sha256": "0", "characters": 7},
        {"steps": 3},
    )


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.safetensors"
    make(layers=2).save(path)
    return path


def rewrite(path, change):
    tensors, metadata = read_tensor_file(path)
    tensors = {name: tensor.copy() for name, tensor in tensors.items()}
    change(tensors, metadata)
    write_tensor_file(path, tensors, metadata)


@pytest.mark.parametrize(
    "vocabulary", [Vocabulary.of_texts(["äöü\n"]), Vocabulary.of_texts(["xyz"]), Vocabulary.of_bytes()]
)
def test_a_model_survives_saving_and_loading(tmp_path, vocabulary):
    lowercase = vocabulary.units == "chars"
    model = make(vocabulary=vocabulary, lowercase=lowercase, layers=2)
    model.save(tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors")
    assert (loaded.vocabulary, loaded.settings, loaded.text.lowercase) == (vocabulary, model.settings, lowercase)
    assert (loaded.trained_on, loaded.training) == (model.trained_on, model.training)
    assert jax.tree.structure(loaded.network) == jax.tree.structure(model.network)
    for a, b in zip(jax.tree.leaves(loaded.network), jax.tree.leaves(model.network), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.generate(length=50, seed=3) == model.generate(length=50, seed=3)
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_the_file_has_the_documented_content(saved):
    tensors, metadata = read_tensor_file(saved)
    assert set(tensors) == {
        "embedding",
        *(f"cells.{i}.{name}" for i in (0, 1) for name in ("kernel", "recurrent_kernel", "bias")),
        "head.kernel",
        "head.bias",
    }
    assert set(metadata) == {
        "format_version", "charloom_version", "model", "vocabulary", "text", "trained_on", "training"
    }  # fmt: skip
    assert metadata["format_version"] == FORMAT_VERSION
    assert metadata["model"] == {
        "cell": "lstm",
        "layers": 2,
        "hidden": 8,
        "embedding": 4,
        "inputs": "embedding",
        "gate_activation": "sigmoid",
        "cell_activation": "tanh",
        "last_cell_activation": None,
        "head": "dense",
    }
    assert metadata["vocabulary"] == {"units": "chars", "characters": "\n ABCabc"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, m: t.pop("cells.1.bias"), "tensor 'cells.1.bias' is missing"),
        (lambda t, m: t.update(extra=np.zeros(1, np.float32)), "'extra' does not belong"),
        (
            lambda t, m: t.update({"head.bias": np.zeros(5, np.float32)}),
            r"'head.bias' is float32 of shape \(5,\), its config says .* \(8,\)",
        ),
        (lambda t, m: t.update({"head.bias": np.zeros(8, np.float64)}), "'head.bias' is float64"),
        (lambda t, m: m.update(format_version=99), "has format version 99, made by .* reads versions up to 4"),
        (lambda t, m: m.pop("format_version"), "has format version None"),
        (lambda t, m: m["model"].update(hidden=16_384, layers=100), "its config says|is missing"),
        (lambda t, m: m["model"].update(hidden=10**9), "model.hidden must be a whole number from 1 to 16,384"),
        (lambda t, m: m["model"].update(hidden=-1), "model.hidden must be a whole number from 1 to 16,384"),
        (lambda t, m: m["model"].update(new=1), "model.new is not a field that this version knows"),
        (lambda t, m: m["model"].pop("layers"), "model.layers is missing"),
        (lambda t, m: m.pop("model"), "model is missing"),
        (lambda t, m: m.update(vocabulary=3), "vocabulary is 3, expected an object"),
        (lambda t, m: m["vocabulary"].update(characters="ba"), "vocabulary.characters are not sorted"),
        (lambda t, m: m["vocabulary"].update(characters="aa"), "not sorted, or one appears twice"),
        (
            lambda t, m: m["vocabulary"].update(units="words"),
            "vocabulary.units is 'words', which this version does not know",
        ),
        (lambda t, m: m["text"].update(encoding="a\0b"), "text.encoding must be a text encoding"),
        (lambda t, m: m["text"].update(delimiter="%"), "vocabulary.characters lack the end of a record"),
        (lambda t, m: m["text"].pop("min_count"), "text.min_count is missing"),
        (lambda t, m: m["text"].update(min_count="2"), "text.min_count is '2', expected an integer"),
        (lambda t, m: m["text"].update(lowercase="yes"), "text.lowercase is 'yes', expected true or false"),
        (
            lambda t, m: m["trained_on"].update(characters="many"),
            "trained_on.characters is 'many', expected an integer",
        ),
        (lambda t, m: m["training"].update(window=0), "training.window is 0, expected an integer >= 1"),
        (lambda t, m: m["training"].update(window="all"), "training.window is 'all', expected an integer"),
        (lambda t, m: m["model"].update(head="logits"), "'head.bias' does not belong"),
        (lambda t, m: m["training"].update(window=4_097), "training.window is 4097, expected an integer <= 4096"),
        (lambda t, m: m["training"].update(window=2**31 - 1), "training.window is 2147483647, expected"),
        (lambda t, m: m["training"].update(steps=10**18), "training.steps is 10{18}, expected an integer <="),
        (lambda t, m: m["training"].update(learning_rate="\x1b"), r"training.learning_rate is '\\x1b', expected"),
        (lambda t, m: m["training"].update(history=5), "training.history is 5, expected a list"),
        (lambda t, m: m["training"].update(history=[[]]), r"training.history\[0\] is \[\], expected an object"),
        (
            lambda t, m: m["training"].update(history=[{"step": 1}, {"step": "x"}]),
            r"training.history\[1\].step is 'x', expected an integer",
        ),
        (
            lambda t, m: m["training"].update(history=[{"train_nats_per_char": -1.5}]),
            r"training.history\[0\].train_nats_per_char is -1.5, expected a number >= 0",
        ),
        (
            lambda t, m: m["training"].update(samples=[{"text": 3}]),
            r"training.samples\[0\].text is 3, expected a string",
        ),
        (lambda t, m: m["trained_on"].update(name=["a"]), r"trained_on.name is \['a'\], expected a string"),
        (lambda t, m: m.update(format_version="x" * 5_000_000), "has format version 'x{39}…, made by"),
        (lambda t, m: m.update(format_version=True), "has format version True, made by"),
        (lambda t, m: m.update(format_version=9, charloom_version="\x1b[31m"), r"made by charloom \\x1b\[31m;"),
        (
            lambda t, m: m.update(charloom_version="9" * 101),
            "charloom_version is '9{101}', expected a string of length",
        ),
        (
            lambda t, m: m["vocabulary"].update(units="bytes"),
            "vocabulary.characters are given, but the units are bytes",
        ),
        (lambda t, m: m.update(more=1), "m.safetensors: more is not a field that this version knows"),
        (lambda t, m: t["head.bias"].__setitem__(3, np.nan), "'head.bias' has weights that are NaN or infinite"),
        (lambda t, m: t["embedding"].__setitem__((0, 0), -np.inf), "'embedding' has weights that are NaN or infinite"),
        (
            lambda t, m: m["training"].update(validation_nats_per_char=None),
            "training.validation_nats_per_char is None, expected a number",
        ),
    ],
)
def test_a_changed_file_is_refused_with_one_line(saved, change, words):
    rewrite(saved, change)
    with pytest.raises(ModelFileError, match=words) as caught:
        load(saved)
    assert str(saved) in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < len(str(saved)) + 500


def test_a_version_1_file_is_read(saved):
    model = load(saved)

    def age(tensors, metadata):
        metadata["format_version"] = 1
        metadata["text"] = {"lowercase": metadata["text"]["lowercase"]}
        for name in ("inputs", "gate_activation", "cell_activation", "last_cell_activation", "head"):
            del metadata["model"][name]

    rewrite(saved, age)
    old = load(saved)
    assert old.settings == model.settings
    assert old.generate("ab", 30) == model.generate("ab", 30)


def test_a_version_2_file_is_read(saved):
    model = load(saved)

    def age(tensors, metadata):
        metadata["format_version"] = 2
        metadata["text"] = {"lowercase": metadata["text"]["lowercase"]}

    rewrite(saved, age)
    old = load(saved)
    assert (old.settings, old.text, old.format_version) == (model.settings, model.text, 2)
    assert old.generate("ab", 30) == model.generate("ab", 30)


def test_a_version_3_file_is_read_with_the_new_names(saved):
    def age(tensors, metadata):
        metadata["format_version"] = 3
        metadata["training"] = {
            "lanes": 2,
            "unroll_length": 8,
            "updates": 40,
            "kept_update": 20,
            "pace": [[0, 50], [10, 40]],
            "weight_drop": 0.1,
            "cold_starts": 0.01,
            "seed": 3,
            "history": [{"update": 20, "train_nats_per_char": 2.0, "validation_nats_per_char": 2.1}],
            "samples": [{"update": 20, "text": "abc"}],
        }

    rewrite(saved, age)
    old = load(saved)
    assert old.format_version == 3
    assert old.training == {
        "batch_size": 2,
        "sequence_length": 8,
        "steps": 40,
        "kept_step": 20,
        "step_plan": [[0, 50], [10, 40]],
        "weight_dropout": 0.1,
        "state_reset_probability": 0.01,
        "seed": 3,
        "history": [{"step": 20, "train_nats_per_char": 2.0, "validation_nats_per_char": 2.1}],
        "samples": [{"step": 20, "text": "abc"}],
    }


def test_integers_may_be_written_as_floats(saved):
    model = load(saved)

    def as_floats(tensors, metadata):
        metadata["format_version"] = 4.0
        metadata["model"]["hidden"] = 8.0
        metadata["text"]["min_count"] = 1.0
        metadata["trained_on"]["characters"] = 7.0
        metadata["training"] |= {"steps": 3.0, "window": 4.0, "learning_rate": 1.0}

    rewrite(saved, as_floats)
    found = load(saved)
    assert (found.settings, found.text, found.trained_on) == (model.settings, model.text, model.trained_on)
    assert json.dumps(found.training) == '{"steps": 3, "window": 4, "learning_rate": 1.0}'
    assert len(found.generate("abca", 5)) == 9


def test_a_vocabulary_with_a_lone_surrogate_is_refused(saved):
    data = saved.read_bytes()
    assert data.count(b"ABCabc") == 1
    for half in (rb"\\ud800", rb"\ud800", b"\xed\xa0\x80"):  # escaped in the inner JSON, escaped in the header, and raw
        (length,) = struct.unpack("<Q", data[:8])
        header = data[8 : 8 + length].replace(b"ABCabc", b"ABCab" + half)
        saved.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
        with pytest.raises(ModelFileError, match="not valid Unicode"):
            load(saved)


def test_a_name_with_control_characters_loads_and_is_shown_escaped(saved):
    rewrite(saved, lambda t, m: m["trained_on"].update(name="\x1b]0;title\x07\n\u202e" + "x" * 1000))
    model = load(saved)
    assert model.trained_on["name"].startswith("\x1b]0;")
    shown = summary(model)["trained on"]
    assert shown.startswith(r"\x1b]0;title\x07\n\u202exxx")
    assert shown.isprintable()
    assert len(shown) < 350
    assert "\x1b" not in model._repr_html_()


def test_a_prompt_is_normalized_like_the_training_text():
    model = make("abc\n", lowercase=True)
    assert model.generate("AB\r\n", 5).startswith("ab\n")
    assert model.unknown_characters("AXB") == ["x"]
    with pytest.raises(UnknownCharacterError, match=r"'x' \(U\+0078\) at character 1"):
        model.generate("AXB", 5)
    assert model.generate("AXB", 5, unknown="skip") == model.generate("AB", 5)


def test_the_length_counts_only_new_characters():
    model = make()
    assert len(model.generate("ab", 130)) == 132
    assert len(model.generate("", 1)) == 1
    with pytest.raises(SettingError, match="length must be"):
        model.generate("", 0)


def test_bytes_become_text_even_if_they_are_not_utf8():
    text = make(vocabulary=Vocabulary.of_bytes()).generate("é", 200, temperature=2.0)
    assert text.startswith("é")
    text.encode()


@given(st.text("ab", max_size=40), st.text("ab", min_size=1, max_size=4), st.integers(1, 7))
def test_a_text_ends_before_its_stop_for_every_piece_size(text, stop, size):
    vocabulary = Vocabulary.of_texts(["ab"])
    ids = vocabulary.encode(text)
    detector, found = StopDetector(vocabulary.decoder(), (stop,)), ""
    for begin in range(0, max(1, len(ids)), size):
        if detector.stopped is None:
            found += detector.add(ids[begin : begin + size], "length" if begin + size >= len(ids) else None)
    assert found == text.partition(stop)[0]
    assert detector.stopped == ("stop" if stop in text else "length")


def test_only_a_possible_start_of_the_stop_text_is_held_back():
    vocabulary = Vocabulary.of_texts(["abc"])
    detector = StopDetector(vocabulary.decoder(), ("abb",))
    endings = (("aab", None), ("ca", None), ("b", "length"))
    pieces = [detector.add(vocabulary.encode(piece), ending) for piece, ending in endings]
    assert pieces == ["a", "abc", "ab"]


def test_a_stop_text_is_normalized_like_the_training_text():
    model = make("abc", lowercase=True)
    assert model.generate("", 200, seed=1, stop="A") == model.generate("", 200, seed=1, stop="a")
    assert "a" not in model.generate("", 200, seed=1, stop="A")


def test_an_unknown_policy_is_refused():
    # In a process without the tests' type checker, which would refuse it first.
    code = "import charloom; charloom.Vocabulary.of_texts(['a']).encode('b', unknown='ignore')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "SettingError: unknown must be error or skip or replace, got 'ignore'" in done.stderr


def test_many_texts_share_one_prompt():
    prompted = make().prompted("ab")
    settings = SamplingSettings(temperature=1.5)
    texts = ["".join(prompted.stream(80, settings, seed=1, stream_index=index)) for index in range(4)]
    assert len(set(texts)) == 4
    assert "".join(prompted.stream(80, settings, seed=1, stream_index=2)) == texts[2]


def test_texts_generated_in_parallel_equal_single_texts_in_any_reading_order():
    prompted = make().prompted("ab")
    settings = SamplingSettings(temperature=1.5)
    stop = "".join(prompted.stream(60, settings, seed=1))[40:44]
    single = [prompted.stream(700, settings, seed=1, stream_index=index, stop=stop) for index in range(5)]
    wanted = [("".join(stream), stream.stopped) for stream in single]
    together = list(prompted.stream_many(700, settings, seed=1, stream_indexes=range(5), stop=stop))
    got = {index: "".join(together[index]) for index in (3, 0, 4, 1, 2)}
    assert [(got[index], together[index].stopped) for index in range(5)] == wanted
    assert wanted[0][1] == "stop"
    assert len({len(text) for text, _ in wanted}) > 1


def test_the_metadata_is_plain_json(saved):
    _, metadata = read_tensor_file(saved)
    assert json.loads(json.dumps(metadata)) == metadata


def test_a_model_of_records_survives_loading_and_refuses_a_complete_record_as_prompt(tmp_path):
    vocabulary = Vocabulary.of_texts(["abc"], record_end="\n")
    model = replace(make(vocabulary=vocabulary), text=TextSettings(delimiter="\n"))
    model.save(tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors")
    assert (loaded.vocabulary, loaded.text) == (vocabulary, model.text)
    assert loaded.generate("ab", 50) == model.generate("ab", 50)
    with pytest.raises(UnknownCharacterError, match="ends a record"):
        loaded.generate("ab\nc")
    assert loaded.vocabulary.decode(loaded.vocabulary.encode("aXb", "replace")) == "aab"


def test_a_learned_replacement_character_is_generated(tmp_path):
    model = make("\ufffd")
    assert "\ufffd" in model.generate("", 20)


@pytest.mark.parametrize("cell", CELLS)
def test_next_matches_the_equations(cell, kernels):
    model = make(cell=cell, layers=2)
    reference = NumpyNetwork(model.network)
    reference.reset()
    logits = [reference.step(None), *(reference.step(at) for at in model.vocabulary.encode("abcab"))]
    found = model.next("abcab")
    np.testing.assert_allclose(found.probs, softmax(logits[-1]), atol=1e-5)
    best = np.argsort(-logits[-1])[:3]
    assert [character for character, _ in found.top(3)] == [model.vocabulary.characters[at] for at in best]
    probabilities = [probability for _, probability in found.top(3)]
    np.testing.assert_allclose(probabilities, softmax(logits[-1])[best], atol=1e-5)
    # The same from the carry of an earlier call, which can be used more than once.
    earlier = model.next("abc")
    np.testing.assert_allclose(earlier.probs, softmax(logits[3]), atol=1e-5)
    for _ in range(2):
        np.testing.assert_allclose(model.next("ab", earlier.carry).probs, found.probs, atol=1e-6)
    np.testing.assert_allclose(model.next().probs, softmax(logits[0]), atol=1e-5)
    np.testing.assert_allclose(model.embed("abcab"), np.concatenate([state[0] for state in reference.state]), atol=1e-5)
    with pytest.raises(UnknownCharacterError, match="'x'"):
        model.next("x", earlier.carry)


def test_every_byte_has_a_name_in_next():
    found = make(vocabulary=Vocabulary.of_bytes()).next("ü")
    assert len(found.probs) == 256
    assert set(found.characters) == {chr(byte) for byte in range(256)}


def test_scored_texts_are_normalized_like_the_training_text():
    model = make(text="abc\n", lowercase=True)
    np.testing.assert_array_equal(model.score("AB\r\nC").nats, model.score("ab\nc").nats)
    many = model.score_many(["AB\r\nC", "a"])
    np.testing.assert_allclose(many[0].nats, model.score("ab\nc").nats, atol=1e-5)
    names = make(vocabulary=Vocabulary("chars", "\nab", "\n"))
    names = replace(names, text=TextSettings(delimiter="\n"))
    assert names.score("ab").text == names.score_many(["ab"])[0].text == "ab\n"
    given = names.score("b", prompt="a")
    np.testing.assert_allclose(given.nats, names.score("ab").nats[1:], atol=1e-5)
    assert model.score("axb", unknown="skip").unknown == 1
    with pytest.raises(UnknownCharacterError, match="'x'"):
        model.score("axb")


def test_the_notebook_display_is_escaped():
    model = replace(make(), trained_on={"name": "<b>.txt", "sha256": "0", "characters": 7})
    shown = model._repr_html_()
    assert "&lt;b&gt;.txt, 7 characters" in shown
    assert "<b>" not in shown


def test_next_agrees_with_score(kernels):
    rare = Vocabulary.of_texts(["aaabbb\nc"], min_count=2)
    model = replace(make(vocabulary=rare), text=TextSettings(min_count=2))
    unknown = rare.characters.index("\ufffd")
    at_once, step_by_step = model.next("ab"), model.next("b", model.next("a").carry)
    (nats,) = model.score("ab\ufffd").nats[2:]
    for found in (at_once, step_by_step):
        assert found.log_probs[unknown] == pytest.approx(-nats, abs=1e-5)


def test_embed_reads_only_the_window():
    model = replace(make(layers=2), training={"window": 3})
    reference = NumpyNetwork(model.network)
    reference.reset()
    for token_id in model.vocabulary.encode("bca"):
        reference.step(token_id)
    np.testing.assert_allclose(model.embed("aabca"), np.concatenate([state[0] for state in reference.state]), atol=1e-5)
    np.testing.assert_array_equal(model.embed("bca"), model.embed("aabca"))


def test_top_predictions_are_limited_to_the_vocabulary():
    score = make(text="ab").score("ab", top_predictions=9)
    assert score.top_predictions.token_ids.shape == (2, 2)


def test_a_record_does_not_continue_after_its_end():
    names = replace(make(vocabulary=Vocabulary("chars", "\nab", "\n")), text=TextSettings(delimiter="\n"))
    carry = names.next("b").carry
    for call in (
        lambda: names.score("a", prompt="b\r"),
        lambda: names.prompted("b\n"),
        lambda: names.next("b\n"),
        lambda: names.next("\n", carry),
    ):
        with pytest.raises(UnknownCharacterError, match="which ends a record"):
            call()


def test_a_record_may_include_its_end_only_once():
    names = replace(make(vocabulary=Vocabulary("chars", "\nab", "\n")), text=TextSettings(delimiter="\n"))
    for text in ("ab", "ab\n", "ab\r\n"):
        assert names.score(text).text == names.score_many([text])[0].text == "ab\n"
        np.testing.assert_array_equal(names.score(text).nats, names.score("ab").nats)
    for text in ("ab\n\n", "a\nb"):
        with pytest.raises(RecordError, match="a record ends inside"):
            names.score(text)
        with pytest.raises(RecordError, match="a record ends inside"):
            names.score_many(["a", text])


def test_a_carry_of_another_model_is_refused(tmp_path, kernels):
    one, larger = make(text="ab\n"), make(text="abcdefghij\n")
    carry = one.next("a").carry
    for other in (larger, make(text="ab\n", layers=2)):
        with pytest.raises(SettingError, match="carry belongs to another model"):
            other.next("b", carry)
    one.save(tmp_path / "one.safetensors")
    again = load(tmp_path / "one.safetensors")  # the same weights
    np.testing.assert_array_equal(again.next("b", carry).log_probs, one.next("b", carry).log_probs)


def test_an_unknown_cell_uses_the_reference_kernels(monkeypatch, native_library):
    class OtherCell(ElmanCell):
        pass

    model = make(cell="elman")
    wanted = model.generate("ab", 20, temperature=0)
    cells = tuple(OtherCell(**vars(cell)) for cell in model.network.cells)
    monkeypatch.setitem(CELLS, "other", OtherCell)
    monkeypatch.setenv("CHARLOOM_KERNELS", "native")
    other = replace(model, network=replace(model.network, cells=cells))
    assert other.generate("ab", 20, temperature=0) == wanted
