"""A comparison in words."""

from __future__ import annotations

from typing import Any

from eqflow.cli._words import count

_HEALTHY = (0.95, 1.05)  # residual noise


def lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    found, (at, lag) = report["fidelity"], report["main"]

    def cell(cosines: dict[str, Any]) -> str:
        return _cosine(cosines["mean"][at][lag], cosines["error"][at][lag])

    odd = found["odd"]
    error = odd["error"][at][lag]
    sigmas = f"{odd['mean'][at][lag] / error:.1f} standard errors, " if error else ""
    agreeing = odd["agreeing"][at][lag]
    rows = [
        ("starts", f"{count(report['samples'])} of {report['name']}, {' x '.join(map(str, report['size']))}"),
        ("dynamics", f"K {_kernel(report['kernel'])}, eta {report['eta']:g}, dt {report['dt']:g}, alpha "
                     f"{report['alpha']:.5f}, {report['precision']} (changes the score by "
                     f"{report['precision_error']:.1e})" + (", clamped" if report["clip"] else "")),
        ("cosines", f"after time {report['times'][at]:g}, with {report['lags'][lag]} steps of the system, whose change "
                    f"has rms {found['change'][lag]:.2g}"),
        ("odd part", f"{cell(odd)}, {sigmas}{agreeing or 0:.0%} of the samples agree: the recovered motion"),
        ("even part", f"{cell(found['even'])}: relaxation, the same along K and -K"),
        ("along K", f"{cell(found['plus'])};  along -K {cell(found['minus'])};  without K {cell(found['none'])}"),
        ("nulls", f"another sample's truth {cell(found['other_sample'])}"),
        *(
            ("", f"{name}'s motion {cell(found['other_truths'][name])}, apart from the own truth {cell(apart)}")
            for name, apart in found["other_truths_apart"].items()
        ),
        ("clamping", f"to [-1, 1] would change the score by {report['clamping']['changes']:.1e}, at "
                     f"{report['clamping']['bites']:.2%} of the pixels"),
        *_surface(report),
        *_health(report),
    ]  # fmt: skip
    if report["film_ended"]:
        rows.append(("film", f"ends early, since the dynamics left all bounds: {report['film_ended']}"))
    if report["as_released"]:
        values = [value for value in report["as_released"] if value is not None]  # None: the sample does not move
        if values:
            mean, many = sum(values) / len(values), len(values)
            rows.append(("paper's", f"{mean:.3f} over {many} samples by the released protocol: for parity, no test"))
    return [f"{name:<10}{value}" for name, value in rows]


def _cosine(mean: float | None, error: float | None) -> str:
    if mean is None:
        return "no motion at all"
    return f"{mean:+.3f} ± {error:.3f}" if error is not None else f"{mean:+.3f}"


def _kernel(rows: list[list[float]]) -> str:
    return "; ".join(" ".join(f"{value:.3g}" for value in row) for row in rows)


def _surface(report: dict[str, Any]) -> list[tuple[str, str]]:
    odd = report["fidelity"]["odd"]
    head = "odd part, by model time and steps of the system: " + "  ".join(f"{lag:>13}" for lag in report["lags"])
    table = [("surface", head)]
    for at, time in enumerate(report["times"]):
        cells = (_cosine(m, e) for m, e in zip(odd["mean"][at], odd["error"][at], strict=True))
        table.append(("", f"{f'time {time:g}':>47}  " + "  ".join(cells)))
    return table


def _health(report: dict[str, Any]) -> list[tuple[str, str]]:
    residual = [value for values in report["residual_noise"].values() for value in values]
    low, high = min(residual), max(residual)
    word = "" if _HEALTHY[0] <= low and high <= _HEALTHY[1] else ": beyond 0.95 to 1.05, the noise is wrong"
    state = report["ensemble"]
    spectrum = ", ".join(
        f"{channel} {'infinite' if value is None else format(value, '.2f')}"
        for channel, value in zip(report["channels"], state["spectrum"], strict=True)
    )
    return [
        ("noise", f"residual variance {low:.3f} to {high:.3f} of the right one{word}"),
        ("end", f"mean |log ratio| of spectra {spectrum}; {state['dead']} of {count(report['samples'])} dead"),
    ]
