"""Where the time went: stages that add up, a stretch of operations, a trace that is whole; and nothing when off."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import call, write_inputs
from torch.autograd import DeviceType

from recae import profiling
from recae.console import print_profile
from recae.errors import OutputError
from recae.files import whole_file
from recae.profiling import ELSEWHERE, each, stage, take
from recae.progress import Listener, Step, silence


def work(listener: Listener = silence, epochs: int = 3, updates: int = 4) -> None:
    for epoch in range(epochs):
        for _ in each("cut batch", range(updates)):
            with stage("forward"):
                rows = torch.ones(8, 8) + epoch
                with stage("likelihood"):
                    rows.logsumexp(1)
        with stage("validate"):
            time.sleep(0.002)
        listener(Step("model", epoch + 1, epochs))


def names(trace: Path) -> list[str]:
    return [event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]]


def test_without_a_profile_a_stage_is_nothing() -> None:
    assert stage("one") is stage("another")
    work()


def test_stages_count_and_their_shares_add_up(tmp_path: Path) -> None:
    with take(tmp_path / "trace.json") as profile:
        work(profile.listen(silence))
    stages = {spent.name: spent for spent in profile.stages()}
    assert {name: spent.calls for name, spent in stages.items() if name != "cut batch"} == {
        "forward": 12,
        "likelihood": 12,
        "validate": 3,
        ELSEWHERE: 1,
    }
    assert stages["validate"].seconds > 0.006
    assert sum(spent.share for spent in stages.values()) == pytest.approx(1)
    longest = [spent.seconds for spent in profile.stages()[:-1]]
    assert longest == sorted(longest, reverse=True)


def test_a_stage_is_told_its_own_seconds_without_those_within(tmp_path: Path) -> None:
    with take(tmp_path / "trace.json") as profile, stage("outer"), stage("inner"):
        time.sleep(0.02)
    seconds = {spent.name: spent.seconds for spent in profile.stages()}
    assert seconds["inner"] > 0.02 > seconds["outer"]


def test_operations_are_torchs_and_the_longest_come_first(tmp_path: Path) -> None:
    with take(tmp_path / "trace.json") as profile:
        work(profile.listen(silence))
    operations = profile.operations()
    told = {spent.name for spent in operations}
    assert "aten::logsumexp" in told
    assert not told & {"forward", "likelihood", "validate"}
    assert [one.seconds for one in operations] == sorted((one.seconds for one in operations), reverse=True)
    assert 0 < sum(one.share for one in operations) <= 1 + 1e-9


def event(name: str, device: DeviceType, host: float, there: float, *, named: bool = False) -> SimpleNamespace:
    """Return what torch tells of an operation, times in microseconds."""
    return SimpleNamespace(
        key=name,
        count=2,
        device_type=device,
        is_user_annotation=named,
        self_cpu_time_total=host,
        self_device_time_total=there,
    )


@pytest.mark.parametrize("there", [0.0, 60.0])
def test_operations_have_the_devices_seconds_only_where_a_device_did_any(
    there: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [event("aten::mm", DeviceType.CPU, 30.0, there), event("aten::add", DeviceType.CPU, 10.0, 0.0)]
    if there:
        events += [
            event("gemm", DeviceType.CUDA, 0.0, there),
            event("copy", DeviceType.CUDA, 0.0, there / 3),
            event("ProfilerStep", DeviceType.CUDA, 0.0, 1000.0, named=True),
        ]
    monkeypatch.setattr(profiling.Recording, "key_averages", lambda recording: events)
    with take(tmp_path / "trace.json") as profile:
        work()
    # Even on a machine that has one.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert profile.on_device == bool(there)
    told = [(spent.name, spent.calls, spent.seconds, spent.share) for spent in profile.operations()]
    names_told = ["gemm", "copy"] if there else ["aten::mm", "aten::add"]
    longest = (there or 30.0) / 1e6
    assert told == [
        (names_told[0], 2, pytest.approx(longest), pytest.approx(0.75)),
        (names_told[1], 2, pytest.approx(longest / 3), pytest.approx(0.25)),
    ]
    print_profile(profile)
    printed = capsys.readouterr().out
    assert ("operation of the device" in printed) == bool(there)
    who = "the device" if there else "torch"
    assert (
        f"\nwhat {who} did in the part that was recorded (from its start; at most 50 rounds of any stage):\n" in printed
    )


@pytest.mark.parametrize("recorded", [False, True])
def test_a_stage_on_cuda_has_the_seconds_of_what_it_started_there(
    recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that is only being recorded is not waited for: it would end the recording."""
    pending = [0.0]

    def synchronize() -> None:
        assert not recorded
        time.sleep(pending.pop())
        pending.append(0.0)

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: recorded)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    with take(tmp_path / "trace.json") as profile, stage("outer"):
        pending[0] = 0.03
        with stage("inner"):
            pass
        with stage("last"):
            pending[0] = 0.03
    seconds = {spent.name: spent.seconds for spent in profile.stages()}
    if recorded:
        assert pending == [0.03]
    else:
        assert seconds["outer"] > 0.03 > seconds["inner"]
        assert seconds["last"] > 0.03


def test_the_second_epoch_is_what_is_traced(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    with take(trace) as profile:
        work(profile.listen(silence))
    assert (names(trace).count("forward"), names(trace).count("validate")) == (4, 1)
    assert profile.stretch.startswith("one epoch, after the first; at most")


def test_a_resumed_training_tells_its_epochs_again_and_is_traced_all_the_same(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    with take(trace) as profile:
        with stage("read the log"):
            pass
        listener = profile.listen(silence)
        for epoch in (1, 2, 3):
            listener(Step("model", epoch, 6))
        work(listener)
    assert names(trace).count("forward") == 4


def test_work_without_epochs_is_traced_from_its_start(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    with take(trace) as profile:
        work(profile.listen(silence), epochs=1)
    assert names(trace).count("forward") == 4
    assert profile.stretch.startswith("from its start; at most")


def test_a_trace_has_so_many_updates_at_most_and_the_stages_have_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiling, "UPDATES", 3)
    trace = tmp_path / "trace.json"
    with take(trace) as profile:
        work(profile.listen(silence))
    assert (names(trace).count("forward"), names(trace).count("likelihood")) == (3, 3)
    assert {spent.name: spent.calls for spent in profile.stages()}["forward"] == 12


def test_a_listener_hears_every_step(tmp_path: Path) -> None:
    heard: list[Step] = []
    with take(tmp_path / "trace.json") as profile:
        work(profile.listen(heard.append))
    assert [step.done for step in heard] == [1, 2, 3]


def test_torch_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with take(tmp_path / "trace.json"):
        work()
    assert capfd.readouterr() == ("", "")


def test_what_is_there_is_refused_before_the_work(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    trace.write_text("mine")
    with pytest.raises(OutputError, match=r"trace.json exists already"), take(trace):
        pytest.fail("the work began")
    with take(trace, overwrite=True):
        work()
    assert "forward" in names(trace)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder is a directory"), take(tmp_path / "folder", overwrite=True):
        pytest.fail("the work began")


def test_work_that_fails_leaves_no_trace_and_the_next_profile_can_be_taken(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), take(tmp_path / "trace.json"), stage("half"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with take(tmp_path / "trace.json"):
        work()


def test_two_profiles_at_once_are_a_mistake(tmp_path: Path) -> None:
    with take(tmp_path / "one.json"), pytest.raises(ValueError, match="already"), take(tmp_path / "two.json"):
        pass


@pytest.mark.parametrize("left", [None, '{"traceEvents": [{"na'])
def test_a_trace_that_did_not_reach_the_disk_is_told(
    left: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(recording: object, path: str) -> None:
        if left is not None:
            Path(path).write_text(left)

    monkeypatch.setattr(profiling.Recording, "export_chrome_trace", export)
    with pytest.raises(OutputError, match="could not be written as a whole"), take(tmp_path / "trace.json"):
        work()
    assert list(tmp_path.iterdir()) == []


def test_a_trace_replaces_only_what_it_may(tmp_path: Path) -> None:
    """What another process put there in the meantime stays."""
    trace = tmp_path / "trace.json"
    with pytest.raises(OutputError, match="exists already"), take(trace), whole_file(trace) as draft:
        draft.write_text("theirs")
    assert trace.read_text() == "theirs"


# The command.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


NEURAL = "mult-vae --set hidden=8 --set latent=4 --set epochs=3 --set batch_size=20 --validation-share 0.2"


@pytest.mark.parametrize(
    ("model", "stages"),
    [
        (NEURAL, "cut batch, corrupt, step, forward, likelihood, backward, update, validate, checkpoint"),
        ("ease", "gram, invert"),
        ("als", ""),
        ("popularity", ""),
    ],
)
def test_every_model_says_where_its_time_went(model: str, stages: str, folder: Path) -> None:
    done = call("train", *model.split(), "log.csv", "--out", "model", "--profile")
    assert (done.code, done.err) == (0, "")
    assert "\nthe stages of all of the work:\n" in done.out
    for name in ("stage", "read the log", "fit", "save the model", ELSEWHERE, *filter(None, stages.split(", "))):
        assert f" {name} " in done.out
    assert "the trace is model.trace.json" in done.out
    assert set(filter(None, stages.split(", "))) <= set(names(folder / "model.trace.json"))
    assert (folder / "model" / "model.json").exists()


def test_a_span_ends_in_the_recording_it_began_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch crashes where one ends in the next: here the stage around the epochs, in which there are no others."""
    told = list[str]()

    class Recording(profiling.Recording):
        def start(self) -> None:
            super().start()
            told.append("start")

        def stop(self) -> None:
            told.append("stop")
            super().stop()

    class Span(profiling.record_function):
        def __enter__(self) -> "Span":
            super().__enter__()
            told.append(f"+{self.name}")
            return self

        def __exit__(self, *reason: object) -> None:
            told.append(f"-{self.name}")
            super().__exit__(*reason)

    monkeypatch.setattr(profiling, "Recording", Recording)
    monkeypatch.setattr(profiling, "record_function", Span)
    trace = tmp_path / "trace.json"
    with take(trace) as profile:
        listener = profile.listen(silence)
        with stage("read"):
            pass
        with stage("outer"), stage("fit"):
            for epoch in (1, 2, 3):
                listener(Step("als", epoch, 3))
        with stage("save"):
            pass

    around = ["start", "+outer", "+fit", "-fit", "-outer"]
    assert told == ["start", "+read", "-read", *around[1:], "stop", *around, "+save", "-save", "stop"]
    assert {"outer", "fit", "save"} <= set(names(trace))
    assert {spent.name: spent.calls for spent in profile.stages()}["fit"] == 1


def test_what_another_thread_does_neither_stops_a_recording_nor_is_in_it(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    with take(trace) as profile:
        with stage("here"):
            pass
        thread = threading.Thread(target=work, args=(profile.listen(silence),))
        thread.start()
        thread.join()
        with stage("here"):
            pass
    assert {spent.name for spent in profile.stages()} == {"here", ELSEWHERE}
    assert names(trace).count("here") == 2
    assert "forward" not in names(trace)


def test_without_the_option_there_is_no_trace(folder: Path) -> None:
    assert call("train", "ease", "log.csv", "--out", "model").code == 0
    assert not (folder / "model.trace.json").exists()


def test_quiet_prints_nothing_and_json_has_the_tables(folder: Path) -> None:
    done = call("train", "ease", "log.csv", "--out", "model", "--profile", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert (folder / "model.trace.json").exists()
    done = call("train", "ease", "log.csv", "--out", "model", "--profile", "--json", "--overwrite")
    told = json.loads(done.out)["profile"]
    assert told["operations_of"] == "from its start; at most 50 rounds of any stage"
    assert told["trace"] == "model.trace.json"
    assert {"name", "calls", "seconds", "share"} == set(told["stages"][0]) == set(told["operations"][0])


def test_a_trace_that_is_there_is_refused_before_the_log_is_read(folder: Path) -> None:
    (folder / "model.trace.json").write_text("mine")
    (folder / "nothing.csv").touch()  # of which reading complains
    done = call("train", "ease", "nothing.csv", "--out", "model", "--profile")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("recae: model.trace.json exists already; choose another place, or overwrite it (--overw")


def test_a_training_that_fails_leaves_no_trace(folder: Path) -> None:
    (folder / "nothing.csv").touch()  # of which reading complains
    done = call("train", "ease", "nothing.csv", "--out", "model", "--profile")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert not (folder / "model.trace.json").exists()
