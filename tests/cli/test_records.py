"""Models of records, through the command line."""

import json

import pytest

from charloom.model import load
from tests.cli.conftest import QUICK, assert_refused

SYLLABLES = ("ba", "ne", "ro", "li", "ma", "su")
NAMES = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES if a != c]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    path = tmp_path_factory.mktemp("names") / "names.txt"
    path.write_text("\n".join(NAMES))
    return path


@pytest.fixture(scope="module")
def model(charloom, names):
    path = names.with_name("names.safetensors")
    done = charloom("train", names, "--records", "--out", path, "--steps", 400, "--learning-rate", 0.01, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "162 records (1,134 characters) to train on, 18 records (126 characters) to validate on" in done.stderr
    return path


def test_new_names_are_printed_one_per_line(charloom, model, names):
    command = ("generate", model, "--count", 20, "--unique", "--novel", names, "--temperature", 1.2, "--seed", 3)
    done = charloom(*command)
    assert done.returncode == 0, done.stderr
    samples = done.stdout.splitlines()
    assert len(samples) == len(set(samples)) == 20
    assert not set(samples) & set(NAMES)
    (line,) = done.stderr.splitlines()
    assert line.startswith("kept 20 in ")
    assert "as duplicates, " in line
    assert "as copies" in line
    assert "longest verbatim run" in line
    objects = [json.loads(line) for line in charloom(*command, "--json").stdout.splitlines()]
    assert [sample["text"] for sample in objects] == samples
    assert {sample["stopped"] for sample in objects} == {"end"}


def test_most_samples_resemble_the_records(charloom, model):
    done = charloom("generate", model, "--count", 50, "--seed", 1)
    samples = done.stdout.splitlines()
    assert len(samples) == 50
    similar = [name for name in samples if len(name) == 6 and all(name[at : at + 2] in SYLLABLES for at in (0, 2, 4))]
    assert len(similar) > 40


def test_texts_do_not_depend_on_how_many_are_generated(charloom, model):
    many = charloom("generate", model, "--count", 70, "--seed", 9).stdout.splitlines()
    assert charloom("generate", model, "--count", 3, "--seed", 9).stdout.splitlines() == many[:3]


def test_another_novel_text_is_reported_and_accepted(charloom, model, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("xyz\n")
    done = charloom("generate", model, "--count", 2, "--novel", other, "--seed", 1)
    assert done.returncode == 0
    assert "other.txt is not the text that the model was trained on (names.txt)" in done.stderr


def test_a_failed_search_ends_with_an_error(charloom, model, names):
    done = charloom("generate", model, "--count", 5000, "--unique", "--novel", names, "--temperature", 0.1, "--seed", 1)
    assert done.returncode == 1
    assert "of 5,000 texts" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_model_file_describes_the_training_text(charloom, model):
    loaded = load(model)
    assert loaded.text.delimiter == "\n"
    assert "one per line" in charloom("show", model).stdout
    assert loaded.trained_on["name"] == "names.txt"


def test_records_between_delimiters_may_have_several_lines(charloom, tmp_path):
    poems = tmp_path / "poems.txt"
    poems.write_text("%".join(f"{name}\n{name}\n" for name in NAMES))
    out = tmp_path / "poems.safetensors"
    done = charloom("train", poems, "--delimiter", "%", "--out", out, "--steps", 150, *QUICK)
    assert done.returncode == 0, done.stderr
    done = charloom("generate", out, "--count", 2, "--seed", 1)
    assert "\n" in done.stdout
    assert "%" not in done.stdout
    assert "\x1e" not in done.stdout


@pytest.mark.parametrize(
    ("text", "options", "status", "words"),
    [
        ("\n\n\n", ("--records",), 1, ["no record"]),
        ("a\nb\n", ("--delimiter", ""), 2, ["--delimiter", "empty"]),
        ("a\nb\n", ("--min-count", "0"), 2, ["--min-count"]),
        ("a\nb\n", ("--min-count", "2", "--bytes"), 2, ["--min-count"]),
    ],
)
def test_bad_input_is_refused(charloom, tmp_path, text, options, status, words):
    (tmp_path / "t.txt").write_text(text)
    done = charloom("train", tmp_path / "t.txt", "--out", tmp_path / "m.safetensors", *options)
    assert_refused(done, status, *words)


def test_a_run_of_records_resumes_only_with_the_same_delimiter(charloom, names, tmp_path):
    def train(*options):
        return charloom("train", *options, cwd=tmp_path)

    assert train(names, "--records", "--steps", 60, "--run", "run", "--out", "a.safetensors", *QUICK).returncode == 0
    assert_refused(train("--resume", "run", "--delimiter", ";"), 1, "--delimiter is")
    done = train("--resume", "run", "--records")
    assert done.returncode == 0, done.stderr


def test_a_vocabulary_of_thousands_of_characters(charloom, tmp_path):
    # 3,000 Chinese characters, and a family of joined emoji.
    common = "".join(map(chr, range(0x4E00, 0x4E00 + 3000))) + "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    (tmp_path / "t.txt").write_text(common * 2 + "\u9fa5")
    out = tmp_path / "m.safetensors"
    done = charloom("train", tmp_path / "t.txt", "--min-count", 2, "--out", out, "--steps", 10, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "fewer than 2 times: '\u9fa5' (U+9FA5)" in done.stderr
    done = charloom("generate", out, "--prompt", "\u4e00\U0001f468\u200d\U0001f469", "--length", 50, "--seed", 1)
    assert done.returncode == 0, done.stderr
    assert "\ufffd" not in done.stdout
    assert_refused(charloom("generate", out, "--prompt", "\u9fa5"), 1, "U+9FA5", "--unknown replace")
