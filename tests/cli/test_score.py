import json
import math
import signal
import subprocess
import sys

import numpy as np
import pytest

from charloom.model import load
from tests.cli.conftest import TEXT, assert_refused
from tests.reference import sigmoid

REST = TEXT[:900].replace("lazy", "dazy")


@pytest.fixture
def rest(tmp_path):
    (tmp_path / "rest.txt").write_text(REST)
    return tmp_path / "rest.txt"


def nats_of(path, text):
    """The nats of each character of `text`, in float64 and from the equations."""
    model = load(path)
    (cell,), head = model.network.cells, model.network.head
    weights = [
        np.asarray(w, np.float64) for w in (cell.kernel, cell.recurrent_kernel, cell.bias, head.kernel, head.bias)
    ]
    kernel, recurrent_kernel, bias, head_kernel, head_bias = weights
    embedding = np.asarray(model.network.embedding, np.float64)
    ids = model.vocabulary.encode(text)
    h = c = np.zeros(cell.hidden)
    nats = []
    for before, after in zip([model.vocabulary.start_id, *ids[:-1]], ids, strict=True):
        i, f, g, o = np.split(embedding[before] @ kernel + bias + h @ recurrent_kernel, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits = h @ head_kernel + head_bias
        nats.append(np.log(np.exp(logits).sum()) - logits[after])
    return nats


def test_a_score_is_the_mean_over_every_character(charloom, model_file, rest):
    done = charloom("score", model_file, rest, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {"characters", "nats_per_char", "bits_per_char", "perplexity_per_char", "unknown"}
    nats = np.mean(nats_of(model_file, REST))
    assert report["characters"] == len(REST)
    assert report["nats_per_char"] == pytest.approx(nats, abs=1e-5)
    assert report["bits_per_char"] == pytest.approx(nats / math.log(2), abs=2e-5)
    assert report["perplexity_per_char"] == pytest.approx(math.exp(nats), rel=1e-4)
    shown = charloom("score", model_file, "-", stdin=REST)
    assert shown.stdout.startswith(
        f"standard input: {report['bits_per_char']:.3f} bits ({report['nats_per_char']:.4f} nats)"
    )


def test_dynamic_evaluation_is_a_separate_figure(charloom, model_file, rest):
    plain = json.loads(charloom("score", model_file, rest, "--json").stdout)
    done = charloom("score", model_file, rest, "--dynamic-evaluation", "--json")
    report = json.loads(done.stdout)
    assert {key: report[key] for key in plain} == plain
    # It learns the one word that differs from the training text.
    assert report["dynamic_nats_per_char"] < 0.95 * report["nats_per_char"]
    assert report["dynamic_bits_per_char"] == pytest.approx(report["dynamic_nats_per_char"] / math.log(2))
    assert "with dynamic evaluation: " in charloom("score", model_file, rest, "--dynamic-evaluation").stdout
    # A sequence of 64 characters is scored before the copy learns from it.
    first = json.loads(charloom("score", model_file, "-", "--dynamic-evaluation", "--json", stdin=REST[:64]).stdout)
    assert first["dynamic_nats_per_char"] == pytest.approx(first["nats_per_char"], abs=1e-5)


def test_unknown_characters_are_reported(charloom, model_file, tmp_path):
    (tmp_path / "foreign.txt").write_text("the quick über fox 7\n")
    assert_refused(charloom("score", model_file, tmp_path / "foreign.txt"), 1, "cannot encode 'ü'")
    for policy, characters, words in (("skip", 19, "left out"), ("replace", 21, "scored as ' '")):
        done = charloom("score", model_file, tmp_path / "foreign.txt", "--unknown", policy, "--json")
        assert json.loads(done.stdout)["characters"] == characters
        assert f"2 unknown characters {words}: " in done.stderr


def test_wrong_inputs_and_options_are_refused(charloom, model_file, rest, tmp_path):
    assert_refused(charloom("score", tmp_path / "none.safetensors", rest), 1, "none.safetensors")
    assert_refused(charloom("score", model_file, tmp_path / "none.txt"), 1, "none.txt")
    assert_refused(charloom("score", model_file), 1, "standard input: empty")
    assert_refused(charloom("score"), 2, "missing argument")
    for words in (
        ("--top", 3),
        ("--above", 1),
        ("--carry",),
        ("--per", "line", "--top", 0),
        ("--per", "line", "--above", "nan"),
        ("--per", "word"),
        ("--per", "file", "--dynamic-evaluation"),
        ("--prompt", "the", "--dynamic-evaluation"),
        ("--against", model_file, "--per", "char"),
        ("--against", model_file, "--dynamic-evaluation"),
        ("--by", "peak"),
        ("--per", "line", "--by", "peak", "--against", model_file),
    ):
        assert_refused(charloom("score", model_file, rest, *words), 2)
    (tmp_path / "digits.txt").write_text("12345")
    assert_refused(
        charloom("score", model_file, tmp_path / "digits.txt", "--unknown", "skip"),
        1,
        "has no character that the model knows",
    )


def rows_of(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_lines_are_scored_separately_or_with_carried_state(charloom, model_file, rest):
    rows = rows_of(charloom("score", model_file, rest, "--per", "line", "--json"))
    lines = REST.splitlines(keepends=True)
    assert [(row["line"], row["text"], row["characters"]) for row in rows] == [
        (number, line.rstrip("\n"), len(line)) for number, line in enumerate(lines, 1)
    ]
    for row, line in zip(rows[:3], lines, strict=False):
        assert set(row) == {"line", "characters", "nats", "bits_per_char", "peak_bits", "unknown", "text"}
        assert row["nats"] == pytest.approx(sum(nats_of(model_file, line)), abs=1e-5 * len(line))
        assert row["bits_per_char"] == pytest.approx(row["nats"] / math.log(2) / row["characters"])
    whole = json.loads(charloom("score", model_file, rest, "--json").stdout)
    carried = rows_of(charloom("score", model_file, rest, "--per", "line", "--carry", "--json"))
    assert sum(row["nats"] for row in carried) == pytest.approx(whole["nats_per_char"] * len(REST), rel=1e-6)


def test_the_most_surprising_lines_and_those_above(charloom, model_file, rest):
    rows = rows_of(charloom("score", model_file, rest, "--per", "line", "--json"))
    bits = sorted((row["bits_per_char"] for row in rows), reverse=True)
    top = rows_of(charloom("score", model_file, rest, "--per", "line", "--top", 4, "--json"))
    assert [row["bits_per_char"] for row in top] == bits[:4]
    above = rows_of(charloom("score", model_file, rest, "--per", "line", "--above", bits[5], "--json"))
    assert above == [row for row in rows if row["bits_per_char"] > bits[5]]
    shown = charloom("score", model_file, rest, "--per", "line", "--top", 1).stdout
    assert shown == f"{top[0]['bits_per_char']:7.3f}  {top[0]['line']:>6}  {top[0]['text']}\n"


def test_lines_by_their_three_most_surprising_characters(charloom, model_file, rest):
    rows = rows_of(charloom("score", model_file, rest, "--per", "line", "--json"))
    for row, line in zip(rows, REST.splitlines(keepends=True), strict=True):
        if len(line) < 200:
            highest = sorted(nats_of(model_file, line))[-3:]
            assert row["peak_bits"] == pytest.approx(sum(highest) / len(highest) / math.log(2), abs=2e-5)
    peaks = sorted((row["peak_bits"] for row in rows), reverse=True)
    of_peak = "--per", "line", "--by", "peak"
    assert [
        row["peak_bits"] for row in rows_of(charloom("score", model_file, rest, *of_peak, "--top", 4, "--json"))
    ] == peaks[:4]
    above = rows_of(charloom("score", model_file, rest, *of_peak, "--above", peaks[5], "--json"))
    assert above == [row for row in rows if row["peak_bits"] > peaks[5]]
    shown = charloom("score", model_file, rest, *of_peak, "--top", 1).stdout
    assert shown.startswith(f"{peaks[0]:7.3f}  ")


def test_lines_from_a_pipe_are_scored_one_by_one(model_file):
    command = [sys.executable, "-m", "charloom", "score", str(model_file), "-", "--per", "line", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for number, line in enumerate((b"the quick\n", b"brown fox\r\n", b"\n"), 1):
            process.stdin.write(line)
            process.stdin.flush()
            row = json.loads(process.stdout.readline())  # comes though the pipe is open
            assert (row["line"], row["text"]) == (number, line.decode().strip())
        process.stdin.close()
        assert process.wait(20) == 0


def test_ctrl_c_prints_the_highest_lines_so_far(model_file):
    command = [sys.executable, "-m", "charloom", "score", str(model_file), "-", "--per", "line", "--top", "1", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b"the quick brown fox\nzzzzz\n")
        process.stdin.flush()
        # charloom reports a bad line at once. After the second report it has scored everything before the first.
        for number in (b"3", b"4"):
            process.stdin.write(b"\xff\n")
            process.stdin.flush()
            assert b"line " + number in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert json.loads(process.stdout.read())["text"] == "zzzzz"
        assert process.wait(20) == 130


def test_a_closed_pipe_ends_scoring_quietly(model_file, tmp_path):
    (tmp_path / "long.txt").write_text("the quick brown fox\n" * 20_000)
    command = f"{sys.executable} -m charloom score {model_file} {tmp_path}/long.txt --per line | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_lines_that_are_not_utf8_are_reported_and_skipped(model_file):
    command = [sys.executable, "-m", "charloom", "score", str(model_file), "--per", "line", "--json"]
    data = b"the fox\n\xff\xfe\n\nthe dog"
    done = subprocess.run(command, input=data, capture_output=True, timeout=60)
    assert [json.loads(line)["line"] for line in done.stdout.splitlines()] == [1, 3, 4]
    assert b"standard input, line 2: byte 0xff at offset 0 is not UTF-8; not scored" in done.stderr
    assert done.returncode == 0


def test_an_unknown_character_stops_scoring_or_is_counted(charloom, model_file):
    text = "the fox\nthe 7 dogs\nthe dog\n"
    done = charloom("score", model_file, "-", "--per", "line", "--json", stdin=text)
    assert done.returncode == 1
    assert [json.loads(line)["line"] for line in done.stdout.splitlines()] == [1]
    assert done.stderr.startswith("charloom: standard input: line 2: cannot encode '7' (U+0037) at character 4: ")
    carried = charloom("score", model_file, "-", "--per", "line", "--carry", "--json", stdin=text)
    assert (carried.stdout.count("\n"), carried.stderr) == (1, done.stderr)
    done = charloom("score", model_file, "-", "--per", "line", "--json", "--unknown", "replace", stdin=text)
    assert [row["unknown"] for row in rows_of(done)] == [0, 1, 0]
    assert "1 unknown character scored as ' '" in done.stderr


def test_characters_and_files_are_scored_separately(charloom, model_file, rest, tmp_path):
    (tmp_path / "a.txt").write_text("the fox\n")
    rows = rows_of(charloom("score", model_file, tmp_path / "a.txt", "--per", "char", "--json"))
    assert [(row["index"], row["char"]) for row in rows] == list(enumerate("the fox\n"))
    expected = np.array(nats_of(model_file, "the fox\n")) / math.log(2)
    np.testing.assert_allclose([row["bits"] for row in rows], expected, atol=2e-5)
    shown = charloom("score", model_file, tmp_path / "a.txt", "--per", "char").stdout.splitlines()
    assert shown[-1] == f"{rows[-1]['bits']:7.3f}       7  \\n"
    (tmp_path / "empty.txt").write_text("")
    named = (tmp_path / "a.txt", tmp_path / "empty.txt", rest)
    empty = rows_of(charloom("score", model_file, *named, "--per", "file", "--json"))[1]
    assert (empty["characters"], empty["bits_per_char"]) == (0, None)
    assert "empty.txt: nothing to score" in charloom("score", model_file, *named, "--per", "file").stdout
    files = rows_of(charloom("score", model_file, tmp_path / "a.txt", rest, "--per", "file", "--json"))
    assert [(row["file"], row["characters"]) for row in files] == [(str(tmp_path / "a.txt"), 8), (str(rest), 900)]
    both = json.loads(charloom("score", model_file, tmp_path / "a.txt", rest, "--json").stdout)
    total = sum(row["nats_per_char"] * row["characters"] for row in files)
    assert both["nats_per_char"] == pytest.approx(total / both["characters"])


def test_a_prompt_is_read_before_each_line(charloom, model_file):
    done = charloom("score", model_file, "-", "--per", "line", "--prompt", "the quick ", "--json", stdin="brown\nfox\n")
    for row, line in zip(rows_of(done), ("brown\n", "fox\n"), strict=True):
        assert row["nats"] == pytest.approx(sum(nats_of(model_file, f"the quick {line}")[10:]), abs=1e-4)
    whole = json.loads(charloom("score", model_file, "-", "--prompt", "the quick ", "--json", stdin="brown\n").stdout)
    assert whole["nats_per_char"] * 6 == pytest.approx(rows_of(done)[0]["nats"], rel=1e-5)


def test_bytes_and_characters(charloom, model_file, book, tmp_path):
    (tmp_path / "cp1252.txt").write_bytes("caf\xe9\n".encode("cp1252"))
    refused = charloom("score", model_file, tmp_path / "cp1252.txt")
    assert_refused(refused, 1, "cannot decode", "Pass the text's encoding with --encoding")
    of_bytes = tmp_path / "bytes.safetensors"
    charloom("train", book, "--bytes", "--steps", 20, "--hidden", 16, "--out", of_bytes)
    rows = rows_of(charloom("score", of_bytes, tmp_path / "cp1252.txt", "--per", "line", "--json"))
    assert [(row["text"], row["characters"]) for row in rows] == [("caf\\xe9", 5)]
    rows = rows_of(charloom("score", of_bytes, tmp_path / "cp1252.txt", "--per", "char", "--json"))
    assert [row["char"] for row in rows] == ["c", "a", "f", "\\xe9", "\n"]


def test_a_line_unknown_to_one_of_two_models_stops_scoring(charloom, model_file, book, tmp_path):
    narrow = tmp_path / "narrow.safetensors"
    (tmp_path / "narrow.txt").write_text(TEXT.replace("z", "s"))
    charloom("train", tmp_path / "narrow.txt", "--out", narrow, "--steps", 5, "--hidden", 16, "--batch-size", 4)
    for models in ((model_file, "--against", narrow), (narrow, "--against", model_file)):
        done = charloom("score", *models, "--per", "line", "--json", "-", stdin="the\nlazy\nthe\n")
        assert [json.loads(line)["line"] for line in done.stdout.splitlines()] == [1]
        assert done.returncode == 1
        assert "standard input: line 2: cannot encode 'z' (U+007A) at character 2" in done.stderr
        assert "Traceback" not in done.stderr


def test_two_models_are_compared_by_bytes(charloom, model_file, french, tmp_path):
    text = "the quick brown fox\nqui préfère les jattes\n"
    options = ("--against", french, "--unknown", "replace", "--json")
    done = charloom("score", model_file, "-", *options, "--per", "line", stdin=text)
    english, foreign = rows_of(done)
    assert english["ratio_bits_per_byte"] > 1
    assert foreign["ratio_bits_per_byte"] < -1
    for row in (english, foreign):
        assert row["ratio_bits_per_byte"] == pytest.approx(row["against_bits_per_byte"] - row["bits_per_byte"])
    assert english["bits_per_byte"] == pytest.approx(english["bits_per_char"])
    assert "charloom compares them by bits per byte of UTF-8" in done.stderr
    top = rows_of(charloom("score", model_file, "-", *options, "--per", "line", "--top", 1, stdin=text))
    assert top == [foreign]
    shown = charloom("score", model_file, "-", *options[:-1], stdin="the quick brown fox\n").stdout
    assert "bits per byte likelier than under the other model" in shown
    # A model compared with itself knows the same characters.
    same = charloom("score", model_file, "-", "--against", model_file, "--json", stdin="the fox\n")
    assert json.loads(same.stdout)["ratio_bits_per_byte"] == 0
    assert same.stderr == ""


def test_classify_picks_the_model_that_fits_best(charloom, model_file, french, tmp_path):
    (tmp_path / "en.txt").write_text("the lazy dog\n")
    (tmp_path / "fr.txt").write_text("voix d'un cœur\n")
    for name, best in (("en", model_file), ("fr", french)):
        done = charloom("classify", model_file, french, "--text", tmp_path / f"{name}.txt", "--json")
        verdict = json.loads(done.stdout)
        assert verdict["model"] == str(best)
        low, high = sorted(verdict["bits_per_byte"].values())
        assert verdict["margin_bits_per_byte"] == pytest.approx(high - low)
        assert verdict["margin_bits_per_byte"] > 1
    rows = rows_of(charloom("classify", model_file, french, "--per", "line", "--json", stdin="the dog\nvoix\n"))
    assert [(row["line"], row["text"], row["model"]) for row in rows] == [
        (1, "the dog", str(model_file)),
        (2, "voix", str(french)),
    ]
    done = charloom("classify", model_file, french, "--json", stdin="7777\n")
    assert json.loads(done.stdout)["unknown"] == {str(model_file): 4, str(french): 4}
    assert f"{french}: 4 unknown characters scored as " in done.stderr
    files = ("--text", tmp_path / "en.txt", "--text", tmp_path / "fr.txt")
    rows = rows_of(charloom("classify", model_file, french, *files, "--per", "file", "--json"))
    assert [row["model"] for row in rows] == [str(model_file), str(french)]
    shown = charloom("classify", model_file, french, "--text", tmp_path / "en.txt").stdout
    assert shown.startswith(f"{tmp_path / 'en.txt'}: {model_file}, by ")
    assert_refused(charloom("classify", model_file), 2, "give at least two different ones")
    assert_refused(charloom("classify", model_file, model_file), 2, "give at least two different ones")
    assert_refused(charloom("classify", model_file, french, "--text", tmp_path / "none.txt"), 1, "none.txt")
    assert_refused(charloom("classify", model_file, french, stdin=""), 1, "empty")


@pytest.fixture(scope="module")
def records(charloom, tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "records.txt"
    path.write_bytes("".join(f"name {number}\r\n" for number in range(100, 400)).encode())
    models = []
    for name, options in (("lines", ("--records",)), ("crlf", ("--delimiter", r"\r\n"))):
        models.append(path.with_name(f"{name}.safetensors"))
        done = charloom("train", path, "--out", models[-1], "--steps", 20, "--hidden", 16, "--batch-size", 4, *options)
        assert done.returncode == 0, done.stderr
    return models


def test_records_cost_the_same_with_every_delimiter(charloom, records):
    data = "name 1\r\n\r\nname 22\r\n"
    for model in records:
        whole = json.loads(charloom("score", model, "-", "--json", stdin=data).stdout)
        dynamic = json.loads(charloom("score", model, "-", "--dynamic-evaluation", "--json", stdin=data).stdout)
        assert whole["characters"] == len("name 1.name 22.")  # empty records do not count
        assert {key: dynamic[key] for key in whole} == whole
        lines = rows_of(charloom("score", model, "-", "--per", "line", "--json", stdin=data))
        assert [(row["text"], row["characters"]) for row in lines] == [("name 1", 7), ("", 0), ("name 22", 8)]
        characters = rows_of(charloom("score", model, "-", "--per", "char", "--json", stdin=data))
        bits = sum(row["bits"] for row in characters)
        for nats in (whole["nats_per_char"] * 15, sum(row["nats"] for row in lines)):
            assert nats / math.log(2) == pytest.approx(bits, rel=1e-5)


def test_a_record_that_is_not_utf8_is_reported_in_every_mode(records, tmp_path):
    for options in (("--json",), ("--per", "char", "--json"), ("--html", str(tmp_path / "p.html"), "--json")):
        command = [sys.executable, "-m", "charloom", "score", str(records[0]), "-", *options]
        done = subprocess.run(command, input=b"name 1\n\xff\nname 2\n", capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert b"standard input, line 2: byte 0xff at offset 0 is not UTF-8; not scored" in done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(rows) == 14 or rows[0]["characters"] == 14


def test_a_model_without_newlines_scores_lines_without_their_ends(charloom, tmp_path):
    (tmp_path / "flat.txt").write_text("the quick brown fox " * 60)
    model = tmp_path / "flat.safetensors"
    charloom("train", tmp_path / "flat.txt", "--out", model, "--steps", 5, "--hidden", 16, "--batch-size", 4)
    rows = rows_of(charloom("score", model, "-", "--per", "line", "--json", stdin="the\nquick\n"))
    assert [(row["characters"], row["unknown"]) for row in rows] == [(3, 0), (5, 0)]
