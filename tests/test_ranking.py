"""Rankings: exact, in one order, whatever the block and the tile."""

import warnings
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix

import recae.ranking
from recae.errors import DeviceError, Diverged, EventsError, InputError, MemoryRanShort, ModelError
from recae.progress import Step
from recae.ranking import FOREIGN_ITEM, NO_ITEM, ROWS_PER_CALL, TopN, ranked_lists, top_n
from recae.scoring import inner_products, slices_of
from recae.selection import best_columns

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


class Tiled:
    """A model that says how it was asked for its scores."""

    def __init__(self, scores):
        self.scores, self.asked = torch.as_tensor(scores), []

    def score(self, histories):
        self.asked.append("whole")
        return looked_up(self.scores)(histories)

    def score_by_tile(self, histories):
        self.asked.append(histories.shape[0])
        return slices_of(looked_up(self.scores)(histories))

    def state(self):
        return {"scores": self.scores}


@contextmanager
def tiles_of(columns):
    """Make tiles so many columns wide."""
    with patch.dict(recae.ranking.TILE, cpu=4 * ROWS_PER_CALL["cpu"] * columns):
        yield


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
        draw(st.sampled_from([1, 2, 3, 5, 64])),
        draw(st.booleans()),
    )


@settings(deadline=None, max_examples=150)
@given(rankings())
def test_top_n_is_sorting_every_pair_of_score_and_column(case):
    scores, seen, n, eligible, block, columns, by_tile = case
    padded = np.hstack([scores, np.full((len(scores), 1), -np.inf, np.float32)])
    histories = with_row_numbers(seen)
    score = Tiled(padded).score if by_tile else looked_up(padded)
    with tiles_of(columns):
        ours = top_n(score, histories, n, eligible=np.append(eligible, True), block=block)
    same(ours, obvious_top_n(padded, histories.toarray() != 0, n, np.append(eligible, True)))


@pytest.mark.parametrize("columns", [16, 50, 77, 200, 1000])
@pytest.mark.parametrize("levels", [3, 200, None])
def test_tiles_of_any_width_give_the_ranking_of_all_scores_sorted(columns, levels):
    generator = np.random.default_rng(columns)
    scores = generator.normal(size=(40, 301)).astype(np.float32)
    if levels is not None:
        scores = np.floor(scores * levels / 5).astype(np.float32)
    scores[:, 300] = -np.inf  # where the number of the row is
    seen = generator.random((40, 300)) < 0.2
    eligible = generator.random(301) < 0.9
    histories = with_row_numbers(seen)
    with tiles_of(columns):
        for n in (1, 10, 60, 301):
            ours = top_n(Tiled(scores).score, histories, n, eligible=eligible, block=7)
            same(ours, obvious_top_n(scores, histories.toarray() != 0, n, eligible))


def test_a_model_that_scores_by_tile_is_asked_for_tiles():
    scores = np.arange(12, dtype=np.float32).reshape(3, 4)
    histories = with_row_numbers(np.zeros((3, 3), bool))
    model, plain = Tiled(scores), Tiled(scores)
    same(top_n(model.score, histories, 2), top_n(lambda rows: plain.score(rows), histories, 2))
    assert set(model.asked) == {ROWS_PER_CALL["cpu"]}
    assert set(plain.asked) == {"whole"}


@pytest.mark.parametrize("levels", [1, 2, 30, 10**6])
@pytest.mark.parametrize("k", [1, 50, 300])
def test_ties_are_broken_by_column_at_every_place(levels, k):
    scores = torch.randint(0, levels, (40, 300), generator=torch.Generator().manual_seed(levels)).float()
    values, columns = best_columns(scores, k)
    expected = torch.sort(scores, dim=1, descending=True, stable=True)
    assert torch.equal(columns, expected.indices[:, :k])
    assert torch.equal(values, expected.values[:, :k])


@pytest.mark.parametrize("k", [1, 3, 20])
def test_rows_of_equals_among_others_are_ranked_by_column(k):
    generator = torch.Generator().manual_seed(k)
    scores = torch.randn(6, 2000, generator=generator)
    scores[1], scores[2, 7:], scores[3, ::2], scores[4, 3:1900] = 0.0, -1.0, 0.5, -torch.inf
    scores[5] = scores[5].round()
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


@pytest.mark.parametrize("columns", [128, 1000, 4096])
def test_the_block_and_the_company_change_no_bit_of_a_tiled_model(columns):
    generator = np.random.default_rng(1)
    first, items = (generator.normal(size=(1500, 64)).astype(np.float32) for _ in range(2))
    histories = csr_matrix((generator.random((150, 1500)) < 0.01).astype(np.float32))

    class Model:
        def score(self, histories):
            return torch.as_tensor(histories @ first) @ torch.as_tensor(items).T

        def score_by_tile(self, histories):
            return inner_products(torch.as_tensor(histories @ first), torch.as_tensor(items))

        def state(self):
            return {"items": torch.as_tensor(items)}

    with tiles_of(columns):
        whole = top_n(Model().score, histories, 50)
        for block in BLOCKS:
            same(top_n(Model().score, histories, 50, block=block), whole)
        chosen = generator.permutation(150)[:37]
        part = top_n(Model().score, histories[chosen], 50)
        same(part, TopN(whole.items[chosen], whole.scores[chosen]))
        fewer = top_n(Model().score, histories, 20)
        same(fewer, TopN(whole.items[:, :20], whole.scores[:, :20]))
    scores = Model().score(histories).numpy()
    np.testing.assert_allclose(whole.scores, np.take_along_axis(scores, whole.items, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_model_is_always_asked_for_the_same_number_of_rows(block):
    asked = []

    def score(histories):
        asked.append(histories.shape[0])
        return torch.zeros(histories.shape)

    top_n(score, csr_matrix((300, 5), dtype=np.float32), 2, block=block)
    assert set(asked) == {ROWS_PER_CALL["cpu"]}


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 4, 31, 32, 40])
@pytest.mark.parametrize("left_out", ["seen", "ineligible", "nothing"])
def test_scores_that_are_not_finite_are_refused_in_any_tile(value, column, left_out):
    scores = np.zeros((3, 42), np.float32)
    scores[1, column] = value
    seen, eligible = np.zeros((3, 41), bool), np.ones(42, bool)
    seen[1, column], eligible[column] = left_out == "seen", left_out != "ineligible"
    with tiles_of(16), pytest.raises(Diverged, match="user row 1 "):
        top_n(Tiled(scores).score, with_row_numbers(seen), 2, eligible=eligible)


OUT_OF_MEMORY = [
    MemoryError("Unable to allocate 1 TiB"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_halves_the_block_says_so_and_changes_nothing(error):
    scores = np.random.default_rng(0).normal(size=(600, 20)).astype(np.float32)
    histories = with_row_numbers(np.zeros((600, 19), bool))
    failures, heard = [3, 5], []
    calls = iter(range(10**6))

    def score(rows):
        if next(calls) in failures:
            raise error
        return looked_up(scores)(rows)

    with pytest.warns(MemoryRanShort, match="out of memory: users are now ranked") as told:
        ours = top_n(score, histories, 10, block=512, listener=heard.append)
    assert [str(one.message).split("ranked ")[1].split()[0] for one in told] == ["256", "128"]
    assert [step.done for step in heard] == [128, 256, 384, 512, 600]
    same(ours, top_n(looked_up(scores), histories, 10))


def test_out_of_memory_in_the_smallest_block_is_one_clear_line():
    def score(rows):
        raise torch.OutOfMemoryError("CUDA out of memory")

    histories = csr_matrix((300, 5), dtype=np.float32)
    with warnings.catch_warnings(), pytest.raises(DeviceError, match=r"ranking 5 items for 128 users.*fewer than 3"):
        warnings.simplefilter("ignore", MemoryRanShort)
        top_n(score, histories, 3)


def test_another_error_of_the_model_comes_out_as_it_is():
    def score(rows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        top_n(score, csr_matrix((300, 5), dtype=np.float32), 3)


def test_what_cannot_fit_is_refused_before_it_is_allocated(monkeypatch):
    monkeypatch.setattr("recae.device.available_memory", lambda device: 10**4)
    model = Tiled(torch.zeros(3, 10**4))
    with pytest.raises(ModelError, match=r"ranking 10,000 items for 128 users at a time needs .* fewer than 7 places"):
        top_n(model.score, with_row_numbers(np.zeros((3, 9_999), bool)), 7)
    assert model.asked == []


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
