"""`pytest bench/bench_gray_scott.py`: cell updates per second of Gray-Scott beside its peers, one thread.

`python -m bench.cpu` measures the ratios better, since there the contestants take turns.
"""

import pytest

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed: pip install 'eqflow[bench]'")

from bench import cpu, peers, workload

pytestmark = pytest.mark.filterwarnings("default")
CASES = [("eqflow", *size) for size in cpu.SIZES] + [("numba", *size) for size in cpu.SIZES]
CASES += [(name, 128, 128) for name in peers.GRAY_SCOTT if name != "numba"]


@pytest.mark.parametrize("name, height, width", CASES)
def test_updates_per_second(benchmark, name, height, width):
    state = workload.developed(max(1, 2**16 // (height * width)), height, width)
    if name == "eqflow":
        run = cpu.gray_scott_entry(state)
    else:
        entries, notes = cpu.peer_entries(state, (name,))
        if notes:
            pytest.skip(notes[0])
        run = entries[name]
    steps = 800  # for all: short calls would time the copies in and out
    benchmark.group = f"{height} x {width}"
    benchmark.pedantic(run, (steps,), rounds=10, warmup_rounds=1)
    updates = len(state) * height * width * steps
    benchmark.extra_info["Gcell-updates/s"] = updates / benchmark.stats.stats.min / 1e9
