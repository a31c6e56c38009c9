"""A training that was stopped, in whatever way, and goes on: the same bits, or one clear line."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import long_training
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recae.autoencoder import checkpoint as checkpoint_module
from recae.autoencoder.checkpoint import digest
from recae.errors import ArtifactError, Interrupted, OutputError
from recae.models.base import FitOptions
from recae.models.mult_dae import MultDAE
from recae.models.mult_vae import MultVAE
from recae.progress import Step

SMALL = {"hidden": 8, "latent": 4, "batch_size": 50, "epochs": 8, "kl_anneal_steps": 20}
MODELS = [
    MultVAE(**SMALL),
    MultDAE(latent=4, batch_size=50, epochs=8),
]


def options(path: Path | None = None, listener: Callable[[Step], None] = lambda step: None) -> FitOptions:
    return FitOptions(seed=5, validation=long_training.validation(), checkpoint=path, listener=listener)


def interrupt_at(epoch: int) -> Callable[[Step], None]:
    def listener(step: Step) -> None:
        if step.done == epoch:
            raise KeyboardInterrupt

    return listener


def fitted(model: MultVAE | MultDAE, with_options: FitOptions) -> dict[str, Tensor]:
    return replace(model).fit(long_training.histories(), with_options).state()


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Tensor]:
    return fitted(long_training.model(), options())


def start_child(path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, long_training.__file__, str(path), str(torch.get_num_threads())]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(child: "subprocess.Popen[str]", epochs: int) -> None:
    assert child.stdout is not None
    while int(child.stdout.readline()) < epochs:
        pass


def test_killed_three_times_at_random_and_resumed_equals_the_uninterrupted(
    uninterrupted: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "training.checkpoint"
    for earliest in (4, 17, 33):
        epoch, moment = earliest + random.randrange(10), random.uniform(0, 0.03)
        with start_child(path) as child:
            wait_for(child, epoch)
            time.sleep(moment)
            child.kill()
        assert child.returncode == -signal.SIGKILL

    assert_same_bits(fitted(long_training.model(), options(path)), uninterrupted)


def test_control_c_leaves_a_usable_checkpoint_and_says_where(uninterrupted: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    with start_child(path) as child:
        wait_for(child, 6)
        child.send_signal(signal.SIGINT)
        said, _ = child.communicate(timeout=60)

    message = said.splitlines()[-1]
    assert child.returncode == long_training.INTERRUPTED
    assert f"of at most {long_training.EPOCHS} epochs" in message
    assert str(path) in message
    assert list(tmp_path.iterdir()) == [path]
    assert_same_bits(fitted(long_training.model(), options(path)), uninterrupted)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("validated", [True, False])
def test_interrupted_and_resumed_is_the_same_training(
    model: MultVAE | MultDAE, validated: bool, tmp_path: Path
) -> None:
    path = tmp_path / "training.checkpoint"
    choose = options() if validated else replace(options(), validation=None)
    whole = replace(model).fit(long_training.histories(), choose)
    with pytest.raises(Interrupted, match="after 3 of at most 8 epochs"):
        fitted(model, replace(choose, checkpoint=path, listener=interrupt_at(3)))
    told: list[Step] = []

    resumed = replace(model).fit(long_training.histories(), replace(choose, checkpoint=path, listener=told.append))

    assert_same_bits(resumed.state(), whole.state())
    assert [step.done for step in told] == list(range(1, 9))
    without_times = [
        [{name: value for name, value in figures.items() if name != "seconds"} for figures in of.training_.curve]
        for of in (resumed, whole)
    ]
    assert without_times[0] == without_times[1]
    assert resumed.training_.best_epoch == whole.training_.best_epoch
    assert resumed.training_.updates == whole.training_.updates == 32


def test_kl_weight_counts_updates_across_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    model = MultVAE(**SMALL, kl_cap=0.9)
    with pytest.raises(Interrupted):
        fitted(model, options(path, interrupt_at(2)))

    model.fit(long_training.histories(), options(path))

    # Four updates an epoch; each epoch tells the weight of its last one.
    assert [figures["kl_weight"] for figures in model.training_.curve] == pytest.approx(
        [0.15, 0.35, 0.55, 0.75, 0.9, 0.9, 0.9, 0.9]
    )


def test_a_finished_training_does_no_more_epochs(tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    first = fitted(MODELS[0], options(path))
    written = path.read_bytes()

    assert_same_bits(fitted(MODELS[0], options(path)), first)
    assert path.read_bytes() == written


def test_interrupted_before_there_is_a_checkpoint_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="no checkpoint was asked for"):
        fitted(MODELS[0], options(listener=interrupt_at(2)))
    monkeypatch.setattr("recae.autoencoder.training._epoch", stop)
    with pytest.raises(Interrupted, match="first epoch; there is no checkpoint yet"):
        fitted(MODELS[0], options(tmp_path / "training.checkpoint"))
    assert list(tmp_path.iterdir()) == []


def test_the_checkpoint_of_another_training_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    model = MODELS[0]
    fitted(model, options(path))
    written = path.read_bytes()
    fold = long_training.validation()
    others = {
        "learning_rate is 0.001 there, 0.002 here": (replace(model, learning_rate=0.002), options(path)),
        "seed is 5 there, 6 here": (model, replace(options(path), seed=6)),
        "validation history is": (model, replace(options(path), validation=replace(fold, history=fold.held_out))),
        'model is "mult-vae" there, "mult-dae" here': (MODELS[1], options(path)),
    }
    for reason, (other, of) in others.items():
        with pytest.raises(ArtifactError, match=reason) as caught:
            fitted(other, of)
        assert_one_line(caught.value, path)
    with pytest.raises(ArtifactError, match="training data is") as caught:
        replace(model).fit(long_training.histories()[:-1], options(path))
    assert_one_line(caught.value, path)
    assert path.read_bytes() == written


def assert_one_line(error: Exception, path: Path) -> None:
    message = str(error)
    assert "\n" not in message
    assert str(path) in message
    assert "delete it" in message


@pytest.mark.parametrize("kept", [0, 5, 300, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(kept: float, tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    fitted(MODELS[1], options(path))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])

    with pytest.raises(ArtifactError, match="no whole checkpoint") as caught:
        fitted(MODELS[1], options(path))
    assert_one_line(caught.value, path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    save_file({"weights": torch.zeros(2)}, path)
    with pytest.raises(ArtifactError, match="no whole checkpoint") as caught:
        fitted(MODELS[1], options(path))
    assert_one_line(caught.value, path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ArtifactError) as caught:
        fitted(MODELS[1], options(path))
    assert_one_line(caught.value, path)


def test_a_full_disk_stops_the_training_and_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "training.checkpoint"
    written = 0

    def full_after_three(tensors: dict[str, Tensor], target: Path, metadata: dict[str, str]) -> None:
        nonlocal written
        written += 1
        if written > 3:
            Path(target).write_bytes(b"half of it")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save_file(tensors, target, metadata)

    monkeypatch.setattr(checkpoint_module, "save_file", full_after_three)
    with pytest.raises(OutputError, match="no space left"):
        fitted(MODELS[0], options(path))
    monkeypatch.undo()

    assert list(tmp_path.iterdir()) == [path]
    assert_same_bits(fitted(MODELS[0], options(path)), fitted(MODELS[0], options()))


def test_a_checkpoint_holds_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "training.checkpoint"
    fitted(MODELS[0], replace(options(path), validation=None))

    assert {name.split(".")[0] for name in load_file(path)} == {"weights", "adam", "generator"}


def test_digest_is_of_content_not_of_types() -> None:
    matrix = long_training.histories()
    wide = matrix.astype("float64")
    wide.indices = wide.indices.astype("int64")
    other = matrix.copy()
    other.data[0] = 2

    assert digest(wide) == digest(matrix)
    assert len({digest(matrix), digest(other), digest(matrix[:-1]), digest(matrix[:, :-1])}) == 4
