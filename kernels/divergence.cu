// Velocity, divergence and strain of multilayer perceptrons in CUDA, and the training of equilibrium flows:
// eqflow/ops/divergence.py and flow_loss.py hold the contract, csrc/mlp_block.cuh a network and its derivatives.
//
// A block treats some rows of one model, tile by tile. The rows of a call without training are cut into parts that
// depend on their number alone; every part gathers its own gradient, and these are added up in order. So the bits
// depend neither on the number of multiprocessors nor on the other models. flow_train gives each model one block for
// all its steps: the weights stay in shared memory; the moments and the gradient are met once a step or tile and stay
// in the L2 cache, because shared memory does more for the products when it holds more rows.
//
// Method::bilinear is served by the tangents, which give the same numbers: its second matrix would take that room too.
//
// Statistics of the batch need a pass before the tangents. After them the gradient is linear in its seeds: what flows
// through the statistics needs their sums over the batch, but no tangents, and is added in a third, short pass.
#include "cuda.cuh"
#include "flow_batch.cuh"
#include "kernels.h"

#include <type_traits>

namespace eqflow {
namespace {

using plan_detail::divide_up;
using std::int64_t;

constexpr int threads = MlpPlan::threads, most_sums = MlpPlan::most_sums;

// --- Values and their gradient --------------------------------------------------------------------------------------

struct Identity { // no mean, scale one
  float zero[MlpShape::most_dimension], one[MlpShape::most_dimension];

  __device__ __forceinline__ void fill() {
    for (int c = static_cast<int>(threadIdx.x); c < MlpShape::most_dimension; c += threads) {
      zero[c] = 0.0f;
      one[c] = 1.0f;
    }
    __syncthreads();
  }
};

// The rows of one block: part blockIdx.y of model blockIdx.x.
struct Share {
  int64_t model, block, first, last;

  __device__ Share(int64_t rows, int64_t rows_of_part)
      : model(blockIdx.x), block(static_cast<int64_t>(blockIdx.x) * gridDim.y + blockIdx.y),
        first(blockIdx.y * rows_of_part), last(first + rows_of_part < rows ? first + rows_of_part : rows) {}
};

__device__ __forceinline__ Source source_of(const DivergenceParams &p, const float *points, int64_t model) {
  return {points + (p.shared_points ? 0 : model * p.rows * p.network.dimension),
          nullptr,
          0,
          static_cast<std::uint32_t>(p.first_model + static_cast<std::uint64_t>(model)),
          p.seed,
          p.step,
          p.law == Law::gaussian};
}

struct Memory { // each block's own, beyond shared memory
  float *start;
  int64_t floats;

  __device__ __forceinline__ float *of(int64_t block) const { return start + block * floats; }
};

template <Place place>
__global__ void __launch_bounds__(threads, 1)
    divergence_kernel(DivergenceParams p, MlpPlan plan, int64_t rows_of_part, const float *__restrict__ points,
                      const float *__restrict__ parameters, float *__restrict__ velocity,
                      float *__restrict__ divergence, float *__restrict__ strain, Memory memory) {
  EQFLOW_DYN_SHARED(float, shared);
  __shared__ Identity identity;
  const Share share(p.rows, rows_of_part);
  MlpBlock<place> tile(plan, shared, memory.of(share.block));
  identity.fill();
  tile.load_weights(parameters + share.model * plan.parameters);
  const Source source = source_of(p, points, share.model);
  tile.set_extent(true, share.last - share.first);
  for (int64_t first = share.first; first < share.last; first += tile.rows) {
    tile.set_count(share.last - first);
    fetch(tile, source, first);
    tile.forward(identity.zero, identity.zero, identity.one);
    const int64_t row = share.model * p.rows + first;
    for (int item = tile.thread; item < tile.count * plan.dimension; item += threads)
      velocity[row * plan.dimension + item] =
          RowOfTile<place>{tile, item / plan.dimension}.output(item % plan.dimension, 0);
    for (int b = tile.thread; b < tile.count; b += threads) {
      const RowOfTile<place> own{tile, b};
      float sum = 0.0f;
      for (int k = 0; k < plan.probes; ++k) sum += own.estimate(k);
      divergence[row + b] = plan.probes > 0 ? sum / static_cast<float>(plan.probes) : own.trace();
      if (strain) strain[row + b] = plan.probes > 0 ? 0.0f : own.strain(p.law == Law::gaussian);
    }
    __syncthreads();
  }
}

template <Place place>
__global__ void __launch_bounds__(threads, 1)
    divergence_gradient_kernel(DivergenceParams p, MlpPlan plan, int64_t rows_of_part, const float *__restrict__ points,
                               const float *__restrict__ parameters, const float *__restrict__ velocity,
                               const float *__restrict__ divergence, const float *__restrict__ strain, float *gradients,
                               Memory memory) {
  EQFLOW_DYN_SHARED(float, shared);
  __shared__ Identity identity;
  const Share share(p.rows, rows_of_part);
  MlpBlock<place> tile(plan, shared, memory.of(share.block));
  float *const gradient = gradients + share.block * plan.parameters;
  identity.fill();
  for (int i = tile.thread; i < plan.parameters; i += threads) gradient[i] = 0.0f;
  tile.load_weights(parameters + share.model * plan.parameters);
  const Source source = source_of(p, points, share.model);
  tile.set_extent(true, share.last - share.first);
  for (int64_t first = share.first; first < share.last; first += tile.rows) {
    tile.set_count(share.last - first);
    fetch(tile, source, first);
    tile.forward(identity.zero, identity.zero, identity.one);
    const int64_t row = share.model * p.rows + first;
    for (int item = tile.thread; item < plan.dimension * tile.rows; item += threads) {
      const int c = item / tile.rows, b = item % tile.rows;
      tile.arena[plan.velocity_weights + item] = b < tile.count ? velocity[(row + b) * plan.dimension + c] : 0.0f;
    }
    for (int b = tile.thread; b < tile.rows; b += threads) {
      const float of_divergence = b < tile.count ? divergence[row + b] : 0.0f;
      tile.arena[plan.row_numbers + b] = of_divergence;
      tile.arena[plan.row_numbers + tile.rows + b] = b < tile.count && strain ? 2.0f * strain[row + b] : 0.0f;
      for (int k = 0; k < plan.probes; ++k)
        tile.arena[plan.estimates + k * tile.rows + b] = of_divergence / static_cast<float>(plan.probes);
    }
    __syncthreads();
    plant_seeds(tile, p.law == Law::gaussian, identity.one);
    tile.backward(gradient);
  }
}

// --- The loss -------------------------------------------------------------------------------------------------------

__device__ __forceinline__ Source source_of(const FlowParams &p, const float *points, const float *scores,
                                            int64_t model, std::uint64_t step) {
  const int64_t skipped = p.shared_points || p.pool > 0 ? 0 : model * p.rows * p.network.dimension;
  return {points + skipped,
          scores + skipped,
          static_cast<std::uint32_t>(p.pool),
          static_cast<std::uint32_t>(p.first_model + static_cast<std::uint64_t>(model)),
          p.seed,
          step,
          p.law == Law::gaussian};
}

// sums: [models, parts, 2, most_sums], of the first and the second pass.
template <Place place>
__global__ void __launch_bounds__(threads, 1)
    flow_loss_kernel(FlowParams p, MlpPlan plan, Pass pass, int64_t rows_of_part, const float *__restrict__ points,
                     const float *__restrict__ scores, const float *__restrict__ parameters, float *__restrict__ mean,
                     float *__restrict__ scale, double *sums, float *gradients, Memory memory) {
  EQFLOW_DYN_SHARED(float, shared);
  __shared__ Batch batch;
  const Share share(p.rows, rows_of_part);
  MlpBlock<place> tile(plan, shared, memory.of(share.block));
  float *const gradient = gradients + share.block * plan.parameters;
  tile.load_weights(parameters + share.model * plan.parameters);
  for (int before = 0; before <= static_cast<int>(pass); ++before) {
    begin(static_cast<Pass>(before), p, batch);
    if (before == static_cast<int>(pass) || p.norm == Norm::none) continue;
    for (int q = tile.thread; q < most_sums; q += threads)
      for (int64_t part = 0; part < gridDim.y; ++part)
        batch.sums[q] += sums[((share.model * gridDim.y + part) * 2 + before) * most_sums + q];
    __syncthreads();
  }
  if (pass == Pass::tangents) {
    for (int i = tile.thread; i < plan.parameters; i += threads) gradient[i] = 0.0f;
    if (blockIdx.y == 0 && tile.thread < plan.dimension) {
      mean[share.model * plan.dimension + tile.thread] = batch.mean[tile.thread];
      scale[share.model * plan.dimension + tile.thread] = 1.0f / batch.inverse_scale[tile.thread];
    }
    __syncthreads();
  }
  const Source source = source_of(p, points, scores, share.model, p.step);
  run(tile, p, source, pass, share.first, share.last, batch, gradient);
  if (pass != Pass::centring && tile.thread < most_sums)
    sums[(share.block * 2 + static_cast<int>(pass)) * most_sums + tile.thread] = batch.sums[tile.thread];
}

// The gradients of the parts in their order, and the loss where there is one.
__global__ void __launch_bounds__(threads, 1)
    add_parts_kernel(int parts, int64_t parameters, int64_t rows, const float *__restrict__ gradients,
                     const double *__restrict__ sums, int loss_place, float *__restrict__ gradient,
                     float *__restrict__ loss) {
  const int64_t model = blockIdx.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.y) * threads + threadIdx.x; i < parameters;
       i += static_cast<int64_t>(gridDim.y) * threads) {
    float sum = 0.0f;
    for (int part = 0; part < parts; ++part) sum += gradients[(model * parts + part) * parameters + i];
    gradient[model * parameters + i] = sum;
  }
  if (!loss || blockIdx.y > 0 || threadIdx.x > 0) return;
  double sum = 0;
  for (int part = 0; part < parts; ++part) sum += sums[((model * parts + part) * 2 + 1) * most_sums + loss_place];
  loss[model] = static_cast<float>(sum / static_cast<double>(rows));
}

// --- Training -------------------------------------------------------------------------------------------------------

// Block m trains model m.
template <Place place>
__global__ void __launch_bounds__(threads, 1)
    flow_train_kernel(FlowParams p, MlpPlan plan, const float *__restrict__ points, const float *__restrict__ scores,
                      const AdamStep *__restrict__ steps, const std::int32_t *__restrict__ mirror, float *parameters,
                      float *moments, float *losses, float *gradients, Memory memory) {
  EQFLOW_DYN_SHARED(float, shared);
  __shared__ Batch batch;
  const int64_t model = blockIdx.x;
  MlpBlock<place> tile(plan, shared, memory.of(model));
  float *const own = parameters + model * plan.parameters, *const gradient = gradients + model * plan.parameters;
  float *const first = moments + model * plan.parameters, *const second = first + p.models * plan.parameters;
  tile.load_weights(own);
#pragma unroll 1
  for (int64_t step = 0; step < p.steps; ++step) {
    const Source source = source_of(p, points, scores, model, p.step + static_cast<std::uint64_t>(step));
    for (int i = tile.thread; i < plan.parameters; i += threads) gradient[i] = 0.0f;
#pragma unroll 1
    for (int pass = p.norm == Norm::none ? 1 : 0; pass < (p.norm == Norm::none ? 2 : 3); ++pass) {
      begin(static_cast<Pass>(pass), p, batch);
      run(tile, p, source, static_cast<Pass>(pass), 0, p.rows, batch, gradient);
      if (pass == static_cast<int>(Pass::tangents) && tile.thread == 0)
        losses[model * p.steps + step] =
            static_cast<float>(batch.sums[2 * plan.dimension] / static_cast<double>(p.rows));
    }
    step_adam(tile, p, steps[step], mirror, gradient, first, second);
  }
  tile.for_each_parameter([&](int parameter, int at) { own[parameter] = tile.weights[at]; });
}

// --- Launching ------------------------------------------------------------------------------------------------------

int budget_of(int device) {
  int bytes = 0;
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  for (const int budget : budgets)
    if (budget <= bytes) return budget;
  throw CudaError("expected a GPU with 99 KiB of shared memory a block, got " + std::to_string(bytes) + " bytes");
}

void check_sizes(int64_t models, int64_t rows) {
  if (models > INT_MAX || rows > INT_MAX)
    throw CudaError("expected at most 2^31 - 1 models and rows, got " + std::to_string(models) + " and " +
                    std::to_string(rows) + ": split them");
}

template <Place place> using Choice = std::integral_constant<Place, place>;

template <class Launch> void with_place(Place place, Launch launch) {
  if (place == Place::on_chip) return launch(Choice<Place::on_chip>{});
  if (place == Place::tile_on_chip) return launch(Choice<Place::tile_on_chip>{});
  launch(Choice<Place::off_chip>{});
}

template <class Kernel, class... Arguments>
void launch(Kernel kernel, const Layout &layout, int64_t models, int64_t parts, CudaQueue queue,
            Arguments... arguments) {
  const unsigned bytes = layout.shared_bytes();
  if (bytes > 47 * 1024) // more than this a kernel must ask for
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
          "cudaFuncSetAttribute");
  const dim3 blocks(static_cast<unsigned>(models), static_cast<unsigned>(parts));
  EQFLOW_LAUNCH(kernel, blocks, threads, bytes, stream_of(queue), arguments...);
}

void add_parts(const Layout &layout, int64_t models, const Parts &parts, int64_t rows, const float *gradients,
               const double *sums, float *gradient, float *loss, CudaQueue queue) {
  const dim3 blocks(static_cast<unsigned>(models), static_cast<unsigned>(divide_up(layout.plan.parameters, threads)));
  EQFLOW_LAUNCH(add_parts_kernel, blocks, threads, 0, stream_of(queue), static_cast<int>(parts.count),
                layout.plan.parameters, rows, gradients, sums, 2 * layout.plan.dimension, gradient, loss);
}

} // namespace

int64_t divergence_cuda_workspace(const DivergenceParams &p) {
  return most_floats([&](int budget) {
    const Layout layout = layout_for(p, false, budget);
    return Parts(layout, p.models, p.rows, most_value_parts, false, false).floats();
  });
}

int64_t divergence_gradient_cuda_workspace(const DivergenceParams &p) {
  return most_floats([&](int budget) {
    return Parts(layout_for(p, true, budget), p.models, p.rows, most_parts, false, true).floats();
  });
}

int64_t flow_loss_cuda_workspace(const FlowParams &p) {
  return most_floats(
      [&](int budget) { return Parts(layout_for(p, budget), p.models, p.rows, most_parts, true, true).floats(); });
}

int64_t flow_train_cuda_workspace(const FlowParams &p) {
  return most_floats([&](int budget) {
    const Layout layout = layout_for(p, budget);
    return p.models * (layout.outside() + layout.plan.parameters);
  });
}

void divergence_cuda(const DivergenceParams &p, const float *points, const float *parameters, float *velocity,
                     float *divergence, float *strain, float *workspace, CudaQueue queue) {
  if (p.models == 0 || p.rows == 0) return;
  check_sizes(p.models, p.rows);
  const DeviceGuard guard(queue.device);
  const Layout layout = layout_for(p, false, budget_of(queue.device));
  const Parts parts(layout, p.models, p.rows, most_value_parts, false, false);
  with_place(layout.place, [&](auto choice) {
    launch(divergence_kernel<choice.value>, layout, p.models, parts.count, queue, p, layout.plan, parts.rows, points,
           parameters, velocity, divergence, strain, Memory{workspace, layout.outside()});
  });
}

void divergence_gradient_cuda(const DivergenceParams &p, const float *points, const float *parameters,
                              const float *velocity, const float *divergence, const float *strain, float *gradient,
                              float *workspace, CudaQueue queue) {
  if (p.models == 0 || p.rows == 0) return;
  check_sizes(p.models, p.rows);
  const DeviceGuard guard(queue.device);
  const Layout layout = layout_for(p, true, budget_of(queue.device));
  const Parts parts(layout, p.models, p.rows, most_parts, false, true);
  float *const gradients = workspace + parts.memory;
  with_place(layout.place, [&](auto choice) {
    launch(divergence_gradient_kernel<choice.value>, layout, p.models, parts.count, queue, p, layout.plan, parts.rows,
           points, parameters, velocity, divergence, strain, gradients, Memory{workspace, layout.outside()});
  });
  add_parts(layout, p.models, parts, p.rows, gradients, nullptr, gradient, nullptr, queue);
}

void flow_loss_cuda(const FlowParams &p, const float *points, const float *scores, const float *parameters, float *loss,
                    float *gradient, float *mean, float *scale, float *workspace, CudaQueue queue) {
  if (p.models == 0 || p.rows == 0) return;
  check_sizes(p.models, p.rows);
  const DeviceGuard guard(queue.device);
  const Layout layout = layout_for(p, budget_of(queue.device));
  const Parts parts(layout, p.models, p.rows, most_parts, true, true);
  auto *const sums = reinterpret_cast<double *>(workspace);
  float *const memory = workspace + parts.sums, *const gradients = memory + parts.memory;
  for (const Pass pass : {Pass::statistics, Pass::tangents, Pass::centring}) {
    if (p.norm == Norm::none && pass != Pass::tangents) continue;
    with_place(layout.place, [&](auto choice) {
      launch(flow_loss_kernel<choice.value>, layout, p.models, parts.count, queue, p, layout.plan, pass, parts.rows,
             points, scores, parameters, mean, scale, sums, gradients, Memory{memory, layout.outside()});
    });
  }
  add_parts(layout, p.models, parts, p.rows, gradients, sums, gradient, loss, queue);
}

void flow_train_cuda(const FlowParams &p, const float *points, const float *scores, const AdamStep *steps,
                     const std::int32_t *mirror, float *parameters, float *moments, float *losses, float *workspace,
                     CudaQueue queue) {
  if (p.models == 0 || p.steps == 0) return;
  check_sizes(p.models, p.rows > p.pool ? p.rows : p.pool);
  const DeviceGuard guard(queue.device);
  const Layout layout = layout_for(p, budget_of(queue.device));
  float *const gradients = workspace + p.models * layout.outside();
  with_place(layout.place, [&](auto choice) {
    launch(flow_train_kernel<choice.value>, layout, p.models, 1, queue, p, layout.plan, points, scores, steps, mirror,
           parameters, moments, losses, gradients, Memory{workspace, layout.outside()});
  });
}

} // namespace eqflow
