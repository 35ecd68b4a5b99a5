"""What commands print, on which stream, and what happens if nothing reads it."""

import os
import re
import subprocess
import sys

import pytest

from charloom.cli.run import run
from charloom.model import load
from tests.cli.conftest import QUICK, TEXT, assert_refused

ESCAPE = "\x1b[31mred\u202e"
SHOWN = "\\x1b[31mred\\u202e"


def shell(command, cwd, **streams):
    command = command.replace("charloom", f"{sys.executable} -m charloom", 1)
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_a_closed_standard_error_does_not_stop_training(tmp_path):
    """As in `charloom train book.txt 2>&1 | head -1`."""
    (tmp_path / "book.txt").write_text(TEXT)
    quick = " ".join(QUICK)
    done = shell(f"(charloom train book.txt {quick} --steps 300 --run r; echo $? > status) 2>&1 | head -1", tmp_path)
    assert done.stdout.count("\n") == 1
    assert (tmp_path / "status").read_text() == "0\n"
    assert load(tmp_path / "book.safetensors").training["steps"] == 300
    assert (tmp_path / "r" / "checkpoint-000001.safetensors").exists()


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("charloom generate {model} --prompt 'the ' --length 40 2> >(exit)", "the "),
        ("charloom generate {model} --prompt 'the ' --length 40 2>&-", "the "),
        ("charloom score {model} {book} --prompt X --unknown skip 2>/dev/full", "{book}: "),
    ],
)
def test_results_are_printed_even_without_standard_error(model_file, book, tmp_path, command, printed):
    done = shell(command.format(model=model_file, book=book), tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(printed.format(book=book))
    assert len(done.stdout) >= len("the ") + 40


@pytest.mark.parametrize("command", ["charloom corpora", "charloom generate {model} --seed 1"])
def test_results_that_cannot_be_printed_are_an_error(model_file, tmp_path, command):
    command = command.format(model=model_file)
    assert_refused(shell(f"{command} >&-", tmp_path), 1, "standard output is closed")
    problem = "cannot write to standard output: No space left on device. Redirect it to another file."
    assert_refused(shell(f"{command} >/dev/full", tmp_path), 1, problem)


def test_an_unreadable_standard_input_is_reported(model_file, tmp_path):
    done = shell(f"charloom score {model_file} --per line 0>other", tmp_path)
    assert_refused(done, 1, "cannot read standard input: Bad file descriptor.")
    assert_refused(shell("charloom train - 0>other", tmp_path), 1, "cannot read standard input: ")


def test_files_do_not_get_the_numbers_of_closed_streams(book, tmp_path):
    done = shell(f"charloom train {book} {' '.join(QUICK)} --steps 2 --out m.safetensors <&- >&- 2>&-", tmp_path)
    assert done.returncode == 0  # the model is the result
    assert load(tmp_path / "m.safetensors").training["steps"] == 2
    done = shell(f"charloom train {book} {' '.join(QUICK)} --steps 2 --out m.safetensors --json >&-", tmp_path)
    assert_refused(done, 1, "standard output is closed")


def test_names_from_outside_are_escaped(capsys, model_file, tmp_path):
    name = f"{ESCAPE}\nforged"
    folder = tmp_path / name
    folder.mkdir()
    (folder / f"{ESCAPE}.bin").write_bytes(b"\0binary")
    (folder / "book.txt").write_text(TEXT)
    (folder / "m.safetensors").write_bytes(model_file.read_bytes())
    commands = [
        ("train", ESCAPE),
        (
            "train",
            folder,
            *QUICK,
            "--steps",
            2,
            "--out",
            folder / "new.safetensors",
            "--run",
            folder.parent / f"run{name}",
        ),
        ("generate", tmp_path / name),
        ("generate", folder / "m.safetensors", "--novel", folder / "book.txt", "--count", 1),
        ("score", folder / "m.safetensors", folder / "book.txt"),
        ("score", folder / "m.safetensors", folder / "book.txt", "--per", "file"),
        ("score", folder / "m.safetensors", folder / "book.txt", folder / "book.txt", "--per", "line", "--top", 1),
        ("classify", folder / "m.safetensors", model_file, "--text", folder / "book.txt"),
        ("report", folder / "m.safetensors", "--out", folder / "page.html"),
        ("show", folder / "m.safetensors", model_file),
        ("corpora", ESCAPE),
        ("serve", ESCAPE),
        ("reproduce", ESCAPE),
        (ESCAPE,),
        ("show", f"--{ESCAPE}"),
    ]
    errors = ""
    for arguments in commands:
        run(list(map(str, arguments)))
        out, err = capsys.readouterr()
        errors += err
        printed = out + err
        assert "\x1b" not in printed, arguments
        assert "\u202e" not in printed, arguments
        assert not re.search("^forged", printed, re.MULTILINE), arguments
        assert "Traceback" not in printed, arguments
    assert f"{SHOWN}.bin" in errors  # left out as binary


def on_terminal(*arguments):
    """Returns what a command prints on a terminal."""
    pty = pytest.importorskip("pty")
    master, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "charloom", *map(str, arguments)], stdout=terminal, stderr=terminal, stdin=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(master, 4096):
                shown += data
        except OSError:  # the end of a terminal on Linux
            pass
        assert process.wait(60) == 0
    os.close(master)
    return shown.decode().replace("\r\n", "\n")


def test_generated_text_cannot_control_a_terminal(charloom, tmp_path):
    text = tmp_path / "steering.txt"
    text.write_text("\x1b[2J\x9b\ta\n" * 400)
    model = tmp_path / "m.safetensors"
    trained = on_terminal("train", text, *QUICK, "--steps", 300, "--learning-rate", 0.02, "--out", model)
    assert "\x1b[2J" not in trained
    assert "\x9b" not in trained
    arguments = ("generate", model, "--prompt", "\x1b[2J", "--seed", 1, "--length", 200, "--temperature", 0)
    piped = charloom(*arguments).stdout
    assert piped.startswith("\x1b[2J")  # unchanged in a pipe
    assert piped.count("\x9b") > 3
    shown = on_terminal(*arguments)
    assert "\x1b" not in shown
    assert shown == piped.replace("\x1b", "\\x1b").replace("\x9b", "\\x9b")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of the address space are Linux's")
def test_too_little_address_space_is_reported_in_one_line(model_file, tmp_path):
    done = shell(f"ulimit -v 300000; charloom generate {model_file}", tmp_path)
    assert_refused(done, 1, "cannot load a library: ")
    assert "ulimit -v sets a limit, raise it" in done.stderr
