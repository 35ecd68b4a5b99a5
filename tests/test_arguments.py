import json
import os
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from charloom.arguments import choice, flag, number, path, text, whole_number
from charloom.errors import SettingError, TextTypeError, UnknownCharacterError


@pytest.mark.parametrize("value", [5, np.int8(5), np.uint64(5), np.array(5), True + 4])
def test_integers_of_every_type_are_accepted(value):
    found = whole_number("n", value, 1, 10)
    assert (found, type(found)) == (5, int)


@pytest.mark.parametrize(
    "value", [5.0, np.float64(5), "5", None, True, np.True_, [5], np.array([5]), np.array([5, 6]), 0, 11, float("nan")]
)
def test_other_values_are_refused_as_integers(value):
    with pytest.raises(SettingError, match=r"^n must be a whole number from 1 to 10, got "):
        whole_number("n", value, 1, 10)


def test_a_huge_integer_is_refused_without_printing_its_digits():
    with pytest.raises(SettingError, match=r"got an integer of 16,610 bits$"):
        whole_number("n", 10**5000, 1, 10)


@pytest.mark.parametrize(
    "value", [0.5, np.float16(0.5), np.float32(0.5), np.array(0.5), Fraction(1, 2), Decimal("0.5")]
)
def test_numbers_of_every_type_are_accepted(value):
    found = number("x", value, minimum=0, below=1)
    assert (found, type(found)) == (0.5, float)


def test_an_integer_is_accepted_as_a_number():
    found = number("x", np.int64(2))
    assert (found, type(found)) == (2.0, float)


@pytest.mark.parametrize(
    "value",
    [
        "0.5",
        np.str_("0.5"),
        None,
        True,
        np.False_,
        0.5j,
        np.complex64(0.5),
        [0.5],
        np.array([0.5]),
        float("nan"),
        np.float32("nan"),
        float("inf"),
        10**400,
        Decimal("NaN"),
        -0.1,
        1,
        np.datetime64("2020"),
    ],
)
def test_other_values_are_refused_as_numbers(value):
    with pytest.raises(SettingError, match=r"^x must be a finite number, at least 0 and below 1, got "):
        number("x", value, minimum=0, below=1)


def test_flags_and_choices():
    assert flag("f", np.True_) is True
    assert flag("f", False) is False
    for value in (1, "no", None):
        with pytest.raises(SettingError, match=r"^f must be True or False, got "):
            flag("f", value)
    assert type(choice("c", np.str_("a"), ("a", "b"))) is str
    for value in ("c", None, ["a"], np.array(["a"])):
        with pytest.raises(SettingError, match=r"^c must be a or b, got "):
            choice("c", value, ("a", "b"))


def test_paths():
    assert path("p", b"a") == path("p", "a") == path("p", Path("a")) == Path("a")
    for value in (5, None, ["a"]):
        with pytest.raises(SettingError, match=r"^p must be a path, got "):
            path("p", value)


def test_texts():
    assert text("t", "é", "chars") == "é"
    assert text("t", bytearray(b"\xff"), "bytes") == b"\xff"
    assert text("t", "\udcff", "bytes") == "\udcff"  # a byte that is not UTF-8, as Python reads names
    with pytest.raises(UnknownCharacterError, match=r"^t has half a character \(U\+D800\) at character 1,"):
        text("t", "a\ud800", "bytes")
    with pytest.raises(TextTypeError, match=r"^t is bytes, but this model reads characters\. Decode it first"):
        text("t", b"a", "chars")
    for value in (float("nan"), None):
        with pytest.raises(
            TextTypeError, match=r"^t must be a string, got .*Leave out missing values, for example with Series"
        ):
            text("t", value, "chars")
    with pytest.raises(TypeError, match=r"^t must be a string, got 5 of type int\. Convert it with str\(\)\.$"):
        text("t", 5, "chars")


_NOTEBOOK = """
import json, os, sys
import numpy as np, jax.numpy as jnp
import charloom as cl

folder = sys.argv[1].encode()
os.chdir(folder)
with open("t.txt", "w") as file:
    file.write("the cat sat on the mat\\n" * 40)
model = cl.train(
    b"t.txt", out=b"m.safetensors", hidden=np.int64(8), layers=np.uint8(1), embedding=np.int16(4),
    batch_size=np.int32(2), sequence_length=jnp.int32(8), dropout=np.float32(0), learning_rate=np.float32(.01),
    steps=np.int64(4), validation=50,
    seed=np.int64(1), records=np.False_, patience=None, clip_norm=1,
)
same = cl.train(
    "t.txt", hidden=8, layers=1, embedding=4, batch_size=2, sequence_length=8, dropout=0.0,
    learning_rate=float(np.float32(.01)), steps=4, validation=50.0, seed=1, clip_norm=1.0,
)
bytewise = cl.train("t.txt", bytes=True, hidden=4, embedding=2, batch_size=2, sequence_length=8, steps=1, validation=50)
nan = float("nan")
calls = {
    "same": lambda: model.to_bytes() == same.to_bytes() == cl.load(b"m.safetensors").to_bytes(),
    "generate": lambda: model.generate(
        "th", np.int64(5), temperature=np.float32(0.5), top_k=np.int8(3), top_p=np.float64(0.5), seed=np.uint64(3)
    ) == model.generate("th", 5, temperature=0.5, top_k=3, top_p=0.5, seed=3),
    "top": lambda: len(model.next("th").top(np.int64(3))),
    "top_predictions": lambda: model.score("th", top_predictions=np.int64(2)).top_predictions.token_ids.shape[1],
    "prompt of bytes": lambda: bytewise.generate(b"th\\xff", 3).startswith("th\\ufffd"),
    "array of texts": lambda: len(model.score_many(np.array(["the", "cat"]))),
    "hidden": lambda: cl.train("t.txt", hidden=5.0),
    "learning_rate": lambda: cl.train("t.txt", learning_rate=np.float32("nan")),
    "seed": lambda: cl.train("t.txt", seed=True),
    "records": lambda: cl.train("t.txt", records="no"),
    "encoding": lambda: cl.train("t.txt", encoding=5),
    "budget": lambda: cl.train("t.txt", budget=True),
    "source": lambda: cl.train(5),
    "path": lambda: cl.load(5),
    "length": lambda: model.generate("th", 5.0),
    "temperature": lambda: model.generate("th", 5, temperature="1"),
    "window": lambda: model.generate("th", 5, window=1.5),
    "stop": lambda: model.generate("th", 5, stop=3),
    "generated": lambda: model.generate(nan),
    "one text": lambda: model.score_many("abc"),
    "no texts": lambda: model.score_many(None),
    "missing": lambda: model.score_many(["the", nan]),
    "none": lambda: model.score_many(["the", "cat", None]),
    "number": lambda: model.score_many([3]),
    "bytes": lambda: model.score_many(["the", b"cat"]),
    "unknown": lambda: model.score_many(["the", "caX"]),
    "policy": lambda: model.score_many(["the"], unknown="ignore"),
    "half": lambda: bytewise.score_many(["the", "a\\ud800"]),
    "scored": lambda: model.score(None),
    "next": lambda: model.next(nan),
    "embed": lambda: model.embed(b"the"),
    "half prompt": lambda: bytewise.generate("\\ud800"),
}
found = {}
for name, call in calls.items():
    try:
        found[name] = call()
    except cl.CharloomError as error:
        found[name] = f"{type(error).__name__}: {error}"
    except Exception as error:
        found[name] = f"TRACEBACK {error!r}"
print(json.dumps(found))
"""


def test_arguments_from_a_notebook(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _NOTEBOOK, os.fspath(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    count = "must be a whole number from 1 to"
    wanted = {
        "same": True,
        "generate": True,
        "top": 3,
        "top_predictions": 2,
        "prompt of bytes": True,
        "array of texts": 2,
        "hidden": f"SettingError: hidden {count} 16,384, got 5.0",
        "learning_rate": "SettingError: learning_rate must be a finite number, above 0 and at most 1e+38, got ",
        "seed": "SettingError: seed must be a whole number from 0 to 2**63 - 1, got True",
        "records": "SettingError: records must be True or False, got 'no'",
        "encoding": "SettingError: encoding must be a string, got 5",
        "budget": "SettingError: budget must be a finite number, above 0 and at most 1e+09, got True",
        "source": "SettingError: source must be a path, got 5",
        "path": "SettingError: model must be a path, got 5",
        "length": f"SettingError: length {count} 2,147,483,647, got 5.0",
        "temperature": "SettingError: temperature must be a finite number, at least 0 and at most 1e+06, got '1'",
        "window": f"SettingError: window {count} 2,147,483,647, got 1.5",
        "stop": "SettingError: stop must be a string, got 3",
        "generated": "TextTypeError: prompt must be a string, got nan of type float. Leave out missing values",
        "one text": "TextTypeError: texts must be a list of strings, got 'abc'. Put one text into a list",
        "no texts": "TextTypeError: texts must be a list of strings, got None.",
        "missing": "TextTypeError: texts[1] must be a string, got nan of type float. Leave out missing values",
        "none": "TextTypeError: texts[2] must be a string, got None of type NoneType. Leave out missing values",
        "number": "TextTypeError: texts[0] must be a string, got 3 of type int. Convert it with str().",
        "bytes": "TextTypeError: texts[1] is bytes, but this model reads characters. Decode it first",
        "unknown": "UnknownCharacterError: texts[1]: cannot encode 'X' (U+0058) at character 2",
        "policy": "SettingError: unknown must be error or skip or replace, got 'ignore'",
        "half": "UnknownCharacterError: texts[1] has half a character (U+D800) at character 1",
        "scored": "TextTypeError: text must be a string, got None of type NoneType.",
        "next": "TextTypeError: text must be a string, got nan of type float.",
        "embed": "TextTypeError: text is bytes, but this model reads characters.",
        "half prompt": "UnknownCharacterError: prompt has half a character (U+D800) at character 0",
    }
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == value if not isinstance(value, str) else found[name].startswith(value), (
            name,
            found[name],
        )
