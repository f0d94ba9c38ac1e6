"""What `eqflow infer` computes, and its words."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

from eqflow.cli import _infer_window
from eqflow.cli._shell import choice, usage
from eqflow.cli._words import count

SYSTEMS = ("lorenz", "gene-network")
_LIBRARIES = ("polynomial", "trigonometric")


class Request(NamedTuple):
    """The options."""

    library: str | None
    system: str | None
    noise: str | None
    times: str | None
    threshold: float
    every_term: bool
    functions: int | None
    seed: int
    window: str | None
    bandwidth: float


class Data(NamedTuple):
    """Points, in one set for each time where there are times."""

    names: tuple[str, ...]
    sets: list[Any]  # Tensors [points, dimension]
    times: list[float] | None
    notes: tuple[str, ...]


class Answer(NamedTuple):
    """What is printed and written."""

    lines: list[str]
    facts: dict
    contradicted: bool
    fits: list[Any]


def read(path: Path, dataset: str | None, columns: str | None, times: str | None) -> Data:
    """The points of a file, sorted by the column of times if there is one."""
    from eqflow.data.points import read_points

    chosen = columns.split(",") if columns else None
    if chosen and times and times not in chosen:
        chosen.append(times)
    cloud = read_points(path, dataset=dataset, columns=chosen)
    if cloud.values.ndim != 2:
        raise ValueError(f"expected points [points, dimension] in {path}, got fields {list(cloud.values.shape)}")
    if times is None:
        return Data(cloud.names, [cloud.values], None, cloud.notes)
    place = _place(times, cloud.names, chosen)
    others = [k for k in range(len(cloud.names)) if k != place]
    if not others:
        raise ValueError(f"expected coordinates beside the times in {path}, got {times} alone")
    stamps = cloud.values[:, place].unique()
    sets = [cloud.values[cloud.values[:, place] == stamp][:, others] for stamp in stamps]
    return Data(tuple(cloud.names[k] for k in others), sets, stamps.tolist(), cloud.notes)


def _place(times: str, names: tuple[str, ...], chosen: list[str] | None) -> int:
    if times in names:
        return names.index(times)
    if chosen and times in chosen:
        return chosen.index(times)
    if times.isdecimal() and 1 <= int(times) <= len(names) and not chosen:
        return int(times) - 1
    raise usage(f"expected --times as one of the columns {', '.join(names)}, got {times!r}")


def _variables(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names that can stand in a formula."""
    from eqflow.fokker_planck.library import variable_names

    try:
        return variable_names(names)
    except ValueError:
        return tuple(f"x{k}" for k in range(1, len(names) + 1))


def _noise(text: str, dimension: int) -> dict[str, Any]:
    """The options of a model that say what the diffusion is."""
    import torch

    if text == "unknown":
        return {"unknown_diffusion": "isotropic"}
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, dimension) or not all(0 <= value < float("inf") for value in values):
        raise usage(
            f"expected --noise as a number from 0 up, {dimension} of them with commas, or unknown, got {text!r}"
        )
    return {"diffusion": values[0] if len(values) == 1 else torch.tensor(values, dtype=torch.float64)}


def _library(text: str, variables: tuple[str, ...]) -> Any:
    from eqflow.fokker_planck import polynomial, trigonometric

    makers = {"polynomial": polynomial, "trigonometric": trigonometric}
    total = None
    for part in text.split("+"):
        kind, _, degree = part.strip().partition(":")
        choice("--library", kind, _LIBRARIES)
        if not degree.isdecimal() or int(degree) < 1:
            raise usage(f"expected --library {kind}:N with N from 1 up, got {part!r}: write {kind}:2")
        made = makers[kind](variables, int(degree))
        total = made if total is None else total + made
    return total


def _lorenz(data: Data, request: Request) -> list[Any]:
    from eqflow.fokker_planck import parametric

    _expect_columns(data, 3, "lorenz: x, y and z")
    unknown = {"sigma": {"x": "y - x"}, "rho": {"y": "x"}, "beta": {"z": "-z"}}
    noise = _noise(request.noise or "unknown", 3)
    model = parametric("x y z", unknown, known={"y": "-x*z - y", "z": "x*y"}, **noise)
    return [_conditions(data, model, request)]


def _gene_network(data: Data, request: Request) -> list[Any]:
    """One set of conditions for each gene, with functions of the phases of the two signals."""
    from eqflow.fokker_planck import parametric, phase_conditioned, weak_form
    from eqflow.systems.gene_network import GeneNetwork

    network = GeneNetwork()
    _expect_columns(data, 7, f"gene-network: {', '.join(network.variables)}")
    if data.times is not None or request.functions is not None or request.window is not None:
        raise usage("expected neither --times, --functions nor --window with --system gene-network")
    noise = _noise(request.noise or str(network.diffusion), 7)
    if "diffusion" not in noise or not isinstance(noise["diffusion"], float):
        raise usage(f"expected --noise as one number with --system gene-network, got {request.noise!r}")
    gates = {"pi": "1/(1 + p^2)", "beta": "1/(1 + b^2)", "rho": "1/(1 + r^2)"}
    found = []
    for place, (gene, scale) in enumerate(zip(network.variables[4:], network.scales, strict=True), 4):
        unknown = {
            f"{gene}: {term}": {gene: "*".join([f"{scale:g}", *(gates[factor] for factor in term.split())])}
            for term in network.influences
        }
        sources = phase_conditioned(data.sets[0], place, pairs=[(0, 1), (2, 3)], step=2)
        found.append(weak_form(sources, parametric(network.variables, unknown, known=network.background, **noise)))
    return found


def _expect_columns(data: Data, wanted: int, what: str) -> None:
    if len(data.names) != wanted:
        raise usage(f"expected {wanted} columns for --system {what}; got {len(data.names)}: say which with --columns")


def _conditions(data: Data, model: Any, request: Request) -> Any:
    from eqflow.fokker_planck import weak_form

    points = sum(map(len, data.sets))
    if points < len(model.names):
        raise ValueError(f"expected more points than unknowns, got {points} for {len(model.names)}")
    if request.window is not None:
        window = _infer_window.parse(request.window, data.names)
        wanted = request.functions or max(150, 3 * len(model.names))
        bumps = _infer_window.options(data.sets[0], window, request.bandwidth, wanted)
        return weak_form(data.sets[0], model, seed=request.seed, **bumps)
    wanted = request.functions or max(40, 3 * len(model.names))
    if data.times is not None and request.functions is None:
        wanted = 10
    least = min(map(len, data.sets))
    functions = request.functions or max(min(wanted, least // 50), 1)
    scale = 0.8 if len(model.names) < 10 else 0.7
    source = data.sets[0] if data.times is None else data.sets
    return weak_form(source, model, times=data.times, count=functions, scale=scale, seed=request.seed)


def answer(data: Data, request: Request) -> Answer:
    """Fit, and say what was found."""
    from eqflow.fokker_planck import from_library

    if request.system:
        choice("--system", request.system, SYSTEMS)
    if request.window is not None:
        if data.times is not None:
            raise usage("expected --window without --times: leave one of them out")
        data = _infer_window.restrict(data, _infer_window.parse(request.window, data.names))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if request.system:
            problems = (_lorenz if request.system == "lorenz" else _gene_network)(data, request)
        else:
            variables = _variables(data.names)
            if request.noise in (None, "unknown") and data.times is None:
                raise usage(
                    "expected --noise as a number with --library: without times the drift and the noise are known up "
                    "to a common factor only"
                )
            noise = _noise(request.noise or "unknown", len(variables))
            model = from_library(_library(request.library, variables), **noise)
            problems = [_conditions(data, model, request)]
    found = [_one(problem, request) for problem in problems]
    notes = [*data.notes, *(str(warning.message) for warning in caught)]
    lines = [f"note: {note}" for note in notes] + [_size(data)]
    facts: dict[str, Any] = {"points": sum(map(len, data.sets)), "coefficients": {}, "equations": [], "blind": []}
    for fit, blind in found:
        lines += [line for line in fit.equations.splitlines() if "(...)" not in line or len(found) == 1 or "+" in line]
        lines += blind or [fit.verdict]
        row = fit.as_dict()
        facts["coefficients"] |= row.pop("coefficients")
        facts["equations"] += fit.equations.splitlines()
        facts["blind"] += blind
        facts |= row if len(found) == 1 else {}
    if len(found) > 1:
        facts["j_statistic"] = sum(fit.j_statistic for fit, _ in found)
        facts["p_value"] = min(1.0, len(found) * min(fit.p_value for fit, _ in found))
    contradicted = any(fit.p_value < 1e-4 and not blind for fit, blind in found)
    return Answer(lines, facts, contradicted, [fit for fit, _ in found])


def _one(problem: Any, request: Request) -> tuple[Any, list[str]]:
    """The fit, with the terms that count or all of them, and what the points cannot tell."""
    from eqflow.fokker_planck import eliminate, estimate, sensitivity

    full = estimate(problem)
    seen = sensitivity(problem, full)
    words = str(seen).splitlines() if seen.blind else []
    if request.system == "lorenz" or request.every_term or words:
        return full, words
    return eliminate(problem, threshold=3.0 if request.system else request.threshold), words


def _size(data: Data) -> str:
    points = f"{count(sum(map(len, data.sets)))} points of {', '.join(data.names)}"
    return points if data.times is None else f"{points} at {len(data.times)} times"
