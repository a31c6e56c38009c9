"""The pages: what is shown, filled into a template; and the file it goes to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recae.files import require_file_place, whole_file
from recae.report.drawing import PAINT, Style
from recae.report.inputs import shown

MARK = '<meta name="generator" content="recae">'
"""What tells a page of ours from anybody else's, within the first READ bytes."""

READ = 1000


@dataclass(frozen=True)
class Picture:
    """A picture, the names of what is in it, and the figures that its caption quotes."""

    svg: Markup
    legend: Sequence[tuple[str, Style]]
    facts: Mapping[str, Any] = field(default_factory=dict)


def render(template: str, **parts: Any) -> str:
    """Return a page as HTML that needs nothing else; the same parts give the same text."""
    environment = Environment(
        loader=PackageLoader("recae", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["shown"] = shown
    return environment.get_template(template).render(paint=PAINT, mark=Markup(MARK), **parts)


def write_page(path: Path, page: str, *, overwrite: bool = False) -> None:
    """Write a page whole or not at all; raises OutputError if `path` exists."""
    with whole_file(path, overwrite=overwrite) as draft:
        draft.write_bytes(encoded(page))


def encoded(page: str) -> bytes:
    """Return a page's bytes: what is no text in names from outside becomes a question mark."""
    return page.encode("utf-8", errors="replace")


def require_page_place(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError unless a page can be put at `path`: call it before the work, not after."""
    require_file_place(path, (".html", ".htm"), "a page is written as HTML", "page", _is_our_page, overwrite=overwrite)


def _is_our_page(path: Path) -> bool:
    return MARK.encode() in path.read_bytes()[:READ]
