// The loss of an equilibrium flow over a batch, as one block of CUDA threads sees it: see eqflow/ops/flow_loss.py.
#pragma once
#include "mlp_rows.cuh"

namespace eqflow {

constexpr int warp = 32;

enum class Pass { statistics, tangents, centring };

// What one block knows of the batch. sums: of u and u^2 after the first pass; of the derivatives with respect to v, of
// those with respect to v and J times v and J, and of the loss after the second.
struct Batch {
  double sums[MlpPlan::most_sums];
  // The mean in two floats: rounded to one it would leave all rows of v with the same small error, which adds up.
  float mean[MlpShape::most_dimension], mean_rest[MlpShape::most_dimension], inverse_scale[MlpShape::most_dimension];
  float centre[MlpShape::most_dimension], slope[MlpShape::most_dimension]; // seeds of the third pass: centre + slope v
};

// sums[q] += the sum over rows of numbers(q, b); a warp adds up one q.
template <Place place, class Numbers>
__device__ __forceinline__ void add_rows(const MlpBlock<place> &tile, int count, double *sums, Numbers numbers) {
  for (int q = tile.thread / warp; q < count; q += MlpPlan::threads / warp) {
    double sum = 0;
    for (int b = tile.thread % warp; b < tile.count; b += warp) sum += numbers(q, b);
    EQFLOW_UNROLL
    for (int distance = warp / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (tile.thread % warp == 0) sums[q] += sum;
  }
  __syncthreads();
}

// The loss of every row and what it wants of the row; see plant_seeds.
template <Place place> __device__ __forceinline__ void weigh_rows(MlpBlock<place> &tile, const FlowParams &p) {
  const MlpPlan &plan = tile.plan;
  const int rows = tile.rows, probes = static_cast<int>(p.probes);
  const float share = 2.0f / static_cast<float>(p.rows);
  for (int b = tile.thread; b < rows; b += MlpPlan::threads) {
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
      loss = product ? 2.0f * pairs / static_cast<float>(probes * (probes - 1)) : mean * mean;
      of_velocity = share * mean;
      for (int k = 0; k < probes; ++k) {
        const float others = product ? (sum - (estimates[k * rows] + along)) / static_cast<float>(probes - 1) : mean;
        estimates[k * rows] = b < tile.count ? share * others / static_cast<float>(probes) : 0.0f;
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

// One pass over some rows: adds to the sums, and after the first pass to the gradient.
template <Place place>
__device__ __forceinline__ void run(MlpBlock<place> &tile, const FlowParams &p, const Source &source, Pass pass,
                                    std::int64_t begin, std::int64_t end, Batch &batch, float *gradient) {
  const MlpPlan &plan = tile.plan;
  tile.set_extent(pass == Pass::tangents, end - begin);
#pragma unroll 1
  for (std::int64_t first = begin; first < end; first += tile.rows) {
    tile.set_count(end - first);
    fetch(tile, source, first);
    tile.forward(batch.mean, batch.mean_rest, batch.inverse_scale);
    const float *const output = tile.arena + plan.output;
    if (pass == Pass::statistics) {
      add_rows(tile, 2 * plan.dimension, batch.sums, [&](int q, int b) {
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
      const int count = 2 * plan.dimension;
      add_rows(tile, count + 1, batch.sums,
               [&](int q, int b) { return static_cast<double>(q < count ? terms[q * tile.rows + b] : losses[b]); });
    } else {
      for (int item = tile.thread; item < plan.dimension * tile.rows; item += MlpPlan::threads) {
        const int c = item / tile.rows, at = c * plan.stride + item % tile.rows;
        tile.arena[plan.seeds + at] =
            item % tile.rows < tile.count ? fused(batch.slope[c], output[at], batch.centre[c]) : 0.0f;
      }
      __syncthreads();
    }
    tile.backward(gradient);
  }
}

// Before a pass: what the sums of the pass before tell. They start again at zero.
__device__ __forceinline__ void begin(Pass pass, const FlowParams &p, Batch &batch) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int dimension = static_cast<int>(p.network.dimension);
  const auto rows = static_cast<double>(p.rows);
  const double *const squares = batch.sums + dimension;
  if (thread < dimension) {
    if (pass == Pass::statistics || p.norm == Norm::none) {
      batch.mean[thread] = 0.0f;
      batch.mean_rest[thread] = 0.0f;
      batch.inverse_scale[thread] = 1.0f;
    } else if (pass == Pass::tangents) {
      double variance = 0;
      for (int c = 0; c < dimension; ++c) {
        const double mean = batch.sums[c] / rows, own = squares[c] / rows - mean * mean;
        if (p.norm == Norm::scalar) variance += own / dimension;
        if (p.norm == Norm::per_coordinate && c == thread) variance = own;
      }
      const double mean = batch.sums[thread] / rows;
      batch.mean[thread] = static_cast<float>(mean);
      batch.mean_rest[thread] = static_cast<float>(mean - static_cast<double>(batch.mean[thread]));
      batch.inverse_scale[thread] =
          static_cast<float>(1.0 / sqrt((variance > 0 ? variance : 0) + FlowConstants::epsilon));
    } else {
      double slope = 0;
      for (int c = 0; c < dimension; ++c) {
        const double own = -static_cast<double>(batch.inverse_scale[c]) * squares[c];
        if (p.norm == Norm::scalar) slope += own / dimension;
        if (p.norm == Norm::per_coordinate && c == thread) slope = own;
      }
      batch.centre[thread] =
          static_cast<float>(-static_cast<double>(batch.inverse_scale[thread]) * batch.sums[thread] / rows);
      batch.slope[thread] = static_cast<float>(slope / rows);
    }
  }
  __syncthreads();
  if (thread < MlpPlan::most_sums) batch.sums[thread] = 0;
  __syncthreads();
}

// mirror: see flow_train in csrc/kernels.h; or null.
template <Place place>
__device__ __forceinline__ void step_adam(MlpBlock<place> &tile, const FlowParams &p, const AdamStep &step,
                                          const std::int32_t *mirror, float *gradient, float *first, float *second) {
  const auto rate = static_cast<float>(step.rate), correction = static_cast<float>(step.correction);
  const auto decay = static_cast<float>(p.weight_decay);
  constexpr auto keep = static_cast<float>(1 - FlowConstants::beta1),
                 keep_square = static_cast<float>(1 - FlowConstants::beta2);
  constexpr auto epsilon = static_cast<float>(FlowConstants::adam_epsilon);
  tile.for_each_parameter(
      [&](int parameter, int at) { gradient[parameter] = fused(decay, tile.weights[at], gradient[parameter]); });
  __syncthreads();
  tile.for_each_parameter([&](int parameter, int at) {
    float slope = gradient[parameter];
    if (mirror) {
      const std::int32_t partner = mirror[parameter];
      const float other = gradient[partner < 0 ? -partner - 1 : partner - 1];
      slope = 0.5f * (slope + (partner < 0 ? -other : other));
    }
    const float mean = fused(keep, slope - first[parameter], first[parameter]);
    const float square = fused(keep_square, fused(slope, slope, -second[parameter]), second[parameter]);
    first[parameter] = mean;
    second[parameter] = square;
    tile.weights[at] = fused(-rate, mean / (sqrtf(square / correction) + epsilon), tile.weights[at]);
  });
  __syncthreads();
}

} // namespace eqflow
