"""The machine code of the Gray-Scott and normal kernels: registers, spills, instructions."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import machine_code

KERNELS = Path(__file__).parent.parent.parent / "kernels"
ARCHITECTURES = (80, 90, 100)
CELLS_OF_A_THREAD = 16 * 4  # rows and columns, see rows_of and columns in kernels/gray_scott.cu

pytestmark = [
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH"),
    pytest.mark.skipif(machine_code.disassembler() is None, reason="cuobjdump and nvdisasm are not on PATH"),
]


@pytest.fixture(scope="module")
def cubins(tmp_path_factory):
    """{(operator, architecture): cubin}"""
    folder = tmp_path_factory.mktemp("cubins")
    cases = [(name, architecture) for name in ("normal", "gray_scott") for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(2) as pool:
        files = pool.map(lambda case: machine_code.compile_cuda(KERNELS / f"{case[0]}.cu", case[1], folder), cases)
        return dict(zip(cases, files, strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_normal_kernels_use_no_local_memory(cubins, architecture):
    rows = machine_code.resources(cubins["normal", architecture])
    assert len(rows) >= 2 and all(row["STACK"] == 0 and row["REG"] <= 64 for row in rows.values()), rows


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_step_loops_do_not_spill(cubins, architecture):
    """Nothing is ever stored; the 9-point loops may read back a few constants that do not fit beside the state."""
    found = machine_code.kernels(cubins["gray_scott", architecture])
    assert len(found) == 8
    for kernel in found:
        loop = kernel.hot_loop()
        assert loop.count("FFMA") >= 128, kernel.name
        nine_point = "ELb1ELb" in kernel.name[kernel.name.index("kernelILb") :]
        assert loop.count("STL") == 0 and loop.count("LDL") <= (5 if nine_point else 0), kernel.name


def test_the_persistent_loop_takes_few_instructions(cubins):
    kernel = next(k for k in machine_code.kernels(cubins["gray_scott", 90]) if "kernelILb0ELb0ELb0E" in k.name)
    loop = kernel.hot_loop()
    print(f"{len(loop) / CELLS_OF_A_THREAD:.2f} instructions a cell update")
    assert loop.count("FFMA") == 5 * CELLS_OF_A_THREAD
    assert len(loop) <= 14 * CELLS_OF_A_THREAD
