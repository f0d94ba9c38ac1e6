"""What the CUDA compiler made of a kernel: registers, spills, and the instructions of its innermost hot loop."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


class Kernel(NamedTuple):
    """One compiled kernel: opcodes with their addresses, in order."""

    name: str
    code: list[tuple[int, str, int | None]]  # address, opcode, target of a branch

    def hot_loop(self) -> list[str]:
        """The opcodes between the backward branch around the most fused multiply-adds and its target."""
        bodies = [self._body(*loop) for loop in self._loops()]
        return max(bodies, key=lambda body: (body.count("FFMA"), -len(body)), default=[])

    def inner_loops(self) -> list[list[str]]:
        """The opcodes of every loop that has no other loop within it, in the order of the code."""
        loops = self._loops()
        inner = [a for a in loops if not any(a[0] <= b[0] and b[1] <= a[1] and a != b for b in loops)]
        return [self._body(*loop) for loop in sorted(inner)]

    def _loops(self) -> set[tuple[int, int]]:
        return {(to, at) for at, op, to in self.code if op == "BRA" and to is not None and to < at}

    def _body(self, begin: int, end: int) -> list[str]:
        return [op for at, op, _ in self.code if begin <= at <= end]


def disassembler() -> tuple[str, dict] | None:
    """cuobjdump and the environment in which it finds nvdisasm, or None."""
    folders = os.environ["PATH"].split(os.pathsep)
    try:
        import triton.backends.nvidia as nvidia

        folders.append(str(Path(nvidia.__file__).parent / "bin"))
    except ImportError:
        pass
    path = os.pathsep.join(folders)
    tool = shutil.which("cuobjdump", path=path)
    return (tool, {**os.environ, "PATH": path}) if tool and shutil.which("nvdisasm", path=path) else None


def _run(arguments: list[str], environment: dict | None = None) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment).stdout


def compile_cuda(source: Path, architecture: int, folder: Path) -> Path:
    """A cubin, with the flags of CMakeLists.txt."""
    target = folder / f"{source.stem}_{architecture}.cubin"
    root = source.parent.parent
    build = (root / "CMakeLists.txt").read_text()
    flags = re.findall(r"target_compile_options\(cuda PRIVATE ([^)]*)\)", build)
    flags += re.findall(rf"kernels/{source.name} PROPERTIES COMPILE_OPTIONS ([^)]*)\)", build)
    standard = ["-std=c++17", "-O3", f"-arch=sm_{architecture}", "-cubin", "-I", str(root / "csrc")]
    _run(["nvcc", *standard, *" ".join(flags).split(), str(source), "-o", str(target)])
    return target


def resources(cubin: Path) -> dict[str, dict[str, int]]:
    """Registers, stack, shared and local memory of every kernel."""
    tool, environment = disassembler()
    text = _run([tool, "--dump-resource-usage", str(cubin)], environment)
    rows = re.findall(r"Function (\S+):\s*\n\s*(.*)", text)
    return {name: {key: int(n) for key, n in re.findall(r"([A-Z]+):(\d+)", row)} for name, row in rows}


def kernels(cubin: Path) -> list[Kernel]:
    """The machine code of every kernel."""
    tool, environment = disassembler()
    found = []
    for part in re.split(r"\n\s*Function : ", _run([tool, "-sass", str(cubin)], environment))[1:]:
        name, _, text = part.partition("\n")
        lines = re.findall(
            r"/\*([0-9a-f]{4,6})\*/\s+(?:@!?U?P\w+ )?([A-Z0-9_]+)[^\n;]*?(?: `?\(?0x([0-9a-f]+))?\)?\s*;", text
        )
        code = [(int(at, 16), op, int(to, 16) if to and op == "BRA" else None) for at, op, to in lines]
        found.append(Kernel(name.strip(), code))
    return found
