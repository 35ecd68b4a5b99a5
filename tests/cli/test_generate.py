import json
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from charloom import TextModel, Vocabulary, load
from charloom.models import Network
from charloom.settings import NetworkSettings, SamplingSettings, TextSettings
from tests.cli.conftest import assert_refused


def test_a_pipe_gets_only_the_prompt_and_the_text(charloom, model_file):
    done = charloom("generate", model_file, "--prompt", "the qui", "--length", 40, "--seed", 3)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("the qui")
    assert len(done.stdout) == 7 + 40 + 1
    again = charloom("generate", model_file, "--prompt", "the qui", "--length", 40, "--seed", 3)
    assert again.stdout == done.stdout


def test_greedy_text_follows_the_book(charloom, model_file):
    done = charloom("generate", model_file, "--prompt", "the quick br", "--length", 8, "--temperature", 0, "--seed", 0)
    assert done.stdout == "the quick brown fox\n\n"[:21]


def test_a_random_seed_is_printed(charloom, model_file):
    first, second = (charloom("generate", model_file, "--temperature", 2) for _ in range(2))
    assert first.stderr.startswith("seed ")
    assert first.stdout != second.stdout
    seed = first.stderr.split()[1]
    assert charloom("generate", model_file, "--temperature", 2, "--seed", seed).stdout == first.stdout


def test_several_texts_equal_single_texts(charloom, model_file):
    options = ("--seed", 4, "--length", 30, "--temperature", 1.5)
    many = charloom("generate", model_file, "--count", 3, "--json", *options)
    texts = [json.loads(line) for line in many.stdout.splitlines()]
    assert [set(text) for text in texts] == [{"prompt", "text", "seed", "stopped"}] * 3
    assert len({text["text"] for text in texts}) == 3
    one = charloom("generate", model_file, *options)
    assert one.stdout == texts[0]["text"] + "\n"
    plain = charloom("generate", model_file, "--count", 3, *options)
    assert plain.stdout == "\n".join(text["text"] + "\n" for text in texts)


def test_json_says_why_a_text_ended(charloom, model_file):
    done = charloom("generate", model_file, "--prompt", "the", "--stop", "x", "--length", 500, "--seed", 1, "--json")
    text = json.loads(done.stdout)
    assert text["stopped"] == "stop"
    assert text["prompt"] == "the"
    assert "x" not in text["text"]
    done = charloom("generate", model_file, "--length", 5, "--seed", 1, "--json")
    assert json.loads(done.stdout)["stopped"] == "length"


def test_an_empty_prompt_starts_a_text(charloom, model_file):
    done = charloom("generate", model_file, "--prompt", "", "--temperature", 0, "--length", 3, "--seed", 0)
    assert done.returncode == 0
    assert done.stdout in ("the\n", "jum\n")  # what follows a newline in the book


def test_unknown_characters(charloom, model_file):
    options = ("--prompt", "thé", "--seed", 1, "--length", 5)
    assert_refused(
        charloom("generate", model_file, *options),
        1,
        "'é' (U+00E9) at character 2",
        "28 characters",
        "--unknown replace",
    )
    skipped = charloom("generate", model_file, *options, "--unknown", "skip")
    assert skipped.stdout.startswith("th")
    assert "left out, because the model does not know it: 'é' (U+00E9)" in skipped.stderr
    replaced = charloom("generate", model_file, *options, "--unknown", "replace")
    assert replaced.stdout.startswith("th ")
    assert "replaced with ' '" in replaced.stderr


def test_a_prompt_that_is_not_utf8_is_refused(charloom, model_file):
    done = charloom("generate", model_file, "--prompt", "th\udce9", "--seed", 1)
    assert_refused(done, 1, "cannot encode", "at character 2")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--temperature", "-1"),
            ["--temperature must be a finite number, at least 0", "got -1.0. See charloom generate"],
        ),
        (("--temperature", "nan"), ["--temperature must be", "got nan"]),
        (("--temperature", "inf"), ["--temperature must be", "got inf"]),
        (("--length", "0"), ["--length must be a whole number from 1"]),
        (("--count", "0"), ["--count must be"]),
        (("--top-k", "0"), ["--top-k must be"]),
        (("--top-p", "0"), ["--top-p must be", "above 0"]),
        (("--top-p", "1.5"), ["--top-p must be", "at most 1"]),
        (("--stop", ""), ["--stop must not be empty"]),
        (("--seed", str(2**63)), ["--seed must be"]),
        (("--unknown", "guess"), ["'guess' is not one of"]),
        (("--weights", "int4"), ["'int4' is not one of 'float32', 'bfloat16', 'int8'"]),
        (("--cell", "gru"), ["no such option"]),
        (("--lanes", "5"), ["no such option '--lanes'"]),
    ],
)
def test_wrong_options_are_refused(charloom, options, words):
    assert_refused(charloom("generate", "no-such-model", *options), 2, *words)


def damage(data, kind):
    if kind == "truncated":
        return data[: len(data) // 2]
    if kind == "text":
        return b"once upon a time " * 20
    changes = {
        "version": (b'\\"format_version\\":4', b'\\"format_version\\":9'),
        "missing": (b'"head.bias"', b'"head.bios"'),
        "shape": (b'\\"hidden\\":32', b'\\"hidden\\":33'),
        "cell": (b'\\"cell\\":\\"lstm\\"', b'\\"cell\\":\\"lstn\\"'),
        "type": (b'\\"hidden\\":32', b'\\"hidden\\":{}'),
    }
    old, new = changes[kind]
    assert data.count(old) == 1
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", "not a model file, or it is damaged"),
        ("text", "not a model file, or it is damaged"),
        ("version", "has format version 9"),
        ("missing", "tensor 'head.bias' is missing"),
        ("shape", "its config says"),
        ("cell", "model.cell is 'lstn', which this version does not know"),
        ("type", "model.hidden is "),
    ],
)
def test_damaged_models(charloom, model_file, tmp_path, kind, words):
    path = tmp_path / "m.safetensors"
    path.write_bytes(damage(model_file.read_bytes(), kind))
    assert_refused(charloom("generate", path), 1, str(path), words)
    assert_refused(charloom("show", path), 1, str(path), words)


def test_no_model(charloom, tmp_path):
    assert_refused(charloom("generate", tmp_path / "none.safetensors"), 1, "No such file", "charloom train")
    assert_refused(charloom("generate"), 2, "missing argument 'MODEL'")


def generating(model_file, length, *options):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "charloom",
            "generate",
            str(model_file),
            "--length",
            str(length),
            "--seed",
            "1",
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_closed_pipe_ends_generation_quietly(model_file):
    with generating(model_file, 300_000) as process:
        assert process.stdout.read(100)
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == b""


def test_text_is_printed_while_it_is_generated(model_file):
    with generating(model_file, 100_000_000) as process:  # all of it would take an hour
        assert len(process.stdout.read(1000)) == 1000
        process.kill()


def test_a_full_disk_is_reported_in_one_line(model_file):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "charloom", "generate", model_file, "--seed", "1"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "charloom: cannot write to standard output: No space left on device. Redirect it to another file.\n",
    )


def test_characters_outside_the_locale_are_escaped(charloom, tmp_path):
    vocabulary, settings = Vocabulary.of_texts(["é\n"]), NetworkSettings(hidden=2, embedding=2)
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(0))
    TextModel(network, vocabulary, settings).save(tmp_path / "m.safetensors")
    done = charloom("generate", tmp_path / "m.safetensors", "--prompt", "é", "--seed", 1, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("\\xe9")


def test_ctrl_c_ends_generation_quietly(model_file):
    with generating(model_file, 100_000_000) as process:
        assert process.stdout.read(100)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == b""


def test_ctrl_c_leaves_whole_records(tmp_path):
    vocabulary, settings = Vocabulary.of_texts(["abc"], record_end="\n"), NetworkSettings(hidden=8, embedding=2)
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(0))
    path = tmp_path / "records.safetensors"
    TextModel(network, vocabulary, settings, TextSettings(delimiter="\n")).save(path)
    with generating(path, 100, "--count", "100000000") as process:
        begin = process.stdout.read(3000)
        process.send_signal(signal.SIGINT)
        text = begin + process.stdout.read()
        assert process.wait(timeout=60) == 130
    assert text.endswith(b"\n")
    assert text.count(b"\n") > 100
    prompted = load(path).prompted()
    streams = prompted.stream_many(100, SamplingSettings(), seed=1, stream_indexes=range(100))
    assert text.decode().splitlines()[:100] == ["".join(stream) for stream in streams]


def test_a_models_window_is_used_and_a_short_prompt_refused(charloom, tmp_path):
    vocabulary = Vocabulary.of_texts(["the quick brown fox\n"])
    settings = NetworkSettings(cell="elman", hidden=12, embedding=4)
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(0))
    network = jax.tree.map(lambda weight: 5 * weight, network)  # so that the window makes a difference
    path = tmp_path / "windows.safetensors"
    TextModel(network, vocabulary, settings, training={"window": 8}).save(path)
    assert "window" in charloom("show", path).stdout
    arguments = ("generate", path, "--prompt", "the quick", "--length", 40, "--temperature", 1, "--seed", 1)
    done = charloom(*arguments)
    assert done.returncode == 0, done.stderr
    assert charloom(*arguments, "--window", 8).stdout == done.stdout
    assert charloom(*arguments, "--window", 9).stdout != done.stdout
    short = charloom("generate", path, "--prompt", "the", "--seed", 1)
    assert_refused(short, 1, "the prompt has 3 characters, but the model reads a window of 8")
    assert_refused(charloom("generate", path, "--window", 0), 2, "--window must be a whole number from 1")
    packed = charloom(*arguments, "--weights", "int8")
    assert_refused(packed, 2, "--weights must be", "for a model that reads windows; got 'int8'")
