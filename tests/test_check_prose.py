from scripts import check_prose


def test_sentences_are_split_as_people_read_them():
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
    assert list(check_prose.sentences(text)) == [
        *("**One sentence.", "Another with a link!", "It ends on the next line.[^note]"),
        *("- An item:", "with code", "- Another item"),
    ]


def test_long_sentences_and_odd_phrases_are_found():
    (long,) = check_prose.problems(f"Short. {'word ' * 36}end. Short again.")
    assert long.startswith("37 words: word word")
    (odd,) = check_prose.problems("A run can be gone on with. Resume it.")
    assert odd == '"gone on with": A run can be gone on with.'
    (odd,) = check_prose.problems("A name is no path. There is no path.")
    assert odd == '"is no": A name is no path.'
    assert not list(check_prose.problems(f"{'word ' * 34}end. `gone on with`"))


def test_the_documents_are_read():
    names = {page.name for page in check_prose.pages()}
    assert {"README.md", "CHANGELOG.md", "first-model.md", "watch-a-log.md"} <= names
