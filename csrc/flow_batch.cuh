// The loss of an equilibrium flow over a batch, as one block of CUDA threads sees it: see eqflow/ops/flow_loss.py.
#pragma once
#include "mlp_rows.cuh"

namespace eqflow {

enum class Pass { statistics, tangents, centring };

// What one block knows of the batch. sums: of u and u^2 after the first pass; of the derivatives with respect to v, of
// those with respect to v and J times v and J (divided by the scale), and of the loss after the second.
struct Batch {
  double sums[MlpPlan::most_sums];
  // The mean in two floats: rounded to one it would leave all rows of v with the same small error, which adds up.
  float mean[MlpShape::most_dimension], mean_rest[MlpShape::most_dimension], inverse_scale[MlpShape::most_dimension];
  float centre[MlpShape::most_dimension], slope[MlpShape::most_dimension]; // seeds of the third pass: centre + slope v
};

// sums[q] = the sum over the items of numbers(q, item), for every q below count; a warp adds up one q.
template <class Numbers> __device__ __forceinline__ void add_up(int items, int count, double *sums, Numbers numbers) {
  const auto thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / warp;
  for (int q = thread / warp; q < count; q += warps) {
    double sum = 0;
#pragma unroll 4
    for (int item = thread % warp; item < items; item += warp) sum += numbers(q, item);
    EQFLOW_UNROLL
    for (int distance = warp / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (thread % warp == 0) sums[q] = sum;
  }
  __syncthreads();
}

// The loss of every row and what it wants of the row; see plant_seeds.
template <Place place> __device__ __forceinline__ void weigh_rows(MlpBlock<place> &tile, const FlowParams &p) {
  const MlpPlan &plan = tile.plan;
  const int rows = tile.rows, probes = static_cast<int>(p.probes);
  const float share = 2.0f / static_cast<float>(p.rows);
  for (int b = tile.thread; b < rows; b += plan.threads) {
    const RowOfTile<place> row{tile, b};
    const float *const score = tile.arena + plan.scores + b * plan.dimension;
    float *const estimates = tile.arena + plan.estimates + b;
    float along = 0.0f, loss = 0.0f, of_velocity = 0.0f, of_strain = 0.0f;
    for (int c = 0; c < plan.dimension; ++c) along = fused(row.output(c, 0), score[c], along);
    if (plan.probes == 0) {
      const float residual = row.trace() + along;
      loss = residual * residual;
      of_velocity = share * residual;
      if (p.objective == Objective::expected) {
        const float weight = 2.0f / static_cast<float>(probes);
        loss = fused(weight, row.strain(p.law == Law::gaussian), loss);
        of_strain = weight * share;
      }
    } else {
      float sum = 0.0f, pairs = 0.0f;
      for (int k = 0; k < probes; ++k) {
        const float residual = estimates[k * rows] + along;
        pairs = fused(residual, sum, pairs);
        sum += residual;
      }
      const float mean = sum / static_cast<float>(probes);
      const bool product = p.objective == Objective::product;
      const float each = share / static_cast<float>(product ? probes * (probes - 1) : probes);
      loss = product ? 2.0f * pairs / static_cast<float>(probes * (probes - 1)) : mean * mean;
      of_velocity = share * mean;
#pragma unroll 4
      for (int k = 0; k < probes; ++k) {
        const float others = product ? sum - (estimates[k * rows] + along) : mean;
        estimates[k * rows] = b < tile.count ? each * others : 0.0f;
      }
    }
    const bool there = b < tile.count;
    for (int c = 0; c < plan.dimension; ++c)
      tile.arena[plan.velocity_weights + c * rows + b] = there ? of_velocity * score[c] : 0.0f;
    tile.arena[plan.row_numbers + b] = there ? of_velocity : 0.0f;
    tile.arena[plan.row_numbers + rows + b] = there ? of_strain : 0.0f;
    tile.arena[plan.row_numbers + 2 * rows + b] = there ? loss : 0.0f;
  }
  __syncthreads();
}

// One pass over some rows: leaves the sums of every tile at `sums`, and after the first pass adds to the gradient.
template <Place place>
__device__ __forceinline__ void run(MlpBlock<place> &tile, const FlowParams &p, const Source &source, Pass pass,
                                    std::int64_t begin, std::int64_t end, const Batch &batch, double *sums,
                                    Gradient gradient) {
  const MlpPlan &plan = tile.plan;
  tile.set_extent(pass == Pass::tangents, p.rows);
#pragma unroll 1
  for (std::int64_t first = begin; first < end; first += tile.rows) {
    tile.set_count(end - first);
    fetch(tile, source, first);
    tile.forward(batch.mean, batch.mean_rest, batch.inverse_scale);
    const float *const output = tile.arena + plan.output;
    const int count = 2 * plan.dimension;
    if (pass == Pass::statistics) {
      add_up(tile.count, count, sums + first / tile.rows * count, [&](int q, int b) {
        const double u = output[q % plan.dimension * plan.stride + b];
        return q < plan.dimension ? u : u * u;
      });
      continue;
    }
    if (pass == Pass::tangents) {
      estimate_all(tile);
      weigh_rows(tile, p);
      plant_seeds(tile, p.law == Law::gaussian, batch.inverse_scale);
      const float *const terms = tile.arena + plan.terms, *const losses = tile.arena + plan.row_numbers + 2 * tile.rows;
      add_up(tile.count, count + 1, sums + first / tile.rows * (count + 1),
             [&](int q, int b) { return static_cast<double>(q < count ? terms[q * tile.rows + b] : losses[b]); });
    } else {
      for (int item = tile.thread; item < plan.dimension * tile.rows; item += plan.threads) {
        const int c = item / tile.rows, at = c * plan.stride + item % tile.rows;
        tile.arena[plan.seeds + at] =
            item % tile.rows < tile.count ? fused(batch.slope[c], output[at], batch.centre[c]) : 0.0f;
      }
      __syncthreads();
    }
    tile.backward(gradient);
    gradient.before = 1;
  }
}

// What the sums of the first pass tell, or Norm::none.
__device__ __forceinline__ void normalise(const FlowParams &p, Batch &batch) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int dimension = static_cast<int>(p.network.dimension);
  const auto rows = static_cast<double>(p.rows);
  if (thread < dimension) {
    batch.mean[thread] = 0.0f;
    batch.mean_rest[thread] = 0.0f;
    batch.inverse_scale[thread] = 1.0f;
    if (p.norm != Norm::none) {
      double variance = 0;
      for (int c = 0; c < dimension; ++c) {
        const double mean = batch.sums[c] / rows, own = batch.sums[dimension + c] / rows - mean * mean;
        if (p.norm == Norm::scalar) variance += own / dimension;
        if (p.norm == Norm::per_coordinate && c == thread) variance = own;
      }
      const double mean = batch.sums[thread] / rows;
      batch.mean[thread] = static_cast<float>(mean);
      batch.mean_rest[thread] = static_cast<float>(mean - static_cast<double>(batch.mean[thread]));
      batch.inverse_scale[thread] =
          static_cast<float>(1.0 / sqrt((variance > 0 ? variance : 0) + FlowConstants::epsilon));
    }
  }
  __syncthreads();
}

// What the sums of the second pass tell.
__device__ __forceinline__ void recentre(const FlowParams &p, Batch &batch) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int dimension = static_cast<int>(p.network.dimension);
  const auto rows = static_cast<double>(p.rows);
  if (thread < dimension) {
    double slope = 0;
    for (int c = 0; c < dimension; ++c) {
      const double own = -batch.sums[dimension + c];
      if (p.norm == Norm::scalar) slope += own / dimension;
      if (p.norm == Norm::per_coordinate && c == thread) slope = own;
    }
    batch.centre[thread] =
        static_cast<float>(-static_cast<double>(batch.inverse_scale[thread]) * batch.sums[thread] / rows);
    batch.slope[thread] = static_cast<float>(slope / rows);
  }
  __syncthreads();
}

} // namespace eqflow
