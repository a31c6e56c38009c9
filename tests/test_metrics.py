"""Metrics: equal to two independent libraries, or to a slow and obvious twin."""

import json
import math
import os
import re
import subprocess
import sys
from itertools import combinations

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, P, R, Success, nDCG
from scipy.sparse import csr_matrix

from recae import metrics
from recae.errors import RecipeError
from recae.metrics import (
    CATALOGUE,
    CATALOGUE_BETTER,
    METRICS,
    PER_USER,
    POOLED,
    VALUES,
    Metric,
    find_hits,
    measure_catalogue,
)
from recae.metrics import measure_users as measure
from recae.ranking import FOREIGN_ITEM, NO_ITEM

USERS, ITEMS, PLACES = 60, 40, 25


@pytest.fixture(scope="module")
def ranked():
    """Return rankings, some shorter than others, and held-out items, none for the first three users."""
    generator = np.random.default_rng(7)
    items = np.array([generator.permutation(ITEMS)[:PLACES] for _ in range(USERS)]).astype(np.int32)
    items[np.arange(PLACES) >= generator.integers(0, 2 * PLACES, USERS)[:, None]] = NO_ITEM
    items[5, 1] = FOREIGN_ITEM
    held_out = (generator.random((USERS, ITEMS)) < generator.choice([0.02, 0.1, 0.7], USERS)[:, None]).astype(
        np.float32
    )
    held_out[:3] = 0
    held_out[3:, 0] = 1
    return items, csr_matrix(held_out)


@pytest.fixture(scope="module")
def train():
    generator = np.random.default_rng(8)
    values = generator.random((30, ITEMS)) * (generator.random((30, ITEMS)) < np.linspace(0, 0.6, ITEMS))
    return csr_matrix(values.astype(np.float32))


def values(metric, items, held_out):
    return measure(Metric.parse(metric), find_hits(items, held_out), np.diff(held_out.indptr))


def as_dictionaries(items, held_out):
    """Return run and qrels, for the target users, in the words of the information retrieval tools."""
    run, qrels = {}, {}
    for user in np.flatnonzero(np.diff(held_out.indptr)):
        places = [(place, item) for place, item in enumerate(items[user]) if item != NO_ITEM]
        run[f"u{user:03}"] = {f"i{item}": float(PLACES - place) for place, item in places} or {"nothing": 1.0}
        qrels[f"u{user:03}"] = {f"i{item}": 1 for item in held_out[user].indices}
    return run, qrels


CUTS = (1, 5, 20, 30)
SHARED = ("recall", "ndcg", "map", "mrr", "precision", "hit_rate")  # ranx calls them so too

ASK_RANX = """
import json, sys
from ranx import Qrels, Run, evaluate
asked = json.load(sys.stdin)
found = evaluate(Qrels(asked["qrels"]), Run(asked["run"]), asked["metrics"], return_mean=False)
json.dump({name: values.tolist() for name, values in found.items()}, sys.stdout)
"""


@pytest.fixture(scope="module")
def from_ranx(ranked):
    """Return ranx's values, from a process in which numba does not spend two minutes on compiling it."""
    run, qrels = as_dictionaries(*ranked)
    asked = {"run": run, "qrels": qrels, "metrics": [f"{name}@{k}" for name in SHARED for k in CUTS]}
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK_RANX],
        input=json.dumps(asked),
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout)


@pytest.mark.parametrize("k", CUTS)
@pytest.mark.parametrize("name", SHARED)
def test_metrics_per_user_are_those_of_ranx(ranked, from_ranx, name, k):
    found = values(f"{name}@{k}", *ranked)
    np.testing.assert_allclose(found[~np.isnan(found)], from_ranx[f"{name}@{k}"], atol=1e-9)


@pytest.mark.parametrize("k", CUTS)
def test_metrics_per_user_are_those_of_ir_measures(ranked, k):
    run, qrels = as_dictionaries(*ranked)
    measures = {
        "recall": R @ k,
        "ndcg": nDCG @ k,
        "map": AP @ k,
        "mrr": RR @ k,
        "precision": P @ k,
        "hit_rate": Success @ k,
    }
    theirs = {(one.query_id, one.measure): one.value for one in ir_measures.iter_calc(measures.values(), qrels, run)}
    for ours, measure_ in measures.items():
        found = values(f"{ours}@{k}", *ranked)
        expected = [theirs[user, measure_] for user in run]
        np.testing.assert_allclose(found[~np.isnan(found)], expected, atol=1e-9, err_msg=ours)


def obvious(name, hits, held_out, k):
    """Return a metric of one user from a list of hits, in the words of its definition."""
    hits = [bool(hit) for hit in hits[:k]]
    best = min(k, held_out)
    precisions = [sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit]
    gain = sum(1 / math.log2(place + 2) for place, hit in enumerate(hits) if hit)
    return {
        "recall": sum(hits) / held_out,
        "truncated_recall": sum(hits) / best,
        "ndcg": gain / sum(1 / math.log2(place + 2) for place in range(best)),
        "map": sum(precisions) / held_out,
        "truncated_map": sum(precisions) / best,
        "mrr": next((1 / (place + 1) for place, hit in enumerate(hits) if hit), 0.0),
        "precision": sum(hits) / k,
        "hit_rate": float(any(hits)),
    }[name]


@settings(deadline=None)
@given(
    hits=st.lists(st.booleans(), max_size=12),
    missed=st.integers(0, 12),
    k=st.integers(1, 15),
    name=st.sampled_from(list(PER_USER)),
)
def test_metrics_per_user_are_their_definitions(hits, missed, k, name):
    held_out = sum(hits) + missed
    found = measure(Metric(name, k), np.array([hits], dtype=bool), np.array([held_out]))
    if held_out:
        assert found[0] == pytest.approx(obvious(name, hits, held_out, k), abs=1e-12)
        assert 0 <= found[0] <= 1
    else:
        assert np.isnan(found[0])


@pytest.mark.parametrize("name", ["truncated_recall", "ndcg", "truncated_map", "mrr", "hit_rate"])
@pytest.mark.parametrize("held_out", [1, 5, 50])
def test_a_perfect_ranking_is_worth_1(name, held_out):
    hits = np.arange(20)[None] < held_out
    assert measure(Metric(name, 20), hits, np.array([held_out])) == pytest.approx(1)


def test_two_recalls_differ_by_their_denominator():
    hits, held_out = np.array([[True, False, True]]), np.array([10])
    assert measure(Metric("recall", 3), hits, held_out) == pytest.approx(2 / 10)
    assert measure(Metric("truncated_recall", 3), hits, held_out) == pytest.approx(2 / 3)


def test_gaps_and_foreign_items_are_never_hits():
    held_out = csr_matrix(np.ones((3, 4), np.float32))
    items = np.array([[NO_ITEM, FOREIGN_ITEM], [0, NO_ITEM], [FOREIGN_ITEM, 3]])
    assert find_hits(items, held_out).tolist() == [[False, False], [True, False], [False, True]]


def test_a_stored_zero_is_held_out():
    held_out = csr_matrix((np.zeros(1), ([0], [2])), shape=(1, 4))
    assert find_hits(np.array([[2, 1]]), held_out).tolist() == [[True, False]]


def test_nothing_is_found_where_nothing_is_held_out():
    held_out = csr_matrix((2, 4))
    assert not find_hits(np.array([[2, 1], [0, NO_ITEM]]), held_out).any()
    with pytest.raises(ValueError, match="rankings of 1 users"):
        find_hits(np.array([[2, 1]]), held_out)


def obvious_catalogue(name, items, train, k):
    """Return a metric of the catalogue, user by user and pair by pair."""
    lists = [[item for item in row[:k] if item != NO_ITEM] for row in items.tolist()]
    users, width = train.shape
    dense = train.toarray()
    having = {item: (dense[:, item] != 0).sum() if item >= 0 else 0 for items in lists for item in items}
    recommended = [item for items in lists for item in items if item >= 0]

    def cosine(a, b):
        if a < 0 or b < 0 or not having[a] or not having[b]:
            return 0.0
        return dense[:, a] @ dense[:, b] / np.linalg.norm(dense[:, a]) / np.linalg.norm(dense[:, b])

    def mean_of_lists(value):
        return np.mean([np.mean([value(item) for item in items]) for items in lists if items])

    def gini():
        times = [recommended.count(item) for item in range(width)]
        return sum(abs(a - b) for a in times for b in times) / (2 * width * sum(times))

    return {
        "coverage": lambda: len(set(recommended)) / width,
        "gini": gini,
        "popularity": lambda: mean_of_lists(lambda item: having[item] / users),
        "novelty": lambda: mean_of_lists(lambda item: -math.log2(max(having[item], 1) / users)),
        "diversity": lambda: np.mean(
            [1 - np.mean([cosine(a, b) for a, b in combinations(items, 2)]) for items in lists if len(items) > 1]
        ),
    }[name]()


@pytest.mark.parametrize(
    ("name", "k"), [(name, k) for name in CATALOGUE for k in (1, 2, 10, 30) if (name, k) != ("diversity", 1)]
)
def test_metrics_of_the_catalogue_are_their_definitions(ranked, train, name, k):
    items, _ = ranked
    expected = obvious_catalogue(name, items, train, k)
    assert measure_catalogue(Metric(name, k), items, train) == pytest.approx(expected, rel=1e-5)


def test_diversity_does_not_depend_on_how_much_it_holds_at_a_time(ranked, train, monkeypatch):
    items, _ = ranked
    whole = measure_catalogue(Metric("diversity", 20), items, train)
    monkeypatch.setattr(metrics, "GRAM_BYTES", 1000)
    assert measure_catalogue(Metric("diversity", 20), items, train) == pytest.approx(whole, rel=1e-12)


def test_the_catalogue_at_its_extremes():
    train = csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], np.float32))
    everything = np.array([[0, 1], [2, 3]])
    assert measure_catalogue(Metric("coverage", 2), everything, train) == 1
    assert measure_catalogue(Metric("gini", 2), everything, train) == 0
    one = np.array([[0], [0]])
    assert measure_catalogue(Metric("coverage", 1), one, train) == 1 / 4
    assert measure_catalogue(Metric("gini", 1), one, train) == pytest.approx(3 / 4)
    assert measure_catalogue(Metric("popularity", 1), one, train) == pytest.approx(2 / 3)
    assert measure_catalogue(Metric("novelty", 1), np.array([[3]]), train) == pytest.approx(math.log2(3))
    twins, strangers = np.array([[0, 1]]), np.array([[0, 2]])
    assert measure_catalogue(Metric("diversity", 2), twins, train) == pytest.approx(0, abs=1e-6)
    assert measure_catalogue(Metric("diversity", 2), strangers, train) == pytest.approx(1)


def test_no_recommendations_have_no_value():
    nothing, train = np.full((2, 3), NO_ITEM), csr_matrix(np.ones((2, 4), np.float32))
    assert measure_catalogue(Metric("coverage", 3), nothing, train) == 0
    for name in ("gini", "popularity", "novelty", "diversity"):
        assert math.isnan(measure_catalogue(Metric(name, 3), nothing, train))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_reads_what_it_writes(name):
    metric = Metric(name) if name in VALUES else Metric(name, 20)
    assert Metric.parse(str(metric)) == Metric.parse(f" {metric} ") == Metric.from_key(metric.key) == metric
    assert metric.key == (name if name in VALUES else f"{name}_at_20")
    assert metric.better in ("higher", "lower", "neither")
    assert metric.sign == (-1 if metric.better == "lower" else 1)


def test_every_metric_says_which_way_is_better():
    assert set(CATALOGUE_BETTER) == set(CATALOGUE)
    assert Metric("gini", 5).better == "lower"
    assert Metric("ndcg", 5).better == "higher"
    assert {Metric(name).better for name in VALUES} == {"lower"}
    assert [Metric(name).is_per_user for name in ("rmse", "mae", *POOLED)] == [True, True, False, False]


@pytest.mark.parametrize("function", [*PER_USER.values(), *VALUES.values(), *CATALOGUE.values()])
def test_every_metric_names_its_source(function):
    assert re.search(r"[12][0-9]{3}|trec_eval", function.__doc__)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("recal@20", "unknown metric 'recal@20'; did you mean 'recall'?"),
        ("zzz", "unknown metric 'zzz'; known: recall, "),
        ("recall", "as in 'recall@20'"),
        ("recall@", "as in 'recall@20'"),
        ("recall@ten", "as in 'recall@20'"),
        ("recall@-1", "as in 'recall@20'"),
        ("recall@0", "'recall@0': it must look at 1 place at least"),
        ("rmse@20", "metric 'rmse@20': it looks at values, and at no places; write 'rmse'"),
        ("rmes", "unknown metric 'rmes'; did you mean 'rmse'?"),
    ],
)
def test_nonsense_is_no_metric(text, complaint):
    with pytest.raises(RecipeError) as raised:
        Metric.parse(text)
    assert complaint in str(raised.value)
