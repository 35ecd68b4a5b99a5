"""Reports: self-contained HTML pages, made from values alone. Nothing here loads JAX."""

from charloom.reports.model_report import model_report
from charloom.reports.pages import PAGE
from charloom.reports.study_report import study_report
from charloom.reports.surprise import MOST_CHARACTERS, surprise_page, too_long
from charloom.reports.telling_units import TellingUnit, features_of, telling_units

__all__ = [
    "MOST_CHARACTERS",
    "PAGE",
    "TellingUnit",
    "features_of",
    "model_report",
    "study_report",
    "surprise_page",
    "telling_units",
    "too_long",
]
