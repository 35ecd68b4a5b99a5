import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from charloom.artifacts import convert_json, parse_json, with_integers
from charloom.errors import ModelFileError, RunFolderError
from charloom.settings import NetworkSettings


@dataclass(frozen=True)
class Box:
    size: int
    weight: float = 1.0


class Evaluation(Struct, frozen=True, forbid_unknown_fields=True):
    step: Annotated[int, Meta(ge=0, le=100)]
    nats: float | None = None
    how: Literal["a", "b"] = "a"


class Run(Struct, frozen=True, forbid_unknown_fields=True):
    history: list[Evaluation] = []
    names: dict[str, int] = {}
    step_plan: tuple[tuple[int, int], ...] = ()
    model: NetworkSettings | None = None
    box: Box | None = None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "its content is [], expected an object"),
        ({"history": 5}, "history is 5, expected a list"),
        ({"box": {"size": {}}}, "box.size is {}, expected an integer"),
        ({"names": {"a": {"b": 1}}}, "names[...] has a value that is not as expected, expected an integer"),
        ({"history": [{"step": {}}]}, "history[0].step is {}, expected an integer"),
        ({"history": [{"step": "x"}]}, "history[0].step is 'x', expected an integer"),
        ({"history": [{"step": True}]}, "history[0].step is True, expected an integer"),
        ({"history": [{"step": 1.5}]}, "history[0].step is 1.5, expected an integer"),
        ({"history": [{"step": 101}]}, "history[0].step is 101, expected an integer <= 100"),
        ({"history": [{"step": 10**5000}]}, "history[0].step is an integer of 16,610 bits, expected an integer"),
        ({"history": [{}]}, "history[0].step is missing"),
        ({"history": [{"step": 1, "x\x1b": 2}]}, r"history[0].x\x1b is not a field that this version knows"),
        ({"history": [{"step": 1, "nats": "x"}]}, "history[0].nats is 'x', expected a number or null"),
        ({"history": [{"step": 1, "how": "c"}]}, "history[0].how is 'c', which this version does not know"),
        ({"names": {"a]`": "x"}}, "names[...] has a value that is not as expected, expected an integer"),
        ({"step_plan": [[1, 2], [1]]}, "step_plan[1] is [1], expected a list of length 2"),
        ({"model": {"hidden": 0}}, "model.hidden must be a whole number from 1 to 16,384, got 0"),
        ({"model": {"hidden": "a\nb"}}, r"model.hidden is 'a\nb', expected an integer"),
        ({"model": {"new": 1}}, "model.new is not a field that this version knows"),
        ({"box": {"size": 1, "new": 1}}, "box.new is not a field that this version knows"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_with_file_and_field(data, words):
    with pytest.raises(RunFolderError) as caught:
        convert_json(data, Run, "r\n/run.json", RunFolderError)
    assert str(caught.value).startswith(rf"r\n/run.json: {words}")
    assert "\n" not in str(caught.value)


def test_the_remedy_is_appended_and_values_are_shortened():
    with pytest.raises(ModelFileError, match=r"size is 'x{299}…, expected an integer\. Copy it again\.$"):
        convert_json({"size": "x" * 5_000_000}, Box, "box.json", remedy="Copy it again.")
    with pytest.raises(ModelFileError) as caught:
        convert_json({"size": 1, "y" * 5_000_000: 1}, Box, "box.json")
    assert len(str(caught.value)) < 400


def test_whole_floats_convert_to_integers_and_integers_to_floats():
    found = convert_json({"history": [{"step": 5.0, "nats": 2}], "box": {"size": 3.0, "weight": 2.0}}, Run, "x")
    assert found == Run(history=[Evaluation(5, 2.0)], box=Box(3, 2.0))
    assert type(found.history[0].nats) is float
    assert type(found.box.size) is int
    assert type(found.box.weight) is float


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "Expecting value"),
        (b"[1,", "Expecting value"),
        (b"\xef\xbb\xbf1", "BOM"),
        (b"1e999", "1e999 is too large"),
        (b"-1e999", "-1e999 is too large"),
        (b"NaN", "NaN is not a JSON number"),
        (b"-Infinity", "-Infinity is not a JSON number"),
        (b"1" * 5000, "1{30} is too large"),
        (str(2**64).encode(), "is too large"),
        (str(-(2**63) - 1).encode(), "is too large"),
        (b'{"a": 1, "a": 2}', "the field 'a' occurs twice"),
        (b'["\\ud800"]', "not valid Unicode"),
        (b'{"\\uDC00": 1}', "not valid Unicode"),
        ('"\ud800"', "not valid Unicode"),
        (b'"\xed\xa0\x80"', "not valid Unicode"),
        (b"\xff", "not valid Unicode"),
        (b"[" * 200_000, "too deeply nested"),
        (b'{"a":' * 200_000, "too deeply nested"),
        (b" " * (17 << 20), "17,825,792 characters are more than the maximum of 16,777,216"),
    ],
)
def test_invalid_json_is_refused_in_one_line(data, words):
    with pytest.raises(RunFolderError, match=words) as caught:
        parse_json(data, "run\n.json", RunFolderError)
    assert str(caught.value).startswith(r"run\n.json is damaged: ")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=20,
    ),
    st.booleans(),
)
def test_json_round_trips(value: Any, ascii_only: bool):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text, "x") == value
    assert parse_json(text.encode(), "x") == value


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 5_000])
def test_any_number_of_different_fields_is_read(count):
    data = {f"field {number}": number for number in range(count)}
    assert parse_json(json.dumps(data).encode(), "x") == data


@pytest.mark.parametrize("number", [0.0, 63.0, 64.0, -840.0, 1e15, 2.0**62, -(2.0**62)])
def test_whole_floats_become_integers(number):
    assert repr(with_integers({"a": [number]})) == repr({"a": [int(number)]})


@pytest.mark.parametrize("number", [0.5, -1e-9, 2.0**63, -(2.0**63), 1e300])
def test_numbers_that_do_not_fit_64_bit_integers_stay_floats(number):
    assert repr(with_integers(number)) == repr(number)
