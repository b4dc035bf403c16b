"""The HTML report of `convnet-show`: one file with its pictures in it, that a browser opens without any network."""
from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

# Nothing is fetched and nothing is run, whatever a class name holds.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
body { font: 16px/1.45 system-ui, "DejaVu Sans", sans-serif; color: #222; background: #fff; max-width: 88rem; margin: 2rem auto; padding: 0 1.5rem }
h1 { font-size: 1.7rem; margin-bottom: 0.2rem } h2 { font-size: 1.25rem; margin: 2.6rem 0 0.4rem; border-bottom: 1px solid #ccd }
p { max-width: 60rem } .left-out { color: #8a4a00 }
img { max-width: 100%; height: auto; display: block; margin: 0.6rem 0 }
table { border-collapse: collapse; margin: 0.8rem 0; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 0.15rem 1.2rem 0.15rem 0; border-bottom: 1px solid #e6e6ee; vertical-align: top } th { font-weight: 600 }
nav a { margin-right: 1rem } .tables { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 4rem }
"""


@dataclass
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass
class Section:
    """A picture, PNG or SVG, with what is to be said of it, or what is said in its place."""

    name: str
    title: str
    text: str
    picture: bytes = b""
    tables: list[Table] = field(default_factory=list)


def page(title: str, facts: Sequence[tuple[str, object]], sections: Sequence[Section]) -> str:
    parts = ["<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">', f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
             '<meta name="viewport" content="width=device-width, initial-scale=1">', f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", "</head>", "<body>",
             f"<h1>{escape(title)}</h1>", "<nav>", *(f'<a href="#{section.name}">{escape(section.title)}</a>' for section in sections), "</nav>",
             table(Table((), facts))]
    for section in sections:
        shown = bool(section.picture or section.tables)
        parts += [f'<section id="{section.name}">', f"<h2>{escape(section.title)}</h2>", f"<p{'' if shown else ' class=' + chr(34) + 'left-out' + chr(34)}>{escape(section.text)}</p>"]
        if section.picture:
            kind = "png" if section.picture.startswith(b"\x89PNG") else "svg+xml"
            parts.append(f'<img alt="{escape(section.title)}" src="data:image/{kind};base64,{base64.b64encode(section.picture).decode()}">')
        if section.tables:
            parts += ['<div class="tables">', *map(table, section.tables), "</div>"]
        parts.append("</section>")
    return "\n".join([*parts, "</body>", "</html>", ""])


def table(content: Table) -> str:
    def row(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    head = [row(content.head, "th")] if content.head else []
    return "\n".join(["<table>", *head, *(row(cells, "td") for cells in content.rows), "</table>"])
