// Standard normals by counter: see csrc/philox.h for the arithmetic and eqflow/ops/normal.py for the contract.
#include "kernels.h"
#include "philox.h"

namespace eqflow::EQFLOW_ISA {
namespace {

constexpr int block = 256; // counters at a time: 4 KiB of output, and the compiler vectorises over them

// Four normals a counter for `count` consecutive groups of one sample.
void fill_groups(const NormalParams &p, std::uint32_t sample, std::int64_t first, int count, float *__restrict output) {
  for (int i = 0; i < count; ++i) {
    const Normals n = site_normals(static_cast<std::uint32_t>(first) + static_cast<std::uint32_t>(i), sample, p.step,
                                   p.stream, p.seed);
    output[4 * i] = n.x;
    output[4 * i + 1] = n.y;
    output[4 * i + 2] = n.z;
    output[4 * i + 3] = n.w;
  }
}

// One group of `count` consecutive samples.
void fill_samples(const NormalParams &p, std::uint32_t first, std::uint32_t group, int count,
                  float *__restrict output) {
  for (int i = 0; i < count; ++i) {
    const Normals n = site_normals(group, first + static_cast<std::uint32_t>(i), p.step, p.stream, p.seed);
    output[4 * i] = n.x;
    output[4 * i + 1] = n.y;
    output[4 * i + 2] = n.z;
    output[4 * i + 3] = n.w;
  }
}

// Sites 4 first .. of one sample; the last group may be cut short.
void long_row(const NormalParams &p, std::int64_t row, std::int64_t first, std::int64_t groups, float *output) {
  const auto sample = static_cast<std::uint32_t>(p.first_sample + static_cast<std::uint64_t>(row));
  const int count = static_cast<int>(groups - first < block ? groups - first : block);
  float *to = output + row * p.sites + 4 * first;
  const std::int64_t left = p.sites - 4 * first;
  if (left >= 4 * count) return fill_groups(p, sample, first, count, to);
  float last[4];
  fill_groups(p, sample, first, count - 1, to);
  fill_groups(p, sample, first + count - 1, 1, last);
  __builtin_memcpy(to + 4 * (count - 1), last, sizeof(float) * static_cast<std::size_t>(left - 4 * (count - 1)));
}

// All sites of `count` samples of few sites each: vectorised over the samples.
void short_rows(const NormalParams &p, std::int64_t row, int count, std::int64_t groups, float *output) {
  float buffer[4 * block];
  for (std::int64_t group = 0; group < groups; ++group) {
    fill_samples(p, static_cast<std::uint32_t>(p.first_sample + static_cast<std::uint64_t>(row)),
                 static_cast<std::uint32_t>(group), count, buffer);
    const int lanes = static_cast<int>(p.sites - 4 * group < 4 ? p.sites - 4 * group : 4);
    for (int i = 0; i < count; ++i)
      for (int lane = 0; lane < lanes; ++lane) output[(row + i) * p.sites + 4 * group + lane] = buffer[4 * i + lane];
  }
}

} // namespace

bool normal_cpu(const NormalParams &p, float *output, int threads) {
  const std::int64_t groups = (p.sites + 3) / 4;
  if (groups >= 32) {
    const std::int64_t blocks = (groups + block - 1) / block;
#pragma omp parallel for num_threads(threads) if (threads > 1 && p.batch * groups > 16 * block)
    for (std::int64_t item = 0; item < p.batch * blocks; ++item)
      long_row(p, item / blocks, item % blocks * block, groups, output);
  } else {
    const std::int64_t blocks = (p.batch + block - 1) / block;
#pragma omp parallel for num_threads(threads) if (threads > 1 && p.batch * groups > 16 * block)
    for (std::int64_t item = 0; item < blocks; ++item) {
      const std::int64_t row = item * block;
      short_rows(p, row, static_cast<int>(p.batch - row < block ? p.batch - row : block), groups, output);
    }
  }
  return true;
}

} // namespace eqflow::EQFLOW_ISA
