"""`charloom train --budget`, as a user runs it. No test measures how long it takes; see benchmarks/quality."""

import json
import re

import pytest

from charloom.model import load
from charloom.units import parse_seconds, shortest_seconds
from tests.cli.conftest import assert_refused, trained_in_time


@pytest.fixture(scope="module")
def budgeted(charloom, book, tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget")
    done, _ = trained_in_time(charloom, book, "--out", folder / "m.safetensors", "--batch-size", 4, seconds=20)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_two_lines_explain_the_picked_settings(budgeted):
    folder, done = budgeted
    picked, because = (line for line in done.stderr.splitlines() if line.startswith(("picked: ", "because: ")))
    hidden = load(folder / "m.safetensors").settings.hidden
    assert re.fullmatch(rf"picked: LSTM, 1 × {hidden} units, embedding \d+, 4 rows × .* dropout .*", picked)
    assert re.fullmatch(
        r"because: at about [\d,]+ characters per second, \d+ s of training are [\d.,]+ passes over 2,376 characters",
        because,
    )


def test_a_run_with_a_budget_is_repeated_byte_for_byte(charloom, book, budgeted):
    folder, done = budgeted
    model, again = folder / "m.safetensors", folder / "again.safetensors"
    assert f"To train it again: charloom train {book} --repeat {model} --out NEW.safetensors" in done.stderr
    done = charloom("train", book, "--repeat", model, "--out", again)
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == model.read_bytes()


def test_a_budget_that_is_too_short_is_refused_with_the_minimum(charloom, book, tmp_path):
    done = charloom("train", book, "--out", tmp_path / "m.safetensors", "--budget", "0.5s")
    assert_refused(done, 1, "a budget of 0.5s is too short for this text", "Give --budget ")
    assert not (tmp_path / "m.safetensors").exists()


def test_after_a_budget_that_was_too_short_the_folder_can_be_used_again(charloom, book, tmp_path):
    text = ("train", book, "--out", tmp_path / "m.safetensors", "--hidden", 16, "--run", tmp_path / "run")
    done = charloom(*text, "--budget", "0.5s")
    assert_refused(done, 1, "is too short")
    (least,) = re.findall(r"Give --budget (\S+) or more", done.stderr)
    done, _ = trained_in_time(charloom, *text[1:], seconds=parse_seconds(least))
    assert done.returncode == 0, done.stderr


def test_a_run_with_a_budget_is_resumed(charloom, book, tmp_path):
    text = (book, "--out", tmp_path / "m.safetensors", "--hidden", 16, "--run", tmp_path / "run")
    done, seconds = trained_in_time(charloom, *text, "--json", seconds=9)
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)["steps"]
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["training"]["budget"] == seconds
    assert run["settings"]["network"]["hidden"] == 16
    # The budget is spent, so the resumed run ends at once with the same model.
    before = (tmp_path / "m.safetensors").read_bytes()
    done = charloom("train", "--resume", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.safetensors").read_bytes() == before
    assert json.loads(done.stdout)["steps"] == steps
    other = charloom("train", "--resume", tmp_path / "run", "--budget", "7s")
    assert_refused(other, 1, f"--budget is {shortest_seconds(seconds)} there, 7s here")
