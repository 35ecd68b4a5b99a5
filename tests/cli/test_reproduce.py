import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from filelock import FileLock

from charloom import __version__
from charloom.artifacts import LOCK_FILE
from charloom.errors import OutputError
from charloom.model import load
from charloom.studies import STUDIES
from charloom.studies.reproduce import ReproduceSettings, reproduce
from tests.cli.conftest import assert_refused

NO_NETWORK = {"CHARLOOM_DATA": "", "HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


@pytest.fixture(scope="session")
def alphabet(charloom, tmp_path_factory):
    """A folder with a quick run of two experiments that do not need a corpus."""
    out = tmp_path_factory.mktemp("results") / "alphabet"
    done = charloom("reproduce", "--quick", "alphabet/stateful", "alphabet/three_to_one", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out / 'report.html'}: open it in a browser\n"
    return out


@pytest.fixture
def copy(alphabet, tmp_path):
    return shutil.copytree(alphabet, tmp_path / "copy")


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_results_have_the_documented_content(alphabet):
    results = results_of(alphabet)
    assert results["version"] == __version__
    assert results["machine"]["cores"] >= 1
    assert list(results["studies"]) == ["alphabet"]
    experiments = results["studies"]["alphabet"]
    assert list(experiments) == ["three_to_one", "stateful"]  # in the order of the publication
    for experiment in experiments.values():
        documented = {"losses", "published_losses", "accuracy", "parameters", "seconds_per_epoch", "samples"}
        assert documented <= set(experiment)
        assert 0 <= experiment["accuracy"] <= 1
        assert experiment["losses"][-1] < 0.5 * experiment["losses"][0]
    assert len(experiments["stateful"]["losses"]) == 300
    assert load(alphabet / "alphabet/stateful/model.safetensors").settings.hidden == 16


def test_an_experiment_gives_the_same_losses_if_jax_uses_64_bits(charloom, alphabet, tmp_path):
    done = charloom("reproduce", "--quick", "alphabet/stateful", "--out", tmp_path, JAX_ENABLE_X64="1")
    assert done.returncode == 0, done.stderr
    wide, wanted = (results_of(folder)["studies"]["alphabet"]["stateful"] for folder in (tmp_path, alphabet))
    assert wide["losses"] == wanted["losses"]


class Page(HTMLParser):
    """Collects a page's tags, and checks that they are closed."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_self_contained_page(alphabet):
    page = Page((alphabet / "report.html").read_text())
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 4  # a curve and a diagram for each experiment
    for image in images:
        assert image["src"].startswith("data:image/svg+xml;base64,")
        assert len(image["alt"]) > 30
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for _, attributes in page.tags:
        assert not {"onclick", "onload"} & set(attributes)
        for name in ("href", "src"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in targets
    assert not any(tag in ("script", "link", "iframe") for tag, _ in page.tags)


def test_finished_experiments_are_skipped(charloom, copy):
    before = results_of(copy)
    done = charloom("reproduce", "--quick", "alphabet/stateful", "alphabet/three_to_one", "--out", copy)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "    alphabet/three_to_one: already done",
        "    alphabet/stateful: already done",
    ]
    assert results_of(copy) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nietzshe",), ["'nietzshe' is unknown", "Did you mean nietzsche?", "english-major (relu_logits"]),
        (("alphabet/rnn",), ["alphabet has no experiment 'rnn'", "one_to_one, three_to_one"]),
        (("--quick", "--full"), ["--quick and --full exclude each other"]),
        (("--seed", "-1"), ["--seed must be a whole number"]),
        (("--threads", "0"), ["--threads must be"]),
    ],
)
def test_wrong_options_are_refused(charloom, tmp_path, arguments, words):
    out = tmp_path / "out"
    assert_refused(charloom("reproduce", *arguments, "--out", out), 2, *words, "charloom reproduce --help")
    assert not out.exists()


def change(folder, **values):
    results = results_of(folder)
    (folder / "results.json").write_text(json.dumps(results | values))


def test_results_of_another_run_are_not_replaced(charloom, copy):
    before = (copy / "results.json").read_bytes()
    arguments = ("reproduce", "alphabet/stateful", "--out", copy)
    assert_refused(charloom(*arguments), 1, "another run (mode quick, seed 0)", "--force")
    assert_refused(charloom(*arguments, "--quick", "--seed", 1), 1, "another run", "--force")
    other = ("reproduce", "--quick", "nietzsche/char3", "--out", copy)
    assert_refused(charloom(*other), 1, "another study, alphabet", "--force")
    assert (copy / "results.json").read_bytes() == before
    change(copy, version="0.0.1")
    assert_refused(charloom(*arguments, "--quick"), 1, "results of another charloom version", "--force")
    file = copy / "file"
    file.write_text("")
    assert_refused(charloom("reproduce", "--out", file), 1, "it is not a folder")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("studies", [], r"studies is \[\], expected an object"),
        ("run", 3, "run is 3, expected an object"),
        ("machine", None, "machine is None, expected an object"),
        ("machine.cores", "two", "machine.cores is 'two', expected an integer"),
        ("version", 5, "version is 5, expected a string"),
        ("studies.alphabet", 3, "studies.* 3, expected an object|studies.*not as expected"),
        ("studies.novels", {}, None),
        ("studies.alphabet.stateful", [], "expected an object"),
        ("studies.alphabet.rnn", "stateful", "studies.alphabet.rnn is not an experiment"),
        ("studies.alphabet.stateful.losses", [], "losses.*length >= 1"),
        ("studies.alphabet.stateful.losses", ["1"], r"losses\S* (is '1'|has a value)"),
        ("studies.alphabet.stateful.losses", ..., "losses is missing"),
        ("studies.alphabet.stateful.parameters", 1e300, "parameters"),
        ("studies.alphabet.stateful.published", {}, "studies.alphabet.stateful.published differs from"),
        ("studies.alphabet.stateful.samples", [{"kind": "text"}], "title is missing"),
        ("studies.alphabet.stateful.held_out_characters", 5, "held_out_losses is missing"),
        ("studies.alphabet.stateful.preview.texts", [], "differ in length"),
        ("studies.alphabet.stateful.variants", {"more": {}}, "summary is missing"),
    ],
)
def test_damaged_results_are_refused_with_the_field(copy, path, value, message):
    results = content = results_of(copy)
    *parents, name = path.split(".")
    for parent in parents:
        content = content[parent]
    if value is ...:
        del content[name]
    else:
        content[name] = content["stateful"] if value == "stateful" else value
    (copy / "results.json").write_text(json.dumps(results))
    before = (copy / "results.json").read_bytes()
    settings = ReproduceSettings(names=["alphabet/stateful"], out=copy, mode="quick")
    if message is None:
        message = "has results of another study, novels"
    with pytest.raises(OutputError, match=message) as caught:
        list(reproduce(settings))
    assert str(copy / "results.json") in str(caught.value)
    assert "--force to start again and keep that file" in str(caught.value)
    assert (copy / "results.json").read_bytes() == before


@pytest.mark.parametrize("content", [b'{"studies": ', b"[" * 10_000, b"", b"\xff", b"null"])
def test_foreign_content_is_refused_and_kept_with_force(copy, content):
    (copy / "results.json").write_bytes(content)
    settings = ReproduceSettings(names=["alphabet/stateful"], out=copy, mode="quick", force=True)
    with pytest.raises(OutputError, match=r"results\.json"):
        list(reproduce(replace(settings, force=False)))
    assert (copy / "results.json").read_bytes() == content
    list(reproduce(settings, should_stop=lambda: True))
    assert (copy / "results.previous.json").read_bytes() == content
    (copy / "results.json").write_bytes(content)
    list(reproduce(settings, should_stop=lambda: True))
    assert (copy / "results.previous1.json").read_bytes() == content


def test_a_named_pipe_as_results_is_refused_without_waiting(copy):
    (copy / "results.json").unlink()
    os.mkfifo(copy / "results.json")
    with pytest.raises(OutputError, match="it is not a regular file"):
        list(reproduce(ReproduceSettings(names=["alphabet/stateful"], out=copy, mode="quick")))


def test_results_of_another_version_are_refused(copy):
    change(copy, results_version=0)
    with pytest.raises(OutputError, match="results of another charloom version"):
        list(reproduce(ReproduceSettings(names=["alphabet/stateful"], out=copy, mode="quick")))


def test_force_reruns_the_named_experiment_and_keeps_the_others(charloom, copy):
    before = results_of(copy)["studies"]["alphabet"]
    done = charloom("reproduce", "--quick", "alphabet/stateful", "--out", copy, "--force")
    assert done.returncode == 0, done.stderr
    after = results_of(copy)["studies"]["alphabet"]
    assert after["three_to_one"] == before["three_to_one"]
    assert after["stateful"]["seconds_per_epoch"] != before["stateful"]["seconds_per_epoch"]
    assert after["stateful"]["losses"] == before["stateful"]["losses"]  # the same seed


def test_force_replaces_the_results_of_another_run(charloom, copy):
    change(copy, version="0.0.1")
    done = charloom("reproduce", "--quick", "alphabet/stateful", "--out", copy, "--force")
    assert done.returncode == 0, done.stderr
    assert list(results_of(copy)["studies"]["alphabet"]) == ["stateful"]
    assert results_of(copy)["version"] == __version__
    assert json.loads((copy / "results.previous.json").read_text())["version"] == "0.0.1"


def test_a_study_without_its_corpus_is_skipped(charloom, tmp_path):
    out = tmp_path / "out"
    experiments = ("nietzsche/char3", "nietzsche/char_loop", "alphabet/stateful")
    elsewhere = {**NO_NETWORK, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = charloom("reproduce", "--quick", *experiments, "--out", out, **elsewhere)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("charloom: not finished: nietzsche/char3, nietzsche/char_loop: cannot download nietzsche")
    assert "CHARLOOM_DATA" in last
    assert list(results_of(out)["studies"]) == ["alphabet"]
    assert (out / "report.html").exists()


def test_two_processes_cannot_use_one_folder(charloom, copy):
    with FileLock(copy / LOCK_FILE):
        done = charloom("reproduce", "--quick", "alphabet/stateful", "--out", copy)
    assert_refused(done, 1, "another charloom process is using")


def test_ctrl_c_stops_and_the_same_command_resumes(charloom, tmp_path, data_folder):
    arguments = ["reproduce", "--quick", "nietzsche/char_loop", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "charloom", *arguments], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stderr is not None
    lines = []
    while not any("epoch   1 of 3" in line for line in lines):
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to resume" in rest
    assert "Traceback" not in rest
    again = charloom(*arguments)
    assert again.returncode == 0, again.stderr
    assert "resuming after epoch" in again.stderr
    assert "epoch   1 of 3" not in again.stderr
    experiment = results_of(tmp_path)["studies"]["nietzsche"]["char_loop"]
    assert len(experiment["losses"]) == 3
    assert [sample["prompt"] for sample in experiment["samples"]] == ["for thos", "queens a"]
    assert experiment["parameters"] == 93_843


def test_help_names_the_studies(charloom):
    page = charloom("reproduce", "--help").stdout
    for study in STUDIES:
        assert study in page
