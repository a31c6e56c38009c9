"""The page of a search: what was tried, where the best is, and that it survives what went wrong."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pages import require_sound

from recae.ranges import Choices, Span
from recae.report.searched import render_search
from recae.report.trials import WORST, SearchInput, read_trials


def table(model: str, figures: list[float], *, metric: str = "ndcg@100", **columns: Any) -> pd.DataFrame:
    """Return trials as a search leaves them; a figure that is NaN stands for one that failed."""
    count = len(figures)
    failed = np.isnan(figures)
    return pd.DataFrame(
        {
            "model": model,
            "trial": range(count),
            "state": np.where(failed, "failed", "complete"),
            "metric": metric,
            "value": figures,
            "best_epoch": pd.array([None if bad else 2 for bad in failed], dtype="Int64"),
            "seconds": 1.5,
            "settings": [json.dumps({"l2": 10.0**number, "hidden": [8, number]}) for number in range(count)],
            "reason": np.where(failed, "needs 3 GB", ""),
            "curve": [[] if bad else [figure / 2, figure] for bad, figure in zip(failed, figures, strict=True)],
        }
    ).assign(**columns)


def found(*tables: pd.DataFrame, **best: int) -> SearchInput:
    return SearchInput(
        title="films", recipe="name: films\n", ranges={}, facts={"device": "cpu"}, caveats=["one <caveat>"],
        trials=pd.concat(tables), best=best,
    )  # fmt: skip


def test_the_page_says_what_was_found() -> None:
    ease, vae = table("ease", [0.30, 0.25, 0.3125, np.nan]), table("vae", [0.2, 0.1])
    ease.loc[1, "state"] = "pruned"
    html = render_search(found(ease, vae, ease=2, vae=0))
    page = require_sound(html)
    for part in (
        "6 settings of 2 models tried",
        "ease reaches ndcg@100 0.3125, 0.0125 better than the recipe's own settings.",
        "vae reaches ndcg@100 0.2000, with the recipe's own settings: none of the others is better.",
        "ease ndcg@100 0.3000 0.3125 0.0125 2 2 complete, 1 given up, 1 failed 6.0 l2 100, hidden 8 × 2",
        "l2 1 100",
        "one <caveat>",
        "name: films",
    ):
        assert part in page.text
    labels = [str(svg["aria-label"]) for svg in page.named("svg") if svg.get("role") == "img"]
    # Of each model the trials, a picture for each of the two settings, and the curves.
    assert len(labels) == 8
    assert labels[:4] == [
        "4 trials; the best is trial 2 with 0.3125",
        "ndcg@100 by l2: from 1 to 1000",
        "ndcg@100 by hidden: 8 × 0, 8 × 1, 8 × 2, 8 × 3",
        "3 trainings; the best is trial 2 with 0.3125",
    ]
    assert render_search(found(ease, vae, ease=2, vae=0)) == html


def test_the_best_so_far_is_that_of_complete_trials_in_the_metrics_own_direction() -> None:
    figures = [np.nan, 0.5, 0.7, 0.6, 0.4]
    states = ["failed", "complete", "pruned", "complete", "complete"]
    up, down = (
        read_trials(found(table("m", figures, metric=metric, state=states), m=best))[0]
        for metric, best in (("ndcg@100", 3), ("rmse", 4))
    )
    np.testing.assert_array_equal(up.so_far, [np.nan, 0.5, 0.5, 0.6, 0.6])
    np.testing.assert_array_equal(down.so_far, [np.nan, 0.5, 0.5, 0.5, 0.4])
    assert (up.best_value, down.best_value) == (0.6, 0.4)
    assert np.isnan(up.gain)
    assert down.counts == {"complete": 3, "given up": 1, "failed": 1}


@pytest.mark.parametrize(("metric", "sign"), [("ndcg@100", 1), ("rmse", -1)])
def test_a_trial_that_went_astray_does_not_press_the_others_together(metric: str, sign: int) -> None:
    figures = [1.0, 0.9, 0.8, 0.9, -50.0]
    tried = read_trials(found(table("m", [sign * one for one in figures], metric=metric), m=0))[0]
    assert tried.edge == pytest.approx(sign * (1.0 - WORST * 0.1))
    text = require_sound(render_search(found(table("m", [sign * one for one in figures], metric=metric), m=0))).text
    assert "1 is worse than the axis shows and stands at its edge." in text
    assert "1 of 5 lies at the edge, as above" in text
    worse = table("m", [sign * one for one in [*figures, -9.0, np.nan]], metric=metric)
    text = require_sound(render_search(found(worse, m=0))).text
    assert "2 are worse than the axis shows and stand at its edge. 1 that failed has no figure" in text
    assert "2 of 7 lie at the edge, as above" in text
    within = found(table("m", [sign * one for one in figures[:4]], metric=metric), m=0)
    assert read_trials(within)[0].edge is None
    assert "the edge" not in require_sound(render_search(within)).text


TUNED = {
    "m": {
        "rate": Span(3e-4, 5e-3, log=True),
        "share": Span(0.2, 0.8),
        "width": Choices((400, 100, 200)),
        "hidden": Choices(([600], [200, 200])),
    }
}


def written(html: str, setting: str) -> list[str]:
    """Return what the ticks of a setting's picture say."""
    picture = html.split(f"<figcaption><b>{setting}</b>")[1].split("</svg>")[0]
    return re.findall(r">([^<>]*)</text>", picture.split('aria-label="')[1].split("ndcg", 1)[1])


def slices(**settings: list[Any]) -> str:
    trials = [json.dumps(dict(zip(settings, one, strict=True))) for one in zip(*settings.values(), strict=True)]
    figures = list(np.linspace(0.25, 0.3, len(trials)))
    return render_search(replace(found(table("m", figures, settings=trials), m=len(trials) - 1), ranges=TUNED))


def test_a_setting_is_drawn_along_its_range_or_at_its_choices() -> None:
    html = slices(rate=[0.001, 0.0005], share=[0.5, 0.4], width=[200, 100], hidden=[[600], [200, 200]])
    assert {"0.0003", "0.001", "0.005"} <= set(written(html, "rate"))
    assert "0.004" not in written(html, "rate")  # an axis of even steps would have it
    assert {"0.2", "0.4", "0.6", "0.8"} <= set(written(html, "share"))
    assert written(html, "width")[:3] == ["100", "200", "400"]
    assert written(html, "hidden")[:2] == ["200 × 200", "600"]


def test_what_has_no_place_on_a_range_stands_before_it() -> None:
    html = slices(rate=[None, 0.001], share=[0.9, 0.4], width=[300, 100])
    assert written(html, "rate")[0] == "None"
    assert "0.005" in written(html, "rate")
    assert written(html, "width")[:4] == ["100", "200", "300", "400"]
    zero = slices(rate=[0, 0.001], share=[0.5, 0.4])
    assert written(zero, "rate")[:2] == ["0", "0.0003"]


def test_the_page_says_how_many_users_the_gain_was_measured_on() -> None:
    search = replace(found(table("m", [0.2, 0.3]), m=1), facts={"validation users": "1,234"})
    text = require_sound(render_search(search)).text
    assert "Measured on the 1,234 validation users, whom" in text
    assert "by 1,234 validation users. A gain has no interval" in text


@pytest.mark.parametrize(
    "trials",
    [
        table("m", [0.3]),
        table("m", [0.3, 0.3, 0.3]),
        table("m", [0.0, 0.0]),
        table("m", [np.nan, 0.2]),
        table("m", [0.3, 0.2], curve=[[0.3], [0.2]], best_epoch=pd.NA),
        table(
            "m", [0.3, 0.2], settings=json.dumps({"nothing": None, "switch": True, "activation": "relu", "hidden": []})
        ),
    ],
)
def test_the_page_survives_what_is_missing(trials: pd.DataFrame) -> None:
    best = int(trials["value"].argmax())
    text = require_sound(render_search(found(trials, table("broken", [np.nan, np.nan]), m=best))).text
    assert "nan" not in text.lower().split()
    assert "broken ndcg@100 – – – – 2 failed" in text


def test_an_axis_says_small_numbers_with_all_their_digits() -> None:
    settings = [json.dumps({"rate": 10.0**-number}) for number in (2, 3, 4)]
    search = found(table("m", [0.3011, 0.3012, 0.3013], settings=settings), m=2)
    ranges = {"m": {"rate": Span(0.0001, 0.01, log=True)}}
    ticks = re.findall(r">([^<>]*)</text>", render_search(replace(search, ranges=ranges)))
    assert {"0.0001", "0.001", "0.01"} <= set(ticks)
    assert any(re.fullmatch(r"0\.301[1-3]\d*", one) for one in ticks)


def test_names_from_outside_are_text() -> None:
    nasty = "<script>alert('{{ 7*7 }}')</script>$x_1$\"&"
    search = found(table(nasty, [0.2, 0.3]))
    page = require_sound(
        render_search(
            replace(search, title=nasty, recipe=nasty, facts={nasty: nasty}, caveats=[nasty], best={nasty: 1})
        )
    )
    assert page.text.count(nasty) > 8
