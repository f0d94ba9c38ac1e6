// The score of a noised cloud of points: see eqflow/ops/kernel_score.py for the contract.
//
// One lane is one query, and the warps of a block share out the points: each tile of points is loaded into shared
// memory once, and each warp meets its part of it. Every thread subtracts a base from its exponents, a whole number
// near the largest one so far. Sums are float32 within a tile and float64 beyond; at the end the warps join theirs.
// Blocks along y take some columns each, and measure the distances anew.
#include "cuda.cuh"
#include "kernels.h"
#include "philox.h"

namespace eqflow {
namespace {

constexpr int warp = 32;
constexpr int warps = 8;            // of a block, which serves 32 queries
constexpr int share = 32;           // points of a tile for each warp
constexpr int tile = warps * share; // points
constexpr int most_columns = 8;     // of a block
constexpr float highest = 64;       // an exponent this far above its base calls for a new one
constexpr unsigned most_blocks_y = 65535;

// What a thread has gathered over the points so far.
template <int columns> struct Sums {
  float base = 0, limit = -INFINITY; // limit: -infinity until there is a base
  double weight = 0, column[columns] = {};
};

template <int columns> struct TileSums {
  float weight = 0, column[columns] = {};
};

template <int columns>
__device__ __forceinline__ void rebase(Sums<columns> &sums, TileSums<columns> &part, float largest) {
  const float base = rintf(largest);
  const float scale = sums.limit == highest ? exp2f(sums.base - base) : 0.0f; // before there is a base, sums are zero
  part.weight *= scale;
  sums.weight *= static_cast<double>(scale);
  EQFLOW_UNROLL
  for (int k = 0; k < columns; ++k) {
    part.column[k] *= scale;
    sums.column[k] *= static_cast<double>(scale);
  }
  sums.base = base;
  sums.limit = highest;
}

// The sums of all warps for one query, joined by its lane of the first warp.
template <int columns> __device__ Sums<columns> join(const Sums<columns> *of_warps) {
  Sums<columns> all;
  for (int w = 0; w < warps; ++w) {
    const Sums<columns> &one = of_warps[w * warp];
    if (one.limit == highest && (all.limit != highest || one.base > all.base)) {
      all.base = one.base;
      all.limit = highest;
    }
  }
  for (int w = 0; w < warps; ++w) {
    const Sums<columns> &one = of_warps[w * warp];
    if (one.limit != highest) continue;
    const double scale = exp2(static_cast<double>(one.base) - static_cast<double>(all.base));
    all.weight += scale * one.weight;
    for (int k = 0; k < columns; ++k) all.column[k] += scale * one.column[k];
  }
  return all;
}

// dimension: 0 for one that is known at run time only.
template <int dimension, int columns>
__global__ void __launch_bounds__(warp *warps, 2)
    kernel_score_kernel(KernelScoreParams p, const float *__restrict__ places, const float *__restrict__ table,
                        const float *__restrict__ log_weights, const std::int64_t *__restrict__ excluded,
                        float *__restrict__ score, float *__restrict__ log_sum, float *__restrict__ smoothed) {
  constexpr int stored = dimension ? dimension : 1;
  __shared__ float tile_points[tile][stored];
  __shared__ float tile_columns[tile][columns];
  __shared__ float tile_weights[tile];
  EQFLOW_DYN_SHARED(Sums<columns>, of_warps);

  const int lane = static_cast<int>(threadIdx.x), w = static_cast<int>(threadIdx.y), thread = w * warp + lane;
  const std::int64_t query = static_cast<std::int64_t>(blockIdx.x) * warp + lane;
  const bool inside = query < p.queries;
  const float *place = places + (inside ? query : 0) * p.dimension;
  const std::int64_t own = inside && excluded ? excluded[query] : -1;
  float y[stored];
  EQFLOW_UNROLL
  for (int k = 0; k < dimension; ++k) y[k] = place[k];

  for (std::int64_t first_column = static_cast<std::int64_t>(blockIdx.y) * columns; first_column < p.columns;
       first_column += static_cast<std::int64_t>(gridDim.y) * columns) {
    Sums<columns> sums;
    for (std::int64_t first = 0; first < p.points; first += tile) {
      const int count = static_cast<int>(p.points - first < tile ? p.points - first : tile);
      __syncthreads(); // the tile before has been read
      for (int i = thread; i < count; i += warp * warps) {
        const float *row = table + (first + i) * p.columns;
        EQFLOW_UNROLL
        for (int k = 0; k < dimension; ++k) tile_points[i][k] = row[k];
        EQFLOW_UNROLL
        for (int k = 0; k < columns; ++k) tile_columns[i][k] = first_column + k < p.columns ? row[first_column + k] : 0;
        tile_weights[i] = log_weights ? log_weights[first + i] : 0;
      }
      __syncthreads();

      TileSums<columns> part;
      const int last = (w + 1) * share < count ? (w + 1) * share : count;
      for (int j = w * share; j < last; ++j) {
        float exponent = tile_weights[j];
        if constexpr (dimension > 0) {
          EQFLOW_UNROLL
          for (int k = 0; k < dimension; ++k) {
            const float away = y[k] - tile_points[j][k];
            exponent = fmaf(-away, away, exponent);
          }
        } else {
          const float *point = table + (first + j) * p.columns;
          for (std::int64_t k = 0; k < p.dimension; ++k) {
            const float away = place[k] - point[k];
            exponent = fmaf(-away, away, exponent);
          }
        }
        if (first + j == own) exponent = -INFINITY;
        if (exponent - sums.base > sums.limit) rebase(sums, part, exponent);
        const float weight = exp2f(exponent - sums.base);
        part.weight += weight;
        EQFLOW_UNROLL
        for (int k = 0; k < columns; ++k) part.column[k] = fmaf(weight, tile_columns[j][k], part.column[k]);
      }
      sums.weight += static_cast<double>(part.weight);
      EQFLOW_UNROLL
      for (int k = 0; k < columns; ++k) sums.column[k] += static_cast<double>(part.column[k]);
    }

    __syncthreads(); // the sums of the columns before have been read
    of_warps[thread] = sums;
    __syncthreads();
    if (w == 0 && inside) {
      const Sums<columns> all = join(of_warps + lane);
      for (int k = 0; k < columns && first_column + k < p.columns; ++k) {
        const std::int64_t column = first_column + k;
        const double mean = all.column[k] / all.weight;
        if (column < p.dimension)
          score[query * p.dimension + column] =
              static_cast<float>(p.scale * (mean - static_cast<double>(place[column])));
        else
          smoothed[query * (p.columns - p.dimension) + column - p.dimension] = static_cast<float>(mean);
      }
      if (first_column == 0)
        log_sum[query] = static_cast<float>(log(all.weight) + 0.693147180559945309 * static_cast<double>(all.base));
    }
  }
}

template <int dimension, int columns, class... Arguments>
void launch(const KernelScoreParams &p, CudaQueue queue, Arguments... arguments) {
  const std::int64_t chunks = (p.columns + columns - 1) / columns;
  const dim3 blocks(blocks_along_x((p.queries + warp - 1) / warp),
                    static_cast<unsigned>(chunks < most_blocks_y ? chunks : most_blocks_y));
  EQFLOW_LAUNCH((kernel_score_kernel<dimension, columns>), blocks, dim3(warp, warps),
                sizeof(Sums<columns>) * warp * warps, stream_of(queue), p, arguments...);
}

} // namespace

void kernel_score_cuda(const KernelScoreParams &p, const float *places, const float *table, const float *log_weights,
                       const std::int64_t *excluded, float *score, float *log_sum, float *smoothed, CudaQueue queue) {
  if (p.queries == 0) return;
  const DeviceGuard guard(queue.device);
  switch (p.dimension) {
#define EQFLOW_CASE(dimension, columns)                                                                                \
  case dimension:                                                                                                      \
    return launch<dimension, columns>(p, queue, places, table, log_weights, excluded, score, log_sum, smoothed)
    EQFLOW_CASE(1, 2);
    EQFLOW_CASE(2, 2);
    EQFLOW_CASE(3, 3);
    EQFLOW_CASE(4, 4);
    EQFLOW_CASE(5, 5);
    EQFLOW_CASE(6, 6);
    EQFLOW_CASE(7, 7);
    EQFLOW_CASE(8, 8);
    EQFLOW_CASE(9, 5);
    EQFLOW_CASE(10, 5);
    EQFLOW_CASE(11, 6);
    EQFLOW_CASE(12, 6);
    EQFLOW_CASE(13, 7);
    EQFLOW_CASE(14, 7);
    EQFLOW_CASE(15, 8);
    EQFLOW_CASE(16, 8);
#undef EQFLOW_CASE
  default:
    return launch<0, most_columns>(p, queue, places, table, log_weights, excluded, score, log_sum, smoothed);
  }
}

} // namespace eqflow
