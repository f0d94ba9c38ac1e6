"""Options in panels, as every command declares them."""

from __future__ import annotations

from typing import Any

import typer

from eqflow.cli._words import real, whole


def option(*names: str, help: str, panel: str, **more: Any) -> Any:
    """An option in a panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def whole_option(*names: str, **more: Any) -> Any:
    """An option that takes a whole number."""
    return option(*names, parser=whole, metavar="N", **more)


def real_option(*names: str, **more: Any) -> Any:
    """An option that takes a real number."""
    return option(*names, parser=real, metavar="X", **more)
