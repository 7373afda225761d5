"""Pieces of HTML; all text is escaped here."""

import base64
import html
import re
from collections.abc import Iterable

from tavaal_jax.report.plots import style
from tavaal_jax.report.summary import Cells


def text(value: object) -> str:
    """Escapes text for anywhere in the page, including an attribute's value."""
    return html.escape(str(value))


def marked(line: str) -> str:
    """Escapes text and marks names in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", text(line))


def method(name: str) -> str:
    """HTML of a method's name after a dot of its colour in the figures."""
    dot = f'<i class="dot" style="background:{style.colour(name)}"></i>'
    return f"<code>{dot}{text(name)}</code>"


def items(lines: Iterable[object]) -> str:
    """HTML of lines as the items of a list."""
    return "\n".join(f"<li>{marked(str(line))}</li>" for line in lines)


def table(cells: Cells, label: str, kind: str = "numbers") -> str:
    """HTML of a table whose first column heads the rows, in a container that scrolls."""
    head = "".join(f'<th scope="col">{marked(line)}</th>' for line in cells.head)
    body = "\n".join(
        f'<tr><th scope="row">{_row_head(first)}</th>{"".join(map(_cell, rest))}</tr>'
        for first, *rest in cells.body
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(label)}">'
        f'<table class="{kind}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n'
        "</table></div>"
    )


def _row_head(line: str) -> str:
    name = re.fullmatch("`([^`]+)`", line)
    return method(name[1]) if name else marked(line)


def _cell(line: str) -> str:
    """HTML of a cell; a narrow column breaks it between mean, deviation, interval and p only."""
    found = re.fullmatch(r"([+-]?[\d.]+) (?:(± [\d.]+)|(\[[^]]*\],?)( p \S+)?)", line)
    if not found:
        return f"<td>{marked(line)}</td>"
    value, *rest = (text(part) for part in found.groups("") if part)
    parts = "".join(f"<span>{part.strip()}</span> " for part in rest).strip()
    return f"<td>{value} {parts if found[2] else f'<small>{parts}</small>'}</td>"


def uri(png: bytes) -> str:
    """Data URI of a PNG."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
