"""What a fit has found, in words: how well the flow keeps the points, and whether another would do as well."""

from __future__ import annotations

from typing import Any

import typer

from eqflow.cli._words import count

RATIO, _CLEAR = 1.5, 2.0  # a mode within this factor of the lowest is as good; beyond the second clearly worse
SAME, NETWORKS = 0.9, 0.95  # |cos| from which two fields are one: of two methods or halves; of two networks
LEAKY = 0.2  # from which on a flow does not keep the points
ANSWERS = {
    "yes": ("Yes", "green"),
    "symmetry": ("Yes, given the symmetry", "green"),
    "no": ("No", "yellow"),
    "unsettled": ("Not settled", "yellow"),
    "unknown": ("Unknown", "yellow"),
    "none": ("No flow was found", "red"),
}


def best(report: dict[str, Any]) -> list:
    """Kind and number of the field with the lowest objective on held-out points, such as ["network", 1]."""
    closed, learned = report["closed_form"], report["learned"]
    fields = [(closed["held_out"]["objective"][0], ["mode", 1])] if closed else []
    if learned:
        fields += [(value, ["network", index + 1]) for index, value in enumerate(learned["held_out"]["objective"])]
    return min(fields)[1]


def held_out(report: dict[str, Any]) -> dict[str, float]:
    """The numbers of the best field."""
    kind, number = report["chosen"]
    found = report["learned" if kind == "network" else "closed_form"]["held_out"]
    return {name: values[number - 1] for name, values in found.items()}


def verdict(report: dict[str, Any]) -> dict[str, Any]:
    """Whether the answer is unique, and how that is known."""
    closed, learned = report["closed_form"], report["learned"]
    because, doubts = _evidence(closed, learned)
    leak = held_out(report)["leak"]
    if leak >= LEAKY:
        poor = f"the best field leaks {leak:.0%} of what random directions do: take a higher --degree, or more --probes"
        return {"answer": "none", "because": [poor, *because, *doubts]}
    if doubts:
        answer = "unsettled"
    elif closed and closed["near"] > 1:
        answer = "no"
    elif closed and closed["all_fields"]["near"] > 1:
        answer = "symmetry"
    elif closed:
        answer = "yes"
    else:
        answer = "unknown"
    return {"answer": answer, "because": [*doubts, *because]}


def _evidence(closed: dict[str, Any] | None, learned: dict[str, Any] | None) -> tuple[list[str], list[str]]:
    """What is known, and what speaks against an answer at all."""
    because, doubts = [], []
    if closed:
        because.append(_gap(closed["objective"], closed["near"]))
        free = closed["all_fields"]
        if free["near"] > 1 and closed["near"] == 1:
            because.append(
                f"without the symmetry {free['near']} modes lie within {RATIO:g} times the lowest "
                f"({_numbers(free['objective'][: free['near']])}): the symmetry decides, and it is an assumption"
            )
        if closed["halves"] is None:
            because.append("whether more points would change it is not known: halves are compared with --score kernel")
        elif closed["near"] == 1:
            same = closed["halves"] >= SAME
            (because if same else doubts).append(
                f"two halves of the points give {'the same field' if same else 'different fields'} "
                f"(|cos| {closed['halves']:.3f})" + ("" if same else ": more points would help")
            )
    else:
        because.append("without the closed form nobody counts the other flows: take --method both")
    if learned:
        agreement = learned["agreement"]
        if agreement is None:
            because.append("one network alone says nothing of others: take --models 2 or more")
        else:
            what = f"{learned['models']} networks from different starts"
            if agreement >= NETWORKS:
                because.append(f"{what} agree (|cos| {agreement:.3f})")
            elif closed and closed["near"] > 1:
                because.append(f"{what} end in different mixtures (|cos| {agreement:.3f})")
            else:
                doubts.append(f"{what} differ (|cos| {agreement:.3f}): take more --steps")
        if closed and closed["near"] == 1:
            cosine = min(row[0] for row in learned["cosines"])
            same = cosine >= SAME
            (because if same else doubts).append(
                f"network and polynomials {'agree' if same else 'differ'} (|cos| {cosine:.3f})"
                + ("" if same else ": raise --degree or --steps")
            )
    return because, doubts


def _gap(objectives: list[float], near: int) -> str:
    if near > 1:
        rest = f", the next {objectives[near]:.3g}" if near < len(objectives) else ", and perhaps more"
        return (
            f"{near} fields cost nearly the same ({_numbers(objectives[:near])}{rest}), and so do their mixtures: only "
            "something that the points do not say, such as order in time, can choose"
        )
    if len(objectives) < 2:
        return "from all starts the same field was found"
    times = objectives[1] / objectives[0]
    close = f", not far above {RATIO:g}, from which on it stands apart" if times < _CLEAR else ""
    return f"the next mode costs {times:.3g} times as much ({objectives[1]:.3g} against {objectives[0]:.3g}){close}"


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    names = report["coordinates"]
    stein = report["stein"]
    learned, closed = report["learned"], report["closed_form"]
    kind = "exact for these points under noise" if report["score"] == "kernel" else "of a trained network"
    strain = "" if report["objective"] in ("exact", "product") else f" + {2 / report['probes']:.3g} strain"
    rows = [
        ("points", f"{count(report['points'])} of {len(names)} coordinates: {_few(names)}"),
        (
            "score",
            f"{kind}, alpha {report['alpha']:g}; Stein's identities hold to {stein['missed']:.2g}, "
            f"{stein['standard_errors']:.1f} standard errors",
        ),
        ("symmetry", _symmetry(report)),
        ("flow", _flow(report)),
        (
            "speed",
            f"{report['speed']:.4g} on average in the units of the points, {report['speed_standardised']:.3g} in "
            "standard deviations; the unit of time is arbitrary",
        ),
    ]
    return [
        *(f"{name:<10}{value}" for name, value in rows),
        "",
        *table(learned, closed, report["truth"]),
        f"objective = residual{strain}; leak = residual over that of random directions; |cos| with the modes 1, 2, ...",
        "",
        *_unique(report["unique"]),
    ]


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def _symmetry(report: dict[str, Any]) -> str:
    signs, reason = report["symmetry"]["signs"], report["symmetry"]["reason"]
    if signs is None:
        return f"none used: {reason}"
    names = report["coordinates"]
    flipped = [("-" if sign < 0 else "") + name for name, sign in zip(names, signs, strict=True)]
    even, odd = report["symmetry"]["even"], report["symmetry"]["odd"]
    return (
        f"({', '.join(names)}) -> ({', '.join(flipped)}) leaves the points as they are; flows that share it cost "
        f"{even:.3g}, flows that break it {odd:.3g}"
    )


def _flow(report: dict[str, Any]) -> str:
    closed, learned = report["closed_form"], report["learned"]
    parts = []
    if closed:
        parts.append(f"{count(closed['unknowns'])} coefficients of polynomials of degree {closed['degree']}")
    if learned:
        parts.append(f"{learned['models']} network{'s' if learned['models'] > 1 else ''}")
    kind, number = report["chosen"]
    return f"{kind} {number}, the lowest of {' and '.join(parts)}"


def table(learned: dict | None, closed: dict | None, truth: dict | None) -> list[str]:
    """Every field that was found, on points that were held out."""
    modes = len(closed["objective"]) if closed and learned else 0
    head = ["", "objective", "residual", "leak", "strain", "R²"]
    head += ["|cos| 1" if mode == 0 else str(mode + 1) for mode in range(modes)] + (["|truth|"] if truth else [])
    rows = []
    for found, kind in ((learned, "network"), (closed, "mode")):
        held = found["held_out"] if found else {"objective": []}
        for index in range(len(held["objective"])):
            row = [f"{kind} {index + 1}", *(f"{held[name][index]:.3g}" for name in ("objective", "residual"))]
            row += [f"{held['leak'][index]:.2%}", f"{held['strain'][index]:.3g}", f"{held['r_squared'][index]:.3f}"]
            compared = found["cosines"][index] if kind == "network" and modes else []
            row += [f"{value:.3f}" for value in compared] or [""] * modes
            if truth:
                row.append(f"{truth['learned' if kind == 'network' else 'closed_form'][index]:.3f}")
            rows.append(row)
    widths = [max(len(row[column]) for row in [head, *rows]) + 2 for column in range(len(head))]
    lines = ["".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    names = [row[0].ljust(widths[0]) for row in [head, *rows]]
    return [(name + line[widths[0] :]).rstrip() for name, line in zip(names, lines, strict=True)]


def _unique(found: dict[str, Any]) -> list[str]:
    word, colour = ANSWERS[found["answer"]]
    answer = typer.style(word, fg=colour, bold=True)
    return [
        f"unique?   {answer}:",
        *(f"  - {line}" for line in found["because"]),
        "  - unique is what costs least here; rougher flows keep the points too, and each may run backwards in time",
    ]
