"""The rate of fused multiply-adds of one core, measured: the limit of the CPU kernels.

    bound = F / n    cell updates per second

F: fused multiply-adds per second, counted per vector lane, of twelve independent chains in registers. n: operations of
one cell update that need a multiply-add pipe (additions run elsewhere): 5 fused and 1 multiply with the 5-point stencil
at dt = 1; 4 and 2 at other dt; 7 and 1 with the 9-point stencil.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

PIPE_OPERATIONS = {("5-point", True): 6, ("5-point", False): 6, ("9-point", True): 8, ("9-point", False): 8}
_CHAINS = 12  # eight hide the latency of two pipes, and with the constants they fit 16 registers
_VECTORS = {  # (instruction set, number): vector, load of one number, fused multiply-add, flags
    ("avx512", "float"): ("__m512", "_mm512_set1_ps", "_mm512_fmadd_ps", 16, ["-mavx512f"]),
    ("avx512", "double"): ("__m512d", "_mm512_set1_pd", "_mm512_fmadd_pd", 8, ["-mavx512f"]),
    ("avx2", "float"): ("__m256", "_mm256_set1_ps", "_mm256_fmadd_ps", 8, ["-mavx2", "-mfma"]),
    ("avx2", "double"): ("__m256d", "_mm256_set1_pd", "_mm256_fmadd_pd", 4, ["-mavx2", "-mfma"]),
}
_SOURCE = """
#include <immintrin.h>
{number} chains(long rounds) {{
  {vector} x[{count}];
  const {vector} a = {set}(({number})0.999), b = {set}(({number})0.001);
  for (int i = 0; i < {count}; ++i) x[i] = {set}(({number})i);
  for (long n = 0; n < rounds; ++n) {{
#pragma GCC unroll {count}
    for (int i = 0; i < {count}; ++i) x[i] = {fused}(x[i], a, b);
  }}
  {vector} sum = x[0];
  for (int i = 1; i < {count}; ++i) sum = {fused}(sum, a, x[i]);
  return sum[0];
}}
"""


def multiply_adds(isa: str, number: str = "float") -> tuple[Callable[[int], object], int] | None:
    """A function that runs n rounds of chains, and its lane operations a round; None without a compiler or vectors."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or (isa, number) not in _VECTORS:
        return None
    vector, load, fused, lanes, flags = _VECTORS[isa, number]
    source = _SOURCE.format(number=number, vector=vector, set=load, fused=fused, count=_CHAINS)
    with tempfile.TemporaryDirectory() as folder:
        text, library = Path(folder, "chains.c"), Path(folder, "chains.so")
        text.write_text(source)
        command = [compiler, "-O2", "-shared", "-fPIC", *flags, "-o", str(library), str(text)]
        if subprocess.run(command, capture_output=True).returncode:
            return None
        chains = ctypes.CDLL(str(library)).chains
    chains.argtypes, chains.restype = [ctypes.c_long], {"float": ctypes.c_float, "double": ctypes.c_double}[number]
    return chains, _CHAINS * lanes
