"""Reports: self-contained HTML pages, made from JSON values alone. Nothing here loads JAX."""

from charloom.reports.study_report import study_report

__all__ = ["study_report"]
