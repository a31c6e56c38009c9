"""The page of a search for better settings: what was tried, what it brought, and what was best."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from recae.report import plots
from recae.report.page import Picture, render
from recae.report.trials import BEST, STYLES, SearchInput, Tried, read_trials, said


@dataclass(frozen=True, eq=False)
class Section:
    """One model's part of the page; `slices` has a picture a hyper-parameter."""

    tried: Tried
    trials: Picture
    curves: Markup | None
    slices: Sequence[tuple[str, Markup]]


def render_search(search: SearchInput) -> str:
    """Return the page as HTML; the same input gives the same text."""
    sections = [_section(tried) for tried in read_trials(search)]
    models = f"{len(sections)} models" if len(sections) != 1 else "one model"
    return render(
        "tune.html",
        title=f"{search.title}: recae tune",
        eyebrow=f"{len(search.trials):,} settings of {models} tried",
        heading=search.title,
        contents={
            "results": "Results",
            **{f"model-{number}": section.tried.model for number, section in enumerate(sections)},
            "making": "How it was made",
        },
        search=search,
        sections=sections,
        said=said,
    )


def _section(tried: Tried) -> Section:
    legend = [(state, STYLES[state]) for state in tried.counts]
    best = [] if tried.best is None else [("the best", BEST)]
    long = [curve for curve in tried.curves if len(curve) > 1]
    return Section(
        tried=tried,
        trials=Picture(plots.trials_picture(tried), [*legend, *best]),
        curves=plots.curves_picture(tried) if long else None,
        slices=[(name, plots.slice_picture(tried, name)) for name in map(str, tried.settings)],
    )
