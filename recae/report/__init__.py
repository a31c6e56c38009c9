"""The report of an experiment: one self-contained page, with pictures.

inputs     what an experiment hands over, and in which order its models appear
results    the summary, the table of figures
measures   what the pictures show, as numbers
plots      the pictures, as inline SVG that follows the page's colours
people     real users, side by side with what they were recommended
oddities   the users who are hardest to explain
page       all of it as one file of HTML
"""

from recae.report.inputs import ReportInput
from recae.report.oddities import explained_users
from recae.report.page import render_report, write_report

__all__ = ["ReportInput", "explained_users", "render_report", "write_report"]
