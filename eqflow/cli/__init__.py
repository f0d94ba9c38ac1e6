"""The command line: `eqflow COMMAND --help` says all. Torch is imported only once a command needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from eqflow.cli._shell import USAGE, Commands, version
from eqflow.cli.atlas import atlas
from eqflow.cli.backends import backends
from eqflow.cli.cluster import cluster
from eqflow.cli.compare import compare
from eqflow.cli.demo import demo
from eqflow.cli.denoise import denoise
from eqflow.cli.density import density
from eqflow.cli.design import design
from eqflow.cli.discover import discover
from eqflow.cli.fit import fit
from eqflow.cli.generate import generate
from eqflow.cli.infer import infer
from eqflow.cli.info import info
from eqflow.cli.presets import presets
from eqflow.cli.rollout import rollout
from eqflow.cli.scatter import scatter
from eqflow.cli.show import show
from eqflow.cli.train import train

app = typer.Typer(
    cls=Commands,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    generate, train, compare, demo, design, atlas, scatter, fit, infer, discover, density, cluster, denoise, rollout,
    info, show, presets, backends,
):  # fmt: skip
    app.command()(_command)


@app.callback(invoke_without_command=True)
def _eqflow(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Which dynamics keep a distribution? Ensembles, scores and equilibrium flows at hardware speed.

    \b
    eqflow generate wave --samples 1024 --out wave    make a dataset
    eqflow show wave                                  look at it
    eqflow info wave                                  is it whole?
    eqflow fit lorenz                                 from points to the flow that keeps them
    eqflow rollout lorenz-flow --out path             follow it
    eqflow discover wave                              from still pictures to their equation
    eqflow train wave                                 from still pictures to their score
    eqflow compare wave-score                         its dynamics beside the true ones
    eqflow demo                                       the whole way once, in minutes
    eqflow design firefly                             from a drawing to a world in which it lives
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE)


def main() -> None:
    """The console script `eqflow`."""
    app(prog_name="eqflow")
