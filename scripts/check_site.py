#!/usr/bin/env python3
"""Checks the built pages in build/site: every internal link has a target, and no page loads files from other sites."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

SITE = Path(__file__).parent.parent / "build" / "site"
# Elements that a browser loads automatically, and the attribute with the address.
_LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "audio": "src", "video": "src"}
_LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch"}


class _Page(HTMLParser):
    """The links of a page, the files it loads, and the names of its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.names |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag in _LOADED and values.get(_LOADED[tag]):
            self.loaded.append(values[_LOADED[tag]])
        if tag == "link" and set(values.get("rel", "").split()) & _LOADED_LINKS:
            self.loaded.append(values.get("href", ""))


def problems(site: Path) -> list[str]:
    """Returns a line for each broken internal link and each file that a page loads from another site."""
    pages = {path: _Page(path.read_text("utf-8")) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site)
        found += [f"{where} loads {address}" for address in page.loaded if urlsplit(address).netloc]
        for link in page.links:
            if urlsplit(link).scheme or urlsplit(link).netloc or path.name == "404.html":
                continue
            name, fragment = urldefrag(link)
            target = (path.parent / unquote(urlsplit(name).path)).resolve() if name else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{where} links to {link}, which does not exist")
            elif fragment and target in pages and unquote(fragment) not in pages[target].names:
                found.append(f"{where} links to {link}, which does not have that anchor")
    return found


if __name__ == "__main__":
    found = problems(SITE.resolve()) if SITE.is_dir() else [f"{SITE} does not exist: run make docs"]
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
