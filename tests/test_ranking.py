"""Rankings: exact, in one order, whatever the block."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix

from recae.errors import Diverged, EventsError, InputError
from recae.progress import Step
from recae.ranking import FOREIGN_ITEM, NO_ITEM, ROWS_PER_CALL, TopN, best_columns, ranked_lists, top_n

BLOCKS = (1, 7, 32, 100, None)


def obvious_top_n(scores, seen, n, eligible):
    """Sort every user's (score, column) pairs: the slow twin."""
    places = min(n, scores.shape[1])
    lists = []
    for user, row in enumerate(scores):
        allowed = [c for c in range(len(row)) if not seen[user, c] and eligible[c] and row[c] > -np.inf]
        best = sorted((-row[c], c) for c in allowed)[:places]
        gaps = places - len(best)
        lists.append(([c for _, c in best] + [NO_ITEM] * gaps, [-s for s, _ in best] + [-np.inf] * gaps))
    return TopN(
        np.array([items for items, _ in lists], np.int32).reshape(-1, places),
        np.array([scores for _, scores in lists], np.float32).reshape(-1, places),
    )


def looked_up(scores):
    """Return a model whose scores are given: it finds its row in the history's last column."""

    def score(histories):
        return torch.as_tensor(scores)[histories[:, [-1]].toarray().ravel().astype(int) - 1]

    return score


def with_row_numbers(seen):
    """Add a column that holds each row's number from 1, so that a model can tell whom it scores."""
    return csr_matrix(np.hstack([seen.astype(np.float32), np.arange(1.0, len(seen) + 1)[:, None]]).astype(np.float32))


def same(ours, theirs):
    np.testing.assert_array_equal(ours.items, theirs.items)
    np.testing.assert_array_equal(ours.scores, theirs.scores)


@st.composite
def rankings(draw):
    users, items = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    levels = draw(st.sampled_from([(0.0,), (0.0, -0.0, 1.0), (-np.inf, -1.0, 0.0, 1.0), tuple(np.arange(20.0))]))
    return (
        draw(arrays(np.float32, (users, items), elements=st.sampled_from(levels))),
        draw(arrays(bool, (users, items), elements=st.booleans())),
        draw(st.integers(1, items + 3)),
        draw(arrays(bool, items, elements=st.booleans())),
        draw(st.sampled_from([*BLOCKS, 3])),
    )


@settings(deadline=None, max_examples=150)
@given(rankings())
def test_top_n_is_sorting_every_pair_of_score_and_column(case):
    scores, seen, n, eligible, block = case
    padded = np.hstack([scores, np.full((len(scores), 1), -np.inf, np.float32)])
    histories = with_row_numbers(seen)
    ours = top_n(looked_up(padded), histories, n, eligible=np.append(eligible, True), block=block)
    same(ours, obvious_top_n(padded, histories.toarray() != 0, n, np.append(eligible, True)))


@pytest.mark.parametrize("levels", [1, 2, 30, 10**6])
@pytest.mark.parametrize("k", [1, 50, 300])
def test_ties_are_broken_by_column_at_every_place(levels, k):
    scores = torch.randint(0, levels, (40, 300), generator=torch.Generator().manual_seed(levels)).float()
    values, columns = best_columns(scores, k)
    expected = torch.sort(scores, dim=1, descending=True, stable=True)
    assert torch.equal(columns, expected.indices[:, :k])
    assert torch.equal(values, expected.values[:, :k])


@pytest.mark.parametrize(("hidden", "items"), [(13, 77), (64, 1500)])
def test_the_block_changes_no_bit_of_a_dense_model(hidden, items):
    generator = np.random.default_rng(0)
    first = generator.normal(size=(items, hidden)).astype(np.float32)
    second = torch.as_tensor(generator.normal(size=(hidden, items)).astype(np.float32))
    histories = csr_matrix((generator.random((109, items)) < 0.01).astype(np.float32))

    def score(histories):
        return torch.tanh(torch.as_tensor(histories @ first)) @ second

    rankings = [top_n(score, histories, 50, block=block) for block in BLOCKS]
    for other in rankings[1:]:
        same(other, rankings[0])


@pytest.mark.parametrize("block", BLOCKS)
def test_a_model_is_always_asked_for_the_same_number_of_rows(block):
    asked = []

    def score(histories):
        asked.append(histories.shape[0])
        return torch.zeros(histories.shape)

    top_n(score, csr_matrix((300, 5), dtype=np.float32), 2, block=block)
    assert set(asked) == {ROWS_PER_CALL}


def test_a_model_is_asked_about_the_users_histories_only():
    known = np.eye(5, dtype=np.float32)[:3]

    def score(histories):
        assert (histories.toarray().sum(axis=1) == 1).all()
        return torch.zeros(histories.shape)

    assert (top_n(score, csr_matrix(known), 4).items == [[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 3, 4]]).all()


def test_scores_of_a_model_are_not_written_to():
    popularity = torch.tensor([3.0, 2.0, 1.0])
    top = top_n(lambda histories: popularity.expand(histories.shape[0], -1), csr_matrix(np.eye(3, dtype=np.float32)), 3)
    assert popularity.tolist() == [3.0, 2.0, 1.0]
    assert top.items.tolist() == [[1, 2, NO_ITEM], [0, 2, NO_ITEM], [0, 1, NO_ITEM]]
    assert top.scores[0].tolist() == [2.0, 1.0, -np.inf]


def test_seen_items_stay_where_they_may():
    histories = csr_matrix(np.ones((1, 3), np.float32))
    top = top_n(lambda histories: torch.zeros(histories.shape), histories, 2, keep_seen=True)
    assert top.items.tolist() == [[0, 1]]


def test_a_stored_zero_is_seen():
    histories = csr_matrix((np.zeros(1, np.float32), ([0], [1])), shape=(1, 3))
    assert top_n(lambda histories: torch.ones(histories.shape), histories, 3).items.tolist() == [[0, 2, NO_ITEM]]


def test_more_places_than_items_are_cut_to_the_items():
    top = top_n(lambda histories: torch.ones(histories.shape), csr_matrix((2, 3), dtype=np.float32), 10**9)
    assert top.items.shape == (2, 3)
    assert top.items.dtype == np.int32
    assert top.scores.dtype == np.float32


def test_nobody_is_ranked_for_nobody():
    assert top_n(lambda histories: torch.ones(histories.shape), csr_matrix((0, 3)), 2).items.shape == (0, 2)
    assert top_n(lambda histories: torch.ones(histories.shape), csr_matrix((2, 0)), 2).items.shape == (2, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("seen", [False, True])
def test_scores_that_are_not_finite_are_refused(value, seen):
    scores = np.zeros((200, 5), np.float32)
    scores[150, 2] = scores[170, 1] = value
    histories = np.zeros((200, 4), bool)
    histories[150, 2] = seen
    with pytest.raises(Diverged, match="user row 150 "):
        top_n(looked_up(scores), with_row_numbers(histories), 2)


def test_wrong_requests_are_refused():
    histories = csr_matrix((2, 3), dtype=np.float32)
    with pytest.raises(InputError, match="best 0 items"):
        top_n(lambda histories: torch.ones(histories.shape), histories, 0)
    with pytest.raises(ValueError, match="scores of shape"):
        top_n(lambda histories: torch.ones(2, 3), histories, 1)
    with pytest.raises(ValueError, match="mask of shape"):
        top_n(lambda histories: torch.ones(histories.shape), histories, 1, eligible=np.ones(4, bool))
    with pytest.raises(ValueError, match="a block of 0 users"):
        top_n(lambda histories: torch.ones(histories.shape), histories, 1, block=0)
    with pytest.raises(ValueError, match="items of shape"):
        TopN(np.zeros((2, 3), np.int32), np.zeros((2, 2), np.float32))


def test_a_listener_hears_of_every_block():
    heard: list[Step] = []
    score = lambda histories: torch.ones(histories.shape)  # noqa: E731
    top_n(score, csr_matrix((5, 3), dtype=np.float32), 1, block=2, listener=heard.append, task="popularity")
    assert heard == [Step("popularity", 2, 5), Step("popularity", 4, 5), Step("popularity", 5, 5)]


def lists(rows, users=2, n=3):
    user, item, rank = (np.array(values) for values in zip(*rows, strict=True))
    return ranked_lists(user, item, rank, users, n)


def test_ranked_lists_put_every_row_in_its_place():
    top = lists([(1, 4, 2), (0, 7, 1), (1, 5, 1), (1, 6, 4)])
    assert top.items.tolist() == [[7, NO_ITEM, NO_ITEM], [5, 4, FOREIGN_ITEM]]
    assert top.scores.tolist() == [[-1, -np.inf, -np.inf], [-1, -2, -3]]


def test_items_outside_the_catalogue_keep_their_places():
    assert lists([(0, -1, 1), (0, 3, 2), (0, -1, 3), (1, 2, 2)]).items.tolist() == [
        [FOREIGN_ITEM, 3, FOREIGN_ITEM],
        [FOREIGN_ITEM, 2, NO_ITEM],
    ]


def test_users_outside_the_fold_are_left_out():
    assert lists([(-1, 1, 1), (-1, 1, 1), (0, 2, 1)]).items.tolist() == [[2], [NO_ITEM]]


def test_ranked_lists_are_no_longer_than_their_ranks():
    assert lists([(0, 2, 1)], n=10**9).items.shape == (2, 1)
    assert ranked_lists(*(np.empty(0, np.int64) for _ in range(3)), users=4, n=10).items.shape == (4, 0)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([(0, 1, 1), (0, 2, 0)], "row 2: rank 0; ranks start at 1"),
        ([(0, 1, 1), (1, 2, 1), (0, 2, 1)], "row 3: the user has this rank already, in row 1"),
        ([(0, 1, 1), (0, 5, 9), (0, 1, 2)], "row 3: the user has this item already, in row 1"),
        ([(0, 1, 1.5)], "whole numbers"),
    ],
)
def test_ranked_lists_refuse_nonsense(rows, complaint):
    with pytest.raises(EventsError, match=complaint):
        lists(rows)


def test_ranked_lists_say_whose_rows_these_are():
    user, item, rank = (np.array(values) for values in ([0, 0], [1, 1], [1, 2]))
    with pytest.raises(EventsError, match=r"^theirs\.csv, row 2: the user has this item already"):
        ranked_lists(user, item, rank, 1, 3, source="theirs.csv")


def test_ranked_lists_of_the_wrong_length_are_a_mistake():
    with pytest.raises(ValueError, match="user rows"):
        ranked_lists(np.array([0]), np.array([0, 1]), np.array([1]), 1, 1)
    with pytest.raises(ValueError, match="user row 2 of 2 users"):
        lists([(2, 1, 1)])
