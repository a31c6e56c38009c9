"""The page of users who never were: how much they are like real ones, and that they are nobody's copies.

items I, made-up users M, real users R, users of each side who are compared one by one C
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recae.generation import Likeness, Nearest
from recae.interactions import IdMap
from recae.report import plots
from recae.report.drawing import Style
from recae.report.page import Picture, render

CONTENTS = {
    "popular": "Popularity",
    "long": "Lengths",
    "near": "Copies",
    "people": "People",
    "making": "How it was made",
}

REAL, MADE_UP = Style("ink", "", "o"), Style("series-1", "", "o")

POINTS = 2000
"""How many items are drawn at most: evenly by how popular they are."""

POPULAR, PEOPLE, LISTED, SHARED = 10, 5, 12, 8
"""How many popular items are in the table; how many people are shown, how many items of each, and of both, at most."""


@dataclass(frozen=True, eq=False)
class RealUsers:
    """The real users of a log (R × I), and who of them is most like whom.

    nearest_to:  to each of the first made-up users (C)
    among:       to each of some real users (C), beside themselves
    copied:      the lengths of the made-up histories, all of them, that some real user has, too
    left_out:    who else is in the log, in words
    """

    source: str
    users: IdMap
    histories: csr_matrix
    nearest_to: Nearest
    among: Nearest
    copied: NDArray[np.int64]
    left_out: str = ""


@dataclass(frozen=True, eq=False)
class MadeUpInput:
    """Users who were made up, and what is known of real ones.

    popularity, real_popularity  (I), how many users have each item
    lengths                      (M)
    first                        histories of the first made-up users (C × I)
    real                         None where there is no log of theirs: then only what the model remembers is known
    labels                       (I), what to call each item
    """

    model: str
    facts: Mapping[str, str]
    popularity: NDArray[np.int64]
    lengths: NDArray[np.int64]
    first: csr_matrix
    real_popularity: NDArray[np.int64]
    real_users: int
    real_events: int
    real: RealUsers | None
    labels: NDArray[np.object_]

    @property
    def likeness(self) -> Likeness:
        """How much they are like the real ones, as a whole."""
        lengths = None if self.real is None else (self.real.histories.getnnz(axis=1), self.lengths)
        return Likeness.of_counts((self.real_popularity, self.popularity), lengths)

    @property
    def shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Which share of the real users has each item, and which of the made-up ones."""
        return self.real_popularity / max(1, self.real_users), self.popularity / max(1, len(self.lengths))


@dataclass(frozen=True)
class Listed:
    """Some items of a history of `length`, each with whether the other one of a pair has it, too."""

    items: tuple[tuple[str, bool], ...]
    length: int


@dataclass(frozen=True)
class MadeUpPerson:
    """Somebody made up, and the real user who is most like that, where real ones are known."""

    user: str
    history: Listed
    nearest: str | None = None
    likeness: float = 0.0
    other: Listed | None = None


def render_made_up(made_up: MadeUpInput) -> str:
    """Return the page as HTML; the same input gives the same text."""
    users = len(made_up.lengths)
    return render(
        "made_up.html",
        title=f"Users who never were, by {made_up.model}: recae",
        eyebrow=f"{users:,} {'user' if users == 1 else 'users'} made up by {made_up.model}",
        heading="Users who never were",
        contents=CONTENTS,
        made_up=made_up,
        real=made_up.real,
        likeness=made_up.likeness,
        popular=_most_popular(made_up),
        popularity=_popularity(made_up),
        lengths=_lengths(made_up),
        nearness=_nearness(made_up),
        people=introduce(made_up),
    )


def introduce(made_up: MadeUpInput) -> list[MadeUpPerson]:
    """Return a few of the first made-up users, from the least like anybody real to the most, or just the first."""
    real, first = made_up.real, made_up.first
    if real is None:
        return [
            MadeUpPerson(_name(row), _listed(first[[row]].indices, np.empty(0, np.int64), made_up))
            for row in range(min(PEOPLE, first.shape[0]))
        ]
    rising = np.argsort(real.nearest_to.likeness, kind="stable")
    places = np.unique(np.linspace(0, len(rising) - 1, PEOPLE).round().astype(np.int64))
    people = []
    for row in map(int, rising[places]):
        nearest = int(real.nearest_to.rows[row])
        own, others = first[[row]].indices, real.histories[[nearest]].indices
        people.append(
            MadeUpPerson(
                user=_name(row),
                history=_listed(own, others, made_up),
                nearest=str(real.users.ids[nearest]),
                likeness=float(real.nearest_to.likeness[row]),
                other=_listed(others, own, made_up),
            )
        )
    return people


def _name(row: int) -> str:
    return f"synthetic-{row + 1}"


def _listed(columns: NDArray[np.integer], others: NDArray[np.integer], made_up: MadeUpInput) -> Listed:
    """List what two have in common first, and what few have before what everybody has."""
    shared = np.isin(columns, others)
    order = np.lexsort((columns, made_up.real_popularity[columns], ~shared))
    order = np.concatenate([order[: shared.sum()][:SHARED], order[shared.sum() :]])[:LISTED]
    return Listed(
        tuple((str(made_up.labels[columns[place]]), bool(shared[place])) for place in order), length=len(columns)
    )


def _most_popular(made_up: MadeUpInput) -> list[tuple[str, float, float]]:
    """Return the most popular items of the real users, and which share of users has them, real ones and made up."""
    real, other = made_up.shares
    rows = np.argsort(-made_up.real_popularity, kind="stable")[:POPULAR]
    return [(str(made_up.labels[row]), float(real[row]), float(other[row])) for row in rows]


def _popularity(made_up: MadeUpInput) -> Picture | None:
    real, other = made_up.shares
    order = np.argsort(-made_up.real_popularity, kind="stable")
    order = order[(real[order] > 0) & (other[order] > 0)]
    if not len(order):
        return None
    shown = order[np.unique(np.linspace(0, len(order) - 1, POINTS).round().astype(np.int64))]
    facts = {"shown": len(shown), "never": int(((real > 0) & (other == 0)).sum())}
    return Picture(plots.shares_picture(real[shown], other[shown], MADE_UP), (), facts)


def _lengths(made_up: MadeUpInput) -> Picture:
    sides = {"made up": made_up.lengths}
    if made_up.real is not None:
        sides = {"real": made_up.real.histories.getnnz(axis=1), **sides}
    styles = {"real": REAL, "made up": MADE_UP}
    quantiles = {name: np.quantile(lengths, [0.05, 0.5, 0.95]) for name, lengths in sides.items()}
    legend = [(name, styles[name]) for name in sides]
    return Picture(plots.lengths_picture(sides, styles), legend, {"quantiles": quantiles})


def _nearness(made_up: MadeUpInput) -> Picture | None:
    real = made_up.real
    if real is None:
        return None
    sides = {"real users, to another one": real.among.likeness, "made up, to a real one": real.nearest_to.likeness}
    styles = dict(zip(sides, (REAL, MADE_UP), strict=True))
    return Picture(
        plots.nearness_picture(sides, styles), list(styles.items()), {"most": [max(s) for s in sides.values()]}
    )
