"""The machine code of the Gray-Scott, normal and network kernels: registers, spills, instructions."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import machine_code

KERNELS = Path(__file__).parent.parent.parent / "kernels"
ARCHITECTURES = (80, 90, 100)
LANES = 128  # that a multiprocessor issues to in a cycle
CELLS_OF_A_THREAD = 16 * 4  # rows and columns, see rows_of and columns in csrc/gray_scott_plan.cuh

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
    assert len(rows) == 3 and all(row["STACK"] == 0 and row["REG"] <= 48 for row in rows.values()), rows


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_eight_normals_take_few_instructions(cubins, architecture):
    """Ten rounds of Philox take 40 for four. A conversion of an integer would be slow, and so would a call."""
    found = machine_code.kernels(cubins["normal", architecture])
    loop = next(kernel for kernel in found if "word_kernel" in kernel.name).hot_loop()
    print(f"sm_{architecture}: {len(loop) / 8:.1f} instructions a number")
    assert loop.count("STG") == 2 and loop.count("MUFU") == 4
    assert not {"I2F", "I2FP", "F2I", "CALL"} & set(loop[:-2])  # sm_80 leaves the loop by a call that never returns
    assert len(loop) <= 8 * 44


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


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """{architecture: cubin} of kernels/divergence.cu"""
    folder = tmp_path_factory.mktemp("networks")
    return {a: machine_code.compile_cuda(KERNELS / "divergence.cu", a, folder) for a in ARCHITECTURES}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_network_kernels_use_no_local_memory(networks, architecture):
    rows = machine_code.resources(networks[architecture])
    print({name[-90:]: row["REG"] for name, row in rows.items()})
    assert len(rows) == 3 * 2 + 4  # three operators in two places; packing, two sums of the parts, Adam
    assert all(row["STACK"] == 0 for row in rows.values()), rows
    assert all(row["REG"] <= 128 for name, row in rows.items() if "PlaceE0" in name), rows  # of 512 threads
    for kernel in machine_code.kernels(networks[architecture]):
        assert not {"LDL", "STL"} & {opcode for _, opcode, _ in kernel.code}, kernel.name


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_trainer_spends_its_time_on_products(networks, architecture):
    """W h, that of the first layer, W^T z and the gradient: 128 products an iteration, and little beside them."""
    found = machine_code.kernels(networks[architecture])
    (trainer,) = (kernel for kernel in found if "flow_pass" in kernel.name and "PlaceE0" in kernel.name)
    loops = [loop for loop in trainer.inner_loops() if loop.count("FFMA") >= 64 and "MUFU" not in loop]
    assert sorted(loop.count("FFMA") for loop in loops) == [128] * 4
    shares = [len(loop) / loop.count("FFMA") for loop in loops]
    assert max(shares) <= 1.25
    # The released net, 27 -> 64 -> 64 -> 3 with 2048 rows: 8192 columns, and three products of the layer 64 -> 64.
    issued = 3 * 8192 * 64 * 64 * sum(shares) / len(shares) / LANES
    print(f"sm_{architecture}: {sum(shares) / len(shares):.2f} instructions a product in the loops of the trainer")
    print(f"so 12,800 steps of a model take at least {12_800 * issued / 1.75e9:.1f} s of a multiprocessor at 1.75 GHz")
