// The score of a noised cloud of points: see eqflow/ops/kernel_score.py for the contract.
//
// One lane is one query. A group of queries meets the points in blocks: first the exponents of a block, then their
// powers of two and the weighted sums of its columns. No exponent leaves the nearest cache. Every query subtracts a
// base from its exponents, a whole number near the largest one so far; a new base scales the sums by a power of two, so
// it changes no bit of them. Sums are float32 within a block of points and float64 beyond.
#include "kernels.h"
#include "simd.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace eqflow::EQFLOW_ISA {
namespace {

using std::int64_t;

constexpr int block = 64;      // points whose sums are kept in float32
constexpr int most_static = 8; // columns whose sums are kept in registers
constexpr float highest = 64;  // an exponent this far above its base calls for a new one
constexpr float infinity = std::numeric_limits<float>::infinity();

#if defined(__AVX512F__)
using Lanes = Float16;
#elif defined(__AVX2__)
using Lanes = Float8;
#else
using Lanes = One<float>;
#endif

using V = Lanes::V;
constexpr int vectors = Lanes::lanes == 1 ? 4 : 2; // of a group
constexpr int queries = vectors * Lanes::lanes;    // of a group

struct Group {
  int64_t first, count;    // its queries
  float *place;            // [dimension][queries]: where they are
  double *sums;            // [columns + 1][queries]: the weighted sums of the columns, then that of the weights
  const int64_t *excluded; // the own point of each query, or null
  alignas(64) float exponents[block * queries];
  alignas(64) float base[queries], limit[queries], largest[queries]; // limit: -infinity until there is a base
};

// exponent = log2 weight - |place - point|^2 for `count` points of one block.
template <int static_dimension, bool weighted>
void measure(Group &g, const KernelScoreParams &p, const float *point, const float *log_weight, int count) {
  const int64_t dimension = static_dimension ? static_dimension : p.dimension;
  V largest[vectors];
  for (V &v : largest) v = Lanes::set(-infinity);
  for (int j = 0; j < count; ++j, point += p.columns) {
    V exponent[vectors];
    for (V &v : exponent) v = Lanes::set(weighted ? log_weight[j] : -0.0f);
#pragma GCC unroll 16
    for (int64_t k = 0; k < dimension; ++k) {
      const V x = Lanes::set(point[k]);
      for (int q = 0; q < vectors; ++q) {
        const V away = Lanes::load(g.place + k * queries + q * Lanes::lanes) - x;
        exponent[q] = Lanes::fused_negative(away, away, exponent[q]);
      }
    }
    for (int q = 0; q < vectors; ++q) {
      Lanes::store(g.exponents + j * queries + q * Lanes::lanes, exponent[q]);
      largest[q] = Lanes::larger(exponent[q], largest[q]);
    }
  }
  for (int q = 0; q < vectors; ++q) Lanes::store(g.largest + q * Lanes::lanes, largest[q]);
}

// Takes the own points out of a block that begins at point `first`.
void exclude(Group &g, int64_t first, int count) {
  for (int64_t i = 0; i < g.count; ++i) {
    const int64_t own = g.excluded[g.first + i] - first;
    if (own < 0 || own >= count) continue;
    g.exponents[own * queries + i] = -infinity;
    g.largest[i] = -infinity;
    for (int j = 0; j < count; ++j) g.largest[i] = std::fmax(g.largest[i], g.exponents[j * queries + i]);
  }
}

// A new base for the queries whose exponents have outgrown theirs.
void rebase(Group &g, int64_t columns) {
  bool quiet = true;
  for (int i = 0; i < queries; ++i) quiet &= g.largest[i] - g.base[i] <= g.limit[i];
  if (quiet) return;
  for (int i = 0; i < queries; ++i) {
    if (!(g.largest[i] - g.base[i] > g.limit[i])) continue;
    const float base = std::nearbyint(g.largest[i]);
    const double scale = std::exp2(static_cast<double>(g.base[i]) - base);
    for (int64_t row = 0; row <= columns; ++row) // before there is a base, nothing has been summed
      if (g.limit[i] == highest) g.sums[row * queries + i] *= scale;
    g.base[i] = base;
    g.limit[i] = highest;
  }
}

EQFLOW_INLINE void add(double *sums, const V *block_sums) {
  alignas(64) float numbers[queries];
  for (int q = 0; q < vectors; ++q) Lanes::store(numbers + q * Lanes::lanes, block_sums[q]);
  for (int i = 0; i < queries; ++i) sums[i] += static_cast<double>(numbers[i]);
}

// Adds weight times column for some columns of a block; the first call turns the exponents into weights.
template <int columns, bool first>
void gather(Group &g, const KernelScoreParams &p, const float *column, double *sums, int count) {
  V sum[columns][vectors], total[vectors], base[vectors];
  for (int q = 0; q < vectors; ++q) {
    base[q] = Lanes::load(g.base + q * Lanes::lanes);
    total[q] = Lanes::set(0.0f);
#pragma GCC unroll 8
    for (int k = 0; k < columns; ++k) sum[k][q] = Lanes::set(0.0f);
  }
  for (int j = 0; j < count; ++j, column += p.columns)
    for (int q = 0; q < vectors; ++q) {
      float *at = g.exponents + j * queries + q * Lanes::lanes;
      V weight = Lanes::load(at);
      if (first) {
        weight = power_of_two<Lanes>(weight - base[q]);
        total[q] = total[q] + weight;
        if (p.columns > columns) Lanes::store(at, weight);
      }
#pragma GCC unroll 8
      for (int k = 0; k < columns; ++k) sum[k][q] = Lanes::fused(weight, Lanes::set(column[k]), sum[k][q]);
    }
  for (int k = 0; k < columns; ++k) add(sums + k * queries, sum[k]);
  if (first) add(g.sums + p.columns * queries, total);
}

using Measure = void (*)(Group &, const KernelScoreParams &, const float *, const float *, int);
using Gather = void (*)(Group &, const KernelScoreParams &, const float *, double *, int);

template <bool weighted> Measure measure_of(int64_t dimension) {
  constexpr Measure all[] = {measure<0, weighted>,  measure<1, weighted>,  measure<2, weighted>,  measure<3, weighted>,
                             measure<4, weighted>,  measure<5, weighted>,  measure<6, weighted>,  measure<7, weighted>,
                             measure<8, weighted>,  measure<9, weighted>,  measure<10, weighted>, measure<11, weighted>,
                             measure<12, weighted>, measure<13, weighted>, measure<14, weighted>, measure<15, weighted>,
                             measure<16, weighted>};
  return all[dimension <= 16 ? dimension : 0];
}

template <bool first> Gather gather_of(int64_t columns) {
  constexpr Gather all[] = {gather<1, first>, gather<2, first>, gather<3, first>, gather<4, first>,
                            gather<5, first>, gather<6, first>, gather<7, first>, gather<8, first>};
  return all[(columns < most_static ? columns : most_static) - 1];
}

void meet_all_points(Group &g, const KernelScoreParams &p, const float *table, const float *log_weights) {
  const Measure measure = log_weights ? measure_of<true>(p.dimension) : measure_of<false>(p.dimension);
  for (int64_t first = 0; first < p.points; first += block) {
    const int count = static_cast<int>(p.points - first < block ? p.points - first : block);
    const float *rows = table + first * p.columns;
    measure(g, p, rows, log_weights ? log_weights + first : nullptr, count);
    if (g.excluded) exclude(g, first, count);
    rebase(g, p.columns);
    gather_of<true>(p.columns)(g, p, rows, g.sums, count);
    for (int64_t k = most_static; k < p.columns; k += most_static)
      gather_of<false>(p.columns - k)(g, p, rows + k, g.sums + k * queries, count);
  }
}

void write(const Group &g, const KernelScoreParams &p, float *score, float *log_sum, float *smoothed) {
  const double *total = g.sums + p.columns * queries;
  for (int64_t i = 0; i < g.count; ++i) {
    const int64_t query = g.first + i;
    for (int64_t k = 0; k < p.dimension; ++k)
      score[query * p.dimension + k] = static_cast<float>(
          p.scale * (g.sums[k * queries + i] / total[i] - static_cast<double>(g.place[k * queries + i])));
    for (int64_t k = p.dimension; k < p.columns; ++k)
      smoothed[query * (p.columns - p.dimension) + k - p.dimension] =
          static_cast<float>(g.sums[k * queries + i] / total[i]);
    log_sum[query] = static_cast<float>(std::log(total[i]) + 0.693147180559945309 * static_cast<double>(g.base[i]));
  }
}

} // namespace

bool kernel_score_cpu(const KernelScoreParams &p, const float *places, const float *table, const float *log_weights,
                      const int64_t *excluded, float *score, float *log_sum, float *smoothed, int threads) {
  const int64_t groups = (p.queries + queries - 1) / queries;
  const int64_t sums_bytes = (p.columns + 1) * queries * static_cast<int64_t>(sizeof(double));
  const int64_t place_bytes = p.dimension * queries * static_cast<int64_t>(sizeof(float));
  bool enough = true;
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(&& : enough) if (threads > 1 && groups > 1)
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t bytes = (sums_bytes + place_bytes + 63) / 64 * 64;
    char *memory = static_cast<char *>(std::aligned_alloc(64, static_cast<std::size_t>(bytes)));
    if (!memory) {
      enough = false;
      continue;
    }
    std::memset(memory, 0, static_cast<std::size_t>(bytes));
    const int64_t first = group * queries;
    Group g{first, p.queries - first < queries ? p.queries - first : queries, nullptr, nullptr, excluded, {}, {}, {},
            {}};
    g.sums = reinterpret_cast<double *>(memory);
    g.place = reinterpret_cast<float *>(memory + sums_bytes);
    for (float &limit : g.limit) limit = -infinity;
    for (int64_t i = 0; i < g.count; ++i)
      for (int64_t k = 0; k < p.dimension; ++k) g.place[k * queries + i] = places[(first + i) * p.dimension + k];
    meet_all_points(g, p, table, log_weights);
    write(g, p, score, log_sum, smoothed);
    std::free(memory);
  }
  return enough;
}

} // namespace eqflow::EQFLOW_ISA
