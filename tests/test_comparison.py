"""Comparison: significant is what chance does not make."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recae import comparison
from recae.comparison import better_than, compare, holm, sign_flip_test
from recae.errors import RecipeError
from recae.evaluation import Evaluation, bootstrap_means, interval
from recae.metrics import Metric

NDCG = Metric("ndcg", 10)
COLUMNS = ["model", "other", "metric", "k", "difference", "ci_low", "ci_high", "p_value", "p_adjusted", "significant"]


def evaluated(values):
    values = np.asarray(values, float)
    held_out = (~np.isnan(values)).astype(np.int64)
    return Evaluation(pd.DataFrame({NDCG.key: values}), {}, len(values), int(np.isnan(values).sum()), 0, held_out)


def models(**values):
    return {name: evaluated(of) for name, of in values.items()}


@pytest.fixture(scope="module")
def three():
    """Return three models on 80 target users and two without: good and same differ by noise, bad is worse."""
    generator = np.random.default_rng(0)
    good = np.append(generator.random(80), [np.nan, np.nan])
    return models(good=good, bad=good - 0.1 - 0.1 * generator.random(82), same=good + generator.normal(0, 0.01, 82))


def test_every_pair_is_compared(three):
    table = compare(three, NDCG)
    assert table.columns.tolist() == COLUMNS
    assert list(zip(table["model"], table["other"], strict=True)) == [
        ("good", "bad"),
        ("good", "same"),
        ("bad", "same"),
    ]
    assert table["significant"].tolist() == [True, False, True]
    assert better_than(table) == {"good": ["bad"], "bad": [], "same": ["bad"]}


def test_differences_are_paired(three):
    row = compare(three, NDCG).iloc[0]
    difference = (three["good"].per_user - three["bad"].per_user).dropna().to_numpy()
    assert row["difference"] == pytest.approx(difference.mean())
    assert [row["ci_low"], row["ci_high"]] == pytest.approx(interval(bootstrap_means(difference)).ravel())
    assert row["ci_low"] < row["difference"] < row["ci_high"]


def test_swapping_two_models_swaps_the_sign_alone(three):
    ours = compare({name: three[name] for name in ("good", "bad")}, NDCG).iloc[0]
    theirs = compare({name: three[name] for name in ("bad", "good")}, NDCG).iloc[0]
    assert ours["p_value"] == theirs["p_value"]
    assert ours["difference"] == -theirs["difference"]
    assert ours["ci_low"] == pytest.approx(-theirs["ci_high"])


def test_a_model_is_no_better_than_itself():
    values = np.random.default_rng(1).random(100)
    row = compare(models(one=values, two=values), NDCG).iloc[0]
    assert row[["difference", "ci_low", "ci_high", "p_value", "p_adjusted"]].tolist() == [0, 0, 0, 1, 1]
    assert not row["significant"]


def test_one_model_has_nothing_to_be_compared_with():
    table = compare(models(only=[0.5, 0.2]), NDCG)
    assert table.columns.tolist() == COLUMNS
    assert len(table) == 0
    assert better_than(table) == {}


def test_nobody_to_compare_on_is_no_difference():
    row = compare(models(one=[np.nan], two=[np.nan]), NDCG).iloc[0]
    assert np.isnan(row["difference"])
    assert row["p_value"] == 1
    assert not row["significant"]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(RecipeError, match="'coverage@10' has no value for each user"):
        compare(models(one=[1.0], two=[0.0]), Metric("coverage", 10))
    with pytest.raises(ValueError, match="same target users"):
        compare(models(one=[1.0, np.nan], two=[0.0, 1.0]), NDCG)


def test_a_few_users_are_tried_in_every_way():
    differences = np.array([[0.3, 1.0], [0.1, 1.0], [-0.2, 1.0], [0.5, 1.0], [0.0, 1.0]])
    expected = []
    for column in differences.T:
        flipped = [abs(np.dot(signs, column)) for signs in product((-1, 1), repeat=5)]
        expected.append(np.mean([value >= abs(column.sum()) - 1e-9 for value in flipped]))
    assert expected[1] == 2 / 32
    assert sign_flip_test(differences).tolist() == expected


def test_many_users_are_sampled_close_to_the_exact_value():
    differences = np.random.default_rng(3).normal(0.3, 1, size=(12, 6))
    exact = sign_flip_test(differences)
    sampled = sign_flip_test(differences, permutations=4095)
    assert (exact != sampled).any()
    assert sampled == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 4095))


def test_p_is_never_0():
    assert sign_flip_test(np.ones((50, 1)), permutations=99).tolist() == [1 / 100]


def test_rounding_does_not_break_ties():
    """The observed sum is among the extreme ones whatever the order in which its terms are added."""
    differences = np.tile([[0.1], [0.2], [0.3], [-0.7]], (3, 1))
    assert sign_flip_test(differences * 3)[0] == sign_flip_test(np.tile([[1.0], [2], [3], [-7]], (3, 1)))[0]


def test_without_a_difference_p_is_uniform():
    """Of 2,000 pairs of equal models, about as many have p below any level as the level says."""
    differences = np.random.default_rng(4).laplace(size=(40, 2000))
    p_values = sign_flip_test(differences, permutations=2000)
    for level in (0.01, 0.05, 0.25, 0.5, 0.9):
        assert abs((p_values <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 2000)


def test_the_patterns_do_not_depend_on_how_many_are_tried_at_a_time(monkeypatch):
    differences = np.random.default_rng(5).normal(0.2, 1, size=(30, 3))
    whole = sign_flip_test(differences, permutations=500), sign_flip_test(differences[:8])
    monkeypatch.setattr(comparison, "BLOCK", 100)
    assert (sign_flip_test(differences[:8]) == whole[1]).all()
    assert sign_flip_test(differences, permutations=500) == pytest.approx(whole[0])


@given(arrays(float, st.integers(0, 12), elements=st.floats(0, 1)))
def test_holm_keeps_the_order_and_never_helps(p_values):
    adjusted = holm(p_values)
    assert (adjusted >= p_values).all()
    assert (adjusted <= 1).all()
    order = np.argsort(p_values)
    assert (np.diff(adjusted[order]) >= 0).all()


def test_holm_of_a_textbook():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_where_lower_is_better_the_lower_one_wins_and_who_has_no_value_is_in_no_pair(three):
    rmse = Metric("rmse")
    named = {name: one.per_user.rename(columns={NDCG.key: rmse.key}) for name, one in three.items()}
    errors = {name: replace(three[name], per_user=frame) for name, frame in named.items()}
    errors["silent"] = replace(three["good"], per_user=named["good"] * np.nan)
    table = compare(errors, rmse)
    assert set(table["model"]) | set(table["other"]) == {"good", "bad", "same"}
    assert table["k"].tolist() == [0, 0, 0]
    assert better_than(table) == {"good": [], "bad": ["good", "same"], "same": []}
    assert table["p_value"].tolist() == compare(three, NDCG)["p_value"].tolist()
    nobody = dict.fromkeys(("one", "two"), errors["silent"])
    assert not compare(nobody, rmse)["significant"].any()
