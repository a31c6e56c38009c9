"""Bad input gets one clear line that says what, where and what to do; exit code 2; and nothing half-written."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from commands import RECIPE, call, everything_in, log, write_inputs

from recae import artifact
from recae.artifact import CARD, FORMAT, WEIGHTS
from recae.autoencoder import checkpoint

Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with inputs, and models that were trained on them."""
    folder = write_inputs(tmp_path_factory.mktemp("prepared"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        log().assign(value=-log()["value"]).to_csv("negative.csv", index=False)
        assert call("train", "ease", "log.csv", "--out", "ease", "--min-value", "2").code == 0
        assert call("train", "bpr", "log.csv", "--out", "bpr", "--set", "iterations=1", "--min-items", "1").code == 0
        assert call("recommend", "ease", "log.csv", "--out", "top.parquet").code == 0
    return folder


@pytest.fixture
def inputs(prepared, tmp_path, monkeypatch) -> Path:
    """A copy of that as the current folder: to spoil."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(folder: Path, words: str, *said: str) -> None:
    """Run a command, and make sure that it is refused in one line that says this, and that it changes nothing."""
    before = everything_in(folder)
    done = call(*words.split())
    assert done.code == 2, done
    assert done.err.startswith("recae: "), done.err
    assert done.out == ""  # nothing before the error that would hide it
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.out + done.err
    for part in said:
        assert part in done.err
    assert everything_in(folder) == before


# The log.

EVENTS = "user_id,item_id,value,timestamp\n"


def text(content: str, name: str = "log.csv") -> Spoil:
    return lambda folder: void((folder / name).write_text(content, encoding="utf-8"))


def raw(content: bytes, name: str = "log.csv") -> Spoil:
    return lambda folder: void((folder / name).write_bytes(content))


def rows(*lines: str) -> Spoil:
    """Add rows to a log that is good: line 2 to 1 + its length."""
    more = "".join(f"{line}\n" for line in lines)
    return lambda folder: void((folder / "log.csv").write_text((folder / "log.csv").read_text() + more))


def table(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Spoil:
    return lambda folder: change(log()).to_parquet(folder / "log.parquet")


def void(_: object) -> None:
    return None


NEXT = len(log()) + 2
LOGS: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "missing": (lambda folder: (folder / "log.csv").unlink(), ("log.csv: no such file or folder; check the path",)),
    "a folder of nothing": (
        lambda folder: ((folder / "log.csv").unlink(), (folder / "log.csv").mkdir())[0],
        ("log.csv: no known layout in it",),
    ),
    "empty": (text(""), ("log.csv: the file is empty; a header line and events are wanted",)),
    "blank": (text("\n\n  \n"), ("log.csv: the file is empty",)),
    "header only": (text(EVENTS), ("log.csv: no events in it; is it the right file?",)),
    "no user column": (text("who,item_id\na,b\n"), ("log.csv: no user column among 'who', 'item_id'", "--user-col")),
    "no item column": (text("user_id,what\na,b\n"), ("log.csv: no item column among 'user_id', 'what'", "--item-col")),
    "twice the same column": (
        text("user_id,item_id,item_id\na,b,c\n"),
        ("log.csv: column 'item_id' is not one column",),
    ),
    "two columns that could be meant": (text("user_id,userId,item_id\na,b,c\n"), ("could both be meant", "--user-col")),
    "an empty user id": (
        rows(",i01,5,1000000000"),
        ("log.csv: 1 bad row, ", f"line {NEXT}: an empty user id", "--skip"),
    ),
    "an empty item id": (
        rows("u01,,5,1000000000"),
        ("log.csv: 1 bad row, ", f"line {NEXT}: an empty item id", "--skip"),
    ),
    "an infinite value": (
        rows("u01,i01,inf,1"),
        (f"log.csv: 1 bad row, the first in line {NEXT}: 'inf' in column 'value' is no finite number; mend",),
    ),
    "a value that is no number": (
        rows("u01,i01,good,1", "u01,i02,,1"),
        (f"2 bad rows, the first in line {NEXT}: 'good' in column 'value' is no finite number; mend",),
    ),
    "a value that is nan": (rows("u01,i01,nan,1"), (f"log.csv: 1 bad row, the first in line {NEXT}: 'nan' in column",)),
    "a value that is empty": (rows("u01,i01, ,1"), (f"the first in line {NEXT}: no value in column 'value'; mend",)),
    "values with a decimal comma": (
        rows('u01,i01,"3,5",1', 'u01,i02,"4,5",1', "u01,i03,,1"),
        (f"3 bad rows, the first in line {NEXT}: '3,5' in column 'value' is no finite number (a decimal comma: wr",),
    ),
    "one decimal comma among others": (
        rows('u01,i01,"3,5",1', "u01,i02,,1", "u01,i03,-,1"),
        (f"3 bad rows, the first in line {NEXT}: '3,5' in column 'value' is no finite number; mend the file",),
    ),
    "an infinite time": (
        rows("u01,i01,5,-inf"),
        (f"the first in line {NEXT}: '-inf' in column 'timestamp' is no finite number and no date; mend",),
    ),
    "a date among numbers": (
        rows("u01,i01,5,2026-01-31"),
        (f"line {NEXT}: '2026-01-31' in column 'timestamp' is no time of the kind that most are, numbers or dates",),
    ),
    "a time that is no number": (
        rows("u01,i01,5,noon", "u01,i01,5,"),
        (f"log.csv: 2 bad rows, the first in line {NEXT}: 'noon' in column 'timestamp' is no finite number and no",),
    ),
    "too few fields": (rows("u01,i01"), (f"log.csv: 1 bad row, the first in line {NEXT}: too many or too few fields",)),
    "an open quote": (rows('"u01,i01,5,1'), ("log.csv: a quote is opened and never closed; mend the file",)),
    "parquet by another name": (
        lambda folder: log().to_parquet(folder / "log.csv"),
        ("log.csv: its name says text, its bytes say Parquet; give it the name it deserves",),
    ),
    "a picture": (raw(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), ("log.csv: not UTF-8 text; convert it to UTF-8",)),
    "utf-16": (raw(EVENTS.encode("utf-16")), ("log.csv: not UTF-8 text; convert it to UTF-8",)),
    "latin-1": (raw(EVENTS.encode() + b"\xe9ric,i01,5,1\n"), ("log.csv: not UTF-8 text",)),
    "one event": (text(EVENTS + "u01,i01,5,1\n"), ("log.csv: no user has 5 distinct items, the longest history 1",)),
    "one user": (
        text(EVENTS + "".join(f"u01,i{item:02},5,{item}\n" for item in range(9))),
        ("log.csv: one user is left, u01", "log.csv: 1 user is left"),
    ),
    "one item": (
        text(EVENTS + "".join(f"u{user:02},i01,5,{user}\n" for user in range(9))),
        ("log.csv: no user has 5 distinct items, the longest history 1; lower --min-items",),
    ),
    "users too short": (
        text(EVENTS + "".join(f"u{user},i{item},5,1\n" for user in range(9) for item in range(4))),
        ("log.csv: no user has 5 distinct items, the longest history 4; lower --min-items",),
    ),
}


@pytest.mark.parametrize("case", LOGS)
@pytest.mark.parametrize("command", ["compare tiny.yaml --out out --quiet", "train ease log.csv --out model"])
def test_a_bad_log(command, case, inputs):
    spoil, said = LOGS[case]
    spoil(inputs)
    said = said if case != "one user" else said[command.startswith("compare") :][:1]
    refused(inputs, command, *said)


@pytest.mark.parametrize(
    "command",
    [
        "recommend ease log.csv --out new.parquet",
        "embed bpr log.csv --out new.parquet",
        "evaluate ease log.csv",
        "evaluate --recommendations top.parquet --held-out log.csv",
        "data describe log.csv",
    ],
)
@pytest.mark.parametrize("case", ["missing", "empty", "header only", "no user column", "an empty item id"])
def test_a_bad_log_for_a_model(command, case, inputs):
    spoil, said = LOGS[case]
    spoil(inputs)
    refused(inputs, command, *said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("log.parquet", b"PAR1 and then", "log.parquet: not Parquet, or cut short"),
        ("log.parquet", b"user_id,item_id\n", "log.parquet: not Parquet, or cut short"),
        ("log.parquet", b"", "log.parquet: not Parquet, or cut short"),
        ("log.feather", b"ARROW1 and then", "log.feather: not Arrow, or cut short"),
        ("log.zip", b"PK\x03\x04 and then", "log.zip: not a zip, or one cut short"),
        ("log.csv.gz", b"\x1f\x8b and then", "log.csv.gz: "),
        ("log.xlsx", b"PK\x03\x04", "log.xlsx: no log by its name; recae reads .csv, .tsv"),
        ("log", b"user_id,item_id\n", "log: no log by its name; recae reads .csv, .tsv"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(name, content, said, inputs):
    (inputs / name).write_bytes(content)
    refused(inputs, f"train ease {name} --out model", said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda log: log.assign(value=float("inf")),
            "log.parquet: 337 bad rows, the first in row 1: 'inf' in column 'value' is no finite number",
        ),
        (lambda log: log.assign(user_id=None), "log.parquet: 337 bad rows, the first in row 1: an empty user id"),
        (lambda log: log.assign(item_id=1.5), "log.parquet: column 'item_id' holds ids that are no whole numbers"),
        (lambda log: log.assign(item_id=[[1]] * len(log)), "log.parquet: column 'item_id' holds list"),
        (lambda log: log.drop(columns="item_id"), "log.parquet: no item column among 'user_id', 'value', 'timestamp'"),
        (lambda log: log.iloc[:0], "log.parquet: no events in it"),
    ],
)
def test_a_bad_parquet_table(change, said, inputs):
    table(change)(inputs)
    refused(inputs, "train ease log.parquet --out model", said.replace("337", str(len(log()))))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--user-col who", "log.csv: no column 'who' among 'user_id', 'item_id', 'value', 'timestamp'"),
        (
            "--time-col valeu",
            "log.csv: no column 'valeu' among 'user_id', 'item_id', 'value', 'timestamp'; did you mean",
        ),
        (
            "--item-col user_id",
            "log.csv: column 'user_id' is not one column for one thing; look at --user-col and --item",
        ),
        (
            "--min-value 6",
            "log.csv: no event has a value of 6 or more, the highest is 5; train with a lower --min-value",
        ),
        ("--min-value nan", "min_value = nan"),
        ("--min-items 100", "log.csv: no user has 100 distinct items, the longest history "),
        ("--min-items 0", "--min-items"),
        ("--validation-share 0.6", "--validation-share"),
        ("--validation-share 0.49", "ease has no epochs to stop early; leave out --validation-share"),
        ("--items nowhere.csv", "nowhere.csv: no such file or folder; check the path"),
        ("--items log.csv", "log.csv: column 'item_id': item 'i0"),
        (
            "--items tiny.yaml",
            "tiny.yaml: not an item table; a .csv, .tsv, .parquet, .arrow or .feather file is wanted",
        ),
        ("--seed -1", "--seed"),
        ("--seed x", "--seed"),
        ("--set l3=1", "ease has no hyper-parameter 'l3'; known: l2"),
        ("--set l2=high", "ease: l2 = 'high': input should be a valid number"),
        ("--set l2=-1", "ease: l2 = -1: input should be greater than 0"),
        ("--set l2=.inf", "ease: l2 = inf: input should be a finite number"),
        ("--set l2", "--set l2: write it as key=value"),
        ("--set models.ease.l2=3", "ease has no hyper-parameter 'models.ease.l2'"),
        ("--device cuda", "no CUDA device here; pass --device cpu, or --device auto"),
        ("--device gpu", "unknown device 'gpu'; known: auto, cpu, cuda"),
    ],
)
def test_a_bad_option_of_train(options, said, inputs, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(inputs, f"train ease log.csv --out model {options}", said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train eese log.csv --out model", "unknown model 'eese'; did you mean 'ease'?"),
        ("train zzz log.csv --out model", "unknown model 'zzz'; known: random, popularity"),
        ("comapre tiny.yaml", "no such command 'comapre'"),
        ("compare", "missing argument 'RECIPE'; see recae compare --help"),
        ("compare tiny.yaml --out", "--out"),
        ("compare tiny.yaml --otu x", "--otu"),
        ("compare tiny.yaml tiny.yaml", "unexpected extra argument"),
        ("train ease log.csv", "missing option '--out'; see recae train --help"),
        ("data fetsh ml-1m", "no such command 'fetsh'"),
        ("data fetch ml-2m", "unknown data set 'ml-2m'; did you mean 'ml-"),
        ("compare nowhere.yaml --out out", "nowhere.yaml: no such recipe; recipes lie in pipelines/"),
        ("compare ease --out out", "ease is a directory; give a recipe in it, a .yaml file"),
        ("compare tiny.yaml --data nowhere.csv --out out", "nowhere.csv: no such file or folder; check the path"),
        ("compare tiny.yaml --out out --device cuda", "no CUDA device here; pass --device cpu"),
        (
            "compare tiny.yaml --out out --set models.eese={}",
            "tiny.yaml: models.eese: unknown model 'eese'; did you mean",
        ),
        (
            "compare tiny.yaml --out out --set models.eese=null",
            "tiny.yaml: models.eese: no model of this recipe; did you mean 'ease'?",
        ),
        ("compare tiny.yaml --out out --model eese", "--model eese: no model of this recipe; did you mean 'ease'?"),
        (
            "compare tiny.yaml --out out --set models.ease.l2=no",
            "tiny.yaml: models.ease: ease: l2 = False: input should",
        ),
        ("compare tiny.yaml --out out --set dta.path=x", "tiny.yaml: unknown key 'dta'; did you mean 'data'?"),
        (
            "compare tiny.yaml --out out --set split.held_out_users=30",
            "log.csv: 30 held-out users for validation and as many",
        ),
        ("compare tiny.yaml --out out --set data.items=log.csv", "log.csv: column 'item_id': item 'i"),
        (
            "compare tiny.yaml --out out --set split.kind=given --set split.held_out_users=",
            "unknown key 'split.held_out",
        ),
        ("compare tiny.yaml --out out --resume", "out.partial: there is no interrupted run to resume"),
        ("compare tiny.yaml --out ease", "ease exists already; choose another place, or overwrite it (--overw"),
        ("compare tiny.yaml --out ease --overwrite", "ease was not written by this command (recipe.yaml is not in it)"),
        ("compare tiny.yaml --out log.csv/out", "log.csv/out"),
        ("train ease log.csv --out ease", "ease exists already; choose another place, or overwrite it (--overw"),
        ("train ease log.csv --out log.csv --overwrite", "log.csv was not written by this command"),
        ("train ease log.csv --out log.csv/model", "log.csv/model"),
        ("recommend ease log.csv -n 0 --out new.parquet", "-n 0: ask for at least 1 item for each user"),
        ("recommend ease log.csv -n -5 --out new.parquet", "-n -5: ask for at least 1 item"),
        ("recommend ease log.csv -n many --out new.parquet", "'-n'"),
        ("recommend ease log.csv --out new.csv", "new.csv: tables are written as Parquet; give it a name that ends in"),
        (
            "recommend ease log.csv --out top.parquet",
            "top.parquet exists already; choose another place, or overwrite it",
        ),
        ("recommend ease log.csv --out log.csv/new.parquet", "log.csv/new.parquet"),
        ("recommend ease log.csv --out new.parquet --device cuda", "no CUDA device here; pass --device cpu"),
        ("embed ease log.csv --out new.parquet", "ease has no embeddings; these models have: als, "),
        ("embed bpr log.csv --out new.parquet --kind deep", "'--kind'"),
        ("embed bpr --out new.parquet", "embed takes either EVENTS, whose users it embeds, or --items"),
        ("embed bpr log.csv --items --out new.parquet", "embed takes either EVENTS, whose users it embeds, or --items"),
        ("embed bpr --items --out top.parquet", "top.parquet exists already"),
        ("embed bpr --items --out bpr/items.parquet --overwrite", "bpr/items.parquet was not written by this command"),
        ("train ease log.csv --out . --overwrite", ".: give the output a name of its own, such as result"),
        (f"train ease log.csv --out {'x' * 250}", "this name is too long for a directory; choose a shorter one"),
        (f"recommend ease log.csv --out {'x' * 300}.parquet", "this name is too long for a file; choose a shorter one"),
        (
            "train autoencoder log.csv --out new --values keep --set likelihood=bernoulli",
            "autoencoder: likelihood = bernoulli wants values from 0 to 1, and there is 5 among them; give likelihood",
        ),
        (
            "train mult-vae negative.csv --out new --values keep --min-items 1 --set likelihood=poisson",
            "mult-vae: likelihood = poisson wants values from 0, and there is -5 among them; give",
        ),
        (
            "compare tiny.yaml --out new --set evaluation.metrics=[rmse]",
            "metric 'rmse' compares values, and every held-out",
        ),
        (
            "compare tiny.yaml --out new --set data.values=keep --set models.mult-vae.likelihood=bernoulli",
            "models.mult-vae: mult-vae: likelihood = bernoulli wants values from 0 to 1",
        ),
        (
            "evaluate ease log.csv --metrics rmse",
            "ease, as it was trained, orders items and predicts no values; leave out rmse",
        ),
        (
            "evaluate --recommendations top.parquet --held-out log.csv --metrics ndcg@5,mae",
            "metric 'mae' compares values, and recommendations tell none; leave it out",
        ),
        ("train mult-dae log.csv --out new --set latent=20000000000", "latent = 20000000000: input should be less"),
        ("evaluate", "evaluate needs MODEL_DIR and EVENTS, or --recommendations FILE and --held-out FILE"),
        ("evaluate ease", "evaluate needs MODEL_DIR and EVENTS"),
        ("evaluate --recommendations top.parquet", "evaluate --recommendations FILE goes with --held-out FILE"),
        ("evaluate ease log.csv --recommendations top.parquet --held-out log.csv", "without a model directory"),
        ("evaluate ease log.csv --metrics ncdg@10", "unknown metric 'ncdg@10'; did you mean 'ndcg'?"),
        ("evaluate ease log.csv --metrics ndcg", "metric 'ndcg': say how many places it looks at, as in 'ndcg@20'"),
        ("evaluate ease log.csv --metrics ndcg@0", "metric 'ndcg@0': it must look at 1 place at least"),
        ("evaluate ease log.csv --metrics ndcg@10,", "unknown metric ''"),
        ("evaluate ease log.csv --seed -1", "--seed"),
        ("evaluate ease log.csv --held-out nowhere.csv", "nowhere.csv: no such file or folder"),
        ("evaluate bpr log.csv", "bpr cannot be evaluated on histories it was not trained on, as a part of one is"),
        ("evaluate --recommendations nowhere.csv --held-out log.csv", "nowhere.csv: no such file"),
        ("evaluate --recommendations items.csv --held-out log.csv", "items.csv: no column 'rank' or 'score'"),
    ],
)
def test_a_command_that_makes_no_sense(words, said, inputs, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(inputs, words, said)


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 80.0 GiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_model_that_does_not_fit_the_memory(error, inputs, monkeypatch):
    def fit(*_: object) -> None:
        raise error

    monkeypatch.setattr("recae.models.ease.EASE.fit", fit)
    refused(inputs, "train ease log.csv --out new", "EASE(l2=400.0) does not fit the memory of cpu with")


# The recipe.


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "bad.yaml: a recipe is a mapping with the keys name, data, split, expect, evaluation, models, tune, seed"),
        ("- ease", "bad.yaml: a recipe is a mapping"),
        ("name: [", "bad.yaml: cannot be read as YAML"),
        (RECIPE.replace("models:", "modles:"), "bad.yaml: unknown key 'modles'; did you mean 'models'?"),
        (
            RECIPE.replace("l2: 5", "l2: five"),
            "bad.yaml: models.ease: ease: l2 = 'five': input should be a valid number",
        ),
        (RECIPE.replace("ease", "eese"), "bad.yaml: models.eese: unknown model 'eese'; did you mean 'ease'?"),
        (RECIPE.replace("log.csv", "lgo.csv"), "lgo.csv: no such file or folder; check the path"),
        (RECIPE.replace("items.csv", "tiny.yaml"), "tiny.yaml: not an item table"),
        (RECIPE.replace("ndcg@10", "coverage@10"), "bad.yaml: evaluation.metrics: 'coverage@10' comes first"),
        (RECIPE.replace("ndcg@10", "global_rmse"), "bad.yaml: evaluation.metrics: 'global_rmse' comes first"),
        (RECIPE.replace("ndcg@10", "rmse@10"), "bad.yaml: evaluation.metrics: metric 'rmse@10': it looks at values"),
        (
            RECIPE.replace("held_out_users: 12", "held_out_users: 1000"),
            "log.csv: 1000 held-out users for validation and as many",
        ),
        (RECIPE.replace("items: items.csv", "columns: {user: who}"), "log.csv: no column 'who' among"),
    ],
)
def test_a_bad_recipe(content, said, inputs):
    (inputs / "bad.yaml").write_text(content, encoding="utf-8")
    refused(inputs, "compare bad.yaml --out out --quiet", said)


@pytest.mark.parametrize("kind", ["global-time", "leave-last-out"])
def test_a_split_by_times_of_a_log_without_any(kind, inputs):
    log().drop(columns="timestamp").to_csv(inputs / "log.csv", index=False)
    (inputs / "bad.yaml").write_text(RECIPE.replace("strong-generalisation, held_out_users: 12", kind))
    refused(
        inputs,
        "compare bad.yaml --out out",
        "log.csv: this split needs event times, and the log has none",
        "--time-col",
    )


# The model directory.


def signed(folder: Path, **changes: object) -> None:
    """Change a model's card and sign it, as a recae that writes such cards would."""
    card = folder / "ease" / CARD
    content = json.loads(card.read_text()) | changes
    del content["checksum"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    card.write_text(json.dumps(content | {"checksum": hashlib.sha256(canonical.encode()).hexdigest()}))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


MODELS: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda folder: shutil.rmtree(folder / "ease"), "ease: no such model directory; give one that recae"),
    "a file": (
        lambda folder: (shutil.rmtree(folder / "ease"), (folder / "ease").write_text(""))[0],
        "ease is not a model directory (there is no model.json in it)",
    ),
    "empty": (
        lambda folder: [path.unlink() for path in (folder / "ease").iterdir()],
        "ease is not a model directory (there is no model.json in it)",
    ),
    "without weights": (
        lambda folder: (folder / "ease" / WEIGHTS).unlink(),
        f"ease/{WEIGHTS} is missing; copy the whole",
    ),
    "truncated weights": (
        lambda folder: os.truncate(folder / "ease" / WEIGHTS, 100),
        f"ease/{WEIGHTS} is damaged (its checksum is off); copy the whole directory again, or train again",
    ),
    "one bit of the weights": (lambda folder: flip(folder / "ease" / WEIGHTS), f"ease/{WEIGHTS} is damaged"),
    "one bit of the items": (lambda folder: flip(folder / "ease" / "items.parquet"), "ease/items.parquet is damaged"),
    "one bit of the card": (lambda folder: flip(folder / "ease" / CARD), f"ease/{CARD} is damaged; copy the whole"),
    "truncated card": (
        lambda folder: os.truncate(folder / "ease" / CARD, 10),
        f"ease/{CARD} is damaged; copy the whole",
    ),
    "newer": (lambda folder: signed(folder, format=FORMAT + 1), "this recae reads format 1: upgrade recae"),
    "of an unknown model": (lambda folder: signed(folder, model="ease2"), "does not fit this recae"),
}


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.parametrize("command", ["recommend ease log.csv --out new.parquet", "evaluate ease log.csv"])
def test_a_bad_model_directory(command, case, inputs):
    spoil, said = MODELS[case]
    spoil(inputs)
    refused(inputs, command, said)


@pytest.mark.parametrize("command", ["recommend ease", "embed bpr", "evaluate ease"])
def test_users_none_of_whose_items_the_model_knows(command, inputs):
    log().assign(item_id="x" + log()["item_id"]).to_csv(inputs / "other.csv", index=False)
    out = "" if "evaluate" in command else "--out new.parquet"
    refused(inputs, f"{command} other.csv {out}", "other.csv: the model knows none of its items, such as xi", "i00")


def test_values_below_the_models_own_threshold(inputs):
    log().assign(value=1).to_csv(inputs / "other.csv", index=False)
    refused(
        inputs,
        "recommend ease other.csv --out new.parquet",
        "other.csv: no event has a value of 2 or more, the highest is 1; train with a lower",
    )


def test_a_user_that_a_model_cannot_fold_in(inputs):
    pd.DataFrame({"user_id": ["stranger"], "item_id": ["i01"]}).to_csv(inputs / "other.csv", index=False)
    for command in ("recommend", "embed"):
        refused(inputs, f"{command} bpr other.csv --out new.parquet", "bpr knows only", "user stranger is none of them")


# A full disk.


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("command", ["recommend ease log.csv --out new.parquet", "embed bpr --items --out new.parquet"])
def test_a_full_disk_for_a_table(command, inputs, monkeypatch):
    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    refused(
        inputs, command, "new.parquet: no space left on the disk; nothing was written there; free some and run again"
    )


@pytest.mark.parametrize("what", ["save_file", "pq.write_table"])
def test_a_full_disk_for_a_model(what, inputs, monkeypatch):
    monkeypatch.setattr(f"{artifact.__name__}.{what}", full)
    refused(inputs, "train ease log.csv --out model", "model: no space left on the disk; nothing was written there")
    refused(inputs, "train ease log.csv --out ease --overwrite", "ease: no space left on the disk")


def test_a_full_disk_for_a_checkpoint(inputs, monkeypatch):
    monkeypatch.setattr(checkpoint, "save_file", full)
    small = "--set epochs=1 --set hidden=4 --set latent=2"
    refused(inputs, f"train mult-vae log.csv --out model {small}", "model.checkpoint: no space left on the disk")
