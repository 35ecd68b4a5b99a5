import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("check_prose", ROOT / "scripts" / "check_prose.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sentences_are_split_as_people_read_them(script):
    text = """# A heading of a page

**One sentence.** Another [with a link](https://example.org/a.b.c)!
It ends on the next line.[^note]

- An item: with `code. code`
- Another item

```sh
charloom train book.txt. A command
```

| a | table. |
| --- | --- |
"""
    assert list(script.sentences(text)) == [
        *("**One sentence.", "Another with a link!", "It ends on the next line.[^note]"),
        *("- An item:", "with code", "- Another item"),
    ]


def test_long_sentences_and_odd_phrases_are_found(script):
    (long,) = script.problems(f"Short. {'word ' * 36}end. Short again.")
    assert long.startswith("37 words: word word")
    (odd,) = script.problems("A run can be gone on with. Resume it.")
    assert odd == '"gone on with": A run can be gone on with.'
    (odd,) = script.problems("A name is no path. There is no path.")
    assert odd == '"is no": A name is no path.'
    assert not list(script.problems(f"{'word ' * 34}end. `gone on with`"))


def test_the_documents_are_read(script):
    names = {page.name for page in script.pages()}
    assert {"README.md", "CHANGELOG.md", "first-model.md", "watch-a-log.md"} <= names
