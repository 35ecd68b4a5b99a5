"""The output policy: its table of cases, and cases that need their own tests."""

import os
import shlex
import subprocess
import sys
from importlib.resources import files

import pytest

import charloom as cl
from charloom.artifacts import InputFiles, Output, OutputKind, lock_folder, remove_own, write_bytes
from charloom.cli.run import run
from charloom.errors import OutputError, SettingError
from charloom.model import MODEL
from charloom.printable import shell_path
from charloom.reports import PAGE
from charloom.runs import RunSettings, run_training
from charloom.runs.run_file import settings_of_run
from charloom.runs.run_folder import RunFolder
from charloom.settings import NetworkSettings, TrainingSettings
from charloom.training import Notice, Progress, follow
from tests.output_policy import CASES, CONTENTS, OWN, TEXT, model, play

TINY = {"hidden": 4, "embedding": 2, "batch_size": 1, "sequence_length": 8}
OPTIONS = [str(word) for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", value)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_table(case, tmp_path):
    assert play(case, tmp_path) == (case.result, [])


def test_the_cases_detect_a_policy_that_loses_files(tmp_path, monkeypatch):
    monkeypatch.setattr(Output, "_taken", lambda self, path: None)
    monkeypatch.setattr(Output, "_keep_earlier", lambda self, sha256: None)
    foreign = [one for one in CASES if one.writes == "a model" and one.existing in CONTENTS and one.result != "written"]
    for number, case in enumerate(foreign):
        (tmp_path / str(number)).mkdir()
        _, lost = play(case, tmp_path / str(number))
        assert lost or case.existing in OWN, case


def test_every_page_is_recognized_by_its_beginning(tmp_path):
    templates = [one for one in files("charloom.reports").joinpath("templates").iterdir() if ".html" in one.name]
    assert len(templates) == 3
    for template in templates:
        text = template.read_text()
        (tmp_path / "page.html").write_text(text[text.index("<!doctype html>") :])
        assert PAGE.is_own(tmp_path / "page.html"), template.name


def test_names_that_differ_only_in_case_are_equal_if_the_system_ignores_case(tmp_path, monkeypatch):
    (tmp_path / "book.html").write_text(TEXT)
    assert not InputFiles([tmp_path / "book.html"]).has(tmp_path / "BOOK.HTML")
    monkeypatch.setattr("os.path.normcase", str.lower)
    assert InputFiles([tmp_path / "book.html"]).has(tmp_path / "BOOK.HTML")


def test_earlier_models_are_numbered_and_identical_models_are_kept_once(tmp_path):
    path = tmp_path / "m.safetensors"
    model(1).save(path)
    for seed in (2, 3):
        output = Output(path, MODEL)
        output.write(model(8).to_bytes())  # an intermediate model of the same run
        output.write(model(seed).to_bytes())
        assert output.finish() == output.kept
    assert (tmp_path / "m.previous.safetensors").read_bytes() == model(1).to_bytes()
    assert (tmp_path / "m.previous-2.safetensors").read_bytes() == model(2).to_bytes()
    output = Output(path, MODEL)
    output.write(model(8).to_bytes())
    assert (tmp_path / "m.previous-3.safetensors").read_bytes() == model(3).to_bytes()
    output.write(model(3).to_bytes())
    assert output.finish() is None
    assert len(list(tmp_path.iterdir())) == 3


def test_an_earlier_model_is_kept_without_hard_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    model(1).save(tmp_path / "m.safetensors")
    model(2).save(tmp_path / "m.safetensors")
    assert (tmp_path / "m.previous.safetensors").read_bytes() == model(1).to_bytes()


@pytest.mark.parametrize("name", ["x" * 300, "x" * 236 + ".safetensors"])
def test_a_name_that_is_too_long_is_refused_early(tmp_path, name):
    if len(name) < 255:
        write_bytes(tmp_path / name, model(1).to_bytes())  # the name for an earlier model would be too long
    with pytest.raises(OutputError, match="File name too long"):
        Output(tmp_path / name, MODEL)
    Output(tmp_path / ("x" * 255), MODEL).write(b"a temporary file's name is no longer than its own")


def test_the_umask_is_obeyed_and_never_read(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setattr("os.umask", None)
        write_bytes(tmp_path / "new", b"x")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


def test_a_read_only_file_is_not_replaced(tmp_path, monkeypatch):
    model(1).save(tmp_path / "m.safetensors")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # as for any user except root
    with pytest.raises(OutputError, match="it is read-only"):
        model(2).save(tmp_path / "m.safetensors")


def test_a_file_that_appears_during_a_run_is_kept_and_so_is_the_model(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    out = tmp_path / "m.safetensors"
    settings = RunSettings(
        sources=(tmp_path / "book.txt",),
        out=out,
        network=NetworkSettings(hidden=4, embedding=2),
        training=TrainingSettings(batch_size=1, sequence_length=8, steps=20),
    )
    notices = []

    def on_event(event):
        if isinstance(event, Progress) and not out.exists():
            out.write_bytes(CONTENTS["another's safetensors"])
        if isinstance(event, Notice):
            notices.append(event.text)

    result = follow(run_training(settings), on_event)
    assert out.read_bytes() == CONTENTS["another's safetensors"]
    assert result.out == tmp_path / "m.model.safetensors"
    assert cl.load(result.out).training["steps"] == 20
    assert any("charloom writes the model to" in notice for notice in notices)


def test_a_resumed_run_replaces_its_own_model_and_keeps_another(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    out, folder = tmp_path / "m.safetensors", tmp_path / "run"
    settings = RunSettings(
        sources=(tmp_path / "book.txt",),
        out=out,
        network=NetworkSettings(hidden=4, embedding=2),
        training=TrainingSettings(batch_size=1, sequence_length=8, steps=400),
        folder=folder,
    )
    events = []
    follow(run_training(settings, lambda: sum(isinstance(one, Progress) for one in events) >= 1), events.append)
    stopped = out.read_bytes()
    follow(run_training(settings_of_run(folder)), lambda event: None)
    finished = out.read_bytes()
    assert finished != stopped
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book.txt", "m.safetensors", "run"]
    out.write_bytes(CONTENTS["a model"])
    follow(run_training(settings_of_run(folder)), events.append)
    assert (out.read_bytes(), (tmp_path / "m.previous.safetensors").read_bytes()) == (finished, CONTENTS["a model"])
    assert any(isinstance(one, Notice) and "m.previous.safetensors" in one.text for one in events)


def test_a_run_folder_keeps_foreign_files(tmp_path):
    own = f".charloom-run-{'a' * 32}.tmp"
    foreign = [".notes.tmp", ".m.safetensors.x.tmp", ".charloom-run-me.tmp", f".charloom-file-{'a' * 32}.tmp"]
    for name in (own, *foreign):
        (tmp_path / name).write_text("precious")
    with RunFolder.opened(tmp_path, fresh=True) as folder:
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".charloom.lock", *foreign])
        folder.keep_standard_input(b"a text")
        folder.keep_standard_input(b"a text")  # a run that did not start can be started again
        with pytest.raises(OutputError, match="another file has this name"):
            folder.keep_standard_input(b"another")
        with pytest.raises(OutputError, match="another charloom process is using"):
            RunFolder.opened(tmp_path, fresh=True).__enter__()
    with pytest.raises(OutputError, match="the run folder uses this name"):
        cl.train(__file__, out=tmp_path / "run.json", run=tmp_path, steps=1, **TINY)


def test_a_file_with_the_name_of_the_lock_is_not_emptied(tmp_path):
    (tmp_path / ".charloom.lock").write_text("precious")
    with pytest.raises(OutputError, match="is not a lock file of charloom"), lock_folder(tmp_path):
        pass
    assert (tmp_path / ".charloom.lock").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "x", "--out", "a\0b"], "--out must be a path, got 'a\\x00b', which has a null byte"),
        (["train", "x", "--out", "a\ud800"], "--out must be a path, got 'a\\ud800': no file name can have U+D800"),
        (["train", "x", "--out", "models/"], "--out must be a file, got a folder's name, 'models/'"),
        (["train", "x", "--out", ""], "--out must be a path, got an empty string"),
        (["train", "x", "--run", "a\0b"], "--run must be a path"),
        (["train", "--resume", "a\ud800"], "--resume must be a path"),
        (["train", "x", "--cache", "a\0b"], "--cache must be a path"),
        (["train", "a\0b"], "argument sources must be a path"),
        (["report", "m", "--out", "a\0b"], "--out must be a path"),
        (["report", "a\0b"], "argument model must be a path"),
        (["score", "m", "--html", "a\ud800"], "--html must be a path"),
        (["score", "m", "a\0b"], "argument files must be a path"),
        (["generate", "m", "--novel", "a\0b"], "--novel must be a path"),
        (["reproduce", "--out", "a\0b"], "--out must be a path"),
    ],
)
def test_an_impossible_path_is_refused_in_one_line(capsys, arguments, words):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"charloom: {words}")
    assert len(err.splitlines()) == 1


def test_an_impossible_path_is_refused_in_python(tmp_path):
    for wrong in ("a\0b", "a\ud800"):
        for call in (cl.load, cl.resume, model().save, lambda path: cl.train("x", out=path), cl.train):
            with pytest.raises(SettingError, match="must be a path"):
                call(wrong)


NAMES = [
    "-x.txt",
    "a b'c\".txt",
    "red\x1b[31m\nline.txt",
    "t\u202exe.txt",
    os.fsdecode(b"caf\xe9.txt"),
    "$(id)`id`.txt",
]


@pytest.mark.parametrize("name", NAMES)
def test_printed_names_round_trip_through_a_shell(name):
    word = shell_path(name)
    assert word.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, timeout=20)
    assert done.stdout == os.fsencode(name if not name.startswith("-") else f"./{name}")


def charloom(*arguments, cwd, **options):
    command = [sys.executable, "-m", "charloom", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, **options)


def test_printed_commands_work_when_pasted(tmp_path):
    name = "-x\x1b.txt"
    (tmp_path / name).write_text(TEXT)
    done = charloom("train", *OPTIONS, "--budget", "60s", "--patience", "1", "--run", "-r", "--", name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (again,) = [line.partition(": ")[2] for line in done.stderr.splitlines() if line.startswith("To train it again: ")]
    (following,) = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("Next: ")]
    whole = (tmp_path / name.replace(".txt", ".safetensors")).read_bytes()
    for command in (again, following, f"charloom train --resume {shell_path('-r')}"):
        words = command.replace("charloom", f"{shlex.quote(sys.executable)} -m charloom", 1)
        pasted = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert pasted.returncode == 0, pasted.stderr
    for made in (name.replace(".txt", ".safetensors"), "NEW.safetensors"):
        assert (tmp_path / made).read_bytes() == whole
    assert not list(tmp_path.glob("*previous*"))  # the model was the same each time


def test_a_report_does_not_replace_a_text_that_is_a_page(tmp_path):
    (tmp_path / "book.html").write_text(TEXT)
    for _ in range(2):
        done = charloom("train", "book.html", "--report", "--steps", "1", *OPTIONS, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "book.report.html: report written" in done.stderr
    names = ["book.html", "book.report.html", "book.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "book.html").read_text() == TEXT
    done = charloom("train", "book.html", "--seed", "1", "--steps", "1", *OPTIONS, cwd=tmp_path)
    assert "charloom kept the earlier model as book.previous.safetensors" in done.stderr
    done = charloom("train", "book.html", "--seed", "2", "--force", "--steps", "1", *OPTIONS, cwd=tmp_path)
    assert "previous" not in done.stderr
    assert len(list(tmp_path.glob("*previous*"))) == 1


def test_standard_input_from_a_file_is_not_replaced(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(CONTENTS["a model"])
    with open(tmp_path / "m.safetensors", "rb") as source:
        done = charloom("train", "-", "--out", "m.safetensors", "--bytes", *OPTIONS, cwd=tmp_path, stdin=source)
    assert done.returncode == 1
    assert "cannot write m.safetensors: it is one of the files to read" in done.stderr
    assert (tmp_path / "m.safetensors").read_bytes() == CONTENTS["a model"]


def test_a_file_that_another_process_removes_first_is_no_error(tmp_path):
    def removed_meanwhile(path):
        path.unlink()
        return True

    (tmp_path / "x").write_bytes(b"x")
    remove_own(tmp_path / "x", OutputKind("thing", "thing", "thing", removed_meanwhile))
    remove_own(tmp_path / "x", OutputKind("thing", "thing", "thing", removed_meanwhile))


def test_only_regular_files_are_checked_for_their_kind(tmp_path):
    def never(path):
        raise AssertionError(path)

    kind = OutputKind("thing", "thing", "thing", never)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="it is not a regular file"):
        Output(tmp_path / "pipe", kind)
    with pytest.raises(OutputError, match="it is a folder"):
        Output(tmp_path, kind)


def test_two_commands_that_write_the_same_path_lose_no_model(tmp_path):
    path = tmp_path / "m.safetensors"
    first, second = Output(path, MODEL), Output(path, MODEL)
    first.write(model(1).to_bytes())
    second.write(model(2).to_bytes())  # the file could be from a command that ended long ago
    for seed in range(3, 6):
        second.write(model(seed).to_bytes())
        with pytest.raises(OutputError, match=r"another command has written its model there .* Give another name\.$"):
            first.write(model(6).to_bytes())
    assert first.is_taken
    assert not second.is_taken
    first.fallback().write(model(7).to_bytes())
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {
        "m.safetensors": model(5).to_bytes(),
        "m.previous.safetensors": model(1).to_bytes(),
        f"m.{MODEL.fallback_word}.safetensors": model(7).to_bytes(),
    }


def test_force_does_not_replace_the_model_of_a_concurrent_command(tmp_path):
    path = tmp_path / "m.safetensors"
    output = Output(path, MODEL, force=True)
    output.write(model(1).to_bytes())
    other = Output(path, MODEL, force=True)
    other.write(model(2).to_bytes())
    with pytest.raises(OutputError, match="another command"):
        output.write(model(3).to_bytes())
    assert path.read_bytes() == model(2).to_bytes()


def test_a_model_that_appears_after_the_check_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    output = Output(path, MODEL)
    output.write(model(1).to_bytes())
    path.write_bytes(model(2).to_bytes())
    monkeypatch.setattr(Output, "_taken", lambda self, path: None)  # as if the file had appeared after the check
    with pytest.raises(OutputError, match="another command"):
        output.write(model(3).to_bytes())
    assert [one.name for one in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_link_into_a_missing_folder_names_that_folder(tmp_path):
    (tmp_path / "m.safetensors").symlink_to(tmp_path / "missing" / "m.safetensors")
    with pytest.raises(OutputError, match=r"missing is not a folder\. Create it first"):
        Output(tmp_path / "m.safetensors", MODEL)
