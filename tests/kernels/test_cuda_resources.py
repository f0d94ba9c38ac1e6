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
def test_gray_scott_kernels_use_no_local_memory(cubins, architecture):
    rows = machine_code.resources(cubins["gray_scott", architecture])
    print({name[name.index("kernelILb") :][6:21]: row["REG"] for name, row in rows.items()})
    assert len(rows) == 8 and all(row["STACK"] == 0 for row in rows.values()), rows
    for kernel in machine_code.kernels(cubins["gray_scott", architecture]):
        assert not {"LDL", "STL"} & {opcode for _, opcode, _ in kernel.code}, kernel.name
        assert kernel.hot_loop().count("FFMA") >= 128, kernel.name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_fast_path_takes_few_instructions(cubins, architecture):
    """Tiles of whole strips, 5-point, dt = 1: what 128 x 128 cells run."""
    found = machine_code.kernels(cubins["gray_scott", architecture])
    loop = next(kernel for kernel in found if "kernelILb0ELb0ELb0E" in kernel.name).hot_loop()
    print(f"sm_{architecture}: {len(loop) / CELLS_OF_A_THREAD:.2f} instructions a cell update")
    assert loop.count("FFMA") == 5 * CELLS_OF_A_THREAD
    assert loop.count("BAR") == 1
    assert len(loop) <= 14 * CELLS_OF_A_THREAD
