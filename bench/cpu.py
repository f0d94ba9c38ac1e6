"""Everything about the CPU kernels beside their peers: `python -m bench.cpu --out FILE.json`, about five minutes.

Prints one Markdown table and writes the figures as JSON. Contestants take turns in the same run, each is judged by its
best turn, and the ratio is that of the best turns. One thread is timed by its processor time, two by the wall. Nobody
is timed before its result equals the float64 reference.
"Fraction of the bound": see bench/fma.py; the rate of multiply-adds is measured in the same turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from bench import machine, timing

timing.one_thread()  # before any library makes its threads

import torch  # noqa: E402

from bench import fma, peers, peers_normal, workload  # noqa: E402
from bench.cpu_report import table  # noqa: E402
from eqflow import _C, ops  # noqa: E402

SIZES = ((100, 100), (96, 160), (128, 128), (256, 256), (512, 512), (1024, 1024))
NORMALS = 2**20
_TURN = 0.03  # seconds: the fixed cost of a call (the row "one step") is a small part, and some turns are undisturbed
_SLOW = ("torch eager", "NumPy")


def gray_scott_entry(state: torch.Tensor, stencil: str = "5-point", dt: float = 1.0) -> Callable[[int], object]:
    """Our own contestant, checked."""
    arguments = workload.arguments(stencil, dt)

    def run(steps: int) -> torch.Tensor:
        return ops.gray_scott(state, steps, **arguments, backend="native")

    workload.require_equal("eqflow", run(workload.CHECKED_STEPS), workload.expected(state, stencil, dt))
    return run


def peer_entries(state: torch.Tensor, names: tuple[str, ...]) -> tuple[dict[str, Callable[[int], object]], list[str]]:
    """The peers that are installed, checked, and a line for each that is not."""
    entries, notes, answer = {}, [], workload.expected(state)
    for name in names:
        try:
            entries[name] = peers.GRAY_SCOTT[name](state)
        except ImportError as error:
            notes.append(f"{name}: skipped, {error}")
            continue
        result = peers.as_tensor(entries[name](workload.CHECKED_STEPS))
        workload.require_equal(name, result, answer, workload.PEER_TOLERANCE)
    return entries, notes


def _race(
    entries: dict[str, Callable[[int], object]], state: torch.Tensor, seconds: float, number: str = "float"
) -> dict[str, timing.Speed]:
    """Updates per second of all, and multiply-adds per second."""
    cells = state.shape[0] * state.shape[2] * state.shape[3]
    runs = {}
    for name, run in entries.items():
        steps = timing.turn_size(run, _TURN, 16 if name in _SLOW else 500)  # copies in and out are little
        runs[name] = (lambda run=run, steps=steps: run(steps)), cells * steps
    chains = fma.multiply_adds(_C.cpu_isa(), number)
    if chains:
        run, lanes = chains
        rounds = timing.turn_size(run, _TURN / 8, 1000)
        runs["multiply-adds"] = (lambda: run(rounds)), lanes * rounds
    return timing.compete(runs, seconds)


def _row(case: str, unit: float, speeds: dict[str, timing.Speed], operations: int | None = None, **more) -> dict:
    speeds, ours = dict(speeds), next(iter(speeds.values()))
    pipe = speeds.pop("multiply-adds", None)
    bound = pipe.best / operations if pipe and operations else None
    return {
        "case": case,
        "speeds": {name: {**speed._asdict(), "best": speed.best / unit, "middle": speed.middle / unit}
                   for name, speed in speeds.items()},
        "ratios": {name: ours.best / speed.best for name, speed in list(speeds.items())[1:]},
        "bound": bound and bound / unit,
        "fraction_of_bound": bound and ours.best / bound,
        **more,
    }  # fmt: skip


def sizes(seconds: float) -> list[dict]:
    """Ours against numba on every size, and against every peer at 128 x 128; one thread."""
    rows = []
    for height, width in SIZES:
        state = workload.developed(max(1, 2**16 // (height * width)), height, width)
        everyone = (height, width) == (128, 128)
        others, notes = peer_entries(state, tuple(peers.GRAY_SCOTT) if everyone else ("numba",))
        speeds = _race({"eqflow": gray_scott_entry(state), **others}, state, seconds * (3 if everyone else 1))
        rows.append(_row(f"{height} x {width}", 1e9, speeds, 6, notes=notes, batch=len(state)))
    return rows


def variants(seconds: float) -> list[dict]:
    """128 x 128 with other stencils, steps, numbers and instruction sets; one thread."""
    rows, best = [], _C.cpu_isa()
    float32, float64 = torch.float32, torch.float64
    cases = [("9-point", "9-point", 1.0, float32, best), ("dt = 0.5", "5-point", 0.5, float32, best)]
    cases += [("float64", "5-point", 1.0, float64, best)]
    cases += [(isa, "5-point", 1.0, float32, isa) for isa in reversed(_C.cpu_isas()) if isa != best]
    for case, stencil, dt, dtype, isa in cases:
        state = workload.developed(4, 128, 128, dtype)
        _C.set_cpu_isa(isa)
        try:
            entry = {"eqflow": gray_scott_entry(state, stencil, dt)}
            speeds = _race(entry, state, seconds / 2, "double" if dtype == float64 else "float")
        finally:
            _C.set_cpu_isa(best)
        rows.append(_row(f"128 x 128, {case}", 1e9, speeds, fma.PIPE_OPERATIONS[stencil, dt == 1]))
    return rows


def one_step(seconds: float) -> list[dict]:
    """Calls a second with one step of one small sample: what a call costs whatever it computes."""
    run = gray_scott_entry(workload.developed(1, 8, 8))
    return [_row("one step of 8 x 8, calls", 1.0, timing.compete({"eqflow": (lambda: run(1), 1)}, seconds / 4))]


def normals_entry() -> Callable[[], object]:
    """Our own maker of `NORMALS` numbers, checked."""
    error = float((ops.normal(16, 4099, seed=1) - ops.normal(16, 4099, seed=1, backend="reference")).abs().max())
    assert error < 1e-6, f"eqflow's normals differ from the reference by {error:.2g}"
    return lambda: ops.normal(64, NORMALS // 64, seed=1)


def normals(seconds: float) -> list[dict]:
    """Ours against every peer, one thread; the arrays fit the cache."""
    runs = {"eqflow": normals_entry(), **peers_normal.normals(NORMALS)}
    return [_row("normals", 1e6, timing.compete({name: (run, NORMALS) for name, run in runs.items()}, seconds))]


def two_threads(seconds: float) -> list[dict]:
    """Two threads against one, taking turns; "eqflow" is two threads."""
    rows = []
    for case, batch, size in (
        ("batch 8, 128 x 128", 8, 128),
        ("batch 64, 128 x 128", 64, 128),
        ("1024 x 1024", 1, 1024),
    ):
        state = workload.developed(batch, size, size)
        run = gray_scott_entry(state)
        steps = timing.turn_size(run, _TURN, 500)

        def threads(count: int, run=run, steps=steps) -> None:
            torch.set_num_threads(count)
            run(steps)

        work = batch * size * size * steps
        runs = {"eqflow": (lambda t=threads: t(2), work), "one thread": (lambda t=threads: t(1), work)}
        rows.append(_row(f"2 threads, {case}", 1e9, timing.compete(runs, seconds, time.perf_counter)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON to write; the table goes beside it as .md")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each row (default 8)")
    options = parser.parse_args()
    facts, begin = machine.describe(), time.monotonic()
    rows = [row for part in (sizes, variants, one_step, normals) for row in part(options.seconds)]
    timing.free_threads(1)
    rows += two_threads(options.seconds)
    took = round(time.monotonic() - begin)
    text = (
        f"{machine.sentence(facts)}. One thread unless said; best of turns; load {facts['load'][0]}.\n\n{table(rows)}\n"
    )
    print(text)
    for note in [note for row in rows for note in row.get("notes", [])]:
        print(note)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"machine": facts, "seconds": took, "rows": rows}, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
