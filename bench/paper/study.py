"""What the command line of a script says, and how large everything is for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench.machine import ROOT
from bench.paper.files import Cache
from eqflow.dynamics import FlowSettings

RESULTS = ROOT / "bench" / "results" / "paper"
_QUICK_POINTS, _QUICK_STEPS = 800, 6


@dataclass(frozen=True)
class Study:
    """Sizes and places.

    Args:
        models: of the families that a script is about.
        variants: models of every other family.
        released: models of the paper's published protocol.
        quick: seconds instead of minutes by the same code; its numbers mean nothing.
        device: where models are trained.
        out: folder of the results.
        cache: of clouds and models.
    """

    models: int
    variants: int
    released: int
    quick: bool
    device: str
    out: Path
    cache: Cache

    def count(self, number: int) -> int:
        """So many points, or fewer for a quick look."""
        return min(number, _QUICK_POINTS) if self.quick else number

    def steps(self, number: int) -> int:
        """So many steps of an integration or a training, or fewer."""
        return min(number, _QUICK_STEPS) if self.quick else number

    def settings(self, settings: FlowSettings) -> FlowSettings:
        """The settings, or those of a small network that trains for a moment."""
        if not self.quick:
            return settings
        return replace(settings, hidden=(16,) * len(settings.hidden), steps=_QUICK_STEPS, rows=64)


def run(
    work: Callable[[Study], int],
    doc: str,
    argv: list[str] | None,
    *,
    models: int = 10,
    variants: int | None = None,
    released: int | None = None,
) -> None:
    """Read the command line, do the work, leave with its exit status.

    Args:
        work: of the script; gives 0, or 1 where a part failed.
        doc: the script's docstring.
        argv: the words of the command line; None: those of the process.
        models: how many by default.
        variants: how many of every other family by default; None: the script has none.
        released: how many of the published protocol by default; None: the script has none.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=_whole, default=None, metavar="M", help=f"default {models}")
    if variants is not None:
        words = f"models of every other family (default {variants})"
        parser.add_argument("--variants", type=_whole, default=None, metavar="M", help=words)
    if released is not None:
        words = f"models of the published protocol, the longest part (default {released})"
        parser.add_argument("--released", type=_whole, default=None, metavar="M", help=words)
    parser.add_argument("--quick", action="store_true", help="seconds: tiny sizes, numbers without meaning")
    parser.add_argument("--threads", type=_whole, metavar="N", help=f"of torch (default {torch.get_num_threads()})")
    parser.add_argument("--device", default="cpu", help="where models are trained: cpu (default) or cuda")
    parser.add_argument("--out", type=Path, metavar="DIR", default=RESULTS, help="default bench/results/paper")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="of trained models (default DIR of --out/.cache)")
    given = parser.parse_args(argv)
    if given.threads:
        torch.set_num_threads(given.threads)
    small = (2, 2, 2) if given.quick else (models, variants or 0, released or 0)
    study = Study(
        models=given.models or small[0],
        variants=getattr(given, "variants", None) or small[1],
        released=getattr(given, "released", None) or small[2],
        quick=given.quick,
        device=given.device,
        out=given.out,
        cache=Cache(given.cache or given.out / ".cache"),
    )
    try:
        status = work(study)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with the models that are done", file=sys.stderr)
        status = 130
    if status:
        sys.exit(status)


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, got {text}")
    return number
