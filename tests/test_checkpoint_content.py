"""What a checkpoint holds is known, and one that holds anything else is refused in one clear line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import long_training
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file
from tampering import tampered
from torch import Tensor

from recae.autoencoder.checkpoint import METADATA_KEY
from recae.autoencoder.optimiser import Adam
from recae.errors import ArtifactError, Interrupted
from recae.models.base import FitOptions
from recae.models.mult_dae import MultDAE
from recae.models.mult_vae import MultVAE
from recae.models.rec_vae import RecVAE
from recae.models.vamp_vae import VampVAE
from recae.progress import Step
from recae.tensors import forms_of

TINY = {"latent": 2, "batch_size": 100, "epochs": 3}
KINDS = [
    MultVAE(**TINY, hidden=3),
    MultVAE(**TINY, hidden=3, negatives=5, tied=True),
    MultDAE(**TINY, negatives=5, weight_decay=0.0),
    MultDAE(**TINY, hidden=3, averaging=0.9),
    RecVAE(**TINY, hidden=3, layers=2, averaging=0.9),
    VampVAE(**TINY, hidden=3, pseudo_inputs=2, averaging=0.0),
]
"""Every kind of state that a training can have."""


def stopped(model: Any, path: Path, *, validated: bool = True) -> None:
    """Leave a checkpoint of two epochs, the second of them worse than the first."""
    choose = replace(options(path), listener=stop_at_two, validation=long_training.validation() if validated else None)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Interrupted):
        reached = iter([0.2, 0.1])
        patched.setattr("recae.validation.Validation.measure", lambda *_: next(reached))
        replace(model).fit(long_training.histories(), choose)


def stop_at_two(step: Step) -> None:
    if step.done == 2:
        raise KeyboardInterrupt


def options(path: Path) -> FitOptions:
    return FitOptions(seed=5, validation=long_training.validation(), checkpoint=path)


def refused(model: Any, path: Path) -> str:
    """Return the one line that a checkpoint is refused with."""
    with pytest.raises(ArtifactError) as caught:
        replace(model).fit(long_training.histories(), options(path))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert message.endswith("delete it to start afresh, or give another place")
    return message


def content_of(path: Path) -> tuple[dict[str, Tensor], Any]:
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()[METADATA_KEY])
    return load(path.read_bytes()), content


def write(path: Path, tensors: dict[str, Tensor], content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    save_file(tensors, path, {METADATA_KEY: text})


@pytest.mark.parametrize("model", KINDS, ids=range(len(KINDS)))
def test_what_a_checkpoint_holds_is_known_before_the_first_update(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin makes the state of Adam when the first gradient comes, and as that gradient is."""
    stopped(model, tmp_path / "known")
    monkeypatch.setattr(Adam, "prepare", lambda *_: None)
    stopped(model, tmp_path / "found")

    known, found = (load_file(tmp_path / name) for name in ("known", "found"))
    assert forms_of(known) == forms_of(found)
    assert all(torch.equal(known[name], found[name]) for name in found)
    assert any(name.startswith("best.") for name in known)
    assert any(name.endswith(".last") for name in known) == (getattr(model, "negatives", 0) > 0)


@pytest.mark.parametrize("model", [KINDS[1], KINDS[3]], ids=["row-sparse", "averaged"])
def test_any_tensor_that_is_not_what_it_was_is_refused(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    stopped(model, path)
    tensors, content = content_of(path)
    for what, others in tampered(tensors):
        write(path, others, content)
        message = refused(model, path)
        assert "no whole checkpoint" in message
        assert what.split(" ")[0] in message or what.startswith("there is")
    write(path, tensors, content)
    replace(model).fit(long_training.histories(), options(path))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("format", None),
        ("format", [2]),
        ("format", "2"),
        ("fingerprint", None),
        ("fingerprint", [1]),
        ("progress", None),
        ("progress", {}),
        ("progress", []),
        ("threads", "two"),
        ("torch", None),
        ("more", 1),
        ("progress.epoch", None),
        ("progress.epoch", "2"),
        ("progress.epoch", 2.5),
        ("progress.epoch", 3),
        ("progress.epoch", -1),
        ("progress.updates", -1),
        ("progress.updates", None),
        ("progress.best", "0.2"),
        ("progress.best", float("nan")),
        ("progress.best_epoch", 3),
        ("progress.best_epoch", -1),
        ("progress.best_epoch", 2),
        ("progress.seconds", -1.0),
        ("progress.seconds", [1]),
        ("progress.curve", []),
        ("progress.curve", [1, 2]),
        ("progress.curve", [{"loss": "1"}, {"loss": 1}]),
        ("progress.curve", [{"loss": None}, {"loss": 1}]),
        ("progress.more", 1),
    ],
)
def test_metadata_that_are_not_what_they_were_are_refused(place: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    stopped(KINDS[0], path)
    for change in ("set", "drop"):
        tensors, content = content_of(path)
        *parents, last = place.split(".")
        inner = content[parents[0]] if parents else content
        if change == "drop":
            inner.pop(last, None)
            inner.setdefault("else", 1)
        else:
            inner[last] = value
        write(tmp_path / "other", tensors, content)
        refused(KINDS[0], tmp_path / "other")


@pytest.mark.parametrize("text", ["", "null", "[]", "3", '"2"', "{}", "{", "[" * 100_000, '{"format": 2}'])
def test_metadata_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    write(path, {"weights": torch.zeros(2)}, text)
    assert "no whole checkpoint" in refused(KINDS[0], path)


def test_a_generator_state_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    stopped(KINDS[0], path)
    tensors, content = content_of(path)
    tensors["generator"].fill_(255)
    write(path, tensors, content)
    assert "generator is no state of a random generator" in refused(KINDS[0], path)


def test_what_is_resumed_does_not_hang_on_its_file(tmp_path: Path) -> None:
    """The weights, moments and best weights are copies: a file may be mapped, and go away meanwhile."""
    path = tmp_path / "training.checkpoint"

    def spoil(step: Step) -> None:
        path.write_bytes(b"")

    whole = replace(KINDS[0]).fit(long_training.histories(), FitOptions(seed=5)).state()
    stopped(KINDS[0], path, validated=False)
    spoilt = FitOptions(seed=5, checkpoint=path, listener=spoil)
    resumed = replace(KINDS[0]).fit(long_training.histories(), spoilt).state()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
