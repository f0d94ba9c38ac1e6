"""Formulas written by users, made into functions of points."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

FUNCTIONS = {
    name: getattr(torch, name) for name in ("sin", "cos", "tan", "atan", "exp", "log", "sqrt", "tanh", "sinh", "cosh")
}
_ALLOWED = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.operator,
    ast.unaryop,
    ast.Constant,
    ast.Name,
    ast.Load,
    ast.Call,
)
TIME = "t"


def _check(text: str, variables: Sequence[str]) -> None:
    """Refuse what is not arithmetic, before anything is evaluated: sympy would run any Python."""
    try:
        tree = ast.parse(text.replace("^", "**").strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"expected a formula such as '{variables[0]}**2 / 2', got {text!r}: {error.msg}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS):
            raise ValueError(f"expected one of the functions {', '.join(FUNCTIONS)} in {text!r}")
        if isinstance(node, ast.Name) and node.id not in (*variables, TIME, *FUNCTIONS):
            raise ValueError(f"expected the variables {', '.join(variables)} and {TIME} in {text!r}, got {node.id!r}")
        number = not isinstance(node, ast.Constant) or isinstance(node.value, int | float)
        if not isinstance(node, _ALLOWED) or not number:
            raise ValueError(f"expected arithmetic, functions and numbers only, got {text!r}")


def parse(texts: Sequence[str], variables: Sequence[str]) -> Callable[[Tensor, float], Tensor]:
    """One function of points and time for some formulas; what they share is computed once.

    Args:
        texts: formulas in Python's notation (`^` is a power too) of the variables, of `t`, the time, and of FUNCTIONS.
        variables: names of the coordinates.

    Returns:
        function(points [n, dimension], time) -> [n, formulas].

    Raises:
        ValueError: a formula cannot be read, or uses an unknown name.

    Example:
        >>> parse(["x*y", "1/(1 + x^2)"], ["x", "y"])(torch.tensor([[1.0, 3.0]]), 0.0)
        tensor([[3.0000, 0.5000]])
    """
    import sympy  # half a second, which only those who write formulas shall wait

    for text in texts:
        _check(text, variables)
    symbols = [sympy.Symbol(name, real=True) for name in (*variables, TIME)]
    names = {symbol.name: symbol for symbol in symbols}
    known = {name: getattr(sympy, name) for name in FUNCTIONS}
    formulas = [sympy.sympify(text.replace("^", "**"), locals={**known, **names}) for text in texts]
    for text, formula in zip(texts, formulas, strict=True):
        if formula.has(sympy.zoo, sympy.nan, sympy.oo, sympy.I):
            raise ValueError(f"expected a formula with finite values, got {text!r} = {formula}")
    function = sympy.lambdify(symbols, formulas, modules=[FUNCTIONS, {"ImmutableDenseMatrix": list}], cse=True)

    def evaluate(points: Tensor, time: float = 0.0) -> Tensor:
        columns = function(*points.unbind(1), torch.as_tensor(time, dtype=points.dtype, device=points.device))
        columns = [torch.as_tensor(column, dtype=points.dtype, device=points.device) for column in columns]
        return torch.stack([column.expand(len(points)) for column in columns], 1)

    return evaluate
