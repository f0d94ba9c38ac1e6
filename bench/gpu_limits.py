"""The limits of a GPU, measured: a CUDA program of its own, compiled with nvcc.

Issue slots are the limit of the Gray-Scott kernel: a multiprocessor starts as many warp instructions a clock as it
starts fused multiply-adds, so  slots per cell update = multiply-adds per second / cell updates per second.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = r"""
#include <cstdio>
#include <cuda_runtime.h>
#define CHECK(call) do { cudaError_t e = (call); if (e) { printf("%s\n", cudaGetErrorString(e)); return 1; } } while (0)
constexpr int chains = 8, rounds = 4096, threads = 256;

__global__ void multiply_add(float *out, float a, float b) {
  float x[chains];
  for (int i = 0; i < chains; ++i) x[i] = threadIdx.x + i;
#pragma unroll 8
  for (int n = 0; n < rounds; ++n)
#pragma unroll
    for (int i = 0; i < chains; ++i) x[i] = __fmaf_rn(x[i], a, b);
  float sum = 0;
  for (int i = 0; i < chains; ++i) sum += x[i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
__global__ void shuffle(float *out, float a, float b) {
  float x[chains];
  for (int i = 0; i < chains; ++i) x[i] = threadIdx.x * a + i;
  const int from = (threadIdx.x + 1) & 31;
#pragma unroll 8
  for (int n = 0; n < rounds; ++n)
#pragma unroll
    for (int i = 0; i < chains; ++i) x[i] = __shfl_sync(~0u, x[i], from);
  float sum = b;
  for (int i = 0; i < chains; ++i) sum += x[i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
__global__ void shared_load(float *out, float a, float b) {
  __shared__ float4 words[threads + chains];
  for (int i = threadIdx.x; i < threads + chains; i += threads) words[i] = make_float4(a, b, a, b);
  __syncthreads();
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 4
  for (int n = 0; n < rounds; ++n) {
#pragma unroll
    for (int i = 0; i < chains; ++i) {
      const volatile float *at = reinterpret_cast<const volatile float *>(words + threadIdx.x + i);
      float x, y, z, w;
      asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x), "=f"(y), "=f"(z), "=f"(w)
                   : "r"(static_cast<unsigned>(__cvta_generic_to_shared(const_cast<const float *>(at)))));
      if (n == rounds - 1) { sum.x += x; sum.y += y; sum.z += z; sum.w += w; }
    }
  }
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum.x + sum.y + sum.z + sum.w;
}
template <class Kernel> int rate(const char *name, Kernel kernel, double each) {
  cudaDeviceProp p;
  CHECK(cudaGetDeviceProperties(&p, 0));
  const int blocks = p.multiProcessorCount * 8 * 4;
  float *out;
  CHECK(cudaMalloc(&out, sizeof(float) * blocks * threads));
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  float best = 1e30f;
  for (int turn = 0; turn < 12; ++turn) {
    CHECK(cudaEventRecord(begin));
    kernel<<<blocks, threads>>>(out, 0.999f, 0.001f);
    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(end));
    CHECK(cudaEventSynchronize(end));
    float milliseconds;
    CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    if (turn > 1 && milliseconds < best) best = milliseconds;
  }
  CHECK(cudaFree(out));
  const double count = each * blocks * threads * rounds * chains;
  printf("{\"limit\": \"%s\", \"per_second\": %.6e}\n", name, count / (best * 1e-3));
  return 0;
}
int main() {
  return rate("float32 multiply-adds", multiply_add, 1) || rate("words shuffled", shuffle, 1) ||
         rate("words read from shared memory", shared_load, 4);
}
"""


def compile_program(folder: Path, capability: str) -> Path:
    """The program, compiled; a RuntimeError says what nvcc objects to."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        raise RuntimeError("nvcc is not on PATH: the issue rates are not measured")
    text, program = folder / "limits.cu", folder / "limits"
    text.write_text(SOURCE)
    architecture = f"-arch=sm_{capability.replace('.', '')}"
    done = subprocess.run([compiler, "-O3", architecture, "-o", program, text], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nvcc failed: {done.stderr[-500:]}")
    return program


def issue_rates(capability: str) -> list[dict]:
    """Rates per second over the whole device: multiply-adds, shuffled words, words from shared memory."""
    with tempfile.TemporaryDirectory() as folder:
        program = compile_program(Path(folder), capability)
        done = subprocess.run([program], capture_output=True, text=True, timeout=30)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        raise RuntimeError(f"the program for the limits failed: {done.stdout[-300:]}")
    return rows
