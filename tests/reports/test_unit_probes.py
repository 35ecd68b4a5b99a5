import numpy as np

from charloom.reports import features_of, unit_probes

TEXT = 'He said "go (now) home" and left.\nThen 12 went.\n' * 40


def test_features_follow_the_text():
    text = 'A "b(c)" d\n12 ("x\n\ny) z'
    features = {name: values.astype(int).tolist() for name, values in features_of(text).items()}
    assert features["the position in a line"] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5, 6, 0, 0, 1, 2, 3, 4]
    assert features["inside quotes"] == [0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert features["inside brackets"] == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert features["the position in a word"] == [1, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 2, 0, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    assert [text[at] for at in np.flatnonzero(features["capitals"])] == ["A"]
    assert [text[at] for at in np.flatnonzero(features["digits"])] == ["1", "2"]
    assert [text[at] for at in np.flatnonzero(features["spaces"])] == [" ", " ", " ", " "]
    assert features_of("“a”b")["inside quotes"].tolist() == [1, 1, 0, 0]


def test_units_that_follow_a_feature_are_found():
    rng = np.random.default_rng(0)
    features = features_of(TEXT)
    outputs = rng.normal(0, 1, (len(TEXT), 9)).astype(np.float32)
    outputs[:, 3] = features["inside quotes"] + rng.normal(0, 0.05, len(TEXT))
    outputs[:, 7] = -0.01 * features["the position in a line"]
    outputs[:, 5] = 1  # a constant unit follows nothing
    found = {probe.feature: probe for probe in unit_probes(TEXT, outputs)}
    assert found["inside quotes"].unit == 3
    assert 0.9 < found["inside quotes"].correlation < 1
    assert found["the position in a line"].unit == 7
    assert found["the position in a line"].correlation < -0.999
    assert "capitals" not in found  # noise follows nothing
    excerpt = features["inside quotes"][found["inside quotes"].first : found["inside quotes"].last]
    assert 0 < excerpt.mean() < 1
    assert found["inside quotes"].last - found["inside quotes"].first <= 600
