"""The results of bench.cpu as Markdown."""

from __future__ import annotations

_UNITS = {"normals": (" M/s", 0), "calls": ("/s", 0)}  # of all other rows: 1e9 cell updates a second


def table(rows: list[dict]) -> str:
    """One Markdown table of all rows."""
    lines = ["| case | eqflow | of the bound | peers: speed (eqflow is x times faster) |", "|---|---|---|---|"]
    for row in rows:
        ours, *others = row["speeds"].items()
        unit, digits = _UNITS.get(row["case"].split()[-1], (" G/s", 2))
        beside = ", ".join(f"{name} {speed['best']:.{digits}f} ({row['ratios'][name]:.2f}x)" for name, speed in others)
        part = f"{row['fraction_of_bound']:.0%} of {row['bound']:.2f}" if row["bound"] else "–"
        lines.append(f"| {row['case']} | {ours[1]['best']:.{digits}f}{unit} | {part} | {beside or '–'} |")
    return "\n".join(lines)
