"""The report of a world: one HTML file with everything in it, that needs no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #667; --line: #d9dde3; --paper: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaee; --soft: #9aa3b0; --line: #394150; --paper: #14171c; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 68rem;
  margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p.soft, figcaption, td.note { color: var(--soft); font-size: .9rem; } p.soft { margin: .2rem 0; }
figure { margin: 0; } img { max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: 4px;
  background: #fff; } img.pixels { image-rendering: pixelated; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1.25rem; align-items: start; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; } td, th { padding: .3rem .8rem .3rem 0;
  text-align: left; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; vertical-align: top; }
th { font-weight: 600; } pre { background: color-mix(in srgb, var(--ink) 7%, transparent); padding: .7rem .9rem;
  border-radius: 6px; overflow-x: auto; font-size: .88rem; }
"""


def inlined(path: Path) -> str:
    """A picture as the address of itself."""
    kind = {".png": "png", ".webp": "webp", ".gif": "gif"}[path.suffix]
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def figure(path: Path, caption: str, kind: str = "") -> str:
    """A picture with its words."""
    return (
        f'<figure><img class="{kind}" src="{inlined(path)}" alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of words; the last column is a remark."""
    head = "".join(f"<th>{html.escape(word)}</th>" for word in header)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(word)}</td>" for word in row[:-1])
        + f'<td class="note">{html.escape(row[-1])}</td></tr>'
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def page(title: str, lead: Sequence[str], sections: Sequence[tuple[str, str]], made: dict[str, Any]) -> bytes:
    """The whole file."""
    parts = "\n".join(f"<h2>{html.escape(name)}</h2>\n{content}" for name, content in sections)
    first = "".join(f'<p class="soft">{html.escape(line)}</p>' for line in lead)
    on = ", ".join(f"{name} {made[name]}" for name in ("eqflow", "torch", "device") if name in made)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>"
        f"<h1>{html.escape(title)}</h1>{first}\n{parts}\n"
        f"<h2>Made by</h2><pre>{html.escape(made['command'])}</pre>"
        f'<p class="soft">{html.escape(on)}, {html.escape(made["time"])}</p></body></html>\n'
    ).encode()
