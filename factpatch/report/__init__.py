"""A release for readers: the page, the card, and the comparison of two."""

from factpatch.report.card import render_card
from factpatch.report.comparison import render_comparison
from factpatch.report.evidence import read_evidence, read_release
from factpatch.report.page import render_report

__all__ = ["read_evidence", "read_release", "render_card", "render_comparison", "render_report"]
