"""The results of bench.gpu as Markdown."""

from __future__ import annotations


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return "–" if value is None else str(value).replace("|", "\\|")


def _table(rows: list[dict]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows]


def _facts(row: dict, prefix: str = "") -> list[str]:
    lines = []
    for name, value in row.items():
        if isinstance(value, dict):
            lines += _facts(value, f"{prefix}{name} ")
        else:
            lines.append(f"- {prefix}{name}: {_cell(value)}")
    return lines


def _limits(results: list[dict]) -> dict[str, float]:
    rows = [row for result in results if result["stage"] == "limits" for row in result["rows"]]
    return {row["limit"]: row["per_second"] for row in rows if "per_second" in row}


def _with_limits(row: dict, limits: dict[str, float]) -> dict:
    """Cell updates beside what the measured limits allow.

    "of 16 B": against one step a pass over memory, 16 bytes read and written a cell; above 1 is the point of keeping
    the state on the chip. "slots": issue slots per cell update, to compare with the instructions in the machine code.
    """
    speed = row.get("updates_per_second")
    if speed is None:
        return row
    copy, issue = limits.get("bytes copied (read and written)"), limits.get("float32 multiply-adds")
    return {**row, "of 16 B": copy and speed / (copy / 16), "slots": issue and issue / speed}


def markdown(results: list[dict]) -> str:
    """A list of the stages, then the rows of each."""
    overview = [{name: result.get(name) for name in ("stage", "outcome", "seconds", "last_line")} for result in results]
    lines, limits = ["# bench.gpu", "", *_table(overview)], _limits(results)
    for result in results:
        if result["rows"]:
            rows = [_with_limits(row, limits) for row in result["rows"]]
            body = _facts(rows[0]) if result["stage"] == "environment" else _table(rows)
            lines += ["", f"## {result['stage']}", "", *body]
    return "\n".join(lines) + "\n"
