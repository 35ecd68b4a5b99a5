"""`charloom train --budget`, as a user runs it. How long it takes is no part of any test; see benchmarks/quality."""

import json
import os
import re
import shlex
from dataclasses import replace

import pytest

from charloom.cli.train import _command, _of, _unescaped, train
from charloom.model import load
from charloom.runs import RunSettings
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings
from charloom.units import parse_seconds, shortest_seconds
from tests.cli.conftest import assert_refused, trained_in_time


@pytest.fixture(scope="module")
def budgeted(charloom, book, tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget")
    done, _ = trained_in_time(charloom, book, "--out", folder / "m.safetensors", "--lanes", 4, seconds=20)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_two_lines_say_what_was_picked_and_why(budgeted):
    folder, done = budgeted
    picked, because = (line for line in done.stderr.splitlines() if line.startswith(("picked: ", "because: ")))
    hidden = load(folder / "m.safetensors").settings.hidden
    assert re.fullmatch(rf"picked: 1 × {hidden} lstm units, embedding \d+, 4 lanes × .* dropout .*", picked)
    assert re.fullmatch(r"because: about [\d,]+ characters a second here, .* times the 2,376 there are", because)


def test_the_same_again_is_the_same_file(charloom, budgeted):
    folder, done = budgeted
    (again,) = (line for line in done.stderr.splitlines() if line.startswith("The same again: "))
    words = shlex.split(again.removeprefix("The same again: "))
    assert words[:2] == ["charloom", "train"]
    assert "--budget" not in words
    words[words.index("--out") + 1] = str(folder / "again.safetensors")
    done = charloom(*words[1:])
    assert done.returncode == 0, done.stderr
    assert "The same again" not in done.stderr
    assert (folder / "again.safetensors").read_bytes() == (folder / "m.safetensors").read_bytes()


def test_a_budget_that_is_too_short_says_the_least_that_would_do(charloom, book, tmp_path):
    done = charloom("train", book, "--out", tmp_path / "m.safetensors", "--budget", "0.5s")
    assert_refused(done, 1, "a budget of 0.5s is too short for this text", "Give --budget ")
    assert not (tmp_path / "m.safetensors").exists()


def test_a_folder_of_a_budget_that_was_too_short_is_free_for_a_longer_one(charloom, book, tmp_path):
    text = ("train", book, "--out", tmp_path / "m.safetensors", "--hidden", 16, "--run", tmp_path / "run")
    done = charloom(*text, "--budget", "0.5s")
    assert_refused(done, 1, "is too short")
    (least,) = re.findall(r"Give --budget (\S+) or more", done.stderr)
    done, _ = trained_in_time(charloom, *text[1:], seconds=parse_seconds(least))
    assert done.returncode == 0, done.stderr


def test_a_budget_is_gone_on_with(charloom, book, tmp_path):
    text = (book, "--out", tmp_path / "m.safetensors", "--hidden", 16, "--run", tmp_path / "run")
    done, seconds = trained_in_time(charloom, *text, "--json", seconds=9)
    assert done.returncode == 0, done.stderr
    updates = json.loads(done.stdout)["updates"]
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["training"]["budget"] == seconds
    assert run["settings"]["network"]["hidden"] == 16
    # All is spent: what is gone on with ends at once, with the model that there was.
    before = (tmp_path / "m.safetensors").read_bytes()
    done = charloom("train", "--resume", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.safetensors").read_bytes() == before
    assert json.loads(done.stdout)["updates"] == updates
    other = charloom("train", "--resume", tmp_path / "run", "--budget", "7s")
    assert_refused(other, 1, f"--budget is {shortest_seconds(seconds)} there, 7s here")


def test_a_pace_is_followed(charloom, book, tmp_path):
    files = []
    for index, pace in enumerate((["--pace", "0:60,10:30"], ["--pace", "0:60,10:30"], [])):
        out = tmp_path / f"{index}.safetensors"
        done = charloom("train", book, "--out", out, "--hidden", 16, "--updates", 30, *pace)
        assert done.returncode == 0, done.stderr
        files.append(out.read_bytes())
    assert load(tmp_path / "0.safetensors").training["pace"] == [[0, 60], [10, 30]]
    assert files[0] == files[1] != files[2]


@pytest.mark.parametrize(
    "words",
    [
        ["book.txt", "notes and more", "--hidden", "77", "--dropout", "0.1234567890123", "--seed", "5"],
        ["--records", "--validation", "1000", "--", "-names.txt"],
        ["names.txt", "--delimiter", "\\r\\n\\t;", "--min-count", "3", "--lowercase"],
        ["names.txt", "--threads", "2"],
        ["book.txt", "--schedule", "constant", "--warmup-ratio", "0", "--clip-norm", "0.25"],
        ["book.txt", "--state-reset-probability", "0.5"],
        ["pictures", "--bytes", "--patience", "4", "--learning-rate", "1e-05", "--weight-drop", "0.3"],
        ["-", "--encoding", "cp1252", "--cell", "gru", "--layers", "2", "--embedding", "9", "--weight-decay", "0"],
    ],
)
def test_the_command_that_is_printed_says_all_that_was_said(words):
    def settings_of(words):
        context = train.make_context("train", list(words))
        values = context.params
        delimiter = values["delimiter"] and _unescaped(values["delimiter"])
        text = TextSettings(
            units="bytes" if values["as_bytes"] else "chars",
            lowercase=values["lowercase"],
            encoding=values["encoding"],
            delimiter=delimiter or ("\n" if values["records"] else None),
            min_count=values["min_count"],
        )
        network, training = (kind(**_of(kind, values)) for kind in (NetworkSettings, TrainingSettings))
        settings = RunSettings(
            sources=values["sources"], out=values["out"], text=text, network=network, training=training
        )
        return context, settings

    context, settings = settings_of(["--out", "m.safetensors", *words])
    repeating = replace(settings, training=replace(settings.training, updates=30, pace=((0, 60), (10, 30))))
    printed = shlex.split(_command(context, repeating))
    assert printed[:2] == ["charloom", "train"]
    again, settings = settings_of(printed[2:])
    # A name that begins with - is printed with its folder.
    assert [os.path.normpath(source) for source in settings.sources] == list(repeating.sources)
    assert replace(settings, sources=repeating.sources) == repeating
    assert again.params["threads"] == context.params["threads"]
