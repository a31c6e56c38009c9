"""What a person at a terminal sees: progress bars on stderr while there is one, tables on stdout."""

import json
import math
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from recae.datasets import Description
from recae.notes import counted
from recae.progress import Listener, Step, silence

if TYPE_CHECKING:
    # They bring torch and mlflow with them, and some commands need neither.
    from recae.experiment import Outcome
    from recae.manual import Page
    from recae.profiling import Profile
    from recae.tracking import Tracker
    from recae.tuning import Search

NARROWEST = 160
"""Columns a table gets where there is no terminal to measure, such as a log file."""

LONGEST_LINE = 100
"""Columns that running text takes at most, for eyes to find the next line."""

PAUSE = 30
"""Seconds between two lines of progress where there is no terminal; a tenth of it where a task comes to its end."""

NO_FIGURE = "–"
NO_ROOM = ("seconds", "kl_weight", "units_firing", "units_dead")
"""Figures of a step that a bar does without, to fit 80 columns; the report and MLflow have them."""

UNITS = ((1, 1e8, 1e10), (1_000, 1e11, 1e13), (1_000_000, 1e13, 2.534023008e17), (1_000_000_000, 2.534023008e17, 1e19))
"""Parts of a second, and how many since (or before) 1970 pass for a date: 1973 to 2286; but April 1970 to 9999 for
microseconds, as which dates are kept. No two ranges meet: nanoseconds before 1978 are taken for microseconds."""


def say(text: str) -> None:
    """Print a line on stdout."""
    print(text)


def print_json(value: Any) -> None:
    """Print a result as JSON; a figure that is not a number has no spelling there but null."""
    plain = json.loads(json.dumps(value, default=_plain), parse_constant=lambda _: None)
    print(json.dumps(plain, ensure_ascii=False, indent=2))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def warn(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr)


@contextmanager
def progress_bars(quiet: bool) -> Iterator[Listener]:
    """Yield a listener that shows a bar a task, with its latest figures; without a terminal a line now and then."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield silence if quiet else _lines()
        return
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as bars:
        known: dict[str, TaskID] = {}

        def show(step: Step) -> None:
            if step.task not in known:
                known[step.task] = bars.add_task(step.task, figures="")
            bars.update(known[step.task], completed=step.done, total=step.total, figures=_figures(step))

        yield show


def _figures(step: Step) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in step.figures.items() if name not in NO_ROOM)


def _lines() -> Listener:
    """Return a listener that prints a line on stderr once some time has passed since the last one."""
    last = time.monotonic()

    def tell(step: Step) -> None:
        nonlocal last
        if time.monotonic() - last >= (PAUSE / 10 if step.done == step.total else PAUSE):
            warn(f"{step.task} {step.done:,}/{step.total:,}  {_figures(step)}".rstrip())
            last = time.monotonic()

    return tell


def print_outcome(outcome: "Outcome") -> None:
    """Print what an experiment found: models × metrics, what is better than what, and what to know about it."""
    from recae.comparison import better_than  # it brings torch with it, as do those below `TYPE_CHECKING`

    header, rows = metric_rows(outcome.metrics)
    print_table(header, rows)
    users = int(outcome.metrics["users"][outcome.metrics["metric"] == outcome.metrics["metric"].iloc[0]].max())
    say(f"mean over {users:,} test users ± half the 95 % bootstrap interval")
    if len(rows) > 1:
        say(f"significantly better on {header[1]} (paired sign-flip test, p < 0.05 after Holm's correction):")
        for line in better_lines([row[0] for row in rows], better_than(outcome.comparisons)):
            say(line)
    for caveat in outcome.caveats:
        say(f"note: {caveat}")


def print_search(search: "Search") -> None:
    """Print what a search found: the best settings of each model, and what to know about it."""
    print_table(["model", "metric", "best", "the recipe's", "trials", "settings"], search_rows(search))
    say("measured on the validation users, whom the best of many settings suits better than others")
    for caveat in search.caveats:
        say(f"note: {caveat}")


def search_rows(search: "Search") -> list[list[str]]:
    """Return a row a model: metric, best figure, that of the recipe's own settings, how trials ended, best settings."""
    rows = []
    for label, trials in search.trials.items():
        states = Counter(trial.state for trial in trials)
        ended = ", ".join(f"{states[state]} {state}" for state in ("complete", "pruned", "failed") if states[state])
        best = search.best(label)
        settings = {} if best is None else best.settings
        rows.append(
            [
                label,
                str(search.metrics[label]),
                *(f"{one.value:.4f}" if one and one.value is not None else NO_FIGURE for one in (best, trials[0])),
                ended,
                ", ".join(f"{key} {value}" for key, value in settings.items()),
            ]
        )
    return rows


def print_summary(summary: pd.DataFrame) -> None:
    """Print the metrics of one model or one file of recommendations."""
    rows = [
        [metric_name(row["metric"], row["k"]), f"{row['value']:.4f}", _interval(row), f"{row['users']:,}"]
        for _, row in summary.iterrows()
    ]
    print_table(["metric", "value", "95 % interval", "users"], rows)


def print_profile(profile: "Profile") -> None:
    """Print where the time went: the stages of all of the work, then the operations in the recorded stretch of it."""
    who, operation = ("the device", "operation of the device") if profile.on_device else ("torch", "operation")
    for about, what, spent in (
        ("the stages of all of the work:", "stage", profile.stages()),
        (f"what {who} did in the part that was recorded ({profile.stretch}):", operation, profile.operations()),
    ):
        rows = [[one.name, f"{one.calls:,}", f"{1e3 * one.seconds:,.1f}", f"{one.share:.1%}"] for one in spent]
        if rows:
            say(about)
            print_table([what, "calls", "self ms", "share"], rows)


def print_models(pages: Sequence["Page"]) -> None:
    """Print what models there are, a line each."""
    rows = [[page.name, page.what, *_abilities(page)] for page in pages]
    print_table(["model", "what", "folds in new users", "embeddings"], rows)
    say(f"recae models NAME, such as recae models {pages[-1].name}, shows what a model is and its hyper-parameters")


def print_model(page: "Page") -> None:
    """Print what a model is, and its hyper-parameters with their defaults."""
    width = min(Console().width, LONGEST_LINE)
    for paragraph in (page.what, *page.about.split("\n\n")):
        say(textwrap.fill(" ".join(paragraph.split()), width) + "\n")
    folds_in, embeddings = _abilities(page)
    say(f"folds in new users: {folds_in}; embeddings: {embeddings}")
    rows = [[one.name, json.dumps(one.default), one.takes, one.meaning] for one in page.hyper_parameters]
    if not rows:
        say("hyper-parameters: none")
        return
    print_table(["hyper-parameter", "default", "takes", "what it is"], rows)
    last = f"{rows[-1][0]}={rows[-1][1]}"
    say(f"to set one: recae train {page.name} … --set {last}, or recae compare … --set models.{page.name}.{last}")


def _abilities(page: "Page") -> tuple[str, str]:
    words = {(): "no", ("latent",): "latent"}
    return "yes" if page.folds_in else "no", words.get(page.embeddings, "yes")


def print_tracked(tracker: "Tracker", speak: bool) -> None:
    """Print where runs were tracked, or warn that they were not."""
    if tracker.lost:
        warn(tracker.lost)
    elif speak:
        say(f"tracked in {tracker.uri}")


def print_chosen(chosen: Mapping[str, Any]) -> None:
    """Print what a fit chose for what was left open."""
    found = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in chosen.items()}
    say(f"chosen: {', '.join(f'{name} {value}' for name, value in found.items() if value is not None)}")


def print_notes(notes: Mapping[str, int]) -> None:
    """Print each note whose number is not zero."""
    for note, count in notes.items():
        if count:
            say(f"note: {counted(count, note)}")


def print_anomalies(users: Sequence[Mapping[str, Any]]) -> None:
    """Print the rows of users of a table of anomalies."""
    if not users:
        return
    names = "surprising_titles" if "surprising_titles" in users[0] else "surprising_items"
    rows = [
        [
            str(user["user_id"]),
            f"{user['z']:.1f}",
            f"{user['percentile']:.1f}",
            f"{user['surprise']:.2f}",
            f"{user['expected']:.2f}",
            f"{user['history_length']:,}",
            "; ".join(
                str(item if name is None else name)
                for name, item in zip(user[names], user["surprising_items"], strict=True)
            ),
        ]
        for user in users
    ]
    print_table(["user", "z", "percentile", "surprise", "expected", "items", "surprising items"], rows)
    say("surprise in nats: -log p of the more surprising half of a history; expected: of histories as long")
    say("z, by which users are ordered: how many spreads of such histories the surprise is above what is expected")


def print_units(units: Sequence[Mapping[str, Any]]) -> None:
    """Print units with how often they fire, and their items by title where that is known."""
    rows = [
        [
            str(unit["unit"]),
            f"{unit['fires']:.1%}",
            "; ".join(
                str(item if title is None else title)
                for item, title in zip(unit["item_id"], unit.get("title", unit["item_id"]), strict=True)
            ),
        ]
        for unit in units
    ]
    if rows:
        print_table(["unit", "fires for", "top items"], rows)


def print_description(description: Description, rows: int) -> None:
    """Print what is in a log of so many rows."""
    low, high = description.value_range
    facts = {
        "rows read": f"{rows:,}",
        "interactions": f"{description.events:,}",
        "users": f"{description.users:,}",
        "items": f"{description.items:,}",
        "density": f"{description.density:.3%}",
        "items per user": _quantiles(description.history_lengths),
        "users per item": _quantiles(description.item_popularity),
        "values": f"all {low:g}" if low == high else f"{low:g} to {high:g}",
        "times": " to ".join(map(moment, description.time_span)) if description.time_span else "none",
    }
    print_facts(facts)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print facts by name, a line each."""
    width = max(len(name) for name in facts)
    for name, fact in facts.items():
        first, *rest = str(fact).splitlines() or [""]
        say(f"{name:<{width}}  {first}")
        for line in rest:
            say(f"{'':<{width}}  {line}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; columns whose every entry starts with a digit are figures, and go to the right."""
    table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name, entries in zip(header, zip(*rows, strict=True), strict=True):
        figures = all(entry[:1].isdigit() or entry == NO_FIGURE for entry in entries)
        table.add_column(name, justify="right" if figures else "left", no_wrap=figures, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(NARROWEST, console.width))
    console.print(table)


def metric_rows(metrics: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of models × metrics, best first by the first metric; last, those that do not have it."""
    from recae.metrics import Metric

    keys = list(dict.fromkeys(zip(metrics["metric"], metrics["k"], strict=True)))
    by_model = {str(model): group.set_index(["metric", "k"]) for model, group in metrics.groupby("model", sort=False)}
    sign, main = Metric(*keys[0]).sign, {model: float(rows.loc[keys[0], "value"]) for model, rows in by_model.items()}
    order = sorted(by_model, key=lambda model: (math.isnan(main[model]), -sign * main[model]))
    header = ["model", *(metric_name(name, k) for name, k in keys)]
    return header, [[model, *(figure(by_model[model].loc[key]) for key in keys)] for model in order]


def better_lines(order: Sequence[str], better_than: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for each model, best first, that says which of those below it is significantly better than."""
    width = max(map(len, order))
    lines = []
    for place, model in enumerate(order):
        below = order[place + 1 :]
        beaten = [other for other in below if other in better_than.get(model, ())]
        words = "all below" if beaten == below and len(beaten) > 1 else ", ".join(beaten)
        if beaten:
            lines.append(f"  {model:<{width}}  than {words}")
    return lines or ["  none: these users cannot tell the models apart"]


def metric_name(name: str, k: int) -> str:
    """Return a metric as it is written: ndcg@100, rmse."""
    return f"{name}@{k}" if k else name


def figure(row: "pd.Series[float]") -> str:
    """Return a metric as value ± half the width of its interval, or the value alone; a dash where there is none."""
    half = (row["ci_high"] - row["ci_low"]) / 2
    value = f"{row['value']:.4f}"
    if row.isna()["value"]:
        return NO_FIGURE
    return value if pd.isna(half) else f"{value} ±{half:.3f}"


def moment(time: float) -> str:
    """Return a time of a log as a date, if it is likely to count seconds, or parts of them, since or before 1970."""
    for parts, least, beyond in UNITS:
        if least <= abs(time) < beyond:
            # There is no year before 1.
            with suppress(OverflowError):
                date = datetime(1970, 1, 1) + timedelta(microseconds=int(time) * 1_000_000 // parts)
                return f"{date.isoformat(' ', 'minutes')} ({time})"
    return f"{time}"


def _quantiles(quantiles: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,.0f}" for name, value in quantiles.items())


def _interval(row: "pd.Series[float]") -> str:
    return "" if pd.isna(row["ci_low"]) else f"{row['ci_low']:.4f} – {row['ci_high']:.4f}"
