"""Reports: self-contained HTML pages, made from plain values. Nothing here loads JAX."""

from charloom.reports.model_report import model_report
from charloom.reports.pages import PAGE
from charloom.reports.study_report import study_report
from charloom.reports.surprise import MAX_CHARACTERS, surprise_page, too_long
from charloom.reports.unit_probes import UnitProbe, features_of, unit_probes

__all__ = [
    "MAX_CHARACTERS",
    "PAGE",
    "UnitProbe",
    "features_of",
    "model_report",
    "study_report",
    "surprise_page",
    "too_long",
    "unit_probes",
]
