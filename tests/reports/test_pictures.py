from base64 import b64decode
from xml.etree import ElementTree

from charloom.reports.pictures import batching_diagram, loss_curves, probability_bars

SVG = "{http://www.w3.org/2000/svg}"


def parsed(picture):
    kind, data = picture.source.split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    return ElementTree.fromstring(b64decode(data).decode())


def test_every_bar_is_as_high_as_its_probability():
    probabilities = [0.0, 0.001, 0.5, 1.0]
    picture = probability_bars("Probability of a space", "ab d", probabilities)
    root = parsed(picture)
    width, height = (float(root.get(name)) for name in ("width", "height"))
    bars = root.findall(f".//{SVG}rect")
    assert len(bars) == 4
    for bar, probability in zip(bars, probabilities, strict=True):
        x, y, wide, high = (float(bar.get(name)) for name in ("x", "y", "width", "height"))
        assert 0 <= x < x + wide <= width
        assert y >= 0
        assert y + high == height
        assert high == max(0.01, probability) * height
    assert "highest 1.00 before character 4, 'd'" in picture.text


def test_curves_skip_missing_losses_and_have_a_text():
    picture = loss_curves("Loss of a/b by epoch", {"here": [3.0, 2.0, None], "published": [2.5, 1.5]})
    root = parsed(picture)
    words = "".join(root.itertext())
    for label in ("here", "published", "epoch", "nats per character"):
        assert label in words
    assert picture.text == (
        "Loss of a/b by epoch. here: from 3.000 to 2.000 in 2 epochs. published: from 2.500 to 1.500 in 2 epochs."
    )


def test_the_same_figures_give_the_same_picture():
    assert loss_curves("a", {"here": [1.0, 2.0]}) == loss_curves("a", {"here": [1.0, 2.0]})


def test_diagrams_show_inputs_and_targets():
    batching = {"kind": "ShuffledWindows", "length": 3, "targets": "last"}
    picture = batching_diagram(batching, ["ab\n", "b d", "<&>"], ["c", "e", "f"])
    root = parsed(picture)
    boxes = root.findall(f"{SVG}rect")
    assert [box.get("class") for box in boxes] == ["read", "read", "read", "target"] * 3
    glyphs = [text.text for text in root.findall(f"{SVG}text")]
    assert glyphs[:5] == ["row 0", "a", "b", "⏎", "c"]
    assert "␣" in glyphs
    assert glyphs[-4:] == ["<", "&", ">", "f"]
    assert "Each row is independent" in picture.text
    carried = batching_diagram({"kind": "StatefulRows", "length": 3, "targets": "every"}, ["abc"] * 3, ["bcd"] * 3)
    assert len(parsed(carried).findall(f"{SVG}rect")) == 9
    assert carried.text == (
        "The first three rows of 3 input characters each, with the target below each. "
        "The state is carried from each window of a row to the next."
    )
