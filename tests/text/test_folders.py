"""Files in folders, and files that match patterns."""

import os
import subprocess
import sys

import pytest

from charloom.errors import SourceError
from charloom.settings import TextSettings
from charloom.text import read_corpus
from charloom.text.folders import SkippedFiles, files_in, files_like

FILES = ("a.txt", "b.md", "sub/c.txt", "sub/deep/d.txt", "sub/.hidden/e.txt", ".f.txt")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.txt", ["a.txt"]),
        ("**/*.txt", ["a.txt", "sub/c.txt", "sub/deep/d.txt"]),
        ("./**/*.txt", ["a.txt", "sub/c.txt", "sub/deep/d.txt"]),
        ("sub/**/*.txt", ["sub/c.txt", "sub/deep/d.txt"]),
        ("s*/**/d.*", ["sub/deep/d.txt"]),
        ("**", ["a.txt", "b.md", "sub/c.txt", "sub/deep/d.txt"]),
        ("**/deep/**/*.txt", ["sub/deep/d.txt"]),
        ("*/?.txt", ["sub/c.txt"]),
        ("none/**/*.txt", []),
        ("[x]*", []),
    ],
)
def test_patterns(folder, pattern, found):
    skipped = SkippedFiles()
    assert files_like(pattern, skipped) == found
    absolute = files_like(os.path.join(folder, pattern), skipped)
    assert list(map(os.path.normpath, absolute)) == [str(folder / name) for name in found]
    assert skipped == SkippedFiles()


def test_circular_links_are_not_followed(folder):
    for name in ("x", "y", "sub/z"):
        (folder / name).symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    skipped = SkippedFiles()
    assert files_like("**/*.txt", skipped) == ["a.txt", "sub/c.txt", "sub/deep/d.txt"]
    assert sorted(files_in(".", skipped)) == ["./a.txt", "./b.md", "./sub/c.txt", "./sub/deep/d.txt"]
    assert skipped == SkippedFiles(["./x", "./y", "./sub/z"], ["./self"])
    with pytest.raises(SourceError, match="cannot read self: Too many levels of symbolic links"):
        read_corpus(["self"], TextSettings())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_skipped_files_are_reported(folder):
    os.mkfifo(folder / "pipe")
    (folder / "gone").symlink_to(folder / "nowhere")
    (folder / "link").symlink_to(folder / "sub")
    corpus = read_corpus([folder], TextSettings())
    assert corpus.notices == ("left out as links to folders: link", "left out as special files: gone, pipe")
    assert read_corpus(["*"], TextSettings()).notices == ("left out as special files: gone, pipe",)


SCRIPT = """
import os, sys
from charloom.errors import SourceError
from charloom.settings import TextSettings
from charloom.text import find_sources
os.setgroups([]); os.setgid(65534); os.setuid(65534)  # the user nobody, who cannot even read the modules
for source in sys.argv[1:]:
    try:
        print(len(find_sources([source], TextSettings()).files))
    except SourceError as error:
        print(error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become nobody")
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_that_cannot_be_read_is_an_error(folder, mode):
    folder.chmod(0o755)
    (folder / "sub" / "deep").chmod(mode)
    sources = ["sub", "sub/*/d.txt", "**/*.txt", "sub/deep/*.txt", "sub/*.txt"]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *sources], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    *refused, number = done.stdout.splitlines()
    assert number == "1"
    assert len(refused) == 4
    for line in refused:
        assert line.removeprefix("cannot read ").removeprefix("./").startswith("sub/deep")
        assert line.endswith(": Permission denied.")
