"""`pytest bench/bench_normal.py`: standard normals per second beside the peers, one thread."""

import pytest

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark is not installed: pip install 'eqflow[bench]'")

from bench import cpu, peers_normal

pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("name", ["eqflow", "torch.randn", "NumPy", "JAX"])
def test_normals_per_second(benchmark, name):
    run = {"eqflow": cpu.normals_entry(), **peers_normal.normals(cpu.NORMALS)}.get(name)
    if run is None:
        pytest.skip(f"{name} is not installed")
    benchmark.pedantic(run, rounds=20, warmup_rounds=2)
    benchmark.extra_info["M normals/s"] = cpu.NORMALS / benchmark.stats.stats.min / 1e6
