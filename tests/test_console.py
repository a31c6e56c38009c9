"""What a person at a terminal sees: tables that can be read, notes, and bars only where there is a terminal."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recae import console
from recae.datasets import describe
from recae.events import read_events
from recae.interactions import Interactions
from recae.progress import Step, silence

METRICS = pd.DataFrame(
    [
        ("popularity", "ndcg", 10, 0.1, 0.05, 0.15, 12),
        ("popularity", "coverage", 5, 0.2, np.nan, np.nan, 12),
        ("ease", "ndcg", 10, 0.4321, 0.4, 0.6, 12),
        ("ease", "coverage", 5, 0.9, np.nan, np.nan, 12),
        ("knn", "ndcg", 10, 0.2, 0.15, 0.25, 12),
        ("knn", "coverage", 5, 0.5, np.nan, np.nan, 12),
    ],
    columns=["model", "metric", "k", "value", "ci_low", "ci_high", "users"],
)


def test_models_are_ordered_by_the_first_metric():
    header, rows = console.metric_rows(METRICS)
    assert header == ["model", "ndcg@10", "coverage@5"]
    assert rows == [
        ["ease", "0.4321 ±0.100", "0.9000"],
        ["knn", "0.2000 ±0.050", "0.5000"],
        ["popularity", "0.1000 ±0.050", "0.2000"],
    ]


def test_each_model_says_what_it_is_better_than_best_first():
    order = ["ease", "als", "knn", "popularity"]
    beaten = {"ease": ["popularity", "knn"], "als": ["knn", "popularity"], "knn": ["popularity"]}
    assert console.better_lines(order, beaten) == [
        "  ease        than knn, popularity",
        "  als         than all below",
        "  knn         than popularity",
    ]
    assert console.better_lines(order, {}) == ["  none: these users cannot tell the models apart"]


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_a_table_keeps_its_figures_whole_whatever_the_width(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    console.print_table(*console.metric_rows(METRICS))
    printed = capsys.readouterr().out
    assert "0.4321 ±0.100" in printed
    assert "0.9000" in printed


def test_where_there_is_no_terminal_a_table_has_room(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    console.print_table(["model", "of"], [["ease", "popularity, item-knn, random, als, bpr"]])
    assert "popularity, item-knn, random, als, bpr" in capsys.readouterr().out


def test_a_summary_has_a_line_a_metric(capsys):
    console.print_summary(METRICS.iloc[2:4].drop(columns="model"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["ndcg@10", "0.4321", "0.4000", "–", "0.6000", "12"] in lines
    assert ["coverage@5", "0.9000", "12"] in lines


def test_json_has_numbers_for_numpy_s_and_null_for_none(capsys):
    console.print_json({"users": np.int64(3), "share": np.float32(0.5), "rest": [float("nan")], "path": Path("a/b")})
    assert json.loads(capsys.readouterr().out) == {"users": 3, "share": 0.5, "rest": [None], "path": "a/b"}


def test_notes_are_told_if_there_is_anything_to_tell(capsys):
    console.print_notes({"rows with an empty user id: skipped": 1234, "repeated events: merged": 0})
    assert capsys.readouterr().out == "note: 1,234 rows with an empty user id: skipped\n"


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (1_000_000_000, "2001-09-09 01:46 (1000000000)"),
        (1_000_000_000.5, "2001-09-09 01:46 (1000000000.5)"),
        (1_000_000_000_000, "2001-09-09 01:46 (1000000000000)"),
        (1_000_000_000_000_000, "2001-09-09 01:46 (1000000000000000)"),
        (1_000_000_000_000_000_000, "2001-09-09 01:46 (1000000000000000000)"),
        (253_402_214_400_000_000, "9999-12-31 00:00 (253402214400000000)"),
        (300_000_000_000_000_000, "1979-07-05 05:20 (300000000000000000)"),
        (31_536_000_000_000, "1971-01-01 00:00 (31536000000000)"),
        (-315_619_200_000_000, "1960-01-01 00:00 (-315619200000000)"),
        (-315_619_200, "1960-01-01 00:00 (-315619200)"),
        (-100_000_000_000_000_000, "-100000000000000000"),
        (9.5e18, "2271-01-16 16:53 (9.5e+18)"),
        (17, "17"),
        (-3, "-3"),
        (20260131, "20260131"),
        (1e30, "1e+30"),
    ],
)
def test_a_time_is_a_date_where_that_is_likely(time, said):
    assert console.moment(time) == said


def test_a_log_is_described_in_words(capsys):
    table = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 1], "rating": [-1.5, 4, 5], "time": [5, 6, 7]})
    console.print_description(describe(_kept(table)), 1234)
    printed = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert {key: value.strip() for key, value in printed.items()} == {
        "rows read": "1,234",
        "interactions": "3",
        "users": "2",
        "items": "2",
        "density": "75.000%",
        "items per user": "min 1, p25 1, median 2, p75 2, p95 2, max 2",
        "users per item": "min 1, p25 1, median 2, p75 2, p95 2, max 2",
        "values": "-1.5 to 5",
        "times": "5 to 7",
    }
    console.print_description(describe(_kept(table[["user_id", "item_id"]])), 3)
    printed = capsys.readouterr().out
    assert "all 1" in printed
    assert "none" in printed


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(console.time, "monotonic", lambda: 0)
    with console.progress_bars(quiet=False) as listener:
        listener(Step("als", 1, 15, {"loss": 2.0}))  # too early
        monkeypatch.setattr(console.time, "monotonic", lambda: 31)
        listener(Step("mult-vae", 3, 2000, {"loss": 12.3456, "seconds": 0.5}))
        listener(Step("mult-vae", 4, 2000))  # too soon after
        monkeypatch.setattr(console.time, "monotonic", lambda: 40)
        listener(Step("mult-vae", 5, 2000))
        listener(Step("ease", 12, 12))  # at its end
    assert capsys.readouterr() == ("", "mult-vae 3/2,000  loss 12.35\nease 12/12\n")


def _kept(table: pd.DataFrame) -> Interactions:
    from recae.interactions import Preparation

    return Interactions.from_events(read_events(table), Preparation(values="keep"))


def test_bars_are_for_terminals_that_are_not_told_to_be_quiet(monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with console.progress_bars(quiet=True) as listener:
        assert listener is silence
    assert capsys.readouterr() == ("", "")
    with console.progress_bars(quiet=False) as listener:
        listener(Step("mult-vae", 3, 20, {"loss": 12.3456, "kl_weight": 0.125, "ndcg_at_100": 0.25, "seconds": 0.5}))
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "mult-vae" in seen.err
    assert "3/20" in seen.err
    assert "loss 12.35  ndcg_at_100 0.25" in seen.err
    assert "seconds" not in seen.err
