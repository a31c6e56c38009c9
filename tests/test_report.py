"""The report: one page that needs nothing else, says what the tables say, and survives what is missing."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import write_inputs
from matplotlib.figure import Figure
from pages import Page, require_sound
from scipy.sparse import csr_matrix, random_array

from recae import experiment
from recae.anomalies import Surprise, of_users
from recae.artifact import read_card
from recae.comparison import compare
from recae.errors import OutputError
from recae.evaluation import Evaluation, evaluate, summarise
from recae.interactions import IdMap, Interactions
from recae.metrics import Metric
from recae.ranking import NO_ITEM, TopN
from recae.recipe import read_recipe
from recae.report import ReportInput, render_report, write_report
from recae.report.calibration import FEW, calibrate, find_calibration, value_steps
from recae.report.curves import read_curves
from recae.report.drawing import PAINT, SERIES, Style, ratio_axis_around
from recae.report.maps import (
    APART,
    MOST_GENRES,
    NAMED_ITEMS,
    OTHER_GENRES,
    PointMap,
    _genre_flags,
    genres_of,
    item_map,
    mapped_items,
    user_map,
    with_genres,
)
from recae.report.measures import gain_by_bin, length_bins, recall_by_k, share_by_popularity
from recae.report.oddities import EXPLAINED_USERS, explained_users, find_oddities
from recae.report.people import LISTED, PEOPLE, choose_people, portray
from recae.report.results import quality_table, value_table
from recae.report.results import summarise as sum_up
from recae.splitting import Fold
from recae.tracking import Tracker

METRICS = [Metric("recall", 5), Metric("ndcg", 10), Metric("coverage", 10)]


def interactions(matrix: csr_matrix, table: pd.DataFrame, *, timed: bool = True) -> Interactions:
    return Interactions(
        matrix=matrix,
        users=IdMap.of([f"user-{number:03d}" for number in range(matrix.shape[0])]),
        items=IdMap.of(np.arange(matrix.shape[1]) + 1000),
        item_table=table,
        times=np.arange(matrix.nnz) if timed else None,
    )


def make_report(
    users: int = 40,
    items: int = 60,
    models: tuple[str, ...] = ("ease", "popularity", "random"),
    *,
    mapped: bool = False,
) -> ReportInput:
    """Build an experiment on random data whose first model knows the answer, and each later one a little less."""
    generator = np.random.default_rng(5)
    liked = csr_matrix(random_array((users, items), density=0.3, rng=generator, dtype=np.float32).astype(bool))
    hidden = liked.toarray() & (generator.random(liked.shape) < 0.3)
    history, held_out = (csr_matrix(part, dtype=np.float32) for part in (liked.toarray() & ~hidden, hidden))
    table = pd.DataFrame(
        {
            "title": [f"Film {n}" for n in range(items)],
            "genres": ["Drama|War", "Comedy", "(no genres listed)"] * (items // 3),
        }
    )
    top, judged = {}, {}
    for number, model in enumerate(models):
        score = hidden + (0.8 + number) * generator.random(liked.shape)
        score[history.toarray() > 0] = -np.inf
        order = np.argsort(-score, axis=1, kind="stable")[:, :12]
        top[model] = TopN(order.astype(np.int32), np.take_along_axis(score, order, 1).astype(np.float32))
        judged[model] = evaluate(top[model], history, held_out, METRICS, history)
    train = interactions(history, table)
    ids, lengths = train.users.ids, np.diff(history.indptr)
    return ReportInput(
        title="a recipe",
        recipe="name: a recipe\nseed: 42\n",
        facts={"date": "2025-01-01", "device": "cpu"},
        caveats=["2 users have no target."],
        metrics=pd.concat([summarise(one, resamples=50).assign(model=model) for model, one in judged.items()]),
        main_metric=Metric("ndcg", 10),
        comparisons=compare(judged, Metric("ndcg", 10), resamples=50, permutations=200),
        per_user=pd.concat(
            [one.per_user.assign(model=model, user_id=ids, history_length=lengths) for model, one in judged.items()]
        ),
        curves={
            models[0]: pd.DataFrame(
                {"epoch": [1, 2, 3], "loss": [9.0, 5.0, 4.0], "ndcg_at_10": [0.1, 0.3, 0.2], "kl_weight": [0, 0.1, 0.2]}
            )
        },
        top=top,
        train=train,
        fold=Fold(train, interactions(held_out, table)),
        user_embeddings={models[0]: generator.normal(size=(users, 4)).astype(np.float32)},
        item_embeddings={models[0]: generator.normal(size=(items, 4)).astype(np.float32)} if mapped else {},
        surprises={models[0]: surprise(history, generator)},
    )


def surprise(history: csr_matrix, generator: np.random.Generator) -> Surprise:
    """Return how much random histories surprise nobody in particular."""
    lengths, of_each = np.diff(history.indptr).astype(np.int64), generator.gamma(9, size=history.nnz)
    return Surprise(of_each.astype(np.float32), of_users(of_each, lengths), lengths)


@pytest.fixture(scope="module")
def report() -> ReportInput:
    return make_report(mapped=True)


@pytest.fixture(scope="module")
def html(report: ReportInput) -> str:
    return render_report(report)


def with_items(report: ReportInput, table: pd.DataFrame) -> ReportInput:
    train = replace(report.train, item_table=table)
    return replace(report, train=train, fold=Fold(train, replace(report.fold.held_out, item_table=table)))


def test_the_page_is_one_well_formed_file_that_loads_nothing(html: str) -> None:
    require_sound(html)
    assert len(html.encode()) < 300_000


def test_pictures_have_words_and_follow_the_reader_theme(html: str) -> None:
    assert len(require_sound(html).named("figure")) == 8


def test_tables_have_headers(html: str) -> None:
    heads = Page(html).named("th")
    assert {head.get("scope") for head in heads} == {"row", "col"}


def test_the_page_says_what_the_tables_say(report: ReportInput, html: str) -> None:
    text = Page(html).text
    best = report.metrics[(report.metrics["metric"] == "ndcg")].set_index("model").loc["ease"]
    assert f"ease is best: ndcg@10 {best['value']:.4f}" in text
    assert f"measured on {best['users']} users" in text
    for value in report.metrics["value"]:
        assert f"{value:.4f}" in text
    for part in ("2 users have no target.", "seed: 42", "2025-01-01", "Film 7", "user-0", "the share of the held-out"):
        assert part in text


def test_where_lower_is_better_the_lowest_comes_first_and_who_has_none_last(report: ReportInput) -> None:
    errors = {"ease": 0.8, "popularity": np.nan, "random": 0.5}
    rmse = Metric("rmse")
    per_user = report.per_user.assign(rmse=report.per_user["model"].map(errors) + 0.01 * report.per_user["ndcg_at_10"])
    held_out = np.diff(report.fold.held_out.matrix.indptr)
    judged = {
        model: Evaluation(frame.reset_index()[["rmse"]], {}, len(frame), 0, 0, held_out)
        for model, frame in per_user.groupby("model")
    }
    rows = pd.concat([summarise(one, resamples=20).assign(model=model) for model, one in judged.items()])
    curve = pd.DataFrame({"loss": [3.0, 2.0, 1.0], "rmse": [0.9, 0.7, 0.8]})
    of_values = replace(
        report,
        metrics=pd.concat([rows, report.metrics]),
        per_user=per_user,
        main_metric=rmse,
        comparisons=compare(judged, rmse, resamples=50, permutations=200),
        curves={"ease": curve},
    )
    assert of_values.models == ["random", "ease", "popularity"]
    assert list(of_values.user_values) == ["random", "ease"]
    best = sum_up(of_values)
    assert best.best == "random"
    assert best.second is not None
    assert 0 < best.second.ci_low <= best.second.difference <= best.second.ci_high
    assert best.second.significant
    table = value_table(of_values)
    assert [row.better_than for row in table.rows] == ["ease", "–", "–"]
    assert [row.cells[0].best for row in table.rows] == [True, False, False]
    assert not quality_table(of_values).tested
    assert read_curves(of_values)[0].best_epoch == 2
    text = Page(render_report(of_values)).text
    for part in (
        "random is best: rmse",
        "Errors of predicted values, lower is better",
        "Ranking quality",
        "It beats the second, ease",
    ):
        assert part in text


def test_the_same_input_gives_the_same_bytes(html: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    write_report(tmp_path / "report.html", make_report(mapped=True))
    assert (tmp_path / "report.html").read_bytes() == html.encode()


def test_names_from_outside_are_text(report: ReportInput) -> None:
    nasty = "<script>alert('é推薦🎬 $x_1$ {{ 7*7 }}')</script>\"&"
    table = report.train.item_table.assign(title=nasty, genres=nasty)
    strange = with_items(
        replace(
            report,
            title=nasty,
            recipe=nasty,
            facts={nasty: nasty},
            caveats=[nasty],
            metrics=report.metrics.replace("ease", nasty),
            comparisons=report.comparisons.replace("ease", nasty),
            per_user=report.per_user.replace("ease", nasty),
            curves={nasty: report.curves["ease"].assign(**{nasty: 1.0})},
            top={nasty: report.top["ease"], "random": report.top["random"]},
            user_embeddings={nasty: report.user_embeddings["ease"]},
            item_embeddings={nasty: report.item_embeddings["ease"]},
        ),
        table,
    )
    page = Page(render_report(strange))
    assert not page.named("script")
    assert page.text.count(nasty) > 20


def test_an_existing_report_is_kept_unless_told(report: ReportInput, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_report(path, report)
    assert path.read_text() == "mine"
    write_report(path, bare(report), overwrite=True)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_made_leaves_nothing(report: ReportInput, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rankings of"):
        short = TopN(report.top["ease"].items[:3], report.top["ease"].scores[:3])
        write_report(tmp_path / "out" / "report.html", replace(report, top={"ease": short}))
    assert list(tmp_path.iterdir()) == []


def without_targets(report: ReportInput) -> ReportInput:
    nothing = replace(
        report.fold.held_out, matrix=csr_matrix(report.fold.held_out.matrix.shape, dtype=np.float32), times=None
    )
    return replace(
        report,
        fold=Fold(report.fold.history, nothing),
        metrics=report.metrics.assign(value=np.nan, ci_low=np.nan, ci_high=np.nan, users=0),
        per_user=report.per_user.assign(ndcg_at_10=np.nan, recall_at_5=np.nan),
        comparisons=report.comparisons.iloc[:0],
    )


def with_curves(report: ReportInput, **columns: list[float]) -> ReportInput:
    return replace(report, curves={"ease": pd.DataFrame(columns), "random": pd.DataFrame()})


def with_vectors(report: ReportInput, vectors: np.ndarray) -> ReportInput:
    vectors = vectors.astype(np.float32)
    return replace(
        report, user_embeddings={"ease": vectors}, item_embeddings={"ease": np.resize(vectors, (60, vectors.shape[1]))}
    )


def with_gaps_only(report: ReportInput) -> ReportInput:
    gaps = TopN(np.full((40, 3), NO_ITEM, np.int32), np.full((40, 3), -np.inf, np.float32))
    return replace(report, top={"ease": gaps})


def bare(report: ReportInput) -> ReportInput:
    """Leave nothing but the figures: no picture, and so quick to render."""
    return replace(
        report, curves={}, user_embeddings={}, item_embeddings={}, surprises={}, top={}, per_user=pd.DataFrame()
    )


# A page is made once for several gaps that have nothing to do with each other.
MISSING: dict[str, list[Callable[[ReportInput], ReportInput]]] = {
    "all but the figures": [bare, lambda r: replace(r, title="", recipe="", facts={}, caveats=[])],
    "validation metric, second dimension, item table, intervals": [
        lambda r: with_curves(r, epoch=[1, 2], loss=[3.0, 2.0]),
        lambda r: with_vectors(r, np.ones((40, 1))),
        lambda r: with_items(r, pd.DataFrame(index=range(60))),
        lambda r: replace(r, metrics=r.metrics.assign(ci_low=np.nan, ci_high=np.nan)),
    ],
    "loss, difference between users, paired tests, per-user values": [
        lambda r: with_curves(r, epoch=[1, 2], ndcg_at_20=[0.1, 0.2]),
        lambda r: with_vectors(r, np.ones((40, 3))),
        lambda r: replace(r, comparisons=pd.DataFrame(), per_user=pd.DataFrame()),
    ],
    "epochs but one, finite vectors, some titles, genres, times": [
        lambda r: with_curves(r, epoch=[1], loss=[3.0], ndcg_at_10=[0.1]),
        lambda r: with_vectors(r, np.full((40, 3), np.nan)),
        lambda r: replace(r, surprises={"ease": replace(r.surprises["ease"], of_user=np.full(40, np.nan))}),
        lambda r: with_items(r, pd.DataFrame({"title": [None, " ", "Film"] * 20})),
        lambda r: replace(r, fold=Fold(replace(r.fold.history, times=None), r.fold.held_out)),
    ],
    "values in a curve, any known genre, items in rankings": [
        lambda r: with_curves(r, loss=[np.nan, 2.0], ndcg_at_10=[np.nan, np.nan]),
        lambda r: with_items(r, r.train.item_table.assign(genres=None)),
        with_gaps_only,
    ],
    "targets": [without_targets],
}


@pytest.mark.parametrize("what", MISSING)
def test_the_page_survives_what_is_missing(report: ReportInput, what: str) -> None:
    for take_away in MISSING[what]:
        report = take_away(report)
    page = Page(render_report(report))
    assert page.open == []
    assert len(page.named("section")) == 7
    assert "nan" not in re.findall(r"[a-z]+", page.text.lower())


def test_the_user_who_is_hardest_to_explain_is_named_with_what_surprises(report: ReportInput) -> None:
    known = report.surprises["ease"]
    of_each, of_user = known.of_each.copy(), known.of_user.copy()
    of_user[7], last = 99, int(known.lengths[:8].sum()) - 1
    of_each[last] = 99
    odd = replace(report, surprises={"random": replace(known, of_each=of_each, of_user=of_user)})
    found = find_oddities(odd)
    assert found is not None
    assert (found.model, found.oddest[0].user, found.surprise[0]) == ("random", "user-007", 99)
    film = f"Film {report.fold.history.matrix.indices[last]}"
    assert found.oddest[0].items[0] == film
    row = Page(render_report(odd)).text.split("what surprises most")[1].split("user-")[1]
    assert row.startswith("007 +")
    assert film in row
    assert "No model of this experiment has a likelihood" in Page(render_report(bare(report))).text


@pytest.mark.parametrize("users", [0, 1, 5, 7000])
def test_users_to_explain_are_evenly_drawn(users: int) -> None:
    rows = explained_users(users)
    assert len(rows) == min(users, EXPLAINED_USERS)
    assert not users or (rows[0], rows[-1]) == (0, users - 1)


@pytest.mark.parametrize(("users", "models"), [(2, 3), (1, 2), (3, 1), (40, 15)])
def test_any_number_of_users_and_models(users: int, models: int) -> None:
    names = ("popularity", *(f"model-{number:02d}" for number in range(models - 1)))
    page = Page(render_report(make_report(users, models=names)))
    assert page.open == []
    assert all(name in page.text for name in names)


def test_items_without_a_title_go_by_their_id(report: ReportInput) -> None:
    assert list(with_items(report, pd.DataFrame({"title": [None, " ", "Film"] * 20})).item_labels[:3]) == [
        "1000",
        "1001",
        "Film",
    ]


def test_the_summary_knows_significant_from_not(report: ReportInput) -> None:
    tests, report = report.comparisons, bare(report)
    certain = replace(report, comparisons=tests.assign(significant=True, p_adjusted=0.0001))
    assert "a difference that is significant (p < 0.001)" in Page(render_report(certain)).text
    unsure = replace(report, comparisons=tests.assign(significant=False, p_adjusted=0.4))
    assert "is not significant (p = 0.4): the two may well be equal" in Page(render_report(unsure)).text
    untested = replace(report, comparisons=tests.iloc[:0])
    assert "was not tested" in Page(render_report(untested)).text


def test_a_comparison_reads_the_same_in_both_directions(report: ReportInput) -> None:
    turned = report.comparisons.rename(columns={"model": "other", "other": "model"})
    turned = turned.assign(difference=-turned["difference"], ci_low=-turned["ci_high"], ci_high=-turned["ci_low"])
    swapped = replace(report, comparisons=turned)
    assert sum_up(swapped) == sum_up(report)
    assert quality_table(swapped) == quality_table(report)


def test_recall_curve_equals_the_metric(report: ReportInput) -> None:
    held_out, history = report.fold.held_out.matrix, report.fold.history.matrix
    band = recall_by_k(report.top["popularity"], held_out)
    for k in (1, 5, 12):
        expected = evaluate(report.top["popularity"], history, held_out, [Metric("recall", k)]).per_user.mean().iloc[0]
        assert band.y[k - 1] == pytest.approx(expected)


def test_history_lengths_fall_into_named_bins_of_about_equal_size() -> None:
    lengths = np.repeat([5, 7, 20], [40, 30, 30])
    group, names = length_bins(lengths, at_most=3)
    assert names == ("5", "7", "20")
    assert list(np.bincount(group)) == [40, 30, 30]
    spread, bins = length_bins(np.arange(100))
    assert list(np.bincount(spread)) == [20] * 5
    assert bins[0] == "0–19"


def test_gain_leaves_users_without_target_out() -> None:
    band = gain_by_bin(np.array([0.1, 0.3, np.nan, 0.5]), np.array([0, 0, 0, 1]), 3)
    assert band.y[:2] == pytest.approx([0.2, 0.5])
    assert np.isnan(band.y[2])
    assert 0.1 <= band.low[0] < 0.2 < band.high[0] <= 0.3
    assert np.isnan([band.low[1], band.high[1]]).all()


def test_an_interval_of_the_pictures_is_that_of_the_tables(report: ReportInput) -> None:
    """Of few users, one of whom gains much, the interval is lopsided: no multiple of a standard error."""
    history, held_out = report.fold.history.matrix, report.fold.held_out.matrix
    band = recall_by_k(report.top["ease"], held_out)
    rows = summarise(evaluate(report.top["ease"], history, held_out, [Metric("recall", k) for k in (1, 5, 12)]))
    places = rows["k"].to_numpy() - 1
    np.testing.assert_allclose(band.low[places], rows["ci_low"])
    np.testing.assert_allclose(band.high[places], rows["ci_high"])
    assert np.isnan(recall_by_k(report.top["ease"], held_out, bounded=False).low).all()
    lopsided = gain_by_bin(np.append(np.zeros(9), 1.0), np.zeros(10, dtype=np.int64), 1)
    assert (lopsided.low[0], lopsided.y[0]) == (0.0, 0.1)
    assert lopsided.high[0] == pytest.approx(0.3)


def test_popularity_share_counts_down_from_the_most_popular() -> None:
    band = share_by_popularity(np.array([1, 9, 5]), np.array([1, 1, 0, 2]))
    assert list(band.x) == [1, 2, 3]
    assert list(band.y) == [0.5, 0.75, 1.0]


def test_the_map_groups_users_by_the_genre_they_favour() -> None:
    matrix = csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]], dtype=np.float32))
    table = pd.DataFrame({"genres": ["War", "War|Drama", "Comedy", "Comedy|Drama"]})
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    users = user_map(vectors, interactions(matrix, table))
    assert users is not None
    assert [users.groups[number] for number in users.group] == ["War", "War", "Comedy", "Comedy"]
    assert 0 < users.explained[1] <= users.explained[0] <= 1
    by_length = user_map(vectors, interactions(matrix, pd.DataFrame(index=range(4))))
    assert by_length is not None
    assert by_length.groups == ("2–3",)


def two_tastes(items: int = 40, loved: int = 1) -> tuple[np.ndarray, Interactions]:
    """Return vectors of items that point one way or another, and histories; one item is everybody's."""
    generator = np.random.default_rng(3)
    towards = np.eye(3)[np.arange(items) % 2]
    vectors = (towards + 0.1 * generator.normal(size=(items, 3))) * generator.uniform(0.1, 9, size=(items, 1))
    matrix = csr_matrix(generator.random((30, items)) < 0.3, dtype=np.float32).tolil()
    matrix[:, loved] = 1
    table = pd.DataFrame({"genres": ["Even|All", "Odd|All"] * (items // 2)})
    return vectors.astype(np.float32), interactions(matrix.tocsr(), table, timed=False)


def test_neighbours_in_the_map_of_items_are_those_whose_vectors_point_the_same_way() -> None:
    vectors, train = two_tastes()
    columns = mapped_items(train.matrix)
    assert (columns[0], sorted(columns)) == (1, list(range(40)))
    found = item_map(vectors[columns], train, np.array([f"Film {n}" for n in range(40)], dtype=object))
    assert found is not None
    apart = np.linalg.norm(found.points[:, None] - found.points[None], axis=2) + 1e9 * np.eye(40)
    assert (columns[apart.argmin(axis=1)] % 2 == columns % 2).all()
    assert found.groups == ("Even", "Odd")  # each has the rarest of its genres
    assert (found.group == columns % 2).all()
    assert found.named[0] == (0, "Film 1")
    rows = [row for row, _ in found.named]
    assert rows == sorted(rows)
    assert len(rows) <= NAMED_ITEMS
    assert apart[np.ix_(rows, rows)].min() >= APART * np.ptp(found.points, axis=0).max()
    # Who is named lies nearer to none of those named before, and everybody else would, or came too late.
    for row in range(rows[-1]):
        assert row in rows or apart[row, [one for one in rows if one < row]].min() < APART * np.ptp(found.points)


def test_the_map_of_items_says_what_it_shows(report: ReportInput, html: str) -> None:
    page = Page(html)
    svg = html[html.index("The items as ease sees them") :]
    picture = next(svg for svg in page.named("svg") if "items: " in str(svg.get("aria-label")))
    assert str(picture["aria-label"]) == f"60 points. 20 items: Comedy; 20 items: War; 20 items: {OTHER_GENRES}"
    named = re.findall(r"<li>(Film \d+)</li>", svg[: svg.index("</ol>")])
    numbers = re.findall(r">(\d+)</text>", svg[: svg.index("</svg>")])
    assert numbers == [str(number) for number in range(1, len(named) + 1)]
    assert named[0] == f"Film {mapped_items(report.train.matrix)[0]}"


def test_of_many_items_the_most_popular_are_mapped(report: ReportInput, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recae.report.maps.MAPPED_ITEMS", 20)
    popularity, columns = report.train.matrix.getnnz(axis=0), mapped_items(report.train.matrix)
    assert popularity[columns].min() >= np.delete(popularity, columns).max()
    cut = replace(bare(report), item_embeddings={"ease": report.item_embeddings["ease"][columns]})
    text = Page(render_report(cut)).text
    assert "The most popular items as ease sees them Each point is one of the 20 most popular of 60 items" in text


@pytest.mark.parametrize(
    "vectors", [np.ones((40, 1)), np.ones((40, 3)), np.full((40, 3), np.nan), np.zeros((40, 3)), np.eye(4, 3)]
)
def test_items_that_no_vector_tells_apart_have_no_map(vectors: np.ndarray) -> None:
    assert item_map(vectors.astype(np.float32), two_tastes()[1], np.full(40, "", dtype=object)) is None


def test_of_very_many_genres_the_most_frequent_are_looked_at() -> None:
    flags = _genre_flags(pd.DataFrame({"genres": [f"brand {item}|shoes" for item in range(3000)]}))
    assert flags is not None
    assert flags.shape == (3000, MOST_GENRES)
    assert flags["shoes"].all()
    assert flags.drop(columns="shoes").sum().max() == 1


def test_without_genres_the_map_of_items_shows_how_popular_they_are() -> None:
    vectors, train = two_tastes()
    columns = mapped_items(train.matrix)
    plain = replace(train, item_table=pd.DataFrame(index=range(40)))
    found = item_map(vectors[columns], plain, np.full(40, "", dtype=object))
    assert found is not None
    assert found.ordered
    popularity = train.matrix.getnnz(axis=0)[columns]
    assert (np.diff(found.group[np.argsort(popularity, kind="stable")]) >= 0).all()


def test_people_are_spread_from_the_worst_to_the_best_served(report: ReportInput) -> None:
    values = report.user_values["ease"].to_numpy()
    chosen = values[choose_people(report)]
    assert len(chosen) == PEOPLE
    assert chosen[0] == np.nanmin(values)
    assert chosen[-1] == np.nanmax(values)
    assert list(chosen) == sorted(chosen)


def test_people_show_what_was_held_out_and_the_latest_of_the_history(report: ReportInput) -> None:
    labels = report.item_labels
    for row, person in zip(choose_people(report), portray(report), strict=True):
        wanted = set(labels[report.fold.held_out.matrix[[row]].indices])
        for shown in person.lists:
            assert [hit for _, hit in shown.items] == [label in wanted for label, _ in shown.items]
        # The fixture's times grow with the column.
        assert list(person.history) == list(labels[report.fold.history.matrix[[row]].indices[::-1][:LISTED]])
        assert person.held_out == len(wanted)
        offered = {label for shown in person.lists for label, _ in shown.items}
        assert person.missed_in_all == len(wanted - offered)
        assert set(person.missed) <= wanted - offered
        assert len(person.missed) == min(LISTED, person.missed_in_all)


def test_held_out_items_that_no_list_has_are_named_as_missed_popular_ones_first(
    report: ReportInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recae.report.people.LISTED", 5)
    popularity = dict(zip(report.item_labels, report.train.matrix.getnnz(axis=0), strict=True))
    cut = replace(report, top={model: TopN(top.items[:, :2], top.scores[:, :2]) for model, top in report.top.items()})
    people = portray(cut)
    text = words_of(render_report(cut))
    for person in people:
        shares = [popularity[item] for item in person.missed]
        assert shares == sorted(shares, reverse=True)
        assert (f"Missed {person.missed_in_all} of {person.held_out} held out" in text) == bool(person.missed)
        assert " ".join(f"{item} (missed)" for item in person.missed) in text
    most = max(person.missed_in_all for person in people)
    assert most > 5
    assert f"and {most - 5} more" in text


def test_a_model_that_misses_nothing_has_no_list_of_what_was_missed(report: ReportInput) -> None:
    few = csr_matrix(report.fold.held_out.matrix.toarray() * (np.arange(60) < LISTED))
    right = np.where(few.toarray()[:, :LISTED] > 0, np.arange(LISTED), NO_ITEM).astype(np.int32)
    perfect = replace(
        bare(report),
        top={"ease": TopN(right, np.zeros(right.shape, np.float32))},
        per_user=report.per_user,
        fold=Fold(report.fold.history, replace(report.fold.held_out, matrix=few, times=None)),
    )
    assert {person.missed_in_all for person in portray(perfect)} == {0}
    assert "(missed)" not in words_of(render_report(perfect))


def test_a_genre_has_one_colour_and_mark_on_the_whole_page(report: ReportInput) -> None:
    """Users' favourites are others than the items' largest genres, and come in another order."""
    genres = [f"genre {number}" for number in range(12)]
    table = report.train.item_table.assign(genres=[genres[min(11, item // 5)] for item in range(60)])
    html = render_report(with_items(report, table))
    swatches = re.findall(
        r'<path d="([^"]*)" fill="(var\(--[\w-]+\))"/></svg><span>(genre \d+)', html.replace("\n", "")
    )
    named = {name for *_, name in swatches}
    assert len(swatches) > len(named) > SERIES // 2  # some stand in both legends
    looks = {(outline, colour) for outline, colour, _ in swatches}
    assert len(looks) == len({(*look,) for look in swatches}) == len(named) <= SERIES
    assert len({colour for _, colour in looks}) == len(named)


def test_maps_of_many_genres_name_the_largest_of_each_in_turn() -> None:
    one, other = (
        PointMap(np.zeros((6, 2)), np.arange(6), tuple(names), ordered=False, total=6) for names in ("abcdef", "xyazvw")
    )
    genres = genres_of([one, other], 8)
    assert genres == ["a", "x", "b", "y", "c", "d", "z", "e"]
    shown = with_genres(one, genres)
    assert shown.groups == ("a", "b", "c", "d", "e", OTHER_GENRES)
    assert list(shown.group) == [0, 1, 2, 3, 4, 5]
    assert with_genres(other, genres).groups == ("x", "y", "a", "z", OTHER_GENRES)
    assert list(with_genres(other, genres).group) == [0, 1, 2, 3, 4, 4]
    by_length = replace(one, ordered=True)
    assert genres_of([by_length, other], 8)[:2] == ["x", "y"]
    assert with_genres(by_length, genres) is by_length


def test_what_a_training_chose_is_told(report: ReportInput) -> None:
    chosen = {"ease": {}, "random": {"deep": "mult-vae", "memory": 0.25, "width": 600, "hidden": [8, 4]}}
    text = Page(render_report(replace(bare(report), chosen=chosen))).text
    told = text.split("What the training chose where it was left open")[1].split("Behaviour")[0]
    assert "random deep mult-vae, memory 0.25, width 600, hidden 8 × 4" in told
    assert "ease" not in told
    assert "What the training chose" not in Page(render_report(bare(report))).text


ERRORS = [Metric("rmse"), Metric("mae"), Metric("global_rmse")]


def predicting(report: ReportInput, metrics: list[Metric]) -> ReportInput:
    """Return an experiment on values from -1 to 7: of two models that predict some, and one that only orders items.

    "halves" comes half as far from 3, the middle, as the values are; "item-mean" predicts 3 of everything.
    """
    generator = np.random.default_rng(8)
    history, held_out = (
        replace(
            part, matrix=csr_matrix((generator.integers(-2, 3, part.matrix.nnz) * 2.0 + 3, *rest), part.matrix.shape)
        )
        for part in (report.fold.history, report.fold.held_out)
        for rest in [(part.matrix.indices, part.matrix.indptr)]
    )
    values = held_out.matrix.data.astype(np.float64)
    predicted = {"halves": 3 + (values - 3) / 2, "item-mean": np.full(len(values), 3.0)}
    lists = dict(zip(("halves", "item-mean", "popularity"), report.top.values(), strict=True))
    judged = {
        model: evaluate(top, history.matrix, held_out.matrix, metrics, report.train.matrix, predicted.get(model))
        for model, top in lists.items()
    }
    of_users = [
        one.per_user.assign(model=model, user_id=report.train.users.ids, history_length=np.diff(history.matrix.indptr))
        for model, one in judged.items()
    ]
    return replace(
        report,
        metrics=pd.concat([summarise(one, resamples=50).assign(model=model) for model, one in judged.items()]),
        main_metric=metrics[0],
        comparisons=compare(judged, metrics[0], resamples=50, permutations=200),
        per_user=pd.concat(of_users),
        curves={"halves": pd.DataFrame({"loss": [3.0, 2.0], metrics[0].key: [0.9, 0.7]})},
        top=lists,
        fold=Fold(history, held_out),
        user_embeddings={},
        item_embeddings={},
        surprises={"halves": report.surprises["ease"]},
        predicted=predicted,
    )


@pytest.fixture(scope="module")
def valued(report: ReportInput) -> ReportInput:
    return predicting(report, ERRORS)


@pytest.fixture(scope="module")
def valued_html(valued: ReportInput) -> str:
    return render_report(valued)


def words_of(html: str) -> str:
    return Page(re.sub(r"<style>.*</style>", "", html, flags=re.DOTALL)).text


RANKING = r"(?i)\b(hits?|hit_?r|ticks?|rank\w*|recommend\w*|recall|lists?|bold type|serves|k)\b"


def test_the_page_of_a_values_recipe_has_no_sentence_of_rankings(html: str, valued_html: str) -> None:
    require_sound(valued_html)
    assert re.findall(RANKING, words_of(valued_html)) == []
    assert "nan" not in re.findall(r"[a-z]+", words_of(valued_html).lower())
    assert len(set(re.findall(RANKING, words_of(html)))) > 8


def test_the_page_of_a_ranking_recipe_has_no_sentence_of_values(html: str) -> None:
    assert re.findall(r"(?i)predict\w*|lower|actual\w*|\bvalues?\b|error\w*", words_of(html)) == []


def test_where_figures_are_errors_the_page_says_that_lower_is_better(valued_html: str) -> None:
    text = words_of(valued_html)
    for part in (
        "users; lower is better. It beats the second, item-mean",
        "Errors of predicted values, lower is better",
        "rmse on the validation users After each epoch, lower is better",
        "How much lower rmse is on average than that of item-mean, user by user, with 95% intervals (lower is better:",
        "by rmse (lower is better)",
        "50.0% lower; 95% interval",
        "those of global errors over all held-out values",
    ):
        assert part in text
    assert "+50.0%" not in text


def test_a_page_of_both_kinds_speaks_of_each_and_of_the_main_one_first(report: ReportInput) -> None:
    ndcg = Metric("ndcg", 10)
    by_errors, by_ranks = (
        words_of(render_report(predicting(report, [*few]))) for few in ((ERRORS[0], ndcg), (ndcg, ERRORS[0]))
    )
    for text in (by_errors, by_ranks):
        for part in (
            "Predicted and actual values",
            "Recall by list length",
            "An item counts whatever its value",
            "hit r",
        ):
            assert part in text
        assert text.index("x̂") > text.index("What the metrics mean")
    assert by_errors.index("Errors of predicted values") < by_errors.index("Ranking quality")
    assert by_errors.index("Predicted and actual") < by_errors.index("Recall by list length")
    assert "A tick and bold type" not in by_errors
    assert by_ranks.index("Errors of predicted values") > by_ranks.index("Ranking quality")
    assert by_ranks.index("Predicted and actual") > by_ranks.index("Recall by list length")
    assert "A tick and bold type" in by_ranks


def test_predictions_that_come_half_way_are_shown_to_shrink_by_half(valued: ReportInput, valued_html: str) -> None:
    found, values = find_calibration(valued), valued.fold.held_out.matrix.data
    assert found is not None
    halves, mean = found.models
    assert (halves.model, mean.model) == ("halves", "item-mean")
    some = halves.counts > 0
    assert list(halves.means.x[some]) == [1, 2, 3, 4, 5]
    assert list(halves.means.y[some]) == [-1, 1, 3, 5, 7]
    assert list(halves.counts[some]) == [(values == value).sum() for value in (-1, 1, 3, 5, 7)]
    assert list(mean.counts[mean.counts > 0]) == [len(values)]
    assert mean.means.y[mean.counts > 0] == pytest.approx(values.mean())
    assert found.counts.sum() == len(values)
    of_halves, of_mean = found.spreads
    assert of_halves.deviation == pytest.approx(values.std() / 2)
    assert (of_halves.slope, of_halves.low, of_halves.high) == pytest.approx((2, 1, 5))
    assert (found.actual.low, found.actual.high) == (-1, 7)
    assert np.isnan(of_mean.slope)

    picture = next(
        svg for svg in Page(valued_html).named("svg") if "What halves predicts" in str(svg.get("aria-label"))
    )
    said = [
        f"{x}.00: {y} ({(values == float(y.replace('−', '-'))).sum()})"
        for x, y in zip(range(1, 6), ("−1.00", "1.00", "3.00", "5.00", "7.00"), strict=True)
    ]
    assert str(picture["aria-label"]).endswith("; ".join(said))
    text = words_of(valued_html)
    assert f"Of the {len(values)} held-out values of the test users" in text
    assert "The predictions shrink towards the mean: those of halves spread 50% as far as the actual values" in text
    assert re.search(r"Values of 7.00 or more, \d+% of all, are 7.00 on average and predicted as 5.00;", text)
    assert re.search(r"those of −1.00 or less, \d+%, are −1.00 and predicted as 1.00", text)


def test_no_empty_room_is_between_the_values_and_how_many_there_are(valued_html: str) -> None:
    picture = valued_html.split("Predicted and actual values")[1].split("<svg")[1].split("</svg>")[0]
    boxes = re.findall(r'<rect x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', picture)
    (above, height), (below, _) = ((float(top), float(high)) for top, high in boxes)
    assert 0 < below - (above + height) < 40


def test_the_picture_of_predicted_values_names_nobody(valued_html: str) -> None:
    section = valued_html[
        valued_html.index("Predicted and actual values") : valued_html.index("Gain by history length")
    ]
    assert "halves" in section
    assert "user-0" in valued_html
    assert "user-0" not in section
    assert "Film" not in section


def test_predictions_that_stray_as_far_as_the_values_are_not_said_to_shrink(valued: ReportInput) -> None:
    values = valued.fold.held_out.matrix.data.astype(np.float64)
    wild = replace(valued, predicted={"halves": 3 + 2 * (values - 3)})
    text = words_of(render_report(wild))
    assert "The predictions of halves do not shrink towards the mean: they spread 200% as far as" in text
    found = find_calibration(wild)
    assert found is not None
    assert found.spreads[0].slope == pytest.approx(0.5)


def test_the_interval_of_the_slope_is_of_users_drawn_anew(valued: ReportInput) -> None:
    held_out, generator = valued.fold.held_out.matrix, np.random.default_rng(6)
    actual, bounds = held_out.data.astype(np.float64), held_out.indptr
    predicted = 3 + (actual - 3) / 2 + generator.normal(size=len(actual))
    found = find_calibration(replace(valued, predicted={"halves": predicted}))
    assert found is not None
    slopes = []
    for _ in range(1000):
        rows = generator.integers(len(bounds) - 1, size=len(bounds) - 1)
        places = np.concatenate([np.arange(bounds[row], bounds[row + 1]) for row in rows])
        slopes.append(np.polyfit(predicted[places], actual[places], 1)[0])
    spread = found.spreads[0]
    wanted = [np.polyfit(predicted, actual, 1)[0], *np.quantile(slopes, [0.025, 0.975])]
    assert [spread.slope, spread.slope_low, spread.slope_high] == pytest.approx(wanted, abs=0.3 * np.std(slopes))


def test_without_predictions_there_is_no_such_picture(valued: ReportInput) -> None:
    page = require_sound(render_report(replace(valued, predicted={})))
    assert "Predicted and actual values" not in page.text
    assert "No user has both a held-out value and a prediction to show" in page.text
    silent = replace(
        bare(valued), predicted={}, metrics=valued.metrics.assign(value=np.nan, ci_low=np.nan, ci_high=np.nan)
    )
    text = words_of(render_report(silent))
    assert "No model has a value for rmse: none predicts values" in text
    assert "no user has a held-out value, or no model predicts any" in text


def test_steps_are_equal_around_round_numbers_and_the_ends_hold_the_few_far_out(valued: ReportInput) -> None:
    generator = np.random.default_rng(2)
    edges = value_steps([generator.uniform(-10, 10, 5000), np.append(generator.uniform(-3, 3, 5000), 1e6)])
    assert list(edges) == pytest.approx(np.arange(-10.5, 11))
    values = valued.fold.held_out.matrix.data.astype(np.float64)
    far = 3 + (values - 3) / 2
    far[0] = 1e6
    stray = replace(valued, predicted={"halves": far})
    found = find_calibration(stray)
    assert found is not None
    assert found.edges[-1] < 10
    assert found.models[0].counts.sum() == len(values)
    assert "hold whatever lies beyond" in words_of(render_report(stray))
    assert "hold whatever lies beyond" not in words_of(render_report(valued))


def test_a_step_has_the_means_and_the_interval_of_users_drawn_anew() -> None:
    generator = np.random.default_rng(4)
    users = np.repeat(np.arange(200), generator.integers(1, 9, 200))
    own = generator.normal(size=200)[users]
    predicted = generator.normal(size=len(users))
    actual = predicted + own + 0.3 * generator.normal(size=len(users))
    edges = np.array([-9.0, -0.5, 0.5, 9.0])
    found = calibrate("any", predicted, actual, users, edges)
    for step in range(3):
        inside = (predicted >= edges[step]) & (predicted < edges[step + 1])
        assert found.counts[step] == inside.sum()
        assert found.means.x[step] == pytest.approx(predicted[inside].mean())
        assert found.means.y[step] == pytest.approx(actual[inside].mean())
        sums, counts = (np.bincount(users[inside], weights, minlength=200) for weights in (actual[inside], None))
        drawn = generator.integers(200, size=(4000, 200))
        means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        assert found.means.low[step] == pytest.approx(np.quantile(means, 0.025), abs=0.2 * means.std())
        assert found.means.high[step] == pytest.approx(np.quantile(means, 0.975), abs=0.2 * means.std())
    alone = calibrate("any", predicted[:1], actual[:1], users[:1], edges)
    assert np.isnan([alone.means.low, alone.means.high]).all()
    assert np.isnan(alone.means.x[alone.counts == 0]).all()


def test_marks_of_few_predictions_are_hollow(valued: ReportInput) -> None:
    values = valued.fold.held_out.matrix.data.astype(np.float64)
    predicted = 3 + (values - 3) / 2
    predicted[np.flatnonzero(values == 3)[: FEW - 1]] = 6
    alone = replace(valued, predicted={"halves": predicted})
    hollow, full = (
        render_report(one).split("Predicted and actual values")[1].split("</svg>")[0] for one in (alone, valued)
    )
    assert "fill: var(--paper)" in hollow
    assert "fill: var(--paper)" not in full


def test_people_of_a_values_recipe_show_what_was_predicted_of_what_was_held_out(valued: ReportInput) -> None:
    held_out, labels = valued.fold.held_out.matrix, valued.item_labels
    for row, person in zip(choose_people(valued), portray(valued), strict=True):
        actual = dict(zip(labels[held_out[[row]].indices], held_out[[row]].data, strict=True))
        assert len(person.targets) == min(LISTED, len(actual))
        assert person.held_out == len(actual)
        assert all(actual[item] == value for item, value in person.targets)
        assert [value for _, value in person.targets] == sorted((value for _, value in person.targets), reverse=True)
        halves, mean = person.predictions
        assert list(halves.values) == [3 + (value - 3) / 2 for _, value in person.targets]
        assert set(mean.values) == {3.0}
        errors = np.array(list(actual.values())) - 3
        assert halves.value == pytest.approx(np.sqrt(np.mean(errors**2)) / 2)
        history = valued.fold.history.matrix[[row]]
        known = dict(zip(labels[history.indices], history.data, strict=True))
        assert list(person.history_values) == [known[item] for item in person.history]
        assert not person.lists


def test_an_experiment_hands_over_what_was_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_inputs(tmp_path))
    (tmp_path / "values.yaml").write_text(
        "name: values\ndata: {path: log.csv, values: keep}\nsplit: {kind: strong-generalisation, held_out_users: 12}\n"
        "evaluation: {metrics: [rmse, ndcg@5]}\nmodels: {item-mean: {}, popularity: {}}\n"
    )
    given = []
    monkeypatch.setattr(experiment, "write_report", lambda _, report, **__: given.append(report))
    out = experiment.run(
        read_recipe(tmp_path / "values.yaml"),
        tmp_path / "out",
        open_tracker=lambda name: Tracker(name, uri="nowhere://"),
    )
    errors = given[0].predicted["item-mean"] - given[0].fold.held_out.matrix.data
    users = np.repeat(np.arange(12), np.diff(given[0].fold.held_out.matrix.indptr))
    by_user = np.sqrt(pd.Series(errors**2).groupby(users).mean())
    assert out.metrics.set_index(["model", "metric"])["value"]["item-mean", "rmse"] == pytest.approx(by_user.mean())
    assert list(given[0].predicted) == ["item-mean"]


def test_an_experiment_hands_over_what_a_training_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_inputs(tmp_path))
    (tmp_path / "open.yaml").write_text(
        "name: open\ndata: {path: log.csv, min_items: 4}\nsplit: {kind: strong-generalisation, held_out_users: 12}\n"
        "evaluation: {metrics: [ndcg@5]}\n"
        "models: {hybrid: {hidden: 8, layers: 1, latent: 4, epochs: 1, factors: 4}, popularity: {}}\n"
    )
    given = []
    monkeypatch.setattr(experiment, "write_report", lambda _, report, **__: given.append(report))
    experiment.run(
        read_recipe(tmp_path / "open.yaml"), tmp_path / "out", open_tracker=lambda name: Tracker(name, uri="nowhere://")
    )
    assert given[0].chosen["hybrid"].items() >= {"deep": "rec-vae", "gamma": 0.005}.items()
    assert "hidden" not in given[0].chosen["hybrid"]
    assert not given[0].chosen["popularity"]
    training = read_card(tmp_path / "out" / "models" / "popularity").training
    assert training["fewest_items"] == np.diff(given[0].train.matrix.indptr).min()


@pytest.mark.parametrize(("low", "high"), [(2, 2), (7, 8), (29, 80), (4, 476), (2, 100_000)])
def test_an_axis_of_lengths_has_room_for_the_marks_at_both_ends(low: int, high: int) -> None:
    axes = Figure().subplots()
    ratio_axis_around(axes, low, high, "items")
    left, right = axes.transAxes.inverted().transform(axes.transData.transform([(low, 1), (high, 1)]))[:, 0]
    assert 0.03 < left <= right < 0.97
    ticks = sorted(axes.get_xticks())
    assert (ticks[0], ticks[-1]) == (low, high)
    assert len(ticks) >= min(3, high - low + 1)
    places = axes.transAxes.inverted().transform(axes.transData.transform([(tick, 1) for tick in ticks]))[:, 0]
    assert (np.diff(places) > 0.05).all()


def test_no_odd_user_is_cut_off_by_the_edge_of_the_picture(report: ReportInput, html: str) -> None:
    picture = html[html.index("Who is hard to explain") :].split("<svg", 1)[1].split("</svg>")[0]
    box = re.search(
        r"<clipPath id=\"[^\"]*\">\s*<rect x=\"([\d.]+)\" y=\"([\d.]+)\" width=\"([\d.]+)\" height=\"([\d.]+)\"",
        picture,
    )
    assert box
    left, upper, width, height = map(float, box.groups())
    marks = [
        (float(x), float(y))
        for group in re.findall(r"<g clip-path=[^>]*>(.*?)</g>", picture, re.DOTALL)
        for x, y in re.findall(r"<use [^>]*x=\"([1-9][\d.]+)\" y=\"([\d.]+)\"", group)
    ]  # the band's is at 0
    assert len(marks) == len(report.fold.history.users)
    half = 4  # a mark named in the table is seven points wide
    assert all(left + half <= x <= left + width - half for x, _ in marks)
    assert all(upper + half <= y <= upper + height - half for _, y in marks)


# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color vision deficiency",
# severity 1.0, on linear RGB.
EYES = {
    "normal": np.eye(3),
    "red-blind": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "green-blind": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "blue-blind": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def linear(colour: str) -> np.ndarray:
    part = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def cielab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.maximum(to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089], 1e-3))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("eyes", EYES)
def test_series_keep_apart_for_all_eyes_and_from_the_paper(theme: int, eyes: str) -> None:
    series = [linear(PAINT[f"series-{number}"][theme]) for number in range(SERIES)]
    seen = [cielab(np.asarray(EYES[eyes]) @ colour) for colour in series]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 20
    weights = [0.2126, 0.7152, 0.0722]
    paper = linear(PAINT["paper"][theme]) @ weights
    for colour in series:
        low, high = sorted((paper, colour @ weights))
        assert (high + 0.05) / (low + 0.05) >= 3


def test_styles_repeat_a_colour_only_with_other_dashes() -> None:
    styles = [Style.of(number) for number in range(24)]
    assert len({(style.paint, style.dash) for style in styles}) == 24
    assert len({style.mark for style in styles[:SERIES]}) == SERIES
