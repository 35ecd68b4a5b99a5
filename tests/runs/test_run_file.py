"""`run.json`: damaged, changed, moved, or for another text."""

import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest

import charloom as cl
from charloom.cli.run import run as charloom
from charloom.errors import RunFolderError, SourceError
from charloom.runs import RunSettings, settings_of_run
from charloom.runs.run_file import TextIdentity, as_json, read_run, run_digest, run_file
from charloom.settings import TextSettings, TrainingSettings

TEXT = "a man a plan a canal panama\n" * 30
QUICK = {"hidden": 8, "embedding": 4, "batch_size": 4, "sequence_length": 16}
IDENTITY = {"name": "book.txt", "sha256": "ab" * 32, "characters": 840}


@pytest.fixture
def folder(tmp_path):
    """A folder with a run file, without any training."""
    (tmp_path / "run").mkdir()
    settings = RunSettings(sources=(tmp_path / "book.txt",), out=tmp_path / "m.safetensors")
    (tmp_path / "run" / "run.json").write_bytes(as_json(run_file(tmp_path / "run", settings, IDENTITY, {"jax": "0.1"})))
    return tmp_path / "run"


def changed(folder, path, value):
    """Sets the field at `path`, or removes it if `value` is ...; the digest does not change."""
    content = run = json.loads((folder / "run.json").read_text())
    *parents, name = path.split(".")
    for parent in parents:
        content = content[parent]
    if value is ...:
        del content[name]
    else:
        content[name] = value
    (folder / "run.json").write_text(json.dumps(run))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("trained_on", ..., "trained_on is missing"),
        ("trained_on", None, "trained_on is None, expected an object"),
        ("trained_on", [], r"trained_on is \[\], expected an object"),
        ("trained_on", "text", "trained_on is 'text', expected an object"),
        ("trained_on.characters", "many", "trained_on.characters is 'many', expected an integer"),
        ("trained_on.characters", -1, "trained_on.characters is -1, expected an integer >= 1"),
        ("trained_on.sha256", "ab", "trained_on.sha256 is 'ab'"),
        ("trained_on.more", 1, "trained_on.more is not a field"),
        ("machine", 5, "machine is 5, expected an object"),
        ("machine", {"processor": [1]}, r"machine\S* is \[1\]|machine\S* has a value"),
        ("settings", [], r"settings is \[\], expected an object"),
        ("settings.sources", 5, "settings.sources is 5, expected a list"),
        ("settings.sources", "book.txt", "settings.sources is 'book.txt', expected a list"),
        ("settings.sources", [], r"settings.sources is \[\]"),
        ("settings.sources", [3], r"settings.sources\[0\] is 3, expected a string"),
        ("settings.sources", ["a\0b"], r"settings.sources\[0\] is 'a\\x00b'"),
        ("settings.out", 1, "settings.out is 1, expected a string or null"),
        ("settings.training.step_plan", 7, "settings.training.step_plan is 7, expected a list"),
        ("settings.training.batch_size", 0, "batch_size must be a whole number from 1"),
        ("settings.training.seed", "1", "settings.training.seed is '1', expected an integer"),
        ("settings.text.encoding", "none", "encoding must be a text encoding, .* got 'none'"),
        ("settings.network.cell", "rnn", "settings.network.cell is 'rnn'"),
        ("settings.network.more", 1, "settings.network.more is not a field"),
        ("version", ["1"], r"version is \['1'\], expected a string"),
        ("digest", "1", "digest is '1'"),
        # Each value is valid, but is not the one with which this run started.
        ("settings.training.seed", 1, "was changed after it was written"),
        ("settings.training.validation", 0.2, "was changed after it was written"),
        ("settings.text.delimiter", "\n", "was changed after it was written"),
        ("trained_on.sha256", "cd" * 32, "was changed after it was written"),
        ("digest", "ab" * 32, "was changed after it was written"),
    ],
)
def test_wrong_values_are_refused_with_the_field(folder, path, value, message):
    changed(folder, path, value)
    with pytest.raises(RunFolderError, match=message) as caught:
        settings_of_run(folder)
    assert str(folder / "run.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a": ' * 100_000, b"7" * 9_999]
)
def test_other_content_is_refused_with_one_line(folder, content):
    (folder / "run.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"run\.json") as caught:
        settings_of_run(folder)
    assert len(str(caught.value)) < 500


def test_other_kinds_of_run_files_are_refused_without_waiting(folder):
    (folder / "run.json").unlink()
    os.mkfifo(folder / "run.json")
    with pytest.raises(RunFolderError, match="it is not a regular file"):
        settings_of_run(folder)
    (folder / "run.json").unlink()
    (folder / "run.json").mkdir()
    with pytest.raises(RunFolderError, match=r"cannot read .*run\.json"):
        settings_of_run(folder)
    (folder / "run.json").rmdir()
    (folder / "run.json").write_bytes(b" " * (2 << 20))
    with pytest.raises(RunFolderError, match="more than the maximum of 1,048,576"):
        settings_of_run(folder)


def test_checkpoints_without_their_run_file_are_reported(folder):
    (folder / "run.json").unlink()
    with pytest.raises(RunFolderError, match="does not hold a run to resume"):
        settings_of_run(folder)
    (folder / "checkpoint-000003.safetensors").touch()
    with pytest.raises(RunFolderError, match=r"has checkpoints, but the file run\.json is missing"):
        settings_of_run(folder)


def test_the_digest_covers_what_changes_the_result():
    text = msgspec.convert(IDENTITY, TextIdentity)
    settings = RunSettings(sources=("a",), training=TrainingSettings(learning_rate=1, steps=5))
    digest = run_digest(settings, text)
    same = RunSettings(sources=("b",), out=Path("m"), training=TrainingSettings(learning_rate=1.0, steps=5))
    assert run_digest(same, text) == digest
    others = [
        run_digest(RunSettings(sources=("a",), training=TrainingSettings(learning_rate=1, steps=5, seed=1)), text),
        run_digest(RunSettings(sources=("a",), text=TextSettings(lowercase=True), training=settings.training), text),
        run_digest(settings, msgspec.structs.replace(text, sha256="cd" * 32)),
    ]
    assert len({digest, *others}) == 4


@pytest.mark.parametrize("name", ["book.txt", "100%.txt", "%41.txt", "ä%FF日.txt", os.fsdecode(b"caf\xe9.txt"), "-"])
def test_source_names_survive_writing_and_reading(tmp_path, name):
    folder = tmp_path / "deep" / "run"
    folder.mkdir(parents=True)
    source = name if name == "-" else str(tmp_path / name)
    settings = RunSettings(sources=(source, "nietzsche"))
    (folder / "run.json").write_bytes(as_json(run_file(folder, settings, IDENTITY, {})))
    stored = read_run(folder).settings.sources
    assert name == "-" or stored[0].startswith("../../")
    assert settings_of_run(folder).sources == (source, "nietzsche")


def test_a_text_that_shares_only_the_root_keeps_its_absolute_path(tmp_path):
    settings = RunSettings(sources=("/nowhere/else/book.txt",))
    run = run_file(tmp_path, settings, IDENTITY, {})
    assert run.settings.sources == ["/nowhere/else/book.txt"]


@pytest.fixture
def started(tmp_path):
    """A run of a few steps in `home/run`, next to its text and its model."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "book.txt").write_text(TEXT)
    home = tmp_path / "home"
    cl.train(home / "book.txt", out=home / "m.safetensors", run=home / "run", steps=4, **QUICK)
    return home


def test_a_run_moves_with_its_text(started, tmp_path):
    wanted = (started / "m.safetensors").read_bytes()
    moved = tmp_path / "moved"
    started.rename(moved)
    (moved / "m.safetensors").unlink()
    cl.resume(moved / "run")
    assert (moved / "m.safetensors").read_bytes() == wanted
    assert not started.exists()


def test_a_copied_run_writes_the_model_of_the_copy(started, tmp_path):
    shutil.copytree(started, tmp_path / "copy")
    (tmp_path / "copy" / "m.safetensors").unlink()
    (started / "m.safetensors").unlink()
    cl.resume(tmp_path / "copy" / "run")
    assert (tmp_path / "copy" / "m.safetensors").exists()
    assert not (started / "m.safetensors").exists()


def test_a_run_that_moves_without_its_text_finds_it_where_it_was(started, tmp_path):
    (started / "run").rename(tmp_path / "run")
    cl.resume(tmp_path / "run")
    assert (tmp_path / "m.safetensors").read_bytes() == (started / "m.safetensors").read_bytes()
    # Also if the folder is reached through a link.
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert settings_of_run(tmp_path / "link").sources == (str(started / "book.txt"),)


def test_a_moved_text_can_be_given_again_and_is_remembered(started, tmp_path, capsys):
    wanted = (started / "m.safetensors").read_bytes()
    (started / "book.txt").rename(tmp_path / "elsewhere.txt")
    with pytest.raises(SourceError, match=r"has moved: charloom train --resume .*run TEXT"):
        cl.resume(started / "run")
    out = tmp_path / "new.safetensors"
    assert (
        charloom(["train", "--resume", str(started / "run"), str(tmp_path / "elsewhere.txt"), "--out", str(out)]) == 0
    )
    assert out.read_bytes() == wanted  # the text also has its first name
    out.unlink()
    cl.resume(started / "run")
    assert out.read_bytes() == wanted
    (tmp_path / "other.txt").write_text(TEXT[1:])
    with pytest.raises(RunFolderError, match=r"SHA-256 .*SHA-256 .* --resume .* TEXT"):
        cl.resume(started / "run", sources=[tmp_path / "other.txt"])
    assert settings_of_run(started / "run").sources == (str(tmp_path / "elsewhere.txt"),)


def test_a_whole_number_as_a_rate_gives_the_same_file_when_resumed(started, tmp_path):
    out = tmp_path / "m.safetensors"
    options = {"learning_rate": 1, "epochs": 1, "validation": 50, "dropout": 0, **QUICK}
    cl.train(started / "book.txt", out=out, run=tmp_path / "run", **options)
    wanted = out.read_bytes()
    cl.resume(tmp_path / "run")
    assert out.read_bytes() == wanted
