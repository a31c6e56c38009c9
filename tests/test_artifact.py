"""A model directory gives the same model back, anywhere, or an error; never another model."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from checkerboard import checkerboard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from tampering import tampered

import recae.artifact
from recae.artifact import CARD, FORMAT, ITEMS, WEIGHTS, FittedModel, load_model, save_model
from recae.errors import ArtifactError, DeviceError, InputError, OutputError
from recae.interactions import IdMap, Interactions, Preparation
from recae.models import MODELS, build
from recae.models.base import FitOptions, hyper_parameters_of

FILES = (CARD, WEIGHTS, ITEMS)

SMALL = {
    "als": {"factors": 4, "iterations": 2},
    "bpr": {"factors": 4, "iterations": 2},
    "mult-dae": {"hidden": 5, "latent": 4, "epochs": 1},
    "mult-vae": {"hidden": 5, "latent": 4, "epochs": 1},
    "rec-vae": {"hidden": 5, "layers": 2, "latent": 4, "epochs": 1},
    "vamp-vae": {"hidden": 5, "latent": 4, "pseudo_inputs": 3, "epochs": 1},
}
"""Settings that are quick."""


def board(item_ids=tuple(f"i{number:02}" for number in range(12))) -> Interactions:
    matrix = checkerboard().history
    titles = pd.DataFrame({"title": [f"Ünïcode {number}" for number in range(12)], "year": range(1990, 2002)})
    return Interactions(matrix, IdMap.of(range(100, 112)), IdMap.of(list(item_ids)), titles)


def saved(path: Path, name: str = "ease", interactions: Interactions | None = None, **settings) -> Path:
    interactions = interactions or board()
    model = build(name, **settings).fit(interactions.matrix, FitOptions(seed=3))
    training = {"seconds": np.float32(1.5), "epochs": np.int64(2), "curve": [{"loss": 2.0}, {"loss": float("nan")}]}
    save_model(path, model, interactions, seed=3, preparation=Preparation(min_value=3.5), training=training)
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """A model directory nobody changes."""
    return saved(tmp_path_factory.mktemp("artifact") / "model", l2=7.5)


@pytest.fixture
def copy(directory, tmp_path) -> Path:
    """A model directory to spoil."""
    return Path(shutil.copytree(directory, tmp_path / "model"))


def told(fitted: FittedModel) -> tuple:
    """Everything a model directory tells its reader."""
    scores = fitted.model.score(checkerboard().history).numpy().tobytes()
    table = fitted.item_table.assign(item_id=fitted.items.ids)
    return scores, table.to_json(), hyper_parameters_of(fitted.model), fitted.card


def rewrite_card(path: Path, **changes) -> None:
    """Change a card and sign it, as a recae that writes such cards would."""
    content = json.loads((path / CARD).read_text("utf-8")) | changes
    del content["checksum"]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["checksum"] = hashlib.sha256(canonical.encode()).hexdigest()
    (path / CARD).write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize("name", ["popularity", "item-knn", "ease"])
def test_the_model_that_comes_back_is_the_one_that_was_saved(name, tmp_path):
    interactions = board()
    model = build(name).fit(interactions.matrix, FitOptions(seed=3))
    save_model(tmp_path / "model", model, interactions, seed=3)
    fitted = load_model(tmp_path / "model")
    assert hyper_parameters_of(fitted.model) == hyper_parameters_of(model)
    assert torch.equal(fitted.model.score(interactions.matrix), model.score(interactions.matrix))
    assert fitted.items.ids.equals(interactions.items.ids)


def test_the_card_says_what_it_is_and_where_it_comes_from(directory):
    card = load_model(directory).card
    interactions = board()
    assert (card.format, card.model, card.seed) == (FORMAT, "ease", 3)
    assert card.hyper_parameters == {"l2": 7.5}
    assert (card.data.users, card.data.items, card.data.interactions) == (12, 12, interactions.matrix.nnz)
    assert card.data.digest == interactions.digest()
    assert card.preparation == Preparation(min_value=3.5)
    assert card.training == {"seconds": 1.5, "epochs": 2, "curve": [{"loss": 2.0}, {"loss": None}]}


def test_the_item_table_has_counts_and_all_that_is_known(directory):
    table = load_model(directory).item_table
    assert list(table.columns) == ["count", "title", "year"]
    assert table["count"].tolist() == np.diff(board().matrix.tocsc().indptr).tolist()
    assert table["title"].tolist() == board().item_table["title"].tolist()


def test_the_digest_is_of_the_directory_not_of_its_place(directory, copy, tmp_path):
    digest = load_model(directory).digest
    assert digest == load_model(copy).digest == hashlib.sha256((directory / CARD).read_bytes()).hexdigest()
    assert digest != load_model(saved(tmp_path / "other", l2=8.0)).digest


ids = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=12, max_size=12, unique=True),
    st.lists(st.integers(2**63, 2**64 - 1), min_size=12, max_size=12, unique=True),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=12, max_size=12, unique=True),
    st.lists(st.from_regex(r"\A0*[0-9]{1,4}\Z"), min_size=12, max_size=12, unique=True),
)


@settings(max_examples=40, deadline=None)
@given(ids)
def test_ids_of_any_kind_come_back_as_they_were(tmp_path_factory, item_ids):
    interactions = board(item_ids)
    path = saved(tmp_path_factory.mktemp("ids") / "model", "popularity", interactions)
    own = load_model(path).items
    assert own.ids.dtype == interactions.items.ids.dtype
    assert own.ids.tolist() == interactions.items.ids.tolist()
    assert own.to_index(item_ids).min() == 0


def test_a_fresh_process_needs_the_directory_alone(copy, tmp_path):
    script = (
        "import sys; from pathlib import Path; from recae.artifact import load_model\n"
        "fitted = load_model(Path(sys.argv[1]))\n"
        "print(fitted.digest, fitted.model.score(fitted.histories([['i00', 'i02']])).argsort()[0, -4:].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(copy)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    fitted = load_model(copy)
    expected = fitted.model.score(fitted.histories([["i00", "i02"]])).argsort()[0, -4:].tolist()
    assert done.stdout.strip() == f"{fitted.digest} {expected}"


def test_histories_are_made_of_the_ids_the_model_knows(directory):
    histories = load_model(directory).histories([["i03", "nobody", "i01", "i03"], [], ["nobody"]])
    assert histories.shape == (3, 12)
    assert histories.dtype == np.float32
    assert histories.toarray()[0].nonzero()[0].tolist() == [1, 3]
    assert histories.sum() == 2


def test_numbers_and_their_spelling_are_one_id(tmp_path):
    fitted = load_model(saved(tmp_path / "model", "popularity", board(range(12))))
    assert fitted.histories([[], []]).nnz == 0
    assert (fitted.histories([[3, 4]]) != fitted.histories([["3", "4"]])).nnz == 0


@pytest.mark.parametrize("histories", [["a", "b"], [3, 4], "ab", [["i00"], b"i01"], [["i00"], None]])
def test_histories_are_a_list_of_lists(histories, directory):
    with pytest.raises(InputError, match=r"^history [01] is .* and no list of item ids; give a list of lists"):
        load_model(directory).histories(histories)


def test_a_users_items_may_come_as_any_collection(directory):
    fitted = load_model(directory)
    for ids in (("i01", "i03"), np.array(["i01", "i03"]), pd.Series(["i01", "i03"]), {"i01", "i03"}):
        assert fitted.histories([ids]).indices.tolist() == [1, 3]


def test_a_path_may_be_a_string(tmp_path):
    interactions = board()
    save_model(str(tmp_path / "model"), build("popularity").fit(interactions.matrix), interactions, seed=1)
    assert load_model(str(tmp_path / "model")).digest == load_model(tmp_path / "model").digest


def test_an_existing_directory_stays_unless_overwritten(copy):
    before = load_model(copy).digest
    with pytest.raises(OutputError, match="exists already"):
        saved(copy, l2=9.0)
    assert load_model(copy).digest == before
    interactions = board()
    model = build("ease", l2=9.0).fit(interactions.matrix)
    save_model(copy, model, interactions, seed=3, overwrite=True)
    assert load_model(copy).card.hyper_parameters == {"l2": 9.0}


def test_a_table_column_that_has_our_name_gives_way(tmp_path):
    plain = board()
    table = plain.item_table.assign(item_id="x", count=-1)
    path = saved(tmp_path / "model", interactions=Interactions(plain.matrix, plain.users, plain.items, table))
    fitted = load_model(path)
    assert fitted.items.ids.equals(plain.items.ids)
    assert fitted.item_table["count"].min() > 0


def test_interactions_the_model_was_not_trained_on_are_a_mistake(tmp_path):
    model = build("ease").fit(checkerboard(4).history)
    with pytest.raises(ValueError, match="items"):
        save_model(tmp_path / "model", model, board(), seed=1)
    assert list(tmp_path.iterdir()) == []


# What is wrong with a directory is told in one line, with what to do.


@pytest.mark.parametrize("place", ["recae.artifact.pq.read_table", "recae.models.ease.EASE.restore"])
@pytest.mark.parametrize(
    "error",
    [pa.ArrowMemoryError("malloc of size 9 failed"), RuntimeError("unable to mmap: Cannot allocate memory (12)")],
)
def test_memory_that_runs_out_is_not_called_damage(
    place: str, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "model")

    def short(*_: object) -> None:
        raise error

    monkeypatch.setattr(place, short)
    with pytest.raises(type(error), match=re.escape(str(error))):
        load_model(path)


def refused(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_no_directory(tmp_path):
    assert refused(tmp_path / "missing").endswith("no such model directory; give one that recae train or compare wrote")


def test_another_directory_or_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    assert "not a model directory (there is no model.json in it)" in refused(tmp_path)
    assert "not a model directory" in refused(tmp_path / "file")


@pytest.mark.parametrize("name", [WEIGHTS, ITEMS])
def test_a_missing_file(name, copy):
    (copy / name).unlink()
    assert refused(copy).endswith(f"{name} is missing; copy the whole directory again, or train again")


def test_a_newer_format(copy):
    rewrite_card(copy, format=FORMAT + 1, recae="7.8.9", news="whatever")
    assert refused(copy).endswith(f"written by recae 7.8.9, format 2; this recae reads format {FORMAT}: upgrade recae")


def test_an_unknown_model(copy):
    rewrite_card(copy, model="eaze")
    assert "unknown model 'eaze'; did you mean 'ease'?" in refused(copy)


@pytest.mark.parametrize("hyper_parameters", [{"l2": -1.0}, {"l3": 1.0}, {"l2": "much"}])
def test_hyper_parameters_that_do_not_fit(hyper_parameters, copy):
    rewrite_card(copy, hyper_parameters=hyper_parameters)
    assert "does not fit this recae" in refused(copy)


def test_weights_of_another_model(copy):
    rewrite_card(copy, model="popularity", hyper_parameters={})
    assert "does not fit this recae" in refused(copy)


def test_an_item_table_of_another_length(copy):
    card = load_model(copy).card
    rewrite_card(copy, data=card.data.model_dump() | {"items": 13})
    assert "has 12 items and the model 13" in refused(copy)


def sign(path: Path) -> None:
    """Give the card the checksums of the parts as they are now."""
    rewrite_card(
        path, files={name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in (WEIGHTS, ITEMS)}
    )


@pytest.mark.parametrize("format", [0, -1])
def test_a_format_that_never_was(format, copy):
    rewrite_card(copy, format=format)
    assert "model.json is damaged" in refused(copy)


@pytest.mark.parametrize("content", [b"", b"garbage" * 99, b"PAR1" + b"\0" * 99 + b"PAR1"])
@pytest.mark.parametrize("name", [WEIGHTS, ITEMS])
def test_a_part_that_is_garbage_though_signed(name, content, copy):
    (copy / name).write_bytes(content)
    sign(copy)
    assert f"{name} {'holds no weights' if name == WEIGHTS else 'is no table of items'} (" in refused(copy)


@pytest.mark.parametrize(
    ("item_ids", "said"),
    [
        (["twice"] * 12, "is null, or there twice"),
        ([None, *"abcdefghijk"], "is null, or there twice"),
        (np.linspace(0, 1, 12), "float64"),
        ([[number] for number in range(12)], ""),
        (None, "'item_id' is missing"),
    ],
)
def test_an_item_table_whose_ids_are_none(item_ids, said, copy):
    table = pd.DataFrame({"count": 1} | ({} if item_ids is None else {"item_id": item_ids}), index=range(12))
    table.to_parquet(copy / ITEMS, index=False)
    sign(copy)
    message = refused(copy)
    assert f"{ITEMS} is no table of items (" in message
    assert said in message


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_another_width(name, tmp_path):
    small = Interactions(checkerboard(4).history, IdMap.of(range(4)), IdMap.of(range(4)), pd.DataFrame(index=range(4)))
    settings = SMALL.get(name, {})
    path, other = saved(tmp_path / "model", name, **settings), saved(tmp_path / "small", name, small, **settings)
    shutil.copyfile(other / WEIGHTS, path / WEIGHTS)
    sign(path)
    assert "does not fit this recae" in refused(path)


@pytest.mark.parametrize("name", MODELS)
def test_weights_that_are_not_those_of_the_model(name, tmp_path):
    path = saved(tmp_path / "model", name, **SMALL.get(name, {}))
    for what, weights in tampered(load((path / WEIGHTS).read_bytes())):
        save_file(weights, path / WEIGHTS)
        sign(path)
        assert "does not fit this recae" in refused(path), what


def test_similarities_to_items_that_are_not_there(tmp_path):
    path = saved(tmp_path / "model", "item-knn")
    weights = load((path / WEIGHTS).read_bytes())
    for index in (-1, 12, 2**31 - 1):
        weights["indices"][0] = index
        save_file(weights, path / WEIGHTS)
        sign(path)
        assert "does not fit this recae" in refused(path)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", '"model"', "{}", '{"format": 1}', '{"format": "1"}', '{"format": NaN}', "[" * 100_000, "\udcff"],
)
def test_a_card_that_is_none(text, copy):
    (copy / CARD).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert refused(copy).endswith("model.json is damaged; copy the whole directory again, or train again")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(directory):
    with pytest.raises(DeviceError):
        load_model(directory, "cuda")


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FILES), st.integers(0, 2**20), st.integers(1, 255))
def test_any_changed_byte_is_an_error_or_changes_nothing(directory, name, place, mask):
    spoilt = directory.with_name("spoilt")
    if not spoilt.exists():
        shutil.copytree(directory, spoilt)
    content = bytearray((directory / name).read_bytes())
    content[place % len(content)] ^= mask
    (spoilt / name).write_bytes(content)
    try:
        assert told(load_model(spoilt)) == told(load_model(directory))
    except ArtifactError as error:
        assert str(spoilt) in str(error)
    finally:
        shutil.copyfile(directory / name, spoilt / name)


@pytest.mark.parametrize("name", FILES)
def test_any_truncation_is_an_error(name, copy):
    content = (copy / name).read_bytes()
    for length in {0, 1, 8, len(content) // 2, len(content) - 2}:
        (copy / name).write_bytes(content[:length])
        refused(copy)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(recae.artifact, "save_file", full)
    with pytest.raises(OutputError, match="no space left on the disk"):
        saved(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from recae.artifact import load_model, save_model
from recae.models import build
from tests_of_artifact import board

target = Path(sys.argv[1])
interactions = board()
model = build("ease").fit(interactions.matrix)
seen, kills = set(), 0
while len(seen) < 5 or kills < 20:
    kills += 1
    child = os.fork()
    if not child:
        for count in range(1_000_000):
            save_model(target, model, interactions, seed=1000 * kills + count, overwrite=True)
    time.sleep(random.uniform(0.005, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if target.exists():
        seen.add(load_model(target).card.seed)
"""


def test_a_kill_while_saving_leaves_nothing_or_the_whole(tmp_path):
    script = KILLS.replace("tests_of_artifact", Path(__file__).stem)
    command = [sys.executable, "-c", script, str(tmp_path / "model")]
    # Forked children must not wait for threads that the fork left behind.
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120, env=alone)
    assert done.returncode == 0, done.stderr
