import json
import re

import numpy as np
import pytest

from charloom.errors import CharloomError
from charloom.reports import MAX_CHARACTERS, surprise_page
from tests.reports.browser import needs_browser, opened, scrolls_sideways

ALPHABET = list("\n ab<&é")
TEXT = "ab <script>&é\n" * 700
BITS = np.linspace(0, 12, len(TEXT), dtype=np.float32)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng = np.random.default_rng(0)
    top_predictions = np.array([rng.permutation(len(ALPHABET))[:5] for _ in TEXT], np.int32)
    log_probs = np.log(np.tile(np.array([0.5, 0.25, 0.1, 0.05, 0.0004], np.float32), (len(TEXT), 1)))
    path = tmp_path_factory.mktemp("pages") / "page.html"
    html = surprise_page("a <b>bold</b> title", "book", list(TEXT), BITS, top_predictions, log_probs, ALPHABET)
    path.write_text(html)
    return path, top_predictions


def test_the_page_contains_its_data_and_no_external_files(page):
    html = page[0].read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert "".join(data["characters"]) == TEXT
    np.testing.assert_allclose(data["bits"], BITS, atol=0.005)
    assert data["top_predictions"] == page[1].flatten().tolist()
    assert data["chances"][:5] == [500, 250, 100, 50, 0]
    assert "<b>bold" not in html
    assert not re.search(r"""(src|href)\s*=|https?://|@import|url\(""", html)


def test_a_text_too_long_for_a_page_is_refused():
    many = MAX_CHARACTERS + 1
    none = np.zeros((many, 1), np.int32)
    with pytest.raises(CharloomError, match="more than the 200,000 characters"):
        surprise_page("long", "book", "a" * many, np.zeros(many, np.float32), none, none.astype(np.float32), "a")


@needs_browser
def test_pointer_and_keys_show_the_predictions(page):
    path, top_predictions = page
    with opened(path) as tab:
        spans = tab.locator("#text span")
        assert spans.count() == 4000
        spans.nth(4).hover()
        assert f"character 5: s, {BITS[4]:.2f} bits" in tab.inner_text("#what")
        shown = tab.locator("#top_predictions span:not(.bar)").all_inner_texts()
        named = {"\n": "⏎ new line", " ": "␣ space"}
        assert shown[::2] == [named.get(ALPHABET[at], ALPHABET[at]) for at in top_predictions[4]]
        assert shown[1::2] == ["50.0 %", "25.0 %", "10.0 %", "5.0 %", "0.0 %"]
        # With only the keyboard: to the text, right, down a line, up again.
        tab.locator("#text").focus()
        for key, place in (("ArrowRight", 6), ("ArrowLeft", 5), ("ArrowDown", 15), ("ArrowUp", 1), ("End", 4000)):
            tab.keyboard.press(key)
            assert tab.inner_text("#what").startswith(f"character {place:,}: ")
        tab.keyboard.press("ArrowRight")  # to the next page
        assert tab.inner_text("#where") == "characters 4,001 to 8,000 of 9,800"
        tab.get_by_role("button", name="Next").click()
        assert tab.inner_text("#where") == "characters 8,001 to 9,800 of 9,800"
        assert tab.get_by_role("button", name="Next").is_disabled()


@needs_browser
def test_surprise_is_visible_without_color(page):
    with opened(page[0]) as tab:
        tab.get_by_role("button", name="Next").click()
        tab.get_by_role("button", name="Next").click()
        last = tab.locator("#text span").last
        assert last.evaluate("span => getComputedStyle(span).borderBottomWidth") == "6px"
        tab.get_by_role("button", name="Previous").click()
        tab.get_by_role("button", name="Previous").click()
        assert tab.locator("#text span").first.evaluate("s => getComputedStyle(s).borderBottomWidth") == "0px"


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(page, scheme):
    with opened(page[0], 375, 667, color_scheme=scheme) as tab:
        assert not scrolls_sideways(tab)
        tab.locator("#text span").nth(3).click()
        assert tab.inner_text("#what").startswith("character 4: ")
        assert not scrolls_sideways(tab)
