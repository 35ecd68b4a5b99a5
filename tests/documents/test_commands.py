"""Every command in the documents works, pasted in the order of its page."""

import os
import shutil
from contextlib import ExitStack, closing

import numpy as np
import pytest
from filelock import FileLock

from charloom.model import TextModel
from charloom.models import Network
from charloom.settings import NetworkSettings, TextSettings
from charloom.text import Vocabulary
from tests.documents.blocks import ROOT, blocks, pages
from tests.documents.reader import Reader
from tests.documents.texts import write_texts

MAX_NOT_RUN = 5
PAGES = {str(page.relative_to(ROOT)): list(blocks(page.read_text("utf-8"))) for page in pages()}
MODELS = {
    "docs/design/model-file.md": ("book",),
    "docs/how-to/authors.md": ("english", "french"),
    "docs/how-to/score-texts.md": ("book", "app", "english", "french", "german", "benign", "generated"),
    "docs/how-to/serve.md": ("book", "names"),
    "docs/reference/http.md": ("book",),
}
"""The models that a page's reader has from another page."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the documents' commands are of a Unix shell")


def test_almost_every_block_is_run():
    assert sum(map(len, PAGES.values())) > 40
    assert sum(bool(block.not_run) for of_page in PAGES.values() for block in of_page) <= MAX_NOT_RUN


def test_a_comment_above_a_block_is_one_that_is_known():
    block = "```sh\ncharloom serve book.safetensors\n```\n"
    assert [one.keeps_running for one in blocks(f"{block}\n<!-- keeps running -->\n\n{block}")] == [False, True]
    assert [one.not_run for one in blocks(f"<!-- not run: needs Docker -->\n{block}")] == ["needs Docker"]
    with pytest.raises(ValueError, match="'keep running' above a block"):
        list(blocks(f"<!-- keep running -->\n\n{block}"))


@pytest.mark.parametrize(
    "page",
    [
        "```bash\nls\n```\n",
        "- An item:\n\n  ```sh\n  ls\n  ```\n",
        '```sh title="a"\nls\n```\n',
        "```sh\nls\n",
        "~~~sh\nls\n~~~\n",
    ],
)
def test_a_block_that_would_not_be_run_is_refused(page):
    with pytest.raises(ValueError, match=r"a block is indented|the language 'bash'"):
        list(blocks(page))


def test_a_budget_that_charloom_would_refuse_is_refused():
    (block,) = blocks("```sh\ncharloom train book.txt --budget 10minutes\n```\n")
    with pytest.raises(ValueError, match="10minutes"):
        block.shortened()


@pytest.mark.parametrize("page", [page for page, of_page in PAGES.items() if any(not one.not_run for one in of_page)])
def test_a_page(page, installed, data_folder, tmp_path, tmp_path_factory):
    to_run = [block for block in PAGES[page] if not block.not_run]
    if any(block.language == "javascript" for block in to_run) and not shutil.which("node"):
        pytest.skip("no Node here")
    folder, home = tmp_path / "page", tmp_path / "home"
    for new in (folder, home):
        new.mkdir()
    write_texts(folder)
    for name in MODELS.get(page, ()):
        _model().save(folder / f"{name}.safetensors")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "XLA_FLAGS"))},
        **installed.pip,
        "CHARLOOM_DATA": data_folder,
        "HOME": str(home),
        "PATH": f"{installed.programs}{os.pathsep}{os.environ['PATH']}",
    }
    with ExitStack() as stack:
        if any("charloom serve" in block.text for block in to_run):  # on the one port that the documents name
            stack.enter_context(FileLock(tmp_path_factory.getbasetemp().parent / "port.lock"))
        reader = stack.enter_context(closing(Reader(folder, tmp_path, environment)))
        for block in to_run:
            reader.paste(block)
        reader.require_running()


def _model() -> TextModel:
    """A small model of printable ASCII with random weights."""
    vocabulary = Vocabulary("chars", "\n" + "".join(map(chr, range(ord(" "), ord("~") + 1))), "\n")
    settings = NetworkSettings(hidden=16, embedding=8)
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(0))
    return TextModel(network, vocabulary, settings, TextSettings(delimiter="\n"))
