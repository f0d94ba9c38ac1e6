// What a block of CUDA threads knows of the rows of its tile: where they come from, their random numbers, their
// Jacobians, and what a loss wants of these.
#pragma once
#include "mlp_block.cuh"

namespace eqflow {

constexpr std::uint32_t probe_stream = 3, minibatch_stream = 5; // eqflow/ops/philox.py

// Where a tile's rows and random numbers come from.
struct Source {
  const float *points, *scores; // of this model; scores may be null
  std::uint32_t pool;           // rows to draw from; 0: the rows in their order
  std::uint32_t sample;         // the model, as the random numbers count it
  std::uint64_t seed, step;
  bool gaussian;
};

template <Place place>
__device__ __forceinline__ void draw_probes(MlpBlock<place> &tile, const Source &source, std::int64_t first) {
  const MlpPlan &plan = tile.plan;
  float *const drawn = tile.arena + plan.drawn;
  const int numbers = plan.probes * plan.groups;
  for (int item = tile.thread; item < tile.rows * numbers; item += tile.plan.threads) {
    const int probe = item / plan.groups, group = item % plan.groups, dimension = plan.dimension;
    const auto counter = static_cast<std::uint32_t>(first * numbers + item);
    float z[4];
    if (source.gaussian) {
      const Normals n = site_normals(counter, source.sample, source.step, probe_stream, source.seed);
      z[0] = n.x, z[1] = n.y, z[2] = n.z, z[3] = n.w;
    } else {
      const Words words =
          philox(site_counter(counter, source.sample, source.step, probe_stream),
                 static_cast<std::uint32_t>(source.seed), static_cast<std::uint32_t>(source.seed >> 32));
      z[0] = words.x >> 31 ? -1.0f : 1.0f;
      z[1] = words.y >> 31 ? -1.0f : 1.0f;
      z[2] = words.z >> 31 ? -1.0f : 1.0f;
      z[3] = words.w >> 31 ? -1.0f : 1.0f;
    }
    EQFLOW_UNROLL
    for (int c = 0; c < 4; ++c)
      if (4 * group + c < dimension) drawn[probe * dimension + 4 * group + c] = z[c];
  }
}

// Points, scores and probes of the rows from `first` on. Rows that are not there are at the origin.
template <Place place>
__device__ __forceinline__ void fetch(MlpBlock<place> &tile, const Source &source, std::int64_t first) {
  const MlpPlan &plan = tile.plan;
  auto *const chosen = reinterpret_cast<std::uint32_t *>(tile.arena + plan.chosen);
  if (source.pool == 0) {
    for (int b = tile.thread; b < tile.rows; b += tile.plan.threads) chosen[b] = static_cast<std::uint32_t>(first + b);
  } else {
    for (int b = 4 * tile.thread; b < tile.rows; b += 4 * tile.plan.threads) {
      const Words words = philox(
          site_counter(static_cast<std::uint32_t>((first + b) / 4), source.sample, source.step, minibatch_stream),
          static_cast<std::uint32_t>(source.seed), static_cast<std::uint32_t>(source.seed >> 32));
      chosen[b] = multiply_high(words.x, source.pool);
      chosen[b + 1] = multiply_high(words.y, source.pool);
      chosen[b + 2] = multiply_high(words.z, source.pool);
      chosen[b + 3] = multiply_high(words.w, source.pool);
    }
  }
  if (tile.directions > 0 && plan.probes > 0) draw_probes(tile, source, first);
  __syncthreads();
  for (int item = tile.thread; item < tile.rows * plan.dimension; item += tile.plan.threads) {
    const int b = item / plan.dimension, c = item % plan.dimension;
    const std::int64_t at = static_cast<std::int64_t>(chosen[b]) * plan.dimension + c;
    const bool there = b < tile.count;
    tile.arena[plan.points + item] = there ? source.points[at] : 0.0f;
    if (source.scores) tile.arena[plan.scores + item] = there ? source.scores[at] : 0.0f;
  }
  __syncthreads();
}

// output, as a row sees it: v_c = [c, 0], and column 1 + k the derivative along direction k.
template <Place place> struct RowOfTile {
  const MlpBlock<place> &tile;
  int b;

  __device__ __forceinline__ float output(int c, int column) const {
    return tile.arena[tile.plan.output + c * tile.plan.stride + column * tile.rows + b];
  }
  __device__ __forceinline__ float probe(int p, int c) const {
    return tile.arena[tile.plan.drawn + (b * tile.plan.probes + p) * tile.plan.dimension + c];
  }
  __device__ __forceinline__ float trace() const {
    float sum = 0.0f;
    for (int c = 0; c < tile.plan.dimension; ++c) sum += output(c, 1 + c);
    return sum;
  }
  __device__ __forceinline__ float symmetric(int c, int j) const { // E_cj
    return 0.5f * (output(c, 1 + j) + output(j, 1 + c));
  }
  __device__ __forceinline__ float strain(bool gaussian) const {
    float sum = 0.0f;
    for (int c = 0; c < tile.plan.dimension; ++c)
      for (int j = 0; j < tile.plan.dimension; ++j)
        if (gaussian || j != c) sum = fused(symmetric(c, j), symmetric(c, j), sum);
    return sum;
  }
  __device__ __forceinline__ float estimate(int p) const { // z_p^T J z_p
    float sum = 0.0f;
    for (int c = 0; c < tile.plan.dimension; ++c) {
      float pushed = 0.0f;
      if (tile.plan.along_probes)
        pushed = output(c, 1 + p);
      else
        for (int j = 0; j < tile.plan.dimension; ++j) pushed = fused(output(c, 1 + j), probe(p, j), pushed);
      sum = fused(probe(p, c), pushed, sum);
    }
    return sum;
  }
};

// What the loss wants of each row: the derivatives with respect to v, the trace of J, the strain and each estimate.
// They become the seeds of output = (v, J z), divided by the scale. terms: the derivatives with respect to v, and these
// and those with respect to J times v and J, divided by the scale.
template <Place place>
__device__ __forceinline__ void plant_seeds(MlpBlock<place> &tile, bool gaussian, const float *inverse_scale) {
  const MlpPlan &plan = tile.plan;
  const int rows = tile.rows, width = 1 + tile.directions;
  for (int item = tile.thread; item < plan.dimension * width * rows; item += plan.threads) {
    const int b = item % rows, c = item / rows / width, k = item / rows % width - 1; // k = -1: v itself
    const RowOfTile<place> row{tile, b};
    const float *const of_estimates = tile.arena + plan.estimates + b;
    float seed = 0.0f;
    if (k < 0) {
      seed = tile.arena[plan.velocity_weights + c * rows + b];
      tile.arena[plan.terms + c * rows + b] = seed;
    } else if (plan.along_probes) {
      seed = of_estimates[k * rows] * row.probe(k, c);
    } else if (plan.probes > 0) {
#pragma unroll 4
      for (int p = 0; p < plan.probes; ++p)
        seed = fused(of_estimates[p * rows] * row.probe(p, c), row.probe(p, k), seed);
    } else {
      if (gaussian || k != c) seed = tile.arena[plan.row_numbers + rows + b] * row.symmetric(c, k);
      if (k == c) seed += tile.arena[plan.row_numbers + b];
    }
    tile.arena[plan.seeds + c * plan.stride + (1 + k) * rows + b] = seed * inverse_scale[c];
  }
  __syncthreads();
  for (int item = tile.thread; item < plan.dimension * rows; item += plan.threads) {
    const int b = item % rows, c = item / rows;
    float along = 0.0f;
    for (int k = 0; k < width; ++k)
      along =
          fused(tile.arena[plan.seeds + c * plan.stride + k * rows + b], RowOfTile<place>{tile, b}.output(c, k), along);
    tile.arena[plan.terms + plan.dimension * rows + item] = along;
  }
  __syncthreads();
}

template <Place place> __device__ __forceinline__ void estimate_all(MlpBlock<place> &tile) {
  for (int item = tile.thread; item < tile.plan.probes * tile.rows; item += tile.plan.threads)
    tile.arena[tile.plan.estimates + item] = RowOfTile<place>{tile, item % tile.rows}.estimate(item / tile.rows);
  if (tile.plan.probes > 0) __syncthreads();
}

} // namespace eqflow
