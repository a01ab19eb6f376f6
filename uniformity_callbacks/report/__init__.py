"""What a person looks at after a run: journals turned into one page."""

from uniformity_callbacks.report.page import write_report

__all__ = ["write_report"]
