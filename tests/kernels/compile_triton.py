"""Compile every Triton kernel for GPUs that are not there, and print what each needs as one line of JSON.

Run it in its own process, without TRITON_INTERPRET:  python compile_triton.py sm_80 sm_90 sm_100 gfx942
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from eqflow.kernels import divergence, gray_scott, langevin, normal

TOOLS = Path(triton.backends.nvidia.__file__).parent / "bin"


class Case(NamedTuple):
    """One specialisation of a kernel: its constants, and the integers that 16 divides."""

    kernel: triton.JITFunction
    constants: dict[str, object]
    aligned: tuple[str, ...] = ()


CASES = {
    "normal": Case(normal.normal_kernel, {"ROWS": 1, "GROUPS": 256}, ("sites",)),
    "normal, odd sites": Case(normal.normal_kernel, {"ROWS": 1, "GROUPS": 256}),
    "normal, short rows": Case(normal.normal_kernel, {"ROWS": 128, "GROUPS": 2}),
} | {
    f"gray_scott, {9 if nine_point else 5}-point{', scaled' * scaled}{', odd grid' * (not aligned)}": Case(
        gray_scott.gray_scott_step, {"NINE_POINT": nine_point, "SCALED": scaled, "BLOCK": 512}, aligned
    )
    for nine_point, scaled, aligned in itertools.product((False, True), (False, True), ((), ("height", "width")))
    if aligned or not scaled
}
for size, channels, whole in ((1, 2, True), (1, 2, False), (1, 16, True), (3, 4, True), (5, 2, True)):
    CASES[f"langevin, {size}x{size}, {channels} channels{', odd grid' * (not whole)}"] = Case(
        langevin.langevin_kernel,
        {"step_in_memory": None, "STREAM": 2, "CHANNELS": channels, "SIZE": size, "NOISY": True}
        | {"WHOLE": whole, "ROWS": 1, "COLUMNS": 1024},
        ("height", "width") if whole else (),
    )
for random in (False, True):
    absent = {} if random else {"drawn": None}
    between = {"SPARED": True, "BLOCK": divergence._BLOCK} | absent | ({"strain": None} if random else {})
    seeds = {"of_strain" if name == "strain" else name: value for name, value in between.items()}
    along = ", along probes" * random
    CASES |= {
        f"divergence, encode{along}": Case(divergence.encode_kernel, {"BLOCK": divergence._BLOCK} | absent),
        f"divergence, read{along}": Case(divergence.read_kernel, between),
        f"divergence, seed{along}": Case(divergence.seed_kernel, seeds),
        f"divergence, draw {'gaussian' if random else 'rademacher'}": Case(
            divergence.draw_kernel, {"GAUSSIAN": random, "BLOCK": divergence._BLOCK}
        ),
    }
CASES |= {
    "divergence, activate": Case(divergence.activate_kernel, {"BLOCK": divergence._BLOCK}),
    "divergence, deactivate": Case(divergence.deactivate_kernel, {"BLOCK": divergence._BLOCK}),
}


def source(case: Case) -> ASTSource:
    """The kernel as a launch specialises it; parameters without a type are pointers to float32."""
    names = case.kernel.arg_names
    types = {
        p.name: "constexpr" if p.name in case.constants else p.annotation_type or "*fp32" for p in case.kernel.params
    }
    aligned = [name for name in names if types[name].startswith("*") or name in case.aligned]
    return ASTSource(
        fn=case.kernel,
        signature=types,
        constexprs={(names.index(name),): value for name, value in case.constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )


def cuobjdump(option: str, path: str) -> str:
    environment = dict(os.environ, PATH=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")  # it calls nvdisasm
    command = [str(TOOLS / "cuobjdump"), option, path]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def nvidia_needs(asm: dict) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(asm["cubin"])
        cubin.flush()
        usage = cuobjdump("--dump-resource-usage", cubin.name)
        opcodes = re.findall(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+ )?([A-Z0-9_]+)", cuobjdump("-sass", cubin.name))
    found = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "registers": found["REG"],
        "spills": found["STACK"] + found["LOCAL"] + sum(opcode in ("LDL", "STL") for opcode in opcodes),
        "instructions": len(opcodes),
        # ptxas fuses a product and a sum only where neither names its rounding.
        "fusible": len(re.findall(r"\b(?:mul|add|sub)\.f32", asm["ptx"])),
    }


def amd_needs(asm: dict) -> dict[str, int]:
    text = asm["amdgcn"]

    def total(*names: str) -> int:
        return sum(int(value) for name in names for value in re.findall(rf"\.{name}:\s+(\d+)", text))

    return {
        "registers": total("vgpr_count"),
        "spills": total("vgpr_spill_count", "sgpr_spill_count", "private_segment_fixed_size"),
        "instructions": len(re.findall(r"^\s+[vs]_\w+", text, re.MULTILINE)),
    }


def main(targets: list[str]) -> None:
    kernels = {
        function
        for module in (divergence, gray_scott, langevin, normal)
        for function in vars(module).values()
        if isinstance(function, triton.JITFunction) and "tl.store" in function.src
    }
    missing = [kernel.__name__ for kernel in kernels - {case.kernel for case in CASES.values()}]
    assert not missing, f"add a case to CASES for {missing}"
    rows = {}
    for target, (name, case) in itertools.product(targets, CASES.items()):
        nvidia = target.startswith("sm_")
        gpu = GPUTarget("cuda", int(target[3:]), 32) if nvidia else GPUTarget("hip", target, 64)
        compiled = triton.compile(source(case), target=gpu, options={"num_warps": 4, "enable_fp_fusion": False})
        needs = nvidia_needs(compiled.asm) if nvidia else amd_needs(compiled.asm)
        rows[f"{target}: {name}"] = needs | {"shared": compiled.metadata.shared}
    print(json.dumps(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
