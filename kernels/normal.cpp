// Standard normals by counter: see csrc/philox.h for the arithmetic and eqflow/ops/normal.py for the contract.
#include "kernels.h"
#include "philox_block.h"

namespace eqflow::EQFLOW_ISA {
namespace {

using std::int64_t;

// Groups first .. of one sample, at most a block of them; the last group of a sample may be cut short.
void long_row(const NormalParams &p, int64_t row, int64_t first, int64_t groups, float *output) {
  const auto sample = static_cast<std::uint32_t>(p.first_sample + static_cast<std::uint64_t>(row));
  CounterBlock c{static_cast<std::uint32_t>(first), sample, 1, 0, p.step, p.seed, p.stream};
  const int count = static_cast<int>(groups - first < normal_block ? groups - first : normal_block);
  float *to = output + row * p.sites + 4 * first;
  const int64_t left = p.sites - 4 * first;
  if (left >= 4 * count) return fill_normals(c, count, to);
  float last[4];
  fill_normals(c, count - 1, to);
  c.group += static_cast<std::uint32_t>(count - 1);
  fill_normals(c, 1, last);
  __builtin_memcpy(to + 4 * (count - 1), last, sizeof(float) * static_cast<std::size_t>(left - 4 * (count - 1)));
}

// All sites of `count` samples of few sites each: a block runs over the samples.
void short_rows(const NormalParams &p, int64_t row, int count, int64_t groups, float *output) {
  const auto sample = static_cast<std::uint32_t>(p.first_sample + static_cast<std::uint64_t>(row));
  float buffer[4 * normal_block];
  for (int64_t group = 0; group < groups; ++group) {
    fill_normals({static_cast<std::uint32_t>(group), sample, 0, 1, p.step, p.seed, p.stream}, count, buffer);
    const int lanes = static_cast<int>(p.sites - 4 * group < 4 ? p.sites - 4 * group : 4);
    for (int i = 0; i < count; ++i)
      for (int lane = 0; lane < lanes; ++lane) output[(row + i) * p.sites + 4 * group + lane] = buffer[4 * i + lane];
  }
}

} // namespace

bool normal_cpu(const NormalParams &p, float *output, int threads) {
  const int64_t groups = (p.sites + 3) / 4;
  const bool many = threads > 1 && p.batch * groups > 16 * normal_block;
  if (groups >= 32) {
    const int64_t blocks = (groups + normal_block - 1) / normal_block;
#pragma omp parallel for num_threads(threads) if (many)
    for (int64_t item = 0; item < p.batch * blocks; ++item)
      long_row(p, item / blocks, item % blocks * normal_block, groups, output);
  } else {
    const int64_t blocks = (p.batch + normal_block - 1) / normal_block;
#pragma omp parallel for num_threads(threads) if (many)
    for (int64_t item = 0; item < blocks; ++item) {
      const int64_t row = item * normal_block, left = p.batch - row;
      short_rows(p, row, static_cast<int>(left < normal_block ? left : normal_block), groups, output);
    }
  }
  return true;
}

} // namespace eqflow::EQFLOW_ISA
