"""The page at / in a real browser: with mouse and keyboard, on a phone, and when the server goes away."""

import re
from contextlib import contextmanager
from itertools import pairwise

import pytest

import charloom
from charloom.reports.surprise import LEVELS
from tests.reports.browser import CHROMIUM, needs_browser, scrolls_sideways
from tests.server.conftest import model_of, serving

pytestmark = needs_browser

EXPECTED = re.compile("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|ERR_INCOMPLETE_CHUNKED_ENCODING")


@contextmanager
def opened(url, width=1000, height=800, may_fail=False, **options):
    """Yields the page. Messages in its console are errors, except about a missing server with `may_fail`."""
    from playwright.sync_api import sync_playwright

    complaints, hosts = [], set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        tab.goto(url)
        yield tab
        browser.close()
    assert [one for one in complaints if not (may_fail and EXPECTED.search(one))] == []
    assert hosts == {url.split("/")[2]}  # no requests to other hosts


def text_of(tab):
    return tab.locator("#text").text_content()


def until(tab, expression, arg=None):
    """Waits until an expression holds. The page's security policy forbids Playwright's `wait_for_function`."""
    for _ in range(500):
        if tab.evaluate(expression, arg):
            return
        tab.wait_for_timeout(20)
    raise AssertionError(f"{expression} ({arg}) did not come; status {tab.locator('#status').text_content()!r}")


def wait_for_status(tab, text):
    until(tab, "text => document.getElementById('status').textContent.includes(text)", text)


@pytest.fixture(scope="module")
def model(model_files):
    return charloom.load(model_files["letters"])


def test_the_colors_are_those_of_the_pages_of_score(api):
    bounds = [f"{low} to {high}" for low, high in pairwise([0, *LEVELS])]
    with opened(api.url) as tab:
        assert tab.locator(".legend span").all_text_contents() == [*bounds, f"{LEVELS[-1]} and more"]
        assert f"[{', '.join(map(str, LEVELS))}]" in tab.evaluate("fetch('page.js').then(one => one.text())")


def test_a_text_is_generated_colored_and_continued(api, model):
    with opened(api.url) as tab:
        tab.fill("#prompt", "to be ")
        tab.fill("#length", "300")
        tab.fill("#seed", "5")
        tab.click("#generate")
        wait_for_status(tab, "300 characters")
        text = text_of(tab)
        assert text == model.generate("to be ", 300, temperature=0.8, seed=5)
        classes = tab.eval_on_selector_all("#text span", "spans => spans.map(span => span.className)")
        assert classes[0].startswith("prompt h")
        assert len({name for name in classes if not name.startswith("prompt")}) >= 3
        # The colors match the surprise.
        bits = model.score(text).bits
        at = 0
        for name, piece in tab.eval_on_selector_all(
            "#text span", "spans => spans.map(s => [s.className, s.textContent])"
        ):
            level = int(name[-1])
            assert all(
                sum(one >= low - 1e-3 for low in (1, 2, 3, 4, 6, 8)) >= level for one in bits[at : at + len(piece)]
            )
            at += len(piece)
        assert at == len(text)
        tab.click("#continue")
        until(tab, "document.getElementById('text').textContent.length === 606")
        assert text_of(tab).startswith(text)
        tab.uncheck("#colored")
        background = "getComputedStyle([...document.querySelectorAll('#text span')].at(-1)).backgroundColor"
        assert tab.evaluate(background) == "rgba(0, 0, 0, 0)"


def test_likely_next_characters_are_shown_while_typing(api, model):
    with opened(api.url) as tab:
        tab.type("#prompt", "to b")
        expected = [character for character, _ in model.next("to b").top(8)]
        named = [{" ": "␣", "\n": "⏎"}.get(one, one) for one in expected]
        shown = "[...document.querySelectorAll('#next button')].map(button => button.textContent[0]).join('')"
        until(tab, f"named => {shown} === named", "".join(named))
        tab.locator("#next button").nth(1).click()
        assert tab.input_value("#prompt") == "to b" + expected[1]


def test_generation_stops_and_settings_are_kept_in_the_address(model_files, tmp_path):
    models = model_files["letters"], model_files["names"]
    permissions = ["clipboard-read", "clipboard-write"]
    with (
        serving(tmp_path, *models, "--max-tokens", 10**6) as server,
        opened(server.url, permissions=permissions) as tab,
    ):
        tab.fill("#prompt", "abc d")
        tab.evaluate("document.getElementById('temperature').value = '1.5'")
        tab.dispatch_event("#temperature", "input")
        tab.evaluate("document.getElementById('top_p').value = '0.5'")
        tab.dispatch_event("#top_p", "input")
        tab.select_option("#model", "letters")
        tab.fill("#length", "1000000")
        assert tab.locator("#temperature-shown").text_content() == "1.50"
        tab.click("#generate")
        until(tab, "document.getElementById('text').textContent.length > 500")
        tab.click("#stop")
        wait_for_status(tab, "Stopped after")
        length = len(text_of(tab))
        assert length < 1_000_000
        tab.wait_for_timeout(300)
        assert len(text_of(tab)) == length
        assert tab.is_enabled("#continue")
        tab.reload()
        assert tab.input_value("#prompt") == "abc d"
        assert (tab.input_value("#temperature"), tab.input_value("#top_p")) == ("1.5", "0.5")
        assert tab.input_value("#length") == "1000000"
        tab.fill("#length", "50")
        tab.select_option("#model", "names")
        tab.click("#generate")
        wait_for_status(tab, "seed")
        text = text_of(tab)
        tab.click("#link")
        wait_for_status(tab, "The link is copied")
        link = tab.evaluate("navigator.clipboard.readText()")
        assert "seed=" in link
        assert "seed=" not in tab.url
        tab.goto("about:blank")
        tab.goto(link)
        until(tab, "document.getElementById('model').value === 'names'")
        tab.click("#generate")
        wait_for_status(tab, "seed")
        assert text_of(tab) == text


def test_the_page_works_with_the_keyboard(api):
    with opened(api.url) as tab:
        assert tab.evaluate("document.activeElement.id") == "prompt"
        tab.keyboard.type("to be ")
        tab.keyboard.press("Control+Enter")
        wait_for_status(tab, "400 characters")
        focused = set()
        for _ in range(40):
            tab.keyboard.press("Tab")
            focused.add(tab.evaluate("document.activeElement.id"))
        assert focused >= {"temperature", "top_p", "length", "seed", "generate", "continue", "link", "colored", "text"}
        tab.focus("#temperature")
        tab.keyboard.press("ArrowRight")
        assert tab.input_value("#temperature") == "0.85"
        tab.fill("#length", "32768")
        tab.select_option("#model", "bytes")
        tab.focus("#prompt")
        tab.keyboard.press("Control+Enter")
        until(tab, "document.getElementById('text').textContent.length > 100")
        tab.keyboard.press("Escape")
        wait_for_status(tab, "Stopped after")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_light_and_dark(api, scheme):
    with opened(api.url, 375, 700, color_scheme=scheme) as tab:
        tab.fill("#prompt", "x" * 100)
        tab.fill("#length", "200")
        tab.click("#generate")
        wait_for_status(tab, "200 characters")
        assert not scrolls_sideways(tab)
        small = """[...document.querySelectorAll('button, input:not([type=checkbox]), select')]
            .filter(one => one.offsetParent && one.getBoundingClientRect().height < 24).map(one => one.id)"""
        assert tab.evaluate(small) == []
        colors = tab.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
        dark = sum(map(int, re.findall(r"\d+", colors[1])[:3])) < 200
        assert dark == (scheme == "dark")


def test_unknown_characters_are_replaced_and_invalid_lengths_refused(api):
    with opened(api.url, may_fail=True) as tab:
        tab.fill("#prompt", "né")  # unknown ones are replaced
        tab.fill("#length", "20")
        tab.click("#generate")
        wait_for_status(tab, "20 characters")
        tab.select_option("#model", "bytes")
        tab.click("#generate")
        wait_for_status(tab, "characters, ")
        tab.fill("#length", "0")
        tab.click("#generate")
        assert tab.evaluate("document.querySelector('#length:invalid') !== null")


def test_the_page_waits_for_a_server_that_goes_away(model_files, tmp_path):
    options = model_files["letters"], "--max-tokens", 10**6
    with serving(tmp_path, *options) as server:
        port = server.port
        with opened(server.url, may_fail=True) as tab:
            tab.fill("#prompt", "to be ")
            tab.fill("#length", "1000000")
            tab.click("#generate")
            until(tab, "document.getElementById('text').textContent.length > 200")
            server.process.kill()
            server.process.wait()
            wait_for_status(tab, "does not answer")
            text = text_of(tab)
            assert len(text) > 200
            assert tab.is_disabled("#generate")
            with serving(tmp_path, *options, "--port", port):
                wait_for_status(tab, "The server is back")
                assert text_of(tab) == text
                tab.fill("#length", "100")
                tab.click("#continue")
                wait_for_status(tab, "100 characters")
                assert text_of(tab).startswith(text)


def test_a_token_is_requested_and_kept(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"], CHARLOOM_TOKEN="secret") as server:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            tab = browser.new_page()
            tab.goto(server.url)
            tab.wait_for_selector("#token", state="visible")
            tab.fill("#token", "secret")
            tab.keyboard.press("Tab")
            until(tab, "document.getElementById('model').options.length === 1")
            tab.fill("#prompt", "a")
            tab.click("#generate")
            wait_for_status(tab, "400 characters")
            assert "secret" not in tab.url
            browser.close()


def test_markup_in_a_text_is_escaped(tmp_path):
    from charloom.settings import TextSettings
    from charloom.text import Vocabulary

    path = tmp_path / "<b>.safetensors"
    model_of(vocabulary=Vocabulary("chars", '\n "&/<=>abciprst'), text=TextSettings()).save(path)
    with serving(tmp_path, path) as server, opened(server.url) as tab:
        markup = '<script>b</script> <b a="&">'
        tab.fill("#prompt", markup)
        tab.click("#generate")
        wait_for_status(tab, "400 characters")
        assert text_of(tab).startswith(markup)
        assert tab.locator("#text script, #text b, #model b").count() == 0
