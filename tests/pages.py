"""What every page of recae's must be, and a page taken apart."""

import re
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "input", "link", "path", "line", "use", "rect"}


class Page(HTMLParser):
    """A page taken apart: its tags with attributes, its text, and whether every tag was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in tags]


def require_sound(html: str) -> Page:
    """Return a page taken apart, if it is well formed, needs nothing else, and has words for all its pictures."""
    page = Page(html)
    assert page.open == []
    assert not page.named("script", "link", "img", "iframe", "object", "embed", "base", "form")
    for _, attributes in page.tags:
        for key in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert (attributes.get(key) or "#").startswith("#")
        assert not any(key.startswith("on") for key in attributes)
    assert re.findall(r"url\((?!#)|@import|https?:", html) == []

    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for _, attributes in page.tags if "href" in attributes]
    labels = [attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes]
    clips = re.findall(r"url\(#([^)]*)\)", html)
    assert {str(link).removeprefix("#") for link in links} | set(labels) | set(clips) <= set(ids)

    pictures = [svg for svg in page.named("svg") if svg.get("role") == "img"]
    assert len(page.named("figure")) == len(pictures) == len(page.named("figcaption"))
    assert all(len(str(picture["aria-label"])) > 20 for picture in pictures)
    assert all(svg.get("role") == "img" or svg.get("aria-hidden") == "true" for svg in page.named("svg"))
    assert "prefers-color-scheme: dark" in html
    assert re.findall(r"(?:fill|stroke)[:=]\s*\"?#", html[html.index("<body>") :]) == []
    return page
