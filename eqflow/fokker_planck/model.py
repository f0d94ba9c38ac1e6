"""Models: what is known and what is unknown of a stochastic system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqflow.fokker_planck import expressions
from eqflow.fokker_planck.layout import Layout
from eqflow.fokker_planck.library import Library, variable_names

Term = str | Callable[[Tensor], Tensor]  # a formula, or a function of points [n, dimension] -> [n]
Diffusion = float | Tensor | Callable[[Tensor], Tensor]  # D, [d], [d, d], or points -> [n, d, d]
UNKNOWN_DIFFUSIONS = ("isotropic", "diagonal", "symmetric")


@dataclass(frozen=True, eq=False)
class Model:
    """dx = (v(x, t) + sum of theta_k b_k(x, t)) dt + sqrt(2 D) dW, births and deaths at the rate g(x).

    Its generator is L phi = f . grad phi + D : grad grad phi, linear in the unknowns; D = G G^T / 2 for noise G dW, in
    the sense of Ito where it depends on x. Make one with `parametric` or `from_library`.

    Args:
        variables: names of the coordinates.
        features: the terms u_l that the b_k are made of.
        placement: [drift unknowns, dimension, terms], b_k = placement[k] u.
        names: of all unknowns: those of the drift, then of the diffusion, then of the growth.
        known: v, a function(points, time) -> [n, dimension], or None.
        diffusion: the known part of D, a function(points) -> [d, d] or [n, d, d], or None.
        unknown_diffusion: one such function for each unknown of D.
        growth: a library of the terms of g, each with an unknown coefficient, or None.
        known_growth: the known part of g, a function(points, time) -> [n], or None.
        layout: how it is written.
    """

    variables: tuple[str, ...]
    features: Library | None
    placement: Tensor
    names: tuple[str, ...]
    known: Callable[[Tensor, float], Tensor] | None
    diffusion: Callable[[Tensor], Tensor] | None
    unknown_diffusion: tuple[Callable[[Tensor], Tensor], ...]
    growth: Library | None
    known_growth: Callable[[Tensor, float], Tensor] | None
    layout: Layout

    @property
    def dimension(self) -> int:
        return len(self.variables)

    def drift(
        self,
        points: Tensor,  # [n, dimension]
        coefficients: Tensor,  # [unknowns]
        time: float = 0.0,
        *,
        homogeneous: bool = False,
    ) -> Tensor:
        """f = v + sum of theta_k b_k, [n, dimension]; without v if `homogeneous`."""
        drift = torch.zeros_like(points)
        if self.features is not None:
            theta = torch.einsum("k,kcl->cl", coefficients[: len(self.placement)].to(points), self.placement.to(points))
            drift = self.features(points, time) @ theta.T
        return drift if self.known is None or homogeneous else drift + self.known(points, time)

    def diffusion_at(self, points: Tensor, coefficients: Tensor, *, homogeneous: bool = False) -> Tensor | None:
        """D with its unknown part, [d, d] or [n, d, d]; None for zero."""
        total = None if self.diffusion is None or homogeneous else self.diffusion(points)
        for value, part in zip(coefficients[len(self.placement) :].tolist(), self.unknown_diffusion, strict=False):
            total = value * part(points) + (0 if total is None else total)
        return total


def _functions(terms: Sequence[Term], variables: tuple[str, ...]) -> Callable[[Tensor, float], Tensor]:
    """All terms as one function, the formulas parsed together."""
    texts = [term for term in terms if isinstance(term, str)]
    parsed = expressions.parse(texts, variables) if texts else None

    def evaluate(points: Tensor, time: float = 0.0) -> Tensor:
        formulas = iter(parsed(points, time).unbind(1) if parsed else ())
        columns = [next(formulas) if isinstance(term, str) else term(points) for term in terms]
        return torch.stack(columns, 1)

    return evaluate


def _text(term: Term) -> str:
    return term if isinstance(term, str) else getattr(term, "__name__", "f").replace("<lambda>", "f") + "(...)"


def _check_rows(rows: Mapping[str, object], variables: tuple[str, ...], what: str) -> None:
    wrong = [row for row in rows if row not in variables]
    if wrong:
        raise ValueError(f"expected the rows of {what} among {', '.join(variables)}, got {', '.join(map(str, wrong))}")


def _known_drift(known, variables):
    """Function(points, time) and the text of each row."""
    if known is None:
        return None, {}
    if callable(known):
        return (lambda points, time: known(points)), {f"{row}'": f"{_text(known)}" for row in variables}
    _check_rows(known, variables, "the known drift")
    rows, values = [variables.index(row) for row in known], _functions(list(known.values()), variables)

    def function(points, time):
        return torch.zeros_like(points).index_copy(1, torch.tensor(rows, device=points.device), values(points, time))

    return function, {f"{row}'": _text(term) for row, term in known.items()}


def _diffusion_function(value: Diffusion, dimension: int) -> Callable[[Tensor], Tensor]:
    if callable(value) and not isinstance(value, Tensor):
        return value
    matrix = torch.as_tensor(value, dtype=torch.float64)
    if matrix.ndim == 0:
        matrix = matrix * torch.eye(dimension, dtype=torch.float64)
    matrix = torch.diag(matrix) if matrix.ndim == 1 else matrix
    if matrix.shape != (dimension, dimension) or not torch.allclose(matrix, matrix.T):
        raise ValueError(
            f"expected a diffusion as a number, {dimension} numbers or a symmetric {dimension} x {dimension} matrix, "
            f"got {list(matrix.shape)}"
        )
    if not torch.linalg.eigvalsh(matrix)[0] >= 0:
        raise ValueError(f"expected a diffusion without negative directions, got {value}")
    return lambda points: matrix.to(points)


def _unknown_diffusion(kind, variables) -> dict[str, Callable[[Tensor], Tensor]]:
    if isinstance(kind, Mapping):
        return {name: _diffusion_function(value, len(variables)) for name, value in kind.items()}
    if kind not in UNKNOWN_DIFFUSIONS:
        raise ValueError(
            f"expected unknown_diffusion {', '.join(map(repr, UNKNOWN_DIFFUSIONS))} or a dict, got {kind!r}"
        )
    unit = torch.eye(len(variables), dtype=torch.float64)
    if kind == "isotropic":
        return {"D": _diffusion_function(1.0, len(variables))}
    parts = {f"D_{a}": torch.outer(unit[i], unit[i]) for i, a in enumerate(variables)}
    if kind == "symmetric":
        for i, a in enumerate(variables):
            for j, b in enumerate(variables[i + 1 :], i + 1):
                parts[f"D_{a}{b}"] = torch.outer(unit[i], unit[j]) + torch.outer(unit[j], unit[i])
    return {name: (lambda points, part=part: part.to(points)) for name, part in parts.items()}


def _assemble(variables, features, placement, names, inline, composed, options) -> Model:
    known, diffusion, unknown_diffusion, growth, known_growth = options
    known, known_text = _known_drift(known, variables)
    parts = {} if unknown_diffusion is None else _unknown_diffusion(unknown_diffusion, variables)
    growth_terms = None
    if growth is not None:
        growth_terms = Library(variables, tuple(growth), _functions(list(growth.values()), variables))
        inline = {**inline, **{name: ("g", _text(term)) for name, term in growth.items()}}
        if known_growth is not None:
            known_text["g"] = _text(known_growth)
    if known_growth is not None:
        rate = _functions([known_growth], variables)
    everything = (*names, *parts, *(growth or ()))
    if len(set(everything)) < len(everything) or not everything:
        raise ValueError(f"expected at least one unknown, with different names, got {list(everything)}")
    left = [f"{name}'" for name in variables] + (["g"] if growth is not None else [])
    return Model(
        variables,
        features,
        placement,
        everything,
        known,
        None if diffusion is None else _diffusion_function(diffusion, len(variables)),
        tuple(parts.values()),
        growth_terms,
        None if known_growth is None else lambda points, time: rate(points, time)[:, 0],
        Layout(tuple(left), known_text, inline, composed),
    )


def parametric(
    variables: str | Sequence[str],
    unknown: Mapping[str, Mapping[str, Term]],
    *,
    known: Mapping[str, Term] | Callable[[Tensor], Tensor] | None = None,
    diffusion: Diffusion | None = None,
    unknown_diffusion: str | Mapping[str, Diffusion] | None = None,
    growth: Mapping[str, Term] | None = None,
    known_growth: Term | None = None,
) -> Model:
    """A model with named parameters, each of which multiplies a given vector field.

    Args:
        variables: names of the coordinates, such as "x y z".
        unknown: parameter -> {coordinate: what it multiplies there}: formulas of the coordinates and of t, the time, or
            functions of points [n, dimension] -> [n].
        known: what else is in the drift: {coordinate: term}, or one function of points -> [n, dimension].
        diffusion: D where it is known, in length^2 / time, so that noise sqrt(2 D) dW acts on each coordinate: a
            number, one for each coordinate, a matrix G G^T / 2, or a function of points -> [n, d, d].
        unknown_diffusion: "isotropic" (unknown D), "diagonal", "symmetric", or {name: matrix or function that it
            multiplies}; comes on top of `diffusion`.
        growth: rates of birth less death, {name: what it multiplies}.
        known_growth: the part of that rate that is known.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> lorenz = parametric(
        ...     "x y z",
        ...     {"sigma": {"x": "y - x"}, "rho": {"y": "x"}, "beta": {"z": "-z"}},
        ...     known={"y": "-x*z - y", "z": "x*y"},
        ...     diffusion=10.0,
        ... )
        >>> lorenz.names
        ('sigma', 'rho', 'beta')
    """
    axes = variable_names(variables)
    entries = []
    for name, rows in unknown.items():
        _check_rows(rows, axes, f"the unknown {name}")
        entries += [(name, row, term) for row, term in rows.items()]
    names = tuple(unknown)
    placement = torch.zeros(len(names), len(axes), len(entries), dtype=torch.float64)
    for place, (name, row, _) in enumerate(entries):
        placement[names.index(name), axes.index(row), place] = 1.0
    function = _functions([term for _, _, term in entries], axes)
    features = Library(axes, tuple(_text(term) for _, _, term in entries), function) if entries else None
    composed = {name: {f"{row}'": _text(term) for row, term in rows.items()} for name, rows in unknown.items()}
    options = (known, diffusion, unknown_diffusion, growth, known_growth)
    return _assemble(axes, features, placement, names, {}, composed, options)


def from_library(
    library: Library | Mapping[str, Library],
    *,
    known: Mapping[str, Term] | Callable[[Tensor], Tensor] | None = None,
    diffusion: Diffusion | None = None,
    unknown_diffusion: str | Mapping[str, Diffusion] | None = None,
    growth: Mapping[str, Term] | None = None,
    known_growth: Term | None = None,
) -> Model:
    """A model whose right sides are made of the terms of a library, each with an unknown coefficient.

    Args:
        library: for every row, or {coordinate: its own library}; rows without one have known terms only.
        known, diffusion, unknown_diffusion, growth, known_growth: as in `parametric`.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> from eqflow.fokker_planck import polynomial
        >>> from_library(polynomial("x y", 1), diffusion=0.1).names
        ("1 in x'", "x in x'", "y in x'", "1 in y'", "x in y'", "y in y'")
    """
    rows = dict.fromkeys(library.variables, library) if isinstance(library, Library) else dict(library)
    if not rows:
        raise ValueError("expected a library, or one for at least one coordinate, got none")
    axes = next(iter(rows.values())).variables
    _check_rows(rows, axes, "the libraries")
    if any(part.variables != axes for part in rows.values()):
        raise ValueError(f"expected libraries of the same variables, got {[part.variables for part in rows.values()]}")
    parts = list({id(part): part for part in rows.values()}.values())
    first = {id(part): sum(map(len, parts[:i])) for i, part in enumerate(parts)}
    terms = [(row, first[id(part)] + i, name) for row, part in rows.items() for i, name in enumerate(part.names)]
    placement = torch.zeros(len(terms), len(axes), sum(map(len, parts)), dtype=torch.float64)
    for k, (row, place, _) in enumerate(terms):
        placement[k, axes.index(row), place] = 1.0
    text = tuple(name for part in parts for name in part.names)
    features = Library(axes, text, lambda points, time: torch.cat([part(points, time) for part in parts], 1))
    inline = {f"{name} in {row}'": (f"{row}'", name) for row, _, name in terms}
    options = (known, diffusion, unknown_diffusion, growth, known_growth)
    return _assemble(axes, features, placement, tuple(inline), inline, {}, options)
