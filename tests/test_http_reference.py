import importlib.util
import re
from pathlib import Path

import pytest

from charloom.server.routes import document

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "src" / "charloom" / "server"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("http_reference", ROOT / "scripts" / "http_reference.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_tables_are_those_of_the_servers_types(script):
    assert script.PAGE.read_text("utf-8") == script.page(), "run scripts/http_reference.py"


def test_a_field_without_a_meaning_is_refused(script, monkeypatch):
    monkeypatch.delitem(script.MEANINGS["Health"], "ready")
    with pytest.raises(ValueError, match="Health"):
        script.page()


def test_every_status_and_code_is_explained(script):
    page = script.PAGE.read_text("utf-8")
    rows = re.findall(r"^\| ([0-9, ]+) \| (?:`(\w+)`|none) \|", page, re.MULTILINE)
    statuses = {status for statuses, _ in rows for status in statuses.split(", ")}
    responses = document()["paths"]["/v1/completions"]["post"]["responses"]
    assert statuses - {"405"} == set(responses) - {"200"}
    source = "\n".join(path.read_text("utf-8") for path in SERVER.glob("*.py"))
    assert {code for _, code in rows if code} == set(re.findall(r'\bcode="(\w+)"', source))


def test_every_metric_is_explained(script):
    named = set(re.findall(r'"(charloom_\w+)"', (SERVER / "metrics.py").read_text("utf-8")))
    explained = re.findall(r"^\| `(charloom_\w+)` \|", script.PAGE.read_text("utf-8"), re.MULTILINE)
    assert {name.removesuffix("_total") for name in explained} == named
