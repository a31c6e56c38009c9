"""Who is hard to explain: each user's history against what a model expects of users like that.

An interaction surprises as far as the model, shown other parts of the same history, did not expect it: -log p, in
nats. Every interaction is hidden once, with the others of its fold, because a model that is shown an interaction
copies it, an anomaly's too. A user surprises as much as the mean of the more surprising half of all that: whoever
wants to pass for everybody mixes what is odd with what is common.

Short histories say less about a user than long ones, so that what is expected, and how far users stray from it, is
that of users with histories as long.

users, interactions: those of the histories. scored: the users who have at least two interactions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.errors import Diverged
from recae.histories import digests
from recae.models.base import Explainer
from recae.progress import Listener, Step, silence
from recae.scoring import ROWS_PER_CALL, device_of, equal_calls

FOLDS = 5
"""In how many parts a history is hidden, one at a time."""

FEWEST = 2
"""How many interactions a history has at least, for one to be explained by another."""

ODDEST = 0.5
"""Which share of the interactions, the most surprising ones, stands for a user."""

GROUP = 50
"""How many users it takes at least to say what is usual at their length."""

GROUPS = 20
"""How many such groups there are at most."""

FEW = 10
"""With fewer others of about the same length, a user is compared with what is usual at other lengths."""

SPREAD_OF_NORMAL = 1.4826
"""The standard deviation of a normal distribution, in medians of its absolute deviations."""


@dataclass(frozen=True, eq=False)
class Surprise:
    """How much histories surprise a model: `of_each` (interactions) in their order, `of_user` (users), in nats.

    Both are NaN where a user has fewer than two interactions. `lengths` (users) counts them.
    """

    of_each: NDArray[np.float32]
    of_user: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Which users have a figure, (users)."""
        return ~np.isnan(self.of_user)


@dataclass(frozen=True, eq=False)
class Usual:
    """What is usual at which length: the median and the spread of users' surprise at some lengths (groups), rising.

    Over the logarithm of the length the median goes in straight lines through these, and beyond them straight on; so
    does the spread between them, which beyond them stays as it is.
    """

    lengths: NDArray[np.float64]
    surprise: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def of(cls, surprise: Surprise) -> "Usual":
        """Learn from the scored users of some histories, in groups of the same length, as equal as they can be.

        Medians hardly move for the few whom one looks for. Where half of a group is as is usual, the spread is that of
        all users.
        """
        logs, figures = np.log(surprise.lengths[surprise.scored]), surprise.of_user[surprise.scored]
        if not len(figures):
            return cls(np.ones(1), np.zeros(1), np.ones(1))
        count = max(1, min(GROUPS, len(figures) // GROUP))
        bounds = np.unique(np.quantile(logs, np.arange(1, count) / count, method="lower"))
        group = np.searchsorted(bounds, logs, side="left")
        members = [group == number for number in np.unique(group)]
        at = np.array([np.median(logs[inside]) for inside in members])
        medians = np.array([np.median(figures[inside]) for inside in members])
        strays = np.abs(figures - _in_lines(logs, at, medians))
        spread = SPREAD_OF_NORMAL * np.array([np.median(strays[inside]) for inside in members])
        of_all = SPREAD_OF_NORMAL * float(np.median(strays)) or float(strays.max()) or 1.0
        return cls(np.exp(at), medians, np.where(spread > 0, spread, of_all))

    def expected(self, lengths: NDArray[Any]) -> NDArray[np.float64]:
        """Return how much histories of these lengths surprise."""
        return _in_lines(np.log(np.maximum(lengths, 1)), np.log(self.lengths), self.surprise)

    def spread_at(self, lengths: NDArray[Any]) -> NDArray[np.float64]:
        """Return the standard deviation of users with histories of these lengths, taken from the middle of them."""
        return np.asarray(np.interp(np.log(np.maximum(lengths, 1)), np.log(self.lengths), self.spread))

    def deviations(self, surprise: Surprise) -> NDArray[np.float64]:
        """Return by how many spreads each user surprises more than is usual, (users); NaN where there is no figure."""
        beyond = surprise.of_user - self.expected(surprise.lengths)
        return beyond / self.spread_at(surprise.lengths)


@dataclass(frozen=True, eq=False)
class Anomalies:
    """The scored users, the oddest first.

    rows: their rows. surprise, expected, z: theirs, what is usual at their length, and by how many spreads they are
    above it. percentile: the percentage of the users compared with whose z is lower. lengths: of their histories.
    """

    rows: NDArray[np.int64]
    surprise: NDArray[np.float64]
    expected: NDArray[np.float64]
    z: NDArray[np.float64]
    percentile: NDArray[np.float64]
    lengths: NDArray[np.int64]


def rank_by_oddity(surprise: Surprise, reference: Surprise | None = None) -> Anomalies:
    """Rank users by how much more they surprise than others with histories as long: those of `reference`, or these.

    Users who are equal stay in their order.
    """
    reference = surprise if reference is None else reference
    usual = Usual.of(reference)
    others, z = np.sort(usual.deviations(reference)[reference.scored]), usual.deviations(surprise)
    rows = np.flatnonzero(surprise.scored)
    rows = rows[np.argsort(-z[rows], kind="stable")]
    return Anomalies(
        rows=rows,
        surprise=surprise.of_user[rows],
        expected=usual.expected(surprise.lengths[rows]),
        z=z[rows],
        percentile=100 * np.searchsorted(others, z[rows], side="left") / max(1, len(others)),
        lengths=surprise.lengths[rows],
    )


def surprise_of(
    model: Explainer,
    histories: csr_matrix,
    *,
    seed: int = 42,
    listener: Listener = silence,
    task: str = "explain",
) -> Surprise:
    """Return how much histories (users × items, sorted and distinct columns) surprise a model.

    A user's figures depend on the history, the model and the seed alone. There are never more logits at a time than a
    tile of them. ValueError for a model that cannot fold in: a history without a part is a new one. Diverged where a
    figure is NaN.
    """
    if not model.folds_in:
        raise ValueError(f"{model.name} cannot be shown a part of a history")
    users, lengths = histories.shape[0], np.diff(histories.indptr).astype(np.int64)
    hidden = folds_of(histories, seed)
    of_each = np.full(histories.nnz, np.nan, dtype=np.float32)
    # With its number in the place of its value, an interaction of a part is known among all of them.
    numbered = csr_matrix((np.arange(histories.nnz), histories.indices, histories.indptr), shape=histories.shape)
    for part, rows in equal_calls(numbered, ROWS_PER_CALL[device_of(model).type]):
        fold, wanted = hidden[part.data], part.indptr[rows.stop - rows.start]
        for number in range(FOLDS):
            asked = fold == number
            found = model.log_likelihoods(_only(~asked, part, histories), _only(asked, part, histories))
            asked[wanted:] = False  # of the rows that only fill the call
            places = part.data[asked]
            of_each[places] = -found[: len(places)].cpu().numpy()
        listener(Step(task, rows.stop, users))
    wrong = np.flatnonzero(np.isnan(of_each))
    if len(wrong):
        row = int(np.searchsorted(histories.indptr, wrong[0], side="right")) - 1
        raise Diverged(
            f"what the model expects of user row {row} is not a number: the model diverged; fit it again with a lower "
            "learning rate or more regularisation"
        )
    of_each[np.repeat(lengths < FEWEST, lengths)] = np.nan
    return Surprise(of_each, of_users(of_each, lengths), lengths)


def lonely(surprise: Surprise, reference: Surprise) -> int:
    """Return of how many scored users it is hardly known what is usual, as few of `reference` have histories as long.

    As long is up to half as long again, or two thirds as long; few is fewer than FEW beside the user.
    """
    lengths, others = surprise.lengths[surprise.scored], np.sort(reference.lengths[reference.scored])
    longer = np.searchsorted(others, 1.5 * lengths, side="right")
    shorter = np.searchsorted(others, lengths / 1.5, side="left")
    return int((longer - shorter - (reference is surprise) < FEW).sum())


def folds_of(histories: csr_matrix, seed: int) -> NDArray[np.int8]:
    """Return for each interaction in which of FOLDS parts it is hidden: as many in each, but for one.

    Drawn by the history and the seed alone.
    """
    fold = np.empty(histories.nnz, dtype=np.int8)
    for user, digest in enumerate(digests(histories, salt=str(seed).encode())):
        start, stop = histories.indptr[user : user + 2]
        order = np.random.default_rng(int.from_bytes(digest)).permutation(stop - start)
        fold[start:stop] = order % FOLDS
    return fold


def of_users(of_each: NDArray[np.float32], lengths: NDArray[np.int64], share: float = ODDEST) -> NDArray[np.float64]:
    """Return the mean surprise of that share of each user's interactions, the most surprising ones, (users).

    NaN for users with fewer than two.
    """
    users = np.repeat(np.arange(len(lengths)), lengths)
    falling = np.lexsort((-of_each, users))
    place = np.arange(len(users)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    odd = np.ceil(share * lengths)
    counted = falling[place < odd[users]]
    sums = np.bincount(users[counted], of_each[counted].astype(np.float64), minlength=len(lengths))
    return np.where(lengths < FEWEST, np.nan, sums / np.maximum(odd, 1))


def oddest_of(surprise: Surprise, rows: NDArray[np.integer], count: int) -> list[NDArray[np.int64]]:
    """Return for each of some users the numbers of up to so many interactions, the most surprising ones first."""
    ends = np.cumsum(surprise.lengths)
    chosen = []
    for start, stop in zip(ends[rows] - surprise.lengths[rows], ends[rows], strict=True):
        chosen.append(start + np.argsort(-surprise.of_each[start:stop], kind="stable")[:count])
    return chosen


def _only(flags: NDArray[np.bool_], part: csr_matrix, histories: csr_matrix) -> csr_matrix:
    """Return the flagged interactions of a part, with the values that they have in the histories."""
    indptr = np.append(0, np.cumsum(flags))[part.indptr]
    return csr_matrix((histories.data[part.data[flags]], part.indices[flags], indptr), shape=part.shape)


def _in_lines(x: NDArray[np.float64], at: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what goes in straight lines through the points (at, y), and beyond them straight on, at each x."""
    found = np.interp(x, at, y)
    if len(at) > 1:
        rise = np.diff(y) / np.diff(at)
        found += rise[0] * np.minimum(x - at[0], 0) + rise[-1] * np.maximum(x - at[-1], 0)
    return found
