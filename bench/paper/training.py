"""Many models of many families, each kept on disk when it is done, with the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from bench.paper.clouds import Cloud
from bench.paper.families import Family
from bench.paper.files import Checkpoint, digest
from bench.paper.study import Study
from eqflow.dynamics import FlowSettings, LearnedFlow, fit_flow
from eqflow.ops.mlp import MLP

BLOCK, GPU_BLOCK = 10, 128  # models trained in one call
_EVERY = 100  # steps between two looks at the clock


@dataclass(frozen=True, eq=False)
class Job:
    """So many models of a family on a cloud."""

    family: Family
    cloud: Cloud
    models: int


class _Training:
    """The models of a job that are on disk and those that are not."""

    def __init__(self, job: Job, study: Study):
        self.job, self.study = job, study
        self.settings: FlowSettings = study.settings(job.family.settings)
        self.signs = job.cloud.flip.signs if job.family.parity else None
        self.parity = job.family.parity or "even"
        signs = None if self.signs is None else self.signs.tolist()
        self.about = {"settings": asdict(self.settings), "signs": signs, "parity": self.parity, "seed": 0}
        self.made = {**self.about, "device": study.device, "points": len(job.cloud.points), "alpha": job.cloud.alpha}
        self.key = digest(*job.cloud.pool, self.about)
        self.name = f"flow-{job.cloud.name}"
        self.kept = [self._load(model) for model in range(job.models)]

    def _path(self, model: int):
        return self.study.cache.path(f"{self.name}-{model:03d}", self.key)

    def _unfinished(self, block: range) -> str:
        return f"{self.name}-{block.start:03d}-{block.stop:03d}"

    def _load(self, model: int) -> Tensor | None:
        found = self.study.cache.load(self._path(model))
        return None if found is None else found["parameters"]

    def blocks(self) -> list[range]:
        """Runs of models that are missing, none longer than a block."""
        most = BLOCK if self.study.device == "cpu" else GPU_BLOCK
        missing = [model for model, kept in enumerate(self.kept) if kept is None]
        found: list[range] = []
        for model in missing:
            if found and found[-1].stop == model and len(found[-1]) < most:
                found[-1] = range(found[-1].start, model + 1)
            else:
                found.append(range(model, model + 1))
        return found

    @property
    def work(self) -> float:
        """Floating-point operations for one model and one step: layers, each with its tangents, forward and back."""
        network = MLP(self.job.cloud.points.shape[1], self.settings.hidden, self.settings.frequencies)
        exact = self.settings.objective in ("exact", "expected")
        tangents = network.dimension if exact else self.settings.probes
        return 6.0 * network.size * (1 + tangents) * self.settings.rows

    def train(self, block: range, meter: Meter) -> None:
        """Train the models of a block and keep each."""
        checkpoint = Checkpoint(self.study.cache, self._unfinished(block), self.key)
        state, done = checkpoint.load(), 0
        if state is not None:
            done = state["losses"].shape[1]
            meter.skip(self.work * len(block) * done)

        def progress(step: int, losses: Tensor) -> None:
            nonlocal done
            meter.advance(self.work * len(block) * (step - done), f"{self.job.family.title}, {self.job.cloud.name}: "
                          f"models {block.start}-{block.stop - 1} of {self.job.models}, step {step}")  # fmt: skip
            done = step

        flow = fit_flow(
            *(part.to(self.study.device) for part in self.job.cloud.pool),
            self.settings,
            models=len(block),
            first_model=block.start,
            signs=self.signs,
            parity=self.parity,
            every=min(_EVERY, self.settings.steps),
            progress=progress,
            save=checkpoint.save,
            state=state,
        ).to("cpu")
        for model, parameters in zip(block, flow.parameters, strict=True):
            self.study.cache.save(self._path(model), {"parameters": parameters}, self.made)
            self.kept[model] = parameters
        checkpoint.done()

    def attempt(self, block: range, meter: Meter) -> None:
        """Train a block; where a loss diverges, each model alone, and leave out the ones that do."""
        try:
            self.train(block, meter)
        except FloatingPointError as error:
            Checkpoint(self.study.cache, self._unfinished(block), self.key).done()
            print(f"\n{self.job.family.title}, {self.job.cloud.name}: {error}", file=sys.stderr, flush=True)
            for model in block if len(block) > 1 else ():
                self.attempt(range(model, model + 1), meter)

    def result(self) -> LearnedFlow:
        """The models whose training converged."""
        kept = [parameters for parameters in self.kept if parameters is not None]
        if not kept:
            raise FloatingPointError(f"no model of {self.job.family.title} on {self.job.cloud.name} has a finite loss")
        network = MLP(self.job.cloud.points.shape[1], self.settings.hidden, self.settings.frequencies)
        return LearnedFlow(network, torch.stack(kept))


class Meter:
    """How much of the training is done and how long the rest takes, on standard error."""

    def __init__(self, work: float):
        self.left, self.done, self.begin = work, 0.0, time.monotonic()
        self.shown = self.begin - 1e9
        self.live = sys.stderr.isatty()

    def skip(self, work: float) -> None:
        """Work that an earlier run has done."""
        self.left -= work

    def advance(self, work: float, words: str) -> None:
        """Say where we are, but not too often."""
        self.left, self.done = self.left - work, self.done + work
        now = time.monotonic()
        if now - self.shown < (0.5 if self.live else 30):
            return
        self.shown = now
        left = max(self.left, 0.0) / self.done * (now - self.begin)
        line = f"{words}; {clock(left)} of training left"
        print(f"\r\033[K{line}" if self.live else line, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.live and self.done:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """A duration in the largest fitting unit."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def train(jobs: Sequence[Job], study: Study) -> list[LearnedFlow]:
    """The models of all jobs, from the disk or trained, in the order of the jobs; those that diverge are left out."""
    trainings = [_Training(job, study) for job in jobs]
    todo = [(training, block) for training in trainings for block in training.blocks()]
    meter = Meter(sum(training.work * training.settings.steps * len(block) for training, block in todo))
    try:
        for training, block in todo:
            training.attempt(block, meter)
    finally:
        meter.close()
    return [training.result() for training in trainings]
