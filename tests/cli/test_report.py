import os
import re
import subprocess

import pytest

from charloom.model import load
from tests.cli.conftest import QUICK, TEXT, assert_refused
from tests.reports.browser import needs_browser, opened, scrolls_sideways


@pytest.fixture(scope="module")
def pages(charloom, model_file, book, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for name, texts in (("alone", ()), ("with", (book,))):
        done = charloom("report", model_file, *texts, "--out", folder / f"{name}.html")
        assert done.returncode == 0, done.stderr
        assert f"{name}.html: report written" in done.stderr
    return folder


def test_a_report_describes_the_model(pages, model_file):
    html, training = (pages / "alone.html").read_text(), load(model_file).training
    assert "book.txt, 2,640 characters" in html
    assert f"step {training['kept_step']:,} of {training['steps']:,}" in html
    assert re.search(r'alt="Curves of \d+ evaluations. training: from [\d.]+ to [\d.]+ bits', html)
    for sample in training["samples"]:
        assert f"after {sample['step']:,} steps" in html
    assert "no text was given" in html
    assert 'aria-label="A map of 28 characters' in html
    assert not re.search(r"""https?://(?!www\.w3\.org)|@import|<script""", html)


def test_a_report_with_a_text_analyzes_it(pages):
    html = (pages / "with.html").read_text()
    assert "no text was given" not in html
    sentence = r"book.txt: [\d.]+ bits per character on the last 264 characters, which training did not read"
    assert re.search(sentence, html)
    assert "follows <b>the position in a line</b>" in html
    assert re.search(
        r"In the first 5, the longest passage that was copied word for word from book.txt has \d+ characters", html
    )


@needs_browser
@pytest.mark.parametrize("name", ["alone", "with"])
@pytest.mark.parametrize("width", [375, 1200])
def test_a_report_opens_in_a_browser(pages, name, width):
    with opened(pages / f"{name}.html", width) as tab:
        assert not scrolls_sideways(tab)
        assert tab.locator("h1").inner_text() == "book.safetensors"
        assert tab.locator("img.picture").evaluate("image => image.naturalWidth") > 0
        tab.get_by_text("All settings").click()
        assert not scrolls_sideways(tab)


@pytest.mark.parametrize(
    "options", [("--records",), ("--bytes",), ("--cell", "gru", "--layers", 2), ("--cell", "mingru")]
)
def test_training_ends_with_a_report(charloom, tmp_path, options):
    text, out = tmp_path / "text.txt", tmp_path / "model.safetensors"
    text.write_text("".join(f"line {number} of many\n" for number in range(200)))
    done = charloom("train", text, "--out", out, "--steps", 30, "--report", *options, *QUICK)
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "model.html").read_text()
    assert "text.txt" in html
    assert "word for word" in html
    assert re.search(
        r"(None|\d+) of 500 samples repeats? an earlier one, and (none|\d+) (is|are) in"
        if options[0] == "--records"
        else "of 12 samples repeats? an earlier one",
        html,
    )


def test_a_text_from_a_pipe_is_read_once(charloom, book, tmp_path):
    out = tmp_path / "model.safetensors"
    done = charloom("train", "-", "--out", out, "--steps", 5, "--report", *QUICK, stdin=TEXT)
    assert done.returncode == 0, done.stderr
    assert "it came from a pipe, which can be read only once" in (tmp_path / "model.html").read_text()
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["sh", "-c", f"cat {book} > {tmp_path}/pipe"]) as cat:
        done = charloom("train", tmp_path / "pipe", "--out", out, "--steps", 5, "--report", *QUICK)
        assert cat.wait(20) == 0
    assert done.returncode == 0, done.stderr
    assert "it came from a pipe, which can be read only once" in (tmp_path / "model.html").read_text()


def test_wrong_inputs_and_outputs_are_refused(charloom, model_file, book, tmp_path):
    assert_refused(charloom("report", tmp_path / "none.safetensors"), 1, "none.safetensors")
    assert_refused(charloom("report", model_file, tmp_path / "none.txt", "--out", tmp_path / "p.html"), 1, "none.txt")
    assert_refused(charloom("report", model_file, "--out", tmp_path / "no" / "p.html"), 1, "p.html")
    # A page replaces only another page.
    assert_refused(charloom("report", model_file, "--out", book), 1, "it is not a page that charloom made")
    assert_refused(charloom("score", model_file, book, "--html", book), 1, "it is one of the files to read")
    assert not (tmp_path / "p.html").exists()


def test_score_writes_a_page(charloom, model_file, tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox\njumps over\n")
    page = tmp_path / "page.html"
    done = charloom("score", model_file, tmp_path / "text.txt", "--html", page)
    assert done.returncode == 0, done.stderr
    assert "bits" in done.stdout
    assert "31 characters read by book.safetensors" in page.read_text()
    (tmp_path / "long.txt").write_text(TEXT * 100)
    refused = charloom("score", model_file, tmp_path / "long.txt", "--html", page)
    assert_refused(refused, 1, "more than the 200,000 characters that a page can show")
    assert "31 characters" in page.read_text()  # unchanged
    assert_refused(charloom("score", model_file, tmp_path / "text.txt", "--html", page, "--per", "line"), 2, "--html")
