"""The pages that recae leaves for people: self-contained, with pictures.

inputs       what an experiment hands over, and in which order its models appear
results      the summary, the table of figures
measures     what the pictures show, as numbers
maps         users and items as points on a plane
calibration  predicted values beside actual ones
people       real users, side by side with what they were recommended, or with the values predicted of them
oddities     the users who are hardest to explain
drawing      how a picture is drawn: inline SVG that follows the page's colours
plots        the pictures
compared     all of it as one page: report.html
made_up      the page of users who never were
searched     the page of a search for better settings: tune.html (trials: what it tried)
page         a page is filled into its template, and written
"""

from recae.report.compared import render_report, write_report
from recae.report.inputs import ReportInput
from recae.report.maps import mapped_items
from recae.report.oddities import explained_users

__all__ = ["ReportInput", "explained_users", "mapped_items", "render_report", "write_report"]
