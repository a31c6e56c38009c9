"""Runs in MLflow, and the promise that they never cost an experiment its results.

Whatever happens to MLflow (a server that is not there or goes away, a full disk, a store of another version), nothing
is raised into the experiment: the first failure is kept in `Tracker.lost`, and from then on nothing more is tried.
"""

import json
import logging
import math
import os
import re
import sqlite3
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from recae.errors import Interrupted
from recae.tracking.facts import git_revision, system_facts
from recae.tracking.logged import write_mlflow_model

if sys.platform != "win32":
    import fcntl

FOLDER = "mlflow"
"""Where, in the current folder, runs are kept if MLFLOW_TRACKING_URI does not say otherwise."""

PATIENCE = 60.0
"""Seconds to wait for another process that opens the same folder's store; making a new one takes a few."""

MODEL = "model"
"""What a run's logged model is called: `runs:/<run id>/model`."""

Value = TypeVar("Value")


class Tracker:
    """An MLflow experiment to put runs into.

    `uri` is the store: what MLFLOW_TRACKING_URI says, else SQLite in `mlflow/mlflow.db` of the current folder, made
    when missing, with its files in `mlflow/artifacts`. `lost` is empty, or says in one line what was not tracked and
    why: show it at the start, where it means a store that cannot be used, and again at the end.
    """

    def __init__(self, experiment: str, uri: str | None = None) -> None:
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
        self.lost = ""
        self.attempt("the start", lambda: self._open(experiment))

    @contextmanager
    def run(self, name: str, parent: "Run | None" = None) -> Iterator["Run"]:
        """Yield a run, inside `parent` if there is one; it ends FINISHED, FAILED, or KILLED when it was interrupted."""
        run = Run(self, name, self.attempt(f"run '{name}'", lambda: self._start(name, parent)) or "")
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, Interrupted):
            status = "KILLED"
            raise
        finally:
            self.attempt(f"the end of run '{name}'", lambda: self.client.set_terminated(run.id, status))

    def attempt(self, what: str, work: Callable[[], Value]) -> Value | None:
        """Do work that needs MLflow and return its result; None if that is lost, now or before."""
        if self.lost:
            return None
        try:
            with _quiet():
                return work()
        except Exception as error:
            self.lost = _without_passwords(
                f"MLflow at {self.uri} failed ({_reason(error)}): from {what} on, nothing is tracked; "
                "mend it, or set MLFLOW_TRACKING_URI to another"
            )
            return None

    def _open(self, experiment: str) -> None:
        location: str | None = None
        turn: AbstractContextManager[None] = nullcontext()
        if not self.uri:
            folder = Path.cwd() / FOLDER
            # Not a mere string: a question mark or a percent sign in the folder's name would change its meaning.
            self.uri = sqlalchemy.URL.create("sqlite", database=str(folder / "mlflow.db")).render_as_string()
            folder.mkdir(exist_ok=True)
            location, turn = (folder / "artifacts").as_uri(), _turn(folder)
        with turn:
            if self.uri.startswith("sqlite"):
                _require_sqlite(sqlalchemy.make_url(self.uri).database)
            self.client = MlflowClient(tracking_uri=self.uri)
            self.experiment_id = self._find_or_create(experiment, location)
        self._facts = {**system_facts(), **git_revision(), "mlflow.source.name": "recae", "mlflow.source.type": "LOCAL"}

    def _find_or_create(self, experiment: str, location: str | None) -> str:
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            try:
                return str(self.client.create_experiment(experiment, location))
            except MlflowException:  # another process may have been quicker
                found = self.client.get_experiment_by_name(experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _start(self, name: str, parent: "Run | None") -> str:
        tags = self._facts | ({"mlflow.parentRunId": parent.id} if parent else {})
        return str(self.client.create_run(self.experiment_id, tags=tags, run_name=name).info.run_id)


@dataclass(frozen=True, eq=False)
class Run:
    """One run; a method does its work, or leaves word in the tracker's `lost`: none raises for MLflow's sake."""

    tracker: Tracker
    name: str
    id: str

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Track parameters, such as `hyper_parameters_of(model)`; each is told once."""
        params = [Param(key, str(value)) for key, value in values.items()]
        self._batches("parameters", "params", params, 100)

    def tags(self, values: Mapping[str, str]) -> None:
        """Track tags: facts to find a run by."""
        self._batches("tags", "tags", [RunTag(key, value) for key, value in values.items()], 100)

    def figures(self, values: Mapping[str, float], step: int = 0) -> None:
        """Track figures by their names (`ndcg_at_100`, `ndcg_at_100_ci_low`); one that is not finite is left out."""
        self._metrics("figures", [(key, value, step) for key, value in values.items()])

    def curve(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Track training figures, a row an epoch, in few calls; `epoch` is the step, or else the row's number from 1.

        They are named `training/<key>`, so that validation's ndcg_at_100 does not pass for the test's.
        """
        steps = [(int(row.get("epoch", number)), row) for number, row in enumerate(rows, 1)]
        self._metrics(
            "the training curve",
            [(f"training/{key}", value, step) for step, row in steps for key, value in row.items() if key != "epoch"],
        )

    def dataset(
        self,
        digest: str,
        *,
        name: str,
        source: str,
        profile: Mapping[str, Any] | None = None,
        context: str = "training",
    ) -> None:
        """Track which data went in; MLflow keeps 36 characters of the digest, and a profile keeps it whole."""
        data = Dataset(
            name=name,
            digest=digest[:36],
            source_type="local",
            source=json.dumps({"uri": source}),
            profile=json.dumps({"digest": digest, **(profile or {})}),
        )
        inputs = [DatasetInput(data, [InputTag("mlflow.data.context", context)])]
        self._attempt("data", lambda: self.tracker.client.log_inputs(self.id, inputs))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Track a file, or a directory with all that is in it, under its name, in a folder of the run's."""
        self._attempt(path.name, lambda: self.tracker.client.log_artifact(self.id, str(path), folder))

    def model(self, directory: Path) -> None:
        """Track a model directory as a model that MLflow can load and serve, as `runs:/<run id>/model`.

        It takes a table with a column `history` and returns recommendations: see served.py.
        """
        self._attempt("the model", lambda: self._log_model(directory))

    def _log_model(self, directory: Path) -> None:
        client = self.tracker.client
        model = client.create_logged_model(self.tracker.experiment_id, name=MODEL, source_run_id=self.id)
        with tempfile.TemporaryDirectory() as room:
            draft = Path(room) / MODEL
            write_mlflow_model(directory, draft, self.id, model.model_id)
            client.log_model_artifacts(model.model_id, str(draft))
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(self.id, [LoggedModelOutput(model.model_id, step=0)])

    def _metrics(self, what: str, figures: Sequence[tuple[str, float, int]]) -> None:
        now = time.time_ns() // 1_000_000
        finite = [
            Metric(key, float(value), now, step)
            for key, value, step in figures
            if value is not None and math.isfinite(value)  # a card has None for what was not finite
        ]
        self._batches(what, "metrics", finite, 1000)

    def _batches(self, what: str, kind: str, entries: Sequence[Any], size: int) -> None:
        """Send entries in batches of as many as MLflow takes at once."""
        for start in range(0, len(entries), size):
            self._attempt(what, partial(self._send, {kind: entries[start : start + size]}))

    def _send(self, batch: dict[str, Any]) -> None:
        self.tracker.client.log_batch(self.id, **batch, synchronous=True)

    def _attempt(self, what: str, work: Callable[[], Any]) -> None:
        self.tracker.attempt(f"{what} of run '{self.name}'", work)


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Let one process at a time open the folder's store: two that migrate a new one at once spoil it for each other.

    The folder itself is locked, so no lock file stays behind. Where a folder cannot be locked (Windows, some network
    disks), or when another process keeps it beyond PATIENCE, work goes on without.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        until = time.monotonic() + PATIENCE
        with suppress(OSError):
            while not _locked(descriptor) and time.monotonic() < until:
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)  # and with it goes the lock


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _require_sqlite(database: str | None) -> None:
    """Fail at once where a database cannot be written or is none: MLflow would try for minutes."""
    with closing(sqlite3.connect(database or ":memory:", timeout=10)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what MLflow and its parts log and warn of while they work for us: failures reach `Tracker.lost`."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3.connectionpool")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """Return the operating system's words where they are at the bottom of it, else the error's own first line."""
    for link in _beneath(error):
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        if isinstance(link, TimeoutError):
            return "no answer in time"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def _beneath(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those it came of, as Python links them or (requests, urllib3) as one holds another."""
    link: BaseException | None = error
    while link is not None:
        yield link
        yield from (deeper for held in link.args if isinstance(held, BaseException) for deeper in _beneath(held))
        link = link.__cause__ or link.__context__


def _without_passwords(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//", text)
