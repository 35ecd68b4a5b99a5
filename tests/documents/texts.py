"""The files that the documents' commands name: small texts of the kinds that readers have."""

import random
from pathlib import Path
from string import printable

_SYLLABLES = "an bel cor da el fi gra ha is jo ka li mo na or pe qui ro sa ti ul ve wi ya zo"
_WORDS = {
    "english": "the a of and to in it was that he she they sea ship captain house night letter said went looked",
    "french": "le la les de des et un une il elle dans que qui pas mer navire maison nuit lettre dit alla",
    "german": "der die das und ein eine er es war in dem nicht mit auf see schiff haus nacht brief sagte ging",
}
_EVENTS = (
    "INFO web: GET /index.html answered 200 in {} ms",
    "INFO web: GET /news/{} answered 200 in 12 ms",
    "INFO db: query {} took 3 ms",
    "WARNING cache: {} entries dropped",
    "INFO mail: message {} sent",
)
_MOLECULES = ("CC", "CCO", "c1ccccc1", "C(=O)O", "CN", "C1CCCC1", "OC", "N", "CCN", "C(=O)N", "F", "Cl")


def write_texts(folder: Path) -> None:
    """Writes all of them into a folder."""
    for name in ("notes", "essays", "austen", "melville", "drafts", "chapters", "earlier", "corpus", "texts"):
        (folder / name).mkdir()
    prose = {
        "book.txt": 30_000,
        "another-book.txt": 8_000,
        "chapter.txt": 2_000,
        "manuscript.txt": 30_000,
        "draft.txt": 2_000,
        "earlier/first.txt": 15_000,
        "earlier/second.txt": 15_000,
        "letter.txt": 500,
        "letters.txt": 1_500,
        "notes/monday.txt": 9_000,
        "notes/tuesday.txt": 9_000,
        "essays/first.md": 9_000,
        "texts/book.txt": 30_000,
        "austen/emma.txt": 15_000,
        "melville/typee.txt": 15_000,
        "drafts/one.txt": 2_000,
        "drafts/two.txt": 2_000,
        "chapters/01.txt": 9_000,
        "chapters/02.txt": 9_000,
        "corpus/one.txt": 15_000,
        "corpus/two.txt": 15_000,
    }
    for seed, (name, size) in enumerate(prose.items()):
        (folder / name).write_text(_prose("english", size, 0 if name.endswith("book.txt") else seed), "utf-8")
    for language in _WORDS:
        (folder / f"{language}.txt").write_text(_prose(language, 15_000, 1), "utf-8")
    (folder / "poems.txt").write_text("\n\n".join(_prose("english", 120, seed) for seed in range(80)), "utf-8")
    messages = _lines(lambda choice: choice(_EVENTS).format(choice(range(100))), 50)
    (folder / "messages.csv").write_text(f"message\n{messages}", "utf-8")
    syllables = _SYLLABLES.split()
    (folder / "names.txt").write_text(
        _lines(lambda choice: "".join(choice(syllables) for _ in range(3)), 1_000), "utf-8"
    )
    (folder / "domains.txt").write_text(
        _lines(lambda choice: f"{choice(syllables)}{choice(syllables)}.org", 50), "utf-8"
    )
    (folder / "molecules.smi").write_text(
        _lines(lambda choice: "".join(choice(_MOLECULES) for _ in range(4)), 1_000), "utf-8"
    )
    for seed, name in enumerate(("ordinary", "yesterday", "app")):
        (folder / f"{name}.log").write_text(_log(2_000 if name == "ordinary" else 300, seed), "utf-8")


def _prose(language: str, size: int, seed: int) -> str:
    choice, words = random.Random(seed).choice, _WORDS[language].split()
    sentences, length = [f"{printable[:94]}\n"], 94
    while length < size:
        sentence = [choice(words) for _ in range(choice(range(5, 15)))]
        sentences.append(" ".join(sentence).capitalize() + choice(".!?") + choice((" ", " ", "\n")))
        length += len(sentences[-1])
    return "".join(sentences)


def _lines(line, count: int) -> str:
    choice = random.Random(0).choice
    return "".join(f"{line(choice)}\n" for _ in range(count))


def _log(count: int, seed: int) -> str:
    draw = random.Random(seed)
    stamps = (
        f"2026-11-{draw.randrange(1, 29):02} {draw.randrange(24):02}:{draw.randrange(60):02}:00 " for _ in range(count)
    )
    return "".join(f"{stamp}{draw.choice(_EVENTS).format(draw.randrange(100))}\n" for stamp in stamps)
