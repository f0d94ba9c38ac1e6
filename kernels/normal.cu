// Standard normals by counter: see csrc/philox.h for the arithmetic and eqflow/ops/normal.py for the contract.
#include "kernels.h"
#include "philox.h"
#include "rows.cuh"

namespace eqflow {
namespace {

using std::int64_t;

constexpr int block = 256, warp = 32;

// A thread draws four sites of one sample, and four more `turn` numbers further: two chains, each of which fills the
// other's waits. Samples of whole, aligned words are written as such.
__global__ void __launch_bounds__(block)
    word_kernel(NormalParams p, PhiloxKeys keys, int64_t turn, float *__restrict__ output) {
  const Share share;
  const auto step = static_cast<std::uint32_t>(share.group_step);
  for (int64_t row = share.row; row < p.batch; row += share.row_step) {
    const auto sample = static_cast<std::uint32_t>(p.first_sample + static_cast<std::uint64_t>(row));
    const float *const end = output + (row + 1) * p.sites;
    auto group = static_cast<std::uint32_t>(share.group);
    for (float *to = output + row * p.sites + 4 * share.group; to < end; to += 2 * turn, group += 2 * step) {
      const Normals here = site_normals(site_counter(group, sample, p.step, p.stream), keys);
      const Normals further = site_normals(site_counter(group + step, sample, p.step, p.stream), keys);
      *reinterpret_cast<float4 *>(to) = make_float4(here.x, here.y, here.z, here.w);
      if (to + turn < end)
        *reinterpret_cast<float4 *>(to + turn) = make_float4(further.x, further.y, further.z, further.w);
    }
  }
}

// Any other size: the numbers of a warp follow each other in memory, so it puts them in order in shared memory and
// writes neighbours at a time.
struct Stage {
  int lane;
  float *numbers; // 128 of them, of this warp

  __device__ __forceinline__ void write(float *to, int count) const {
    EQFLOW_UNROLL
    for (int i = lane; i < lane + 4 * warp; i += warp)
      if (i < count) to[i] = numbers[i];
  }
  __device__ __forceinline__ void write_words(float *to, int count) const {
    if (4 * lane < count) reinterpret_cast<float4 *>(to)[lane] = reinterpret_cast<const float4 *>(numbers)[lane];
  }
};

__device__ __forceinline__ Stage stage_of(float4 *staged) {
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x), lane = thread % warp;
  return {lane, reinterpret_cast<float *>(staged + (thread - lane))};
}

// Rows of at least a warp's 128 sites.
__global__ void __launch_bounds__(block)
    long_row_kernel(NormalParams p, PhiloxKeys keys, int64_t turn, float *__restrict__ output) {
  __shared__ float4 staged[block];
  const Stage stage = stage_of(staged);
  const Share share;
  for (int64_t row = share.row; row < p.batch; row += share.row_step) {
    const auto sample = static_cast<std::uint32_t>(p.first_sample + static_cast<std::uint64_t>(row));
    auto group = static_cast<std::uint32_t>(share.group);
    const int64_t first = 4 * (share.group - stage.lane);
    float *to = output + row * p.sites + first;
    for (int64_t left = p.sites - first; left > 0; left -= turn) {
      const Normals n = site_normals(site_counter(group, sample, p.step, p.stream), keys);
      reinterpret_cast<float4 *>(stage.numbers)[stage.lane] = make_float4(n.x, n.y, n.z, n.w);
      __syncwarp();
      stage.write(to, left < 4 * warp ? static_cast<int>(left) : 4 * warp);
      __syncwarp();
      to += turn;
      group += static_cast<std::uint32_t>(share.group_step);
    }
  }
}

// Rows whose groups are fewer than the lanes of a warp.
__global__ void __launch_bounds__(block)
    short_row_kernel(NormalParams p, PhiloxKeys keys, int64_t turn, float *__restrict__ output) {
  __shared__ float4 staged[block];
  const Stage stage = stage_of(staged);
  const Share share;
  const int sites = static_cast<int>(p.sites), site = 4 * static_cast<int>(threadIdx.x);
  const int row_of_warp = stage.lane / static_cast<int>(blockDim.x), rows = warp / static_cast<int>(blockDim.x);
  const int64_t first_row = share.row - row_of_warp;
  float *const own = stage.numbers + row_of_warp * sites + site;
  float *to = output + first_row * sites;
  const bool whole_words = rows * sites % 4 == 0 && reinterpret_cast<std::uintptr_t>(output) % 16 == 0;
  auto sample = static_cast<std::uint32_t>(p.first_sample + static_cast<std::uint64_t>(share.row));
  for (int64_t left = (p.batch - first_row) * sites; left > 0; left -= turn) {
    const Normals n = site_normals(site_counter(threadIdx.x, sample, p.step, p.stream), keys);
    if (site < sites) own[0] = n.x;
    if (site + 1 < sites) own[1] = n.y;
    if (site + 2 < sites) own[2] = n.z;
    if (site + 3 < sites) own[3] = n.w;
    __syncwarp();
    if (whole_words && left >= rows * sites)
      stage.write_words(to, rows * sites);
    else
      stage.write(to, left < rows * sites ? static_cast<int>(left) : rows * sites);
    __syncwarp();
    to += turn;
    sample += static_cast<std::uint32_t>(share.row_step);
  }
}

} // namespace

void normal_cuda(const NormalParams &p, float *output, CudaQueue queue) {
  if (p.batch == 0 || p.sites == 0) return;
  const DeviceGuard guard(queue.device);
  const int64_t groups = divide_up(p.sites, 4);
  const dim3 threads = threads_of_shares(block, groups), blocks = blocks_of_shares(threads, p.batch, groups);
  const bool whole_words = p.sites % 4 == 0 && is_aligned(output);
  const int64_t turn =
      threads.x < warp && !whole_words ? p.sites * threads.y * blocks.y : int64_t{4} * threads.x * blocks.x;
  const auto kernel = whole_words ? word_kernel : threads.x < warp ? short_row_kernel : long_row_kernel;
  EQFLOW_LAUNCH(kernel, blocks, threads, 0, stream_of(queue), p, philox_keys(p.seed), turn, output);
}

} // namespace eqflow
