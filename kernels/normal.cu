// Standard normals by counter: see csrc/philox.h for the arithmetic and eqflow/ops/normal.py for the contract.
#include "cuda.cuh"
#include "kernels.h"
#include "philox.h"

namespace eqflow {
namespace {

constexpr unsigned block = 256;
constexpr std::int64_t most_blocks_x = INT_MAX, most_blocks_y = 65535;

// Threads along x take the groups of a sample and threads along y the samples, so that no index needs a division.
template <bool whole_words>
__global__ void __launch_bounds__(block)
    normal_kernel(NormalParams p, std::int64_t groups, float *__restrict__ output) {
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const std::int64_t first_group = static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
  const std::int64_t row_step = static_cast<std::int64_t>(gridDim.x) * blockDim.y;
  const std::int64_t group_step = static_cast<std::int64_t>(gridDim.y) * blockDim.x;
  for (std::int64_t row = first_row; row < p.batch; row += row_step) {
    const auto sample = static_cast<std::uint32_t>(p.first_sample + static_cast<std::uint64_t>(row));
    for (std::int64_t group = first_group; group < groups; group += group_step) {
      const Normals n = site_normals(static_cast<std::uint32_t>(group), sample, p.step, p.stream, p.seed);
      float *to = output + row * p.sites + 4 * group;
      if constexpr (whole_words) {
        *reinterpret_cast<float4 *>(to) = make_float4(n.x, n.y, n.z, n.w);
      } else {
        const std::int64_t left = p.sites - 4 * group; // the last group of a sample may be cut short
        to[0] = n.x;
        if (left > 1) to[1] = n.y;
        if (left > 2) to[2] = n.z;
        if (left > 3) to[3] = n.w;
      }
    }
  }
}

} // namespace

void normal_cuda(const NormalParams &p, float *output, CudaQueue queue) {
  if (p.batch == 0 || p.sites == 0) return;
  const DeviceGuard guard(queue.device);
  const std::int64_t groups = (p.sites + 3) / 4;
  dim3 threads(1);
  while (threads.x < block && threads.x < groups) threads.x *= 2;
  threads.y = block / threads.x;
  const std::int64_t rows = (p.batch + threads.y - 1) / threads.y, columns = (groups + threads.x - 1) / threads.x;
  const dim3 blocks(static_cast<unsigned>(rows < most_blocks_x ? rows : most_blocks_x),
                    static_cast<unsigned>(columns < most_blocks_y ? columns : most_blocks_y));
  if (p.sites % 4 == 0 && is_aligned(output))
    EQFLOW_LAUNCH(normal_kernel<true>, blocks, threads, 0, stream_of(queue), p, groups, output);
  else
    EQFLOW_LAUNCH(normal_kernel<false>, blocks, threads, 0, stream_of(queue), p, groups, output);
}

} // namespace eqflow
