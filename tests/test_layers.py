"""Who may import whom: a module imports only from its own layer and the layers above it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "recae"

LAYERS = [
    "errors",
    "progress",
    "files device tensors ids columns preparation workers",
    "profiling",
    "sources",
    "rows",
    "layouts",
    "events",
    "merging runs",
    "gathering",
    "notes interactions",
    "datasets reading",
    "ranges",
    "splitting",
    "threads selection scoring",
    "ranking",
    "prediction",
    "metrics",
    "evaluation",
    "comparison",
    "kernels",
    "finite",
    "histories validation models.base",
    "autoencoder",
    "models",
    "embedding anomalies generation",
    "tables",
    "report",
    "artifact",
    "tracking",
    "recipe search",
    "experiment",
    "tuning",
    "jobs",
    "units uses manual advice",
    "doctor console options",
    "data_commands model_commands tune_command units_command uses_commands",
    "cli",
]
"""From the top down. A package's name stands for every module in it that has no place of its own."""

ONLY_IN = {
    "implicit": {"models.als", "models.bpr"},
    "mlflow": {"tracking"},
    "optuna": {"search"},
    "pickle": set(),
    "dill": set(),
}
"""Who else's packages may be imported where, if at all."""

INDICES_ONLY = {"pandas", "pyarrow", "mlflow", "typer"}
"""What models and autoencoders know nothing of: ids, tables, tracking, the command line."""

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py"  # the public names: it imports them when they are asked for
}


def home(name: str, known: set[str]) -> str | None:
    """Return the longest part of a dotted name, from its start, that is known."""
    parts = name.split(".")
    return next((part for end in range(len(parts), 0, -1) if (part := ".".join(parts[:end])) in known), None)


def layer(module: str) -> int:
    depths = {name: depth for depth, line in enumerate(LAYERS) for name in line.split()}
    named = home(module, set(depths))
    assert named is not None, f"recae.{module} has no layer: give it its place in LAYERS"
    return depths[named]


def imported(module: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"recae.{module} imports relatively"
            names |= {f"{node.module}.{name.name}" for name in node.names}
    return names


def test_every_name_has_a_module() -> None:
    named = {name for line in LAYERS for name in line.split()} | set().union(*ONLY_IN.values())
    assert named <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_up(module: str) -> None:
    own = {home(name.removeprefix("recae."), set(MODULES)) for name in imported(module) if name.startswith("recae.")}
    below = {other for other in own - {None} if other is not None and layer(other) > layer(module)}
    assert not below, f"recae.{module} imports from layers below it: {sorted(below)}"


def test_any_module_can_be_imported_first() -> None:
    """Importing a module runs the packages around it before itself, and those may not need it in turn."""
    needs: dict[str, set[str]] = {}
    for module in MODULES:
        names = {home(name.removeprefix("recae."), set(MODULES)) for name in imported(module) if "recae." in name}
        needs[module] = {other for name in names - {None} for other in around(str(name)) if other not in around(module)}
    TopologicalSorter(needs).prepare()  # CycleError names the circle


def around(module: str) -> set[str]:
    """Return a module and the packages it is in."""
    parts = module.split(".")
    return {".".join(parts[: end + 1]) for end in range(len(parts))}


@pytest.mark.parametrize("module", MODULES)
def test_other_packages_stay_where_they_belong(module: str) -> None:
    packages = {name.split(".")[0] for name in imported(module)}
    strays = {package for package, homes in ONLY_IN.items() if package in packages and home(module, homes) is None}
    if module.split(".")[0] in {"models", "autoencoder"}:
        strays |= packages & INDICES_ONLY
    assert not strays, f"recae.{module} must not import {sorted(strays)}"
