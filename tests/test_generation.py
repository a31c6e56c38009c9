"""Users who never were: like those who are, the same for the same seed, nobody's copy; or one clear line."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from checkerboard import checkerboard
from commands import call, write_inputs
from hypothesis import given
from hypothesis import strategies as st
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
from recae.generation import Likeness, make_up, nearest_likeness
from recae.models import MODELS, build
from recae.models.base import Generator
from recae.models.mult_vae import MultVAE

GENERATING = [name for name in MODELS if hasattr(MODELS[name], "sample")]

SETTINGS: dict[str, dict[str, Any]] = {
    "mult-vae": {"hidden": (16,), "kl_cap": 0.05},
    "rec-vae": {"hidden": 16, "layers": 2, "gamma": 0.002},
    "vamp-vae": {"hidden": 16, "pseudo_inputs": 4, "kl_cap": 0.05, "averaging": 0.0},
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
    return {name: build(name, **common, **SETTINGS[name]).fit(seen) for name in GENERATING}


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


# The same users again.


def test_the_same_seed_makes_up_the_same_users_however_many() -> None:
    model = MultVAE(hidden=(8,), latent=4, epochs=2).fit(lively())
    some, more, others = (together(make_up(model, users, seed)) for users, seed in ((130, 7), (300, 7), (130, 8)))
    assert (some != more[:130]).nnz == 0
    assert (some != others).nnz > 0
    assert (more[:128] != more[128:256]).nnz > 0
    assert more.shape == (300, 60)


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
    log = pq.read_table(out).to_pandas()
    assert list(log.columns) == ["user_id", "item_id"]
    assert log["user_id"].unique().tolist() == [f"synthetic-{number}" for number in range(1, 201)]
    assert not log.duplicated().any()
    assert set(log["item_id"]) <= {f"i{number:02}" for number in range(24)}
    told = recae.tables.about(out)
    assert (told["model"], told["users"], told["seed"]) == ("mult-vae", 200, 42)
    assert read_events(out).table.num_rows == rows
    assert call("train", "ease", out, "--out", tmp_path / "again", "--quiet").code == 0
    assert call("generate", folder / "vae", "--users", 1, "--out", out, "--quiet").code == 2


def test_counts_come_with_their_values(folder: Path, tmp_path: Path) -> None:
    assert call("generate", folder / "counts", "--users", 50, "--out", tmp_path / "a.parquet", "--quiet").code == 0
    log = pq.read_table(tmp_path / "a.parquet").to_pandas()
    assert list(log.columns) == ["user_id", "item_id", "value"]
    assert (log["value"] >= 1).all()


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
