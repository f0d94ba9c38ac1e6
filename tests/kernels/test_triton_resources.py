"""Every Triton kernel compiles for GPUs that are not there, without spills and within its registers."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
# Four warps; in brackets what triton 3.6.0 takes on sm_90: aligned / odd sizes.
REGISTERS = {
    "normal": 56,  # 32 / 30, short rows 40
    "gray_scott, 5-point": 64,  # 40 / 48
    "gray_scott, 9-point": 88,  # 64 / 66
    "langevin, 1x1": 144,  # 34 / 125
    "langevin, 3x3": 128,  # 40, on gfx942 118
    "langevin, 5x5": 80,  # 40, on gfx942 60
    "divergence": 88,  # 32 to 68
}


def cuobjdump() -> Path | None:
    """The disassembler that Triton bundles; looked up without importing triton, which would fix its mode."""
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return path if path.exists() else None


pytestmark = pytest.mark.skipif(cuobjdump() is None, reason="needs triton with its bundled cuobjdump")


@pytest.fixture(scope="module")
def needs(tmp_path_factory) -> dict[str, dict[str, int]]:
    environment = dict(os.environ, TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton")))
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, str(Path(__file__).with_name("compile_triton.py")), *TARGETS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_case_compiles_for_every_target(needs):
    for target in TARGETS:
        for kernel in REGISTERS:
            assert any(name.startswith(f"{target}: {kernel}") for name in needs)


def test_no_kernel_spills(needs):
    spilling = {name: row["spills"] for name, row in needs.items() if row["spills"]}
    assert not spilling


def test_registers_stay_within_their_ceilings(needs):
    greedy = {
        name: row["registers"]
        for name, row in needs.items()
        for kernel, ceiling in REGISTERS.items()
        if name.partition(": ")[2].startswith(kernel) and row["registers"] > ceiling
    }
    assert not greedy


def test_shared_memory_fits_every_target(needs):
    assert max(row["shared"] for row in needs.values()) <= 64 * 1024  # gfx942 has the least


def test_ptxas_may_not_fuse_what_the_source_keeps_apart(needs):
    assert not {name: row["fusible"] for name, row in needs.items() if row.get("fusible")}


def test_aligned_sizes_need_no_shared_memory(needs):
    aligned = {name: row for name, row in needs.items() if "odd" not in name and "short" not in name}
    assert not {name: row["shared"] for name, row in aligned.items() if row["shared"]}
