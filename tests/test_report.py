"""The report: one page that needs nothing else, says what the tables say, and survives what is missing."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pages import Page, require_sound
from scipy.sparse import csr_matrix, random_array

from recae.anomalies import Surprise, of_users
from recae.comparison import compare
from recae.errors import OutputError
from recae.evaluation import Evaluation, evaluate, summarise
from recae.interactions import IdMap, Interactions
from recae.metrics import Metric
from recae.ranking import NO_ITEM, TopN
from recae.report import ReportInput, render_report, write_report
from recae.report.curves import read_curves
from recae.report.drawing import PAINT, SERIES, Style
from recae.report.maps import APART, NAMED_ITEMS, OTHER_GENRES, item_map, mapped_items, user_map
from recae.report.measures import gain_by_bin, length_bins, recall_by_k, share_by_popularity
from recae.report.oddities import EXPLAINED_USERS, explained_users, find_oddities
from recae.report.people import LISTED, PEOPLE, choose_people, portray
from recae.report.results import quality_table, value_table
from recae.report.results import summarise as sum_up
from recae.splitting import Fold

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
    assert band.margin[0] == pytest.approx(1.96 * 0.1)
    assert np.isnan(band.margin[1])


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
