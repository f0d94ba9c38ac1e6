"""The score of patterns as the source of a rollout: it starts at noised fields, and what is kept is the clean ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eqflow.cli import _sources, _words
from eqflow.cli._shell import Problem, in_options, usage

PRETRAINED = "pretrained"
_FIRST, _ANCHORS = 2**20, 256  # numbers of the fields that a score is anchored to: none is a start
KERNEL = "rotation:-0.7071067811865476"  # the sign in which Gray-Scott moves, and the paper's speed


def load(word: str) -> Any:
    """The `StoredScore` of a folder of `eqflow train`, or of pretrained:NAME."""
    from eqflow.cli._fit_work import complete
    from eqflow.cli._run_folder import DesignFolder, ScoreFolder
    from eqflow.score import pretrained, read_score

    kind, _, name = word.partition(":")
    try:
        if kind == PRETRAINED:
            return pretrained(name)
        folder = next((f for f in (ScoreFolder(Path(word)), DesignFolder(Path(word))) if f.options.is_file()), None)
        folder = folder or ScoreFolder(Path(word))
        if not folder.options.is_file():
            what = "is no folder" if not folder.path.is_dir() else f"has no {folder.options.name}"
            raise Problem(
                f"expected RUN to be the folder of a score, but {word} {what}: make one with `eqflow train`, or take "
                f"{PRETRAINED}:wave"
            )
        if complete(folder) is None:
            raise Problem(f"expected a finished score in {word}: the same `eqflow {folder.kind}` again goes on")
        return read_score(folder.tensors)
    except ValueError as error:
        raise Problem(in_options(error)) from None


def at(stored: Any, alpha: float | None, clip: bool, where: str) -> Any:
    """The `PatternScore` at a noise level, in the layout that is fast."""
    import torch

    from eqflow.score.pattern_shape import ALPHA

    shape = stored.denoiser.shape
    try:
        score = stored.denoiser.at(alpha or shape.alpha or ALPHA, clip=clip).to(torch.device(where))
    except ValueError as error:
        raise usage(in_options(error)) from None
    score.denoiser.to(memory_format=torch.channels_last)
    return score


def clean(stored: Any, samples: range, size: str | None, seed: int, backend: str) -> Any:
    """Fields to start from."""
    height, width = _words.size(size) if size else stored.size
    try:
        return stored.fields(samples, seed=seed, size=(height, width), backend=backend)
    except ValueError as error:
        raise usage(f"--size: {in_options(error)}") from None


def flow(stored: Any, score: Any, given: dict[str, Any], where: str, channels: int) -> Any:
    """The skew flow that the options describe."""
    import torch

    from eqflow.dynamics import SkewFlow

    own = stored.about.get("kernel") or (KERNEL if channels > 1 else None)
    turn = _sources.kernel(given["kernel"] or own, channels)
    eta = 0.1 if given["eta"] is None else given["eta"]
    fast = "bfloat16" if where.startswith("cuda") and not stored.denoiser.shape.conservative else "float32"
    half = (given["precision"] or fast) == "bfloat16"
    try:
        return SkewFlow(score, turn.to(where), eta, autocast=torch.bfloat16 if half else None, backend=given["backend"])
    except ValueError as error:
        raise usage("--kernel: " + in_options(error)) from None


def _anchored(stored: Any, score: Any, fields: Any, given: dict[str, Any], where: str) -> Any:
    """The score held to the large-scale power of the data, and to the mean that each sample starts with."""
    from dataclasses import replace

    from eqflow.dynamics import AnchoredScore

    data = clean(stored, range(_FIRST, _FIRST + _ANCHORS), given["size"], given["seed"], given["backend"])
    try:
        held = AnchoredScore.fit(score, data.to(where), sharpness=given["anchor"])
    except ValueError as error:
        raise usage(f"--anchor: {in_options(error)}") from None
    return replace(held, mean=fields.mean((2, 3)))


def source(word: str, samples: range, given: dict[str, Any], where: str) -> _sources.Source:
    """A score as the source of a rollout."""
    from eqflow.dynamics.fingerprint import describe

    stored = load(word)
    score = at(stored, given["alpha"], bool(given["clip"]), where)
    fields = clean(stored, samples, given["size"], given["seed"], given["backend"]).to(where)
    if given["anchor"] is not None:
        score = _anchored(stored, score, fields, given, where)
    start = score.noised(fields, seed=given["seed"], first_sample=samples.start)
    dynamics = flow(stored, score, given, where, fields.shape[1])
    offset, factor = stored.offset.to(where), stored.factor.to(where)

    def recorded(state: Any) -> Any:
        return offset + factor * dynamics.output(state).float()

    about = {"score": stored.name, "names": list(stored.channels), "alpha": score.alpha}
    about |= {"weights": describe(stored.denoiser.state_dict()), "size": list(fields.shape[2:])}
    given["source"] = "score"  # the same weights, whatever path and word led to them
    dt = 0.02 if stored.pictures is None else (1 - score.alpha) / 4
    return _sources.Source(stored.name, dynamics, start, about, dt, names=stored.channels, recorded=recorded)
