"""What is done with one model: train, recommend, embed, evaluate; and anybody's rankings, against another's figures."""

import ir_measures
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import ITEMS, USERS, log
from ir_measures import AP, RR, P, R, nDCG

from recae import jobs
from recae.artifact import FittedModel, load_model
from recae.errors import CannotEmbed, CannotFoldIn, EventsError, ModelError, OutputError, RecipeError, SplitError
from recae.events import Columns
from recae.metrics import Metric
from recae.models import build
from recae.reading import DataSection
from recae.tables import about

NETWORK = {"hidden": 8, "latent": 4, "epochs": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a log, and what was trained on it; nobody changes what is in it."""
    folder = tmp_path_factory.mktemp("jobs")
    log().to_parquet(folder / "log.parquet")
    data = DataSection(path=str(folder / "log.parquet"), min_value=2.0)
    for name, settings in {"ease": {"l2": 5.0}, "bpr": {"factors": 4, "iterations": 2}, "mult-vae": NETWORK}.items():
        jobs.train(build(name, **settings), data, folder / name)
    return folder


@pytest.fixture(scope="module")
def ease(folder) -> FittedModel:
    return load_model(folder / "ease")


@pytest.fixture(scope="module")
def vae(folder) -> FittedModel:
    return load_model(folder / "mult-vae")


def written(table: pd.DataFrame, path) -> str:
    table.to_csv(path, index=False)
    return str(path)


def metrics(*names: str) -> list[Metric]:
    return [Metric.parse(name) for name in names]


# Train.


def test_what_a_killed_training_left_half_written_goes_with_the_next(tmp_path):
    log().to_parquet(tmp_path / "log.parquet")
    data = DataSection(path=str(tmp_path / "log.parquet"))
    half, other = tmp_path / ".model[1].checkpoint.abc.partial", tmp_path / ".model2.checkpoint.abc.partial"
    for leftover in (half, other):
        leftover.mkdir()
        (leftover / "model.checkpoint").write_bytes(b"half")
    jobs.train(build("mult-vae", **NETWORK), data, tmp_path / "model[1]")
    assert not half.exists() and other.exists()


def test_a_directory_is_no_checkpoint(tmp_path):
    log().to_parquet(tmp_path / "log.parquet")
    (tmp_path / "model.checkpoint").mkdir()
    for choice in ({"overwrite": True}, {"resume": True}, {}):
        with pytest.raises(OutputError, match=r"model\.checkpoint is a directory, where .*; choose another --out"):
            jobs.train(
                build("mult-vae", **NETWORK),
                DataSection(path=str(tmp_path / "log.parquet")),
                tmp_path / "model",
                **choice,
            )


def test_training_does_not_read_its_model_again(tmp_path, monkeypatch):
    log().to_parquet(tmp_path / "log.parquet")
    monkeypatch.setattr("recae.artifact.load_file", None)  # where there was memory to fit, there may be none to load
    card, _ = jobs.train(build("ease"), DataSection(path=str(tmp_path / "log.parquet")), tmp_path / "model")
    monkeypatch.undo()
    assert card == load_model(tmp_path / "model").card


def test_training_tells_what_became_of_every_event(tmp_path):
    events = pd.concat([log(), log().iloc[:7], pd.DataFrame({"user_id": ["new"], "item_id": ["i00"], "value": [5]})])
    events.loc[len(events)] = {"user_id": None, "item_id": "i00", "value": 5}
    events["value"] = events["value"].astype(float)
    events["timestamp"] = 1
    events.to_parquet(tmp_path / "log.parquet")
    data = DataSection(path=str(tmp_path / "log.parquet"), min_value=2.0, skip_bad_rows=True)
    card, told = jobs.train(build("popularity"), data, tmp_path / "model")
    assert told["rows with an empty user id: skipped"] == 1
    assert told["events below min_value: left out"] == int((events["value"] < 2).sum())
    left = events[events["value"] >= 2].dropna()
    pairs = left.drop_duplicates(["user_id", "item_id"])
    assert told["repeated events of one user with one item: merged"] == len(left) - len(pairs)
    lengths = pairs.groupby("user_id").size()
    assert told["users with fewer than 5 items (min_items): left out"] == (lengths < 5).sum()
    assert told["events of those users: left out"] == lengths[lengths < 5].sum()
    assert card.data.interactions == len(events) - sum(told.values()) + (lengths < 5).sum()
    assert load_model(tmp_path / "model").card == card


def test_users_kept_for_validation_are_not_trained_on(folder, tmp_path):
    data = DataSection(path=str(folder / "log.parquet"), min_items=1)
    card, _ = jobs.train(build("mult-dae", **NETWORK), data, tmp_path / "model", validation_share=0.25)
    assert card.data.users == USERS - round(0.25 * USERS)
    assert all(0 <= epoch["ndcg_at_100"] <= 1 for epoch in card.training["curve"])


@pytest.mark.parametrize(
    ("users", "said"),
    [
        (20, r"none of the users kept from training \(2\) has the 5 items .* or none \(--validation-share 0\)"),
        (2, r"1 of 2 users kept from training leave 1 .* or none \(--validation-share 0\)"),
    ],
)
def test_a_log_that_has_nobody_to_keep_is_told_with_a_remedy_that_works(users, said, tmp_path):
    table = pd.DataFrame([(user, (user + place) % 3) for user in range(users) for place in range(2)])
    data = DataSection(path=written(table.set_axis(["user", "item"], axis=1), tmp_path / "log.csv"), min_items=1)
    model = build("mult-vae", **NETWORK)
    with pytest.raises(SplitError, match=said):
        jobs.train(model, data, tmp_path / "model", validation_share=0.1)
    assert jobs.train(model, data, tmp_path / "model", validation_share=0)[0].data.users == users


@pytest.mark.parametrize("one", ["user_id", "item_id"])
def test_one_user_or_one_item_is_nothing_to_learn_from(one, tmp_path):
    table = pd.DataFrame({"user_id": [*"abcdef"], "item_id": [*"uvwxyz"]}).assign(**{one: "the only one"})
    source = written(table, tmp_path / "log.csv")
    with pytest.raises(EventsError, match=rf"log\.csv: one {one[:-3]} is left, the only one"):
        jobs.train(build("ease"), DataSection(path=source, min_items=1), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_only_a_model_directory_is_replaced_by_one(folder, tmp_path):
    data = DataSection(path=str(folder / "log.parquet"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter 1.txt").write_text("years of work")
    (tmp_path / "file.txt").write_text("more of it")
    (tmp_path / "empty").mkdir()
    for place in ("thesis", "file.txt"):
        with pytest.raises(OutputError, match="was not written by this command"):
            jobs.train(build("popularity"), data, tmp_path / place, overwrite=True)
    assert (tmp_path / "thesis" / "chapter 1.txt").read_text() == "years of work"
    for _ in range(2):
        jobs.train(build("popularity"), data, tmp_path / "empty", overwrite=True)
    with pytest.raises(OutputError, match="exists already"):
        jobs.train(build("popularity"), data, tmp_path / "empty")


@pytest.mark.parametrize(
    ("model", "path", "share", "mistake"),
    [
        ("mult-vae", "misspelt.parquet", 0.1, EventsError),
        ("mult-vae", "log.parquet", 0.98, SplitError),
        ("ease", "log.parquet", 0.1, ModelError),
    ],
)
def test_what_is_refused_leaves_an_interrupted_training_as_it_is(folder, tmp_path, model, path, share, mistake):
    checkpoint = jobs.checkpoint_of(tmp_path / "model")
    checkpoint.write_bytes(b"hours of work")
    data = DataSection(path=str(folder / path), min_items=1)
    with pytest.raises(mistake):
        jobs.train(build(model), data, tmp_path / "model", validation_share=share, overwrite=True)
    assert checkpoint.read_bytes() == b"hours of work"
    jobs.train(build("ease"), DataSection(path=str(folder / "log.parquet")), tmp_path / "model", overwrite=True)
    assert not checkpoint.exists()


def test_a_model_without_epochs_is_told_so_before_the_log_is_read(tmp_path):
    with pytest.raises(ModelError, match="ease has no epochs to stop early; leave out --validation-share"):
        jobs.train(build("ease"), DataSection(path="nowhere.csv"), tmp_path / "model", validation_share=0.1)


# Recommend and embed.


@pytest.mark.parametrize("name", ["ease", "mult-vae"])
def test_recommendations_are_the_best_unseen_items_of_each_user(name, folder, tmp_path):
    model = load_model(folder / name)
    read = jobs.read_histories(model, folder / "log.parquet")
    histories = read.histories
    done = jobs.recommend(model, read, 6, tmp_path / "top.parquet")
    table = pq.read_table(tmp_path / "top.parquet").to_pandas()
    assert table.columns.tolist() == ["user_id", "item_id", "rank", "score"]
    assert done.rows == len(table)
    assert about(tmp_path / "top.parquet") == {"model": name, "digest": model.digest, "n": 6}
    scores = model.model.score(histories.matrix).numpy()
    for user, lists in table.groupby("user_id"):
        row = histories.users.to_index([user])[0]
        allowed = np.where(read.seen[row].toarray()[0] > 0, -np.inf, scores[row])
        best = np.argsort(-allowed, kind="stable")[:6]
        assert lists["rank"].tolist() == [1, 2, 3, 4, 5, 6]
        np.testing.assert_allclose(lists["score"], allowed[best], rtol=1e-4, atol=1e-5)
    assert table["user_id"].nunique() == len(histories.users)


def test_more_than_the_catalogue_is_all_that_is_left_of_it(ease, folder, tmp_path):
    read = jobs.read_histories(ease, folder / "log.parquet")
    done = jobs.recommend(ease, read, 10**9, tmp_path / "top.parquet")
    assert done.rows == read.seen.shape[0] * ITEMS - read.seen.nnz
    everything = jobs.recommend(ease, read, 10**9, tmp_path / "all.parquet", keep_seen=True)
    assert everything.rows == read.seen.shape[0] * ITEMS


def test_nobody_is_recommended_what_they_have_and_did_not_like(ease, tmp_path):
    disliked = {"user_id": "ann", "item_id": [f"i{item:02}" for item in range(0, ITEMS, 2)], "value": 1}
    events = pd.concat(
        [pd.DataFrame(disliked), pd.DataFrame({"user_id": ["ann", "bob"], "item_id": "i01", "value": [5, 1]})]
    )
    read = jobs.read_histories(ease, written(events, tmp_path / "log.csv"))
    done = jobs.recommend(ease, read, ITEMS, tmp_path / "top.parquet")
    offered = set(pq.read_table(tmp_path / "top.parquet")["item_id"].to_pylist())
    assert offered == set(ease.items.ids) - set(events["item_id"])
    assert done.notes["users without an event that counts: no recommendations"] == 1  # bob


def test_scores_are_the_product_of_the_retrieval_embeddings(vae, folder, tmp_path):
    histories = jobs.read_histories(vae, folder / "log.parquet")
    jobs.embed(vae, histories, "retrieval", tmp_path / "users.parquet")
    jobs.embed_items(vae, tmp_path / "items.parquet")
    jobs.recommend(vae, histories, 5, tmp_path / "top.parquet")
    users, items = (
        pq.read_table(tmp_path / f"{which}s.parquet").to_pandas().set_index(f"{which}_id")["embedding"]
        for which in ("user", "item")
    )
    table = pq.read_table(tmp_path / "top.parquet").to_pandas()
    products = [users[user] @ items[item] for user, item in zip(table["user_id"], table["item_id"], strict=True)]
    np.testing.assert_allclose(products, table["score"], rtol=1e-4, atol=1e-5)
    dimension = len(users.iloc[0])
    said = {"model": "mult-vae", "digest": vae.digest, "kind": "retrieval", "dimension": dimension}
    assert about(tmp_path / "users.parquet") == about(tmp_path / "items.parquet") == said
    assert items.index.tolist() == vae.items.ids.tolist()


def test_latent_embeddings_are_the_bottleneck_and_a_model_without_one_says_so(vae, ease, folder, tmp_path):
    histories = jobs.read_histories(vae, folder / "log.parquet")
    done = jobs.embed(vae, histories, "latent", tmp_path / "users.parquet")
    table = pq.read_table(tmp_path / "users.parquet")
    assert table.schema.field("embedding").type.list_size == 4
    assert done.rows == table.num_rows == len(histories.histories.users)
    with pytest.raises(
        CannotEmbed, match=r"ease has no embeddings; these models have: als, rating-als, bpr, .*mult-vae"
    ):
        jobs.embed_items(ease, tmp_path / "items.parquet")


def test_what_a_model_does_not_know_is_told(ease, vae, tmp_path):
    events = pd.DataFrame(
        {
            "user_id": ["ann", "ann", "ann", "bob", "cy", "cy"],
            "item_id": ["i01", "i05", "stranger", "stranger", "i02", "i03"],
            "value": [5, 5, 5, 5, 1, 5],
        }
    )
    source = written(events, tmp_path / "log.csv")
    histories = jobs.read_histories(ease, source)
    top = jobs.recommend(ease, histories, 3, tmp_path / "top.parquet")
    common = {
        "events below the model's min_value of 2.0: left out": 1,
        "events of items the model does not know: left out": 2,
    }
    assert top.notes == common | {"users without an item the model knows: no recommendations": 1}
    assert set(pq.read_table(tmp_path / "top.parquet")["user_id"].to_pylist()) == {"ann", "cy"}
    vectors = jobs.embed(vae, histories, "latent", tmp_path / "users.parquet")
    assert vectors.rows == 3
    assert vectors.notes == common | {
        "users without an item the model knows: all of them have the vector of an empty history": 1
    }
    unrated = jobs.read_histories(ease, written(events.drop(columns="value"), tmp_path / "unrated.csv"))
    told = jobs.recommend(ease, unrated, 3, tmp_path / "unrated.parquet").notes
    assert told["events have no value, so the model's min_value of 2.0 was not applied"] == 6


def test_histories_in_parquet_are_read_in_pieces_and_are_those_of_the_whole_log(folder, ease, tmp_path, monkeypatch):
    stranger = pd.DataFrame({"user_id": ["new"], "item_id": ["other"], "value": [5], "timestamp": [7]})
    events = pd.concat([log(), log().iloc[:9], stranger])
    events.to_csv(tmp_path / "log.csv", index=False)
    events.to_parquet(tmp_path / "log.parquet", row_group_size=50)
    for model in (ease, load_model(folder / "bpr")):
        whole = jobs.read_histories(model, tmp_path / "log.csv")
        with monkeypatch.context() as patch:
            patch.setattr("recae.events.read_events", lambda *_, **__: pytest.fail("the whole log was read"))
            patch.setattr("recae.jobs.read_events", lambda *_, **__: pytest.fail("the whole log was read"))
            pieces = jobs.read_histories(model, tmp_path / "log.parquet")
        assert pieces.histories.digest() == whole.histories.digest()
        assert dict(pieces.histories.counts) == dict(whole.histories.counts)
        assert (pieces.seen != whole.seen).nnz == 0 and pieces.below == whole.below


def test_strangers_in_pieces_are_named_by_the_first_of_them(ease, tmp_path):
    table = pd.DataFrame({"user_id": [None, "a", "b"], "item_id": ["x", "y", "z"], "value": 5.0})
    table.to_parquet(tmp_path / "log.parquet", row_group_size=1)
    with pytest.raises(EventsError, match=r"the model knows none of its items, such as y; its own are .*i00"):
        jobs.read_histories(ease, tmp_path / "log.parquet", skip_bad_rows=True)


def test_strangers_alone_are_a_mistake(ease, tmp_path):
    source = written(pd.DataFrame({"user_id": [1], "item_id": ["007"], "value": [5]}), tmp_path / "log.csv")
    with pytest.raises(
        EventsError, match=r"log\.csv: the model knows none of its items, such as 007; its own are .*i00"
    ):
        jobs.read_histories(ease, source)


def test_a_model_that_cannot_fold_in_serves_those_it_was_trained_on(folder, tmp_path):
    bpr = load_model(folder / "bpr")
    liked = log()[log()["value"] >= 2]
    trained = set(liked["user_id"][liked.groupby("user_id")["item_id"].transform("size") >= 5])
    changed = sorted(trained)[20]
    table = liked.drop(liked.index[liked["user_id"] == changed][0])
    read = jobs.read_histories(bpr, written(table, tmp_path / "log.csv"))
    top = jobs.recommend(bpr, read, 3, tmp_path / "top.parquet")
    jobs.embed(bpr, read, "latent", tmp_path / "users.parquet")
    for name in ("top", "users"):
        assert set(pq.read_table(tmp_path / f"{name}.parquet")["user_id"].to_pylist()) == trained - {changed}
    untrained = liked["user_id"].nunique() - len(trained) + 1
    assert top.notes["users the model was not trained on, and cannot fold in: no recommendations"] == untrained


def test_a_model_that_cannot_fold_in_refuses_a_log_of_strangers(folder, tmp_path):
    bpr = load_model(folder / "bpr")
    strangers = pd.DataFrame({"user_id": ["ann", "ann", "bob"], "item_id": ["i00", "i05", "i02"], "value": 5})
    read = jobs.read_histories(bpr, written(strangers, tmp_path / "log.csv"))
    with pytest.raises(CannotFoldIn, match=r"bpr knows only the histories it was trained on.* user ann is none"):
        jobs.recommend(bpr, read, 3, tmp_path / "top.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_a_model_that_cannot_fold_in_is_not_evaluated_on_parts_of_its_own_histories(folder):
    with pytest.raises(CannotFoldIn, match=r"bpr cannot be evaluated on .*, as a part of one is; recae compare trains"):
        jobs.evaluate_model(load_model(folder / "bpr"), folder / "log.parquet", metrics("recall@5"))


def test_recommendations_may_go_by_other_names_than_the_log_they_are_judged_by(ease, folder, tmp_path):
    jobs.recommend(ease, jobs.read_histories(ease, folder / "log.parquet"), 5, tmp_path / "top.parquet")
    renamed = log().rename(columns={"user_id": "customer", "item_id": "sku"})
    held_out = written(renamed, tmp_path / "held_out.csv")
    shop = Columns(user="customer", item="sku")
    evaluation, _ = jobs.evaluate_recommendations(tmp_path / "top.parquet", held_out, metrics("recall@5"), columns=shop)
    assert evaluation.per_user["recall_at_5"].eq(0).all()  # what was seen is never recommended


# Evaluate a model.


def test_a_fifth_of_each_history_is_looked_for(ease, folder):
    wanted = metrics("recall@3", "ndcg@3", "coverage@3")
    evaluation, told = jobs.evaluate_model(ease, folder / "log.parquet", wanted)
    again, _ = jobs.evaluate_model(ease, folder / "log.parquet", wanted)
    other, _ = jobs.evaluate_model(ease, folder / "log.parquet", wanted, seed=1)
    assert evaluation.per_user.equals(again.per_user)
    assert not evaluation.per_user.equals(other.per_user)
    assert evaluation.users == USERS
    assert told["users without a held-out item: not evaluated"] == evaluation.per_user["recall_at_3"].isna().sum()
    assert evaluation.per_user["recall_at_3"].mean() > 0.5  # a taste of a quarter of the catalogue is easy


def test_a_held_out_log_is_looked_for(ease, tmp_path):
    liked = log()[log()["value"] >= 2].drop(columns="timestamp")
    last = ~liked.duplicated("user_id", keep="last")
    histories = written(liked[~last], tmp_path / "histories.csv")
    extra = pd.DataFrame({"user_id": ["u00", "new"], "item_id": ["stranger", "i04"], "value": [5, 5]})
    held_out = written(pd.concat([liked[last], extra]), tmp_path / "held_out.csv")
    evaluation, told = jobs.evaluate_model(ease, histories, metrics("recall@5"), held_out=held_out)
    assert evaluation.users == USERS + 1
    assert (
        evaluation.without_history
        == told["users without a history that the model knows anything of: evaluated all the same"]
    )
    assert told["held-out events of items the model does not know: left out"] == 1
    both = written(pd.concat([liked[~last], liked[last].iloc[:5]]), tmp_path / "both.csv")
    _, told = jobs.evaluate_model(ease, both, metrics("recall@5"), held_out=held_out)
    assert told["held-out events whose item is in the user's history too: left out"] == 5
    with pytest.raises(EventsError, match=r"held_out\.csv: no user has a held-out item .* must not be in EVENTS"):
        jobs.evaluate_model(ease, held_out, metrics("recall@5"), held_out=held_out)


def test_histories_too_short_to_hold_anything_out_are_told(ease, tmp_path):
    source = written(pd.DataFrame({"user_id": [1, 1], "item_id": ["i00", "i04"]}), tmp_path / "log.csv")
    with pytest.raises(EventsError, match=r"log\.csv: no user has a held-out item .* from 5 items on; --held-out"):
        jobs.evaluate_model(ease, source, metrics("recall@5"))


# Evaluate anybody's recommendations.


def rankings(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return recommendations and held-out items as somebody else's tool would write them, users partly the same."""
    rng = np.random.default_rng(seed)
    top = pd.DataFrame(
        [
            (f"u{user}", f"i{item:02}", place + 1, 1.0 / (place + 1) + 0.001 * user)
            for user in range(25)
            for place, item in enumerate(rng.permutation(40)[: rng.integers(1, 30)])
        ],
        columns=["user", "item", "rank", "score"],
    )
    held_out = pd.DataFrame(
        [(f"u{user}", f"i{item:02}") for user in range(5, 30) for item in rng.permutation(45)[: rng.integers(1, 9)]],
        columns=["user", "item"],
    )
    return top.sample(frac=1, random_state=seed), held_out.sample(frac=1, random_state=seed)


def independent(top: pd.DataFrame, held_out: pd.DataFrame) -> dict[str, float]:
    """Return what ir-measures makes of it; a user without recommendations counts as a miss."""
    wanted = {"recall@5": R @ 5, "recall@20": R @ 20, "ndcg@10": nDCG @ 10, "precision@5": P @ 5, "mrr@10": RR @ 10}
    wanted["map@20"] = AP @ 20
    qrels = [ir_measures.Qrel(row.user, row.item, 1) for row in held_out.itertuples()]
    run = [ir_measures.ScoredDoc(row.user, row.item, -float(row.rank)) for row in top.itertuples()]
    users = held_out["user"].nunique()
    totals = dict.fromkeys(wanted, 0.0)
    for value in ir_measures.iter_calc(list(wanted.values()), qrels, run):
        totals[next(key for key, measure in wanted.items() if measure == value.measure)] += value.value
    return {key: total / users for key, total in totals.items()}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("place", ["rank", "score", "prediction"])
def test_anybodys_file_gets_the_figures_of_an_independent_implementation(kind, place, tmp_path):
    top, held_out = rankings()
    theirs = top[["user", "item", "rank"]] if place == "rank" else top[["user", "item", "score"]]
    theirs = theirs.rename(columns={"score": place}) if place == "prediction" else theirs
    for name, table in (("theirs", theirs), ("held_out", held_out)):
        if kind == "csv":
            table.to_csv(tmp_path / f"{name}.csv", index=False)
        else:
            table.to_parquet(tmp_path / f"{name}.parquet")
    expected = independent(top, held_out)
    evaluation, told = jobs.evaluate_recommendations(
        tmp_path / f"theirs.{kind}",
        tmp_path / f"held_out.{kind}",
        metrics(*expected),
        columns=Columns(value="prediction") if place == "prediction" else Columns(),
    )
    for name, value in expected.items():
        assert evaluation.per_user[Metric.parse(name).key].mean() == pytest.approx(value, abs=1e-12), name
    cut_short = "recall@20, ndcg@10, mrr@10, map@20, 5 to 19 long: its missing places count as misses"
    assert told == {
        f"users have a list too short for {cut_short}": 12,
        "users with held-out items, but without recommendations: they count as misses": 5,
        "users with recommendations, but without held-out items: left out": 5,
    }


def test_ids_are_the_same_whatever_their_type_and_other_columns_do_not_matter(tmp_path):
    written(pd.DataFrame({"user_id": [1, 2], "item_id": [10, 20], "rank": [1, 1]}), tmp_path / "top.csv")
    pd.DataFrame({"user_id": ["1", "2"], "item_id": ["10", "21"], "rating": ["good", None]}).to_parquet(
        tmp_path / "held_out.parquet"
    )
    evaluation, _ = jobs.evaluate_recommendations(
        tmp_path / "top.csv", tmp_path / "held_out.parquet", metrics("hit_rate@1")
    )
    assert evaluation.per_user["hit_rate_at_1"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"user": [1], "item": [1]}, "theirs.csv: no column 'rank' or 'score'; name the one of the scores"),
        ({"user": [9], "item": [1], "rank": [1]}, "theirs.csv: none of its users is in"),
        (
            {"user": [1, 1], "item": [1, 2], "rank": [1, 1]},
            "theirs.csv, row 2: the user has this rank already, in row 1",
        ),
        (
            {"user": [1, 1], "item": [1, 1], "rank": [1, 2]},
            "theirs.csv, row 2: the user has this item already, in row 1",
        ),
        ({"user": [1], "item": [1], "rank": [0]}, "theirs.csv, row 1: rank 0; ranks start at 1"),
        ({"user": [1], "item": [1], "rank": [1.5]}, "theirs.csv: 1.5 is no rank; ranks are 1, 2, 3"),
        ({"user": [1], "item": [1], "rank": ["first"]}, "theirs.csv: 1 bad row, the first in line 2"),
        ({"user": [1], "item": [1], "score": [None]}, "theirs.csv: 1 bad row, the first in line 2"),
        ({"who": [1], "item": [1], "score": [1]}, "theirs.csv: no user column among 'who', 'item', 'score'"),
        ({"user": [], "item": [], "score": []}, "theirs.csv: no events in it"),
    ],
)
def test_a_recommendation_file_that_makes_no_sense_is_told(table, said, tmp_path):
    written(pd.DataFrame(table), tmp_path / "theirs.csv")
    written(pd.DataFrame({"user": [1, 2], "item": [1, 2]}), tmp_path / "held_out.csv")
    with pytest.raises(EventsError) as error:
        jobs.evaluate_recommendations(tmp_path / "theirs.csv", tmp_path / "held_out.csv", metrics("recall@5"))
    assert str(error.value).startswith(f"{tmp_path}/{said}")
    with pytest.raises(EventsError, match="no such file; recommendations are a table"):
        jobs.evaluate_recommendations(tmp_path, tmp_path / "held_out.csv", metrics("recall@5"))


def test_a_recommendation_file_tells_nothing_of_a_catalogue(tmp_path):
    written(pd.DataFrame({"user": [1], "item": [1], "rank": [1]}), tmp_path / "theirs.csv")
    with pytest.raises(RecipeError, match=r"coverage@5.*leave it out"):
        jobs.evaluate_recommendations(tmp_path / "theirs.csv", tmp_path / "theirs.csv", metrics("coverage@5"))
