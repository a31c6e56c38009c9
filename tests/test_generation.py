"""Users who never were: like those who are, the same for the same seed, nobody's copy; or one clear line."""

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from checkerboard import checkerboard
from commands import call, log, write_inputs
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from pages import require_sound
from safetensors.torch import load_file
from scipy.sparse import csr_matrix, vstack
from scipy.stats import ks_2samp, pearsonr, spearmanr
from torch import Tensor
from torch.distributions import MultivariateNormal

import recae.tables
from recae.autoencoder.batches import Batch
from recae.autoencoder.density import CodeDensity, fit_density, log_densities
from recae.autoencoder.making_up import chances, counts_above_zero, draw_histories
from recae.errors import CannotGenerate
from recae.events import read_events
from recae.generation import COMPARED, Likeness, Onlooker, make_up, nearest_likeness, nearest_of, some_of
from recae.interactions import IdMap
from recae.models import MODELS, build
from recae.models.base import Generator
from recae.models.mult_vae import MultVAE
from recae.report.drawing import Style
from recae.report.made_up import LISTED, SHARED, MadeUpInput, RealUsers, introduce, render_made_up
from recae.report.page import MARK
from recae.report.plots import length_steps, lengths_picture, shares_picture

GENERATING = [name for name in MODELS if hasattr(MODELS[name], "sample")]

SETTINGS: dict[str, dict[str, Any]] = {
    "mult-vae": {"hidden": (16,), "kl_cap": 0.05},
    "rec-vae": {"hidden": 16, "layers": 2, "gamma": 0.002},
    "vamp-vae": {"hidden": 16, "pseudo_inputs": 4, "kl_cap": 0.05, "averaging": 0.0},
    "hybrid": {"hidden": 16, "layers": 2, "gamma": 0.002, "averaging": 0.0, "epochs": 300, "l2": 1.0, "kernel_l2": 0.1},
}


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def together(blocks: Any) -> csr_matrix:
    return vstack(list(blocks), format="csr")


# What comes of a known population.


def parity_shares(histories: csr_matrix) -> np.ndarray:
    """The share of each user's items that are even."""
    return np.asarray(histories[:, ::2].sum(axis=1)).ravel() / np.asarray(histories.sum(axis=1)).ravel()


@pytest.fixture(scope="module")
def taught() -> dict[str, Generator]:
    seen = checkerboard(40).history
    common = {"latent": 2, "learning_rate": 0.02, "epochs": 100, "dropout": 0.2}
    return {name: build(name, **{**common, **SETTINGS[name]}).fit(seen) for name in GENERATING}


@pytest.mark.parametrize("name", GENERATING)
def test_users_made_up_of_a_checkerboard_like_even_items_or_odd_ones(name: str, taught: dict[str, Generator]) -> None:
    shares = parity_shares(together(make_up(taught[name], 300, seed=1)))
    assert (np.minimum(shares, 1 - shares) < 0.06).mean() > 0.97
    assert 0.3 < (shares > 0.5).mean() < 0.7


def test_users_made_up_of_popularity_alone_fail_that() -> None:
    made_up = draw_histories(torch.zeros(300, 40), torch.full((300,), 19), "multinomial", draws())
    shares = parity_shares(made_up)
    assert (np.minimum(shares, 1 - shares) < 0.06).mean() < 0.05


def lively(users: int = 400, items: int = 60, seed: int = 3) -> csr_matrix:
    """Histories of all lengths, of two tastes: whoever likes the first items has long ones."""
    rng = np.random.default_rng(seed)
    first = rng.random(users) < 0.5
    falling = np.geomspace(1, 0.02, items)
    taste = np.where(first[:, None], falling, 0.3 * np.roll(falling, items // 2))
    liked = rng.random((users, items)) < taste * rng.uniform(0.3, 1, (users, 1))
    liked[:, 0] |= ~liked.any(axis=1)
    return csr_matrix(liked.astype(np.float32))


@pytest.mark.parametrize("likelihood", ["multinomial", "bernoulli", "poisson"])
def test_made_up_users_are_like_the_real_ones(likelihood: str) -> None:
    real = lively()
    model = MultVAE(
        hidden=(32,), latent=4, likelihood=likelihood, kl_cap=0.2, batch_size=50, learning_rate=0.01, epochs=40
    )
    made_up = together(make_up(model.fit(real), 1000, seed=0))
    likeness = Likeness.of(real, made_up)
    assert likeness.rank_correlation > 0.9
    assert likeness.correlation > 0.95
    assert likeness.length_distance < 0.1
    long = made_up.getnnz(axis=1) > 10  # the long histories are those of the first items, made up too
    share = np.asarray((made_up > 0)[:, :20].sum(axis=1)).ravel() / made_up.getnnz(axis=1)
    assert share[long].mean() > 0.6
    assert share[~long].mean() < 0.5
    assert (made_up.data >= 1).all()


# Items, given logits and lengths.


@given(seed=st.integers(0, 10**6), sharp=st.sampled_from([0.1, 1.0, 5.0, 100.0]), length=st.integers(1, 12))
def test_chances_add_up_to_the_length_and_grow_with_the_share(seed: int, sharp: float, length: int) -> None:
    shares = torch.softmax(sharp * torch.randn(3, 12, generator=draws(seed)).double(), dim=1)
    found = chances(shares, torch.tensor([length, 1, 12]))
    torch.testing.assert_close(found.sum(dim=1), torch.tensor([length, 1.0, 12.0]).double())
    for one, of_one, wanted in zip(found, shares, (length, 1, 12), strict=True):
        assert (one[of_one.argsort()].diff() >= -1e-12).all()
        assert (one <= 1).all()
        low, high = -800.0, 800.0  # the slow way: halve the logarithm of the scale
        for _ in range(200):
            middle = (low + high) / 2
            fits = torch.exp(middle + of_one.log()).clamp(max=1).sum() < wanted
            low, high = (middle, high) if fits else (low, middle)
        torch.testing.assert_close(one, torch.exp(high + of_one.log()).clamp(max=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("likelihood", ["multinomial", "bernoulli", "poisson"])
def test_items_are_there_as_often_as_the_likelihood_says(likelihood: str) -> None:
    logits = torch.linspace(-3, 2, 12).double()
    if likelihood == "multinomial":
        wanted = chances(torch.softmax(logits, 0)[None], torch.tensor([4]))[0]
        length = 4
    else:  # as many items as it gives on average, so that asking for so many changes nothing
        wanted = torch.sigmoid(logits) if likelihood == "bernoulli" else -torch.expm1(-logits.exp())
        length = round(float(wanted.sum()))
        wanted = wanted * length / wanted.sum()
    made_up = draw_histories(logits.expand(20_000, 12), torch.full((20_000,), length), likelihood, draws())
    assert (made_up.getnnz(axis=1) == length).all()
    np.testing.assert_allclose(made_up.getnnz(axis=0) / 20_000, wanted, atol=0.03)
    assert made_up.has_sorted_indices
    if likelihood == "poisson":
        rates = logits.exp().numpy()
        means = np.asarray(made_up.sum(axis=0)).ravel() / made_up.getnnz(axis=0)
        np.testing.assert_allclose(means, rates / -np.expm1(-rates), rtol=0.05)
    else:
        assert (made_up.data == 1).all()


def test_a_history_has_at_least_one_item_and_at_most_all() -> None:
    made_up = draw_histories(100 * torch.randn(3, 5, generator=draws()), torch.tensor([0, 9, 2]), "poisson", draws())
    assert made_up.getnnz(axis=1).tolist() == [1, 5, 2]
    assert np.isfinite(made_up.data).all()


def test_counts_above_zero_are_those_of_poisson() -> None:
    counts = counts_above_zero(torch.full((200_000,), 0.7).double(), draws())
    share = np.array([(counts == count).double().mean() for count in range(5)])
    expected = np.array([0, *(0.7**n / np.prod(np.arange(1, n + 1)) / np.expm1(0.7) for n in range(1, 5))])
    np.testing.assert_allclose(share, expected, atol=0.005)


# Codes and lengths.


class Told:
    """A network whose codes are what was written into histories, with a little noise."""

    def __init__(self, codes: Tensor) -> None:
        self.codes, self.asked = codes, 0

    def read(self, batch: Batch) -> Batch:
        return batch

    def code(self, batch: Batch, noise: Tensor) -> Tensor:
        start, self.asked = self.asked, self.asked + len(batch)
        return self.codes[start : self.asked] + 0.1 * noise


def density_of(codes: Tensor, lengths: np.ndarray) -> CodeDensity:
    there = np.arange(lengths.max()) < lengths[:, None]
    return fit_density(Told(codes), codes.shape[1], csr_matrix(there.astype(np.float32)), 0, torch.device("cpu"))


def test_the_density_keeps_groups_apart_and_lengths_with_their_codes() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=600)
    codes = torch.tensor(np.column_stack([8.0 * group - 4, rng.normal(size=600)]), dtype=torch.float32)
    lengths = np.where(group == 1, rng.integers(30, 60, 600), rng.integers(1, 20, 600))
    density = density_of(codes, lengths)
    drawn, long = density.sample(4000, draws())
    assert (drawn[:, 0].abs() > 3).float().mean() > 0.97
    assert abs((drawn[:, 0] > 0).float().mean() - group.mean()) < 0.05
    assert (long[drawn[:, 0] > 0] >= 25).float().mean() > 0.85
    assert ks_2samp(lengths, long.numpy()).statistic < 0.05
    assert (long.min(), long.max()) >= (lengths.min(), 0)
    assert long.max() <= lengths.max()


@pytest.mark.parametrize("users", [1, 2, 7])
def test_few_users_have_a_density_too(users: int) -> None:
    drawn, long = density_of(torch.ones(users, 3), np.full(users, 4)).sample(50, draws())
    assert torch.isfinite(drawn).all()
    assert (long == 4).all()


def test_log_densities_are_those_of_normal_distributions() -> None:
    root = torch.randn(2, 3, 3, generator=draws()).double()
    covariances = root @ root.mT + torch.eye(3).double()
    means, points = (torch.randn(count, 3, generator=draws(count)).double() for count in (2, 5))
    weights = torch.tensor([0.3, 0.7]).double()
    expected = MultivariateNormal(means, covariances).log_prob(points[:, None]) + weights.log()
    found = log_densities(points, weights, means, torch.linalg.cholesky(covariances))
    torch.testing.assert_close(found, expected)


def test_the_density_forgets_its_users() -> None:
    model = MultVAE(hidden=(8,), latent=4, epochs=1).fit(lively(users=300))
    sizes = {name: tensor.numel() for name, tensor in model.state().items() if name.startswith("density.")}
    assert max(size for name, size in sizes.items() if name != "density.lengths") <= 4 * 25


# How alike.


def test_likeness_is_what_scipy_says() -> None:
    real, other = lively(seed=1), lively(seed=2, users=90)[:, ::-1].tocsr()
    found = Likeness.of(real, other)
    counts, lengths = ([side.getnnz(axis=axis) for side in (real, other)] for axis in (0, 1))
    assert found.rank_correlation == pytest.approx(spearmanr(*counts).statistic)
    assert found.correlation == pytest.approx(pearsonr(*counts).statistic)
    assert found.length_distance == pytest.approx(ks_2samp(*lengths).statistic)


def test_the_nearest_user_is_the_one_with_the_largest_jaccard_similarity() -> None:
    some, others = lively(users=200, seed=4), lively(users=30, seed=5)
    sets = [[set(side[row].indices) for row in range(side.shape[0])] for side in (some, others)]
    expected = [max(len(one & other) / len(one | other) for other in sets[1]) for one in sets[0]]
    np.testing.assert_allclose(nearest_likeness(some, others), expected, rtol=1e-6)
    np.testing.assert_allclose(nearest_likeness(others, others), 1)
    assert nearest_likeness(csr_matrix((2, 5)), csr_matrix((3, 5))).tolist() == [0, 0]


def test_the_nearest_one_is_somebody_else() -> None:
    users = lively(users=150, seed=6)
    likeness = np.array([nearest_likeness(users, users[[other]]) for other in range(150)]).T
    np.fill_diagonal(likeness, -1)
    found = nearest_of(users, users, but=np.arange(150))
    np.testing.assert_array_equal(found.rows, likeness.argmax(axis=1))
    np.testing.assert_allclose(found.likeness, likeness.max(axis=1))
    assert nearest_of(users[:1], users[:1], but=np.zeros(1, dtype=np.int64)).likeness.tolist() == [0]


def test_an_onlooker_remembers_what_passes_by() -> None:
    real, other = lively(seed=1), lively(seed=2, users=COMPARED + 300)
    made_up = vstack([other[:1000], real[[3, 5]] * 4, other[1000:], real[[3]]], format="csr")
    onlooker = Onlooker(made_up.shape[1], real)
    for start in range(0, made_up.shape[0], 128):
        onlooker.see(made_up[start : start + 128])
    np.testing.assert_array_equal(onlooker.popularity, made_up.getnnz(axis=0))
    np.testing.assert_array_equal(onlooker.lengths, made_up.getnnz(axis=1))
    assert (onlooker.first != made_up[:COMPARED]).nnz == 0
    same = {tuple(real[[row]].indices) for row in range(real.shape[0])}
    copies = [row for row in range(made_up.shape[0]) if tuple(made_up[[row]].indices) in same]
    assert {1000, 1001, made_up.shape[0] - 1} <= set(copies)
    np.testing.assert_array_equal(onlooker.copies, made_up[copies].getnnz(axis=1))
    assert len(Onlooker(5).copies) == 0


@given(users=st.integers(0, 3 * COMPARED))
def test_those_who_are_compared_are_evenly_drawn(users: int) -> None:
    rows = some_of(users)
    assert len(rows) == min(users, COMPARED)
    assert not users or (rows[0], rows[-1]) == (0, users - 1)


# The same users again.


def test_the_same_seed_makes_up_the_same_users_however_many() -> None:
    model = MultVAE(hidden=(8,), latent=4, epochs=2).fit(lively())
    some, more, others = (together(make_up(model, users, seed)) for users, seed in ((130, 7), (300, 7), (130, 8)))
    assert (some != more[:130]).nnz == 0
    assert (some != others).nnz > 0
    assert (more[:128] != more[128:256]).nnz > 0
    assert more.shape == (300, 60)


# The page.


def seen(real: csr_matrix, made_up: csr_matrix, *, known: bool = True) -> MadeUpInput:
    onlooker = Onlooker(real.shape[1], real)
    onlooker.see(made_up)
    rows = np.arange(real.shape[0])
    users = RealUsers(
        source="the <log>",
        users=IdMap.of([f"u{row:03}" for row in rows]),
        histories=real,
        nearest_to=nearest_of(made_up, real),
        among=nearest_of(real, real, but=rows),
        copied=onlooker.copies,
    )
    return MadeUpInput(
        model="a model",
        facts={"seed": "7"},
        popularity=onlooker.popularity,
        lengths=onlooker.lengths,
        first=onlooker.first,
        real_popularity=real.getnnz(axis=0),
        real_users=real.shape[0],
        real_events=real.nnz,
        real=users if known else None,
        labels=np.array([f"Film {item}" for item in range(real.shape[1])], dtype=object),
    )


def text_of(page: str) -> str:
    return require_sound(page).text


def test_a_planted_copy_is_told_and_stands_beside_its_user() -> None:
    real, other = (side[side.getnnz(axis=1) > 7] for side in (lively(seed=1), lively(seed=2)))
    other = other[:40]
    made_up = vstack([other[:20], real[[17]], other[20:]], format="csr")
    told = seen(real, made_up)
    person = introduce(told)[-1]
    assert (person.user, person.nearest, person.likeness) == ("synthetic-21", "u017", 1)
    assert person.other == person.history
    assert all(both for _, both in person.history.items)
    page = text_of(render_made_up(told))
    size = real[[17]].nnz
    assert f"1 is a copy of a user in the <log>, with {size} items at most" in page
    assert "Of all 41, 1 is a copy: just the items of a real user" in page
    assert "User u017 is the nearest real one: of the items that either has, both have 100%." in page
    clean = text_of(render_made_up(seen(real, other)))
    assert "None of them is a copy of a user in the <log>." in clean
    assert "Of all 40, 0 are copies" in clean


def test_the_page_says_how_popular_items_are_and_how_long_histories() -> None:
    real, made_up = lively(seed=1, users=60), lively(seed=2, users=40)
    made_up = csr_matrix(made_up.multiply(np.arange(60) != 5))  # one item that nobody has
    made_up.eliminate_zeros()
    told = seen(real, made_up)
    page = render_made_up(told)
    likeness = Likeness.of(real, made_up)
    for figure in (likeness.rank_correlation, likeness.correlation, likeness.length_distance):
        assert f"{figure:.4f}" in text_of(page)
    both = ((real.getnnz(axis=0) > 0) & (made_up.getnnz(axis=0) > 0)).sum()
    assert f'aria-label="{both} items, on the line' in page
    never = ((real.getnnz(axis=0) > 0) & (made_up.getnnz(axis=0) == 0)).sum()
    assert never > 1
    assert f"{never} items that real users have, no made-up one has" in text_of(page)
    most = real.getnnz(axis=0).argmax()
    shares = [f"{100 * side.getnnz(axis=0)[most] / side.shape[0]:.1f}%" for side in (real, made_up)]
    assert f"Film {most} {shares[0]} {shares[1]}" in text_of(page)
    assert page.count("<figure") == 3
    assert MARK in page


@pytest.mark.parametrize(("low", "high"), [(1, 1), (3, 4), (5, 476), (1, 100_000)])
def test_as_many_users_of_each_length_are_a_flat_line(low: int, high: int) -> None:
    """A step of two lengths is no higher than its neighbour of one."""
    edges = length_steps(low, high)
    assert (edges[0], edges[-1]) == (low - 0.5, high + 0.5)
    assert (edges % 1 == 0.5).all()
    lengths = np.arange(low, high + 1)
    heights = set(re.findall(r"\d[\d.]* (\d[\d.]*)", outline_of(lengths)))
    assert len(heights) == 2  # the bottom, and the line


def outline_of(lengths: np.ndarray) -> str:
    """Return the path of the line that a picture of lengths draws."""
    svg = lengths_picture({"real": lengths}, {"real": Style.of(0)})
    return next(path for path in re.findall(r'<path d="([^"]*)"[^>]*style="fill: none', svg) if path.count("L") > 2)


def test_the_picture_of_popularity_has_a_grid_in_both_directions() -> None:
    shares = np.geomspace(0.001, 0.9, 30)
    with patch.object(Figure, "savefig", autospec=True, side_effect=Figure.savefig) as saved:
        shares_picture(shares, shares, Style.of(1))
    axes = saved.call_args.args[0].axes[0]
    lines = [line for axis in (axes.xaxis, axes.yaxis) for line in axis.get_gridlines()]
    assert len(lines) > 4
    assert all(line.get_visible() for line in lines)


def test_people_show_some_of_what_both_have_and_of_what_one_has() -> None:
    real, made_up = lively(seed=1, users=60), lively(seed=2, users=40)
    told = seen(real, made_up)
    for person in introduce(told):
        row, nearest = int(person.user.split("-")[1]) - 1, int(str(person.nearest)[1:])
        sets = [{f"Film {item}" for item in side.indices} for side in (made_up[[row]], real[[nearest]])]
        assert person.likeness == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
        for own, other, shown in ((*sets, person.history), (*sets[::-1], person.other)):
            assert shown is not None
            assert shown.length == len(own)
            assert {name for name, _ in shown.items} <= own
            assert all(both == (name in other) for name, both in shown.items)
            assert sum(both for _, both in shown.items) == min(SHARED, len(own & other))
            assert len(shown.items) <= LISTED


@pytest.mark.parametrize("users", [1, 40])
def test_without_a_log_the_page_says_what_it_cannot_tell(users: int) -> None:
    page = render_made_up(seen(lively(seed=1), lively(seed=2, users=users), known=False))
    assert "Whether any of them is a copy, a log of real users would tell: --reference LOG ." in text_of(page)
    assert page.count("<figure") == 2
    assert "synthetic-1 " in text_of(page)
    assert "nan" not in text_of(page).lower()


def test_nobody_has_anything_in_common_with_nobody() -> None:
    """Real users and made-up ones who share no item: nothing to draw of popularity, and no warning."""
    even, odd = (csr_matrix(np.eye(6, dtype=np.float32)[start::2]) for start in (0, 1))
    page = text_of(render_made_up(seen(even, odd)))
    assert "No item is with real users and with made-up ones." in page
    assert "Of all 3, 0 are copies" in page


# The command.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_inputs(tmp_path_factory.mktemp("generation"))
    sizes = ("--set", "epochs=5", "--set", "latent=4", "--quiet")
    for name, model, *others in (
        ("vae", "mult-vae", "--set", "hidden=8"),
        ("values", "mult-vae", "--set", "hidden=8", "--set", "likelihood=gaussian"),
        ("counts", "mult-vae", "--set", "hidden=8", "--set", "likelihood=poisson"),
        ("dae", "mult-dae"),
    ):
        done = call("train", model, folder / "log.csv", "--out", folder / name, *sizes, *others)
        assert done.code == 0, done
    assert call("train", "ease", folder / "log.csv", "--out", folder / "ease", "--quiet").code == 0
    return folder


def test_generate_writes_a_log_that_can_be_trained_on(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "made up.parquet"
    done = call("generate", folder / "vae", "--users", 200, "--out", out)
    rows = pq.read_metadata(out).num_rows
    assert (done.code, done.err) == (0, "")
    assert done.out == f"{out}: {rows:,} rows of 200 users\n"
    written = pq.read_table(out).to_pandas()
    assert list(written.columns) == ["user_id", "item_id"]
    assert written["user_id"].unique().tolist() == [f"synthetic-{number}" for number in range(1, 201)]
    assert not written.duplicated().any()
    assert set(written["item_id"]) <= {f"i{number:02}" for number in range(24)}
    told = recae.tables.about(out)
    assert (told["model"], told["users"], told["seed"]) == ("mult-vae", 200, 42)
    assert read_events(out).table.num_rows == rows
    assert call("train", "ease", out, "--out", tmp_path / "again", "--quiet").code == 0
    assert call("generate", folder / "vae", "--users", 1, "--out", out, "--quiet").code == 2


def test_a_report_beside_the_log(folder: Path, tmp_path: Path) -> None:
    plain, out, report = (tmp_path / name for name in ("plain.parquet", "a.parquet", "a.html"))
    words = ("generate", folder / "vae", "--users", 150)
    assert call(*words, "--out", plain, "--quiet").code == 0
    done = call(*words, "--out", out, "--report", report, "--reference", folder / "log.csv")
    short = "users with fewer than 5 items, from whom the model has learned nothing"
    assert (done.code, done.err) == (0, "")
    assert f"the report is {report}\n" in done.out
    assert f"2 real {short}: left out of the report" in " ".join(done.out.split())
    assert out.read_bytes() == plain.read_bytes()
    page = report.read_text(encoding="utf-8")
    assert "150 users made up by mult-vae" in text_of(page)
    assert "58 of log.csv" in text_of(page)
    assert f"Left out, here as elsewhere on this page: 2 {short}." in text_of(page)
    assert "This page shows ids and items of real users: keep it from whoever may not see log.csv." in text_of(page)
    assert page.count("<figure") == 3
    again = call(*words, "--out", out, "--report", report, "--reference", folder / "log.csv", "--json", "--overwrite")
    assert json.loads(again.out)["report"] == str(report)
    assert report.read_text(encoding="utf-8") == page
    assert call(*words, "--out", out, "--report", report, "--overwrite", "--quiet").code == 0
    alone = text_of(report.read_text(encoding="utf-8"))
    assert "The real users are the 58 of the training" in alone
    assert "ids and items of real users" not in alone
    assert "ids and items of real users" in re.sub(r"[│\s]+", " ", call("generate", "--help").out)
    assert {path.name for path in tmp_path.iterdir()} == {"plain.parquet", "a.parquet", "a.html"}


def test_the_reports_own_training_log_tells_the_popularity_that_the_directory_tells(
    folder: Path, tmp_path: Path
) -> None:
    pages, trained = [], tmp_path / "log.csv"
    log().groupby("user_id").filter(lambda events: len(events) >= 5).to_csv(trained, index=False)
    for number, more in enumerate(((), ("--reference", trained))):
        report = tmp_path / f"{number}.html"
        words = ("--users", 50, "--out", tmp_path / f"{number}.parquet", "--report", report, "--quiet")
        assert call("generate", folder / "vae", *words, *more).code == 0
        pages.append(text_of(report.read_text(encoding="utf-8")))
    tables = [page.split("The most popular items")[1].split("Lengths")[0] for page in pages]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--reference", "log.csv"), "--reference: only a report compares with real users; name it, such as --report"),
        (("--report", "a.pdf"), "a page is written as HTML; give it a name that ends in .html"),
        (("--report", "mine.html"), "exists already"),
        (("--report", "mine.html", "--overwrite"), "was not written by this command"),
        (("--report", "there.html"), "is a directory; name a file in it"),
        (("--report", "a.html", "--reference", "nothing.csv"), "nothing.csv"),
        (("--report", "a.html", "--reference", "strange.csv"), "the model knows none of its items"),
        (("--report", "a.html", "--reference", "log.csv"), "log.csv: no user has 5 items, as everybody has whom the"),
    ],
)
def test_a_report_that_cannot_be_is_one_line_and_no_log(
    words: tuple[str, ...], reason: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.html").write_text("<p>mine")
    Path("there.html").mkdir()
    Path("log.csv").write_text("user_id,item_id\nu01,i01\n")
    Path("strange.csv").write_text("user_id,item_id\nu01,x\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = call("generate", folder / "vae", "--users", 5, "--out", "a.parquet", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert reason in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_page_that_cannot_be_written_leaves_no_log_and_a_log_no_page(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("generate", folder / "vae", "--users", 5, "--out", tmp_path / "a.parquet", "--report", tmp_path / "a.html")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for place in ("pathlib.Path.write_bytes", "recae.tables.pq.ParquetWriter.close"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            done = call(*words)
        assert (done.code, done.out) == (2, "")
        assert "no space left on the disk" in done.err
        assert not any(tmp_path.iterdir())
    assert call(*words, "--quiet").code == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_counts_come_with_their_values(folder: Path, tmp_path: Path) -> None:
    assert call("generate", folder / "counts", "--users", 50, "--out", tmp_path / "a.parquet", "--quiet").code == 0
    written = pq.read_table(tmp_path / "a.parquet").to_pandas()
    assert list(written.columns) == ["user_id", "item_id", "value"]
    assert (written["value"] >= 1).all()


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        files.append(tmp_path / f"{name}.parquet")
        done = call("generate", folder / "vae", "--users", 150, "--out", files[-1], "--seed", seed, "--json")
        assert done.code == 0
        assert f'"rows": {pq.read_metadata(files[-1]).num_rows}' in done.out
    one, same, other = (file.read_bytes() for file in files)
    assert one == same != other


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dae", "mult-dae has no distribution of codes to draw users from; these models have one: mult-vae, rec-vae, "),
        ("ease", "ease has no distribution of codes to draw users from; these models have one: mult-vae, rec-vae, "),
        ("values", "mult-vae with a gaussian likelihood tells what values are, not which items a user has; train it"),
    ],
)
def test_a_model_that_cannot_make_up_users_says_so(name: str, reason: str, folder: Path, tmp_path: Path) -> None:
    done = call("generate", folder / name, "--users", 5, "--out", tmp_path / "a.parquet")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"recae: {reason}")
    assert done.err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_nobody_is_no_number_of_users(folder: Path, tmp_path: Path) -> None:
    done = call("generate", folder / "vae", "--users", 0, "--out", tmp_path / "a.parquet")
    assert (done.code, done.err) == (2, "recae: --users 0: ask for at least 1\n")


def test_what_was_written_before_there_was_a_density_still_recommends(folder: Path) -> None:
    state = load_file(folder / "vae" / "weights.safetensors")
    old = {name: tensor for name, tensor in state.items() if not name.startswith("density.")}
    assert len(old) < len(state)
    model = MultVAE(hidden=(8,), latent=4).restore(old)
    assert torch.isfinite(model.score(csr_matrix((1, 24), dtype=np.float32))).all()
    assert model.state().keys() == old.keys()
    with pytest.raises(CannotGenerate, match="left out how its users' codes are spread; train it again"):
        model.sample(3, 0)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_full_disk_leaves_what_was_there(
    after: int, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.parquet"
    assert call("generate", folder / "vae", "--users", 3, "--out", out, "--quiet").code == 0
    before = out.read_bytes()
    write: Callable[..., None] = pq.ParquetWriter.write_table
    written = []

    def full(self: pq.ParquetWriter, table: Any) -> None:
        if len(written) == after:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(table)
        write(self, table)

    monkeypatch.setattr(recae.tables, "ROWS_OF_GROUP", 100)
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    done = call("generate", folder / "vae", "--users", 400, "--out", out, "--overwrite")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"recae: {out}: no space left on the disk")
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]
