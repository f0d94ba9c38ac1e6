// How the threads of a kernel share out rows of groups: threads and blocks along x take the groups of a row, those
// along y the rows, so that no index needs a division. A thread takes several groups where there is work enough: then
// what does not depend on the group is computed once, and neighbouring blocks still touch neighbouring memory.
#pragma once
#include "cuda.cuh"

namespace eqflow {
namespace {

struct Share {
  std::int64_t row, row_step, group, group_step;

  __device__ Share()
      : row(static_cast<std::int64_t>(blockIdx.y) * blockDim.y + threadIdx.y),
        row_step(static_cast<std::int64_t>(gridDim.y) * blockDim.y),
        group(static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x),
        group_step(static_cast<std::int64_t>(gridDim.x) * blockDim.x) {}
};

constexpr std::int64_t most_blocks_x = INT_MAX, most_blocks_y = 65535;

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// The blocks for so many threads each. 8192 blocks are a few rounds of the largest GPU.
inline dim3 blocks_of_shares(dim3 threads, std::int64_t rows, std::int64_t groups) {
  constexpr std::int64_t enough_blocks = 8192, most_turns = 16;
  std::int64_t across = divide_up(groups, threads.x), down = divide_up(rows, threads.y);
  const std::int64_t turns = smaller(across * down / enough_blocks, most_turns);
  if (turns > 1) (across > 1 ? across : down) = divide_up(across > 1 ? across : down, turns);
  return {static_cast<unsigned>(smaller(across, most_blocks_x)), static_cast<unsigned>(smaller(down, most_blocks_y)),
          1};
}

// `most` threads a block, as many of them along x as there are groups for.
inline dim3 threads_of_shares(unsigned most, std::int64_t groups) {
  dim3 threads(1);
  while (threads.x < most && threads.x < groups) threads.x *= 2;
  threads.y = most / threads.x;
  return threads;
}

} // namespace
} // namespace eqflow
