import re
from pathlib import Path

import pytest
from scripts import http_reference

from charloom.server.routes import document

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "src" / "charloom" / "server"


def test_the_tables_are_those_of_the_servers_types():
    assert http_reference.PAGE.read_text("utf-8") == http_reference.page(), "run scripts/http_reference.py"


def test_a_field_without_a_meaning_is_refused(monkeypatch):
    monkeypatch.delitem(http_reference.MEANINGS["Health"], "ready")
    with pytest.raises(ValueError, match="Health"):
        http_reference.page()


def test_every_status_and_code_is_explained():
    page = http_reference.PAGE.read_text("utf-8")
    rows = re.findall(r"^\| ([0-9, ]+) \| (?:`(\w+)`|none) \|", page, re.MULTILINE)
    statuses = {status for statuses, _ in rows for status in statuses.split(", ")}
    responses = document()["paths"]["/v1/completions"]["post"]["responses"]
    assert statuses - {"405"} == set(responses) - {"200"}
    source = "\n".join(path.read_text("utf-8") for path in SERVER.glob("*.py"))
    assert {code for _, code in rows if code} == set(re.findall(r'\bcode="(\w+)"', source))


def test_every_metric_is_explained():
    named = set(re.findall(r'"(charloom_\w+)"', (SERVER / "metrics.py").read_text("utf-8")))
    explained = re.findall(r"^\| `(charloom_\w+)` \|", http_reference.PAGE.read_text("utf-8"), re.MULTILINE)
    assert {name.removesuffix("_total") for name in explained} == named
