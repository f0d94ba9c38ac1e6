// Velocity, divergence and strain of multilayer perceptrons in CUDA, and the training of equilibrium flows:
// eqflow/ops/divergence.py and flow_loss.py hold the contract, csrc/mlp_block.cuh a network and its derivatives.
//
// A block treats some rows of one model, tile by tile. The rows of a call are cut into parts that depend on their
// number alone; every part gathers its own gradient, and these are added up in order. So the bits depend neither on the
// number of multiprocessors nor on the other models. A step of flow_train is the kernels of flow_loss, and Adam in
// place of the last one: blocks that end and begin again are the barrier that a step needs between its passes.
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

constexpr int threads = 256; // of a block that treats no rows

// --- Values and their gradient --------------------------------------------------------------------------------------

struct Identity { // no mean, scale one
  float zero[MlpShape::most_dimension], one[MlpShape::most_dimension];

  __device__ __forceinline__ void fill() {
    for (int c = static_cast<int>(threadIdx.x); c < MlpShape::most_dimension; c += static_cast<int>(blockDim.x)) {
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
__global__ void __launch_bounds__(most_threads(place), 1)
    divergence_kernel(DivergenceParams p, MlpPlan plan, int64_t rows_of_part, const float *__restrict__ points,
                      const float *__restrict__ packed, float *__restrict__ velocity, float *__restrict__ divergence,
                      float *__restrict__ strain, Memory memory) {
  EQFLOW_DYN_SHARED(float, shared);
  __shared__ Identity identity;
  const Share share(p.rows, rows_of_part);
  MlpBlock<place> tile(plan, packed + share.model * plan.weights_floats, shared, memory.of(share.block));
  identity.fill();
  const Source source = source_of(p, points, share.model);
  tile.set_extent(true, share.last - share.first);
  for (int64_t first = share.first; first < share.last; first += tile.rows) {
    tile.set_count(share.last - first);
    fetch(tile, source, first);
    tile.forward(identity.zero, identity.zero, identity.one);
    const int64_t row = share.model * p.rows + first;
    for (int item = tile.thread; item < tile.count * plan.dimension; item += plan.threads)
      velocity[row * plan.dimension + item] =
          RowOfTile<place>{tile, item / plan.dimension}.output(item % plan.dimension, 0);
    for (int b = tile.thread; b < tile.count; b += plan.threads) {
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
__global__ void __launch_bounds__(most_threads(place), 1)
    divergence_gradient_kernel(DivergenceParams p, MlpPlan plan, int64_t rows_of_part, const float *__restrict__ points,
                               const float *__restrict__ packed, const float *__restrict__ velocity,
                               const float *__restrict__ divergence, const float *__restrict__ strain, float *gradients,
                               Memory memory) {
  EQFLOW_DYN_SHARED(float, shared);
  __shared__ Identity identity;
  const Share share(p.rows, rows_of_part);
  MlpBlock<place> tile(plan, packed + share.model * plan.weights_floats, shared, memory.of(share.block));
  Gradient gradient{gradients + share.block * plan.parameters, 0, 0};
  identity.fill();
  const Source source = source_of(p, points, share.model);
  tile.set_extent(true, share.last - share.first);
  for (int64_t first = share.first; first < share.last; first += tile.rows) {
    tile.set_count(share.last - first);
    fetch(tile, source, first);
    tile.forward(identity.zero, identity.zero, identity.one);
    const int64_t row = share.model * p.rows + first;
    for (int item = tile.thread; item < plan.dimension * tile.rows; item += plan.threads) {
      const int c = item / tile.rows, b = item % tile.rows;
      tile.arena[plan.velocity_weights + item] = b < tile.count ? velocity[(row + b) * plan.dimension + c] : 0.0f;
    }
    for (int b = tile.thread; b < tile.rows; b += plan.threads) {
      const float of_divergence = b < tile.count ? divergence[row + b] : 0.0f;
      tile.arena[plan.row_numbers + b] = of_divergence;
      tile.arena[plan.row_numbers + tile.rows + b] = b < tile.count && strain ? 2.0f * strain[row + b] : 0.0f;
      for (int k = 0; k < plan.probes; ++k)
        tile.arena[plan.estimates + k * tile.rows + b] = of_divergence / static_cast<float>(plan.probes);
    }
    __syncthreads();
    plant_seeds(tile, p.law == Law::gaussian, identity.one);
    tile.backward(gradient);
    gradient.before = 1;
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

// What the kernels of a step share.
struct Step {
  FlowParams p;
  MlpPlan plan;
  FlowParts parts;
  std::uint64_t number;
  double *sums;     // [models, short_tiles, short_numbers], then [models, tiles, numbers]
  float *gradients; // [models, slots, parameters]
  float *packed;    // [models, weights_floats]

  __device__ double *sums_of(Pass pass, int64_t model) const {
    double *const after = sums + p.models * parts.short_tiles * parts.short_numbers;
    return pass == Pass::statistics ? sums + model * parts.short_tiles * parts.short_numbers
                                    : after + model * parts.tiles * parts.numbers;
  }
  __device__ void add_sums(Pass pass, int64_t model, double *to) const {
    const bool first = pass == Pass::statistics;
    const auto count = static_cast<int>(first ? parts.short_numbers : parts.numbers);
    const double *const from = sums_of(pass, model);
    add_up(static_cast<int>(first ? parts.short_tiles : parts.tiles), count, to,
           [&](int q, int tile) { return from[static_cast<int64_t>(tile) * count + q]; });
  }
};

template <Place place>
__global__ void __launch_bounds__(most_threads(place), 1)
    flow_pass_kernel(Step step, Pass pass, int64_t rows_of_block, const float *__restrict__ points,
                     const float *__restrict__ scores, float *__restrict__ mean, float *__restrict__ scale,
                     Memory memory) {
  EQFLOW_DYN_SHARED(float, shared);
  __shared__ Batch batch;
  const MlpPlan &plan = step.plan;
  const FlowParams &p = step.p;
  const Share share(p.rows, rows_of_block);
  MlpBlock<place> tile(plan, step.packed + share.model * plan.weights_floats, shared, memory.of(share.block));
  if (pass != Pass::statistics) {
    if (p.norm != Norm::none) step.add_sums(Pass::statistics, share.model, batch.sums);
    normalise(p, batch);
  } else if (tile.thread < plan.dimension) {
    batch.mean[tile.thread] = batch.mean_rest[tile.thread] = 0.0f;
    batch.inverse_scale[tile.thread] = 1.0f;
  }
  if (pass == Pass::centring) {
    step.add_sums(Pass::tangents, share.model, batch.sums);
    recentre(p, batch);
  }
  if (mean && pass == Pass::tangents && blockIdx.y == 0 && tile.thread < plan.dimension) {
    mean[share.model * plan.dimension + tile.thread] = batch.mean[tile.thread];
    scale[share.model * plan.dimension + tile.thread] = 1.0f / batch.inverse_scale[tile.thread];
  }
  __syncthreads();
  const Source source = source_of(p, points, scores, share.model, step.number);
  const FlowParts &parts = step.parts;
  const bool splits = pass == Pass::centring && parts.split > 1;
  const int64_t slot = blockIdx.y * (splits ? parts.split : 1), left = parts.slots - slot;
  const auto before = static_cast<int>(pass == Pass::tangents         ? 0
                                       : splits && parts.split < left ? parts.split
                                       : splits                       ? left
                                                                      : 1);
  run(tile, p, source, pass, share.first, share.last, batch, step.sums_of(pass, share.model),
      Gradient{step.gradients + (share.model * parts.slots + slot) * plan.parameters, plan.parameters, before});
}

// The sum of gradients in their order: `count` parts, each the sum of `pieces` arrays, or of as many as there are, and
// as many apart.
struct Summed {
  const float *gradients;
  int64_t slots, stride, pieces, parameters;

  __device__ __forceinline__ float sum(int64_t model, int64_t parameter) const {
    const float *const from = gradients + model * slots * parameters + parameter;
    float all = 0.0f;
#pragma unroll 4
    for (int64_t part = 0; part < slots; part += stride) {
      float sum = from[part * parameters];
#pragma unroll 1
      for (int64_t i = part + 1; i < part + pieces && i < slots; ++i) sum += from[i * parameters];
      all += sum;
    }
    return all;
  }
};

__global__ void __launch_bounds__(threads, 1) add_parts_kernel(Summed summed, float *__restrict__ gradient) {
  const int64_t i = static_cast<int64_t>(blockIdx.y) * threads + threadIdx.x;
  if (i < summed.parameters) gradient[blockIdx.x * summed.parameters + i] = summed.sum(blockIdx.x, i);
}

// The loss of a model, by one warp.
__device__ __forceinline__ void write_loss(const Step &step, int64_t model, float *to) {
  const double *const from = step.sums_of(Pass::tangents, model) + step.parts.short_numbers;
  double sum = 0;
  for (int64_t tile = threadIdx.x; tile < step.parts.tiles; tile += warp) sum += from[tile * step.parts.numbers];
  EQFLOW_UNROLL
  for (int distance = warp / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
  if (threadIdx.x == 0) *to = static_cast<float>(sum / static_cast<double>(step.p.rows));
}

__global__ void __launch_bounds__(threads, 1)
    flow_loss_kernel(Step step, Summed summed, float *__restrict__ gradient, float *__restrict__ loss) {
  const int64_t model = blockIdx.x, i = static_cast<int64_t>(blockIdx.y) * threads + threadIdx.x;
  if (i < summed.parameters) gradient[model * summed.parameters + i] = summed.sum(model, i);
  if (blockIdx.y == 0 && threadIdx.x < warp) write_loss(step, model, loss + model);
}

// --- Training -------------------------------------------------------------------------------------------------------

__device__ __forceinline__ int packed_place(const MlpPlan &plan, int parameter) {
  int l = 0;
  while (l < plan.hidden_layers && parameter >= plan.layer[l + 1].parameters) ++l;
  const MlpLayer &layer = plan.layer[l];
  const int at = parameter - layer.parameters, row = at / layer.into, column = at % layer.into;
  if (row >= layer.out) return layer.bias + at - layer.out * layer.into;
  return layer.weights + (l == 0 ? column * layer.stride + row : row * layer.stride + column);
}

// As the blocks hold the weights: one block a model.
__global__ void __launch_bounds__(threads, 1) pack_kernel(MlpPlan plan, const float *parameters, float *packed) {
  float *const to = packed + static_cast<int64_t>(blockIdx.x) * plan.weights_floats;
  for (int i = static_cast<int>(threadIdx.x); i < plan.weights_floats; i += threads) to[i] = 0.0f;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < plan.parameters; i += threads)
    to[packed_place(plan, i)] = parameters[static_cast<int64_t>(blockIdx.x) * plan.parameters + i];
}

// A step of Adam, a thread a parameter, or a pair of them. mirror: see flow_train in csrc/kernels.h; or null.
__global__ void __launch_bounds__(threads, 1)
    flow_adam_kernel(Step step, Summed summed, const AdamStep *__restrict__ adam, const std::int32_t *mirror,
                     float *parameters, float *moments, float *losses) {
  const FlowParams &p = step.p;
  const MlpPlan &plan = step.plan;
  const int64_t model = blockIdx.x, now = static_cast<int64_t>(step.number - p.step);
  if (blockIdx.y == 0 && threadIdx.x < warp) write_loss(step, model, losses + model * p.steps + now);
  const int i = static_cast<int>(blockIdx.y) * threads + static_cast<int>(threadIdx.x);
  if (i >= plan.parameters) return;
  const int partner = mirror ? (mirror[i] < 0 ? -mirror[i] : mirror[i]) - 1 : i;
  if (partner < i) return;
  const auto rate = static_cast<float>(adam[now].rate), correction = static_cast<float>(adam[now].correction);
  const auto decay = static_cast<float>(p.weight_decay);
  constexpr auto keep = static_cast<float>(1 - FlowConstants::beta1),
                 keep_square = static_cast<float>(1 - FlowConstants::beta2);
  constexpr auto epsilon = static_cast<float>(FlowConstants::adam_epsilon);
  float *const own = parameters + model * plan.parameters;
  float *const first = moments + model * plan.parameters, *const second = first + p.models * plan.parameters;
  const auto move = [&](int j, float slope) {
    const float mean = fused(keep, slope - first[j], first[j]);
    const float square = fused(keep_square, fused(slope, slope, -second[j]), second[j]);
    first[j] = mean;
    second[j] = square;
    own[j] = fused(-rate, mean / (sqrtf(square / correction) + epsilon), own[j]);
    step.packed[model * plan.weights_floats + packed_place(plan, j)] = own[j];
  };
  const float slope = fused(decay, own[i], summed.sum(model, i));
  if (!mirror) return move(i, slope);
  const float sign = mirror[i] < 0 ? -1.0f : 1.0f;
  const float other = partner == i ? slope : fused(decay, own[partner], summed.sum(model, partner));
  move(i, 0.5f * (slope + sign * other));
  if (partner != i) move(partner, 0.5f * (other + sign * slope));
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
  launch(Choice<Place::off_chip>{});
}

template <class Kernel, class... Arguments>
void launch(Kernel kernel, const Layout &layout, int64_t models, int64_t parts, CudaQueue queue,
            Arguments... arguments) {
  const unsigned bytes = layout.shared_bytes();
  if (bytes > 47 * 1024) { // more than this a kernel must ask for
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
          "cudaFuncSetAttribute");
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
          "cudaFuncSetAttribute");
  }
  const dim3 blocks(static_cast<unsigned>(models), static_cast<unsigned>(parts));
  EQFLOW_LAUNCH(kernel, blocks, static_cast<unsigned>(layout.plan.threads), bytes, stream_of(queue), arguments...);
}

dim3 blocks_of_parameters(int64_t models, int64_t parameters) {
  return {static_cast<unsigned>(models), static_cast<unsigned>(divide_up(parameters, threads))};
}

void pack(const Layout &layout, int64_t models, const float *parameters, float *packed, CudaQueue queue) {
  EQFLOW_LAUNCH(pack_kernel, static_cast<unsigned>(models), threads, 0, stream_of(queue), layout.plan, parameters,
                packed);
}

// The passes of flow_loss and flow_train over one batch.
class Passes {
  Layout layout_;
  CudaQueue queue_;
  Memory memory_;

public:
  Step step;
  Summed summed;

  Passes(const FlowParams &p, const float *parameters, float *workspace, CudaQueue queue)
      : layout_(layout_for(p, budget_of(queue.device))), queue_(queue),
        step{p, layout_.plan, FlowParts(layout_, p.models, p.rows), p.step, reinterpret_cast<double *>(workspace)} {
    const FlowParts &parts = step.parts;
    step.packed = workspace + parts.sums;
    memory_ = {step.packed + parts.packed, layout_.outside()};
    step.gradients = memory_.start + parts.memory;
    // The third pass puts the pieces of a part together.
    const int64_t pieces = p.norm == Norm::none ? parts.split : 1;
    summed = {step.gradients, parts.slots, parts.split, pieces, layout_.plan.parameters};
    pack(layout_, p.models, parameters, step.packed, queue);
  }

  void run(const float *points, const float *scores, float *mean, float *scale) const {
    for (const Pass pass : {Pass::statistics, Pass::tangents, Pass::centring}) {
      if (step.p.norm == Norm::none && pass != Pass::tangents) continue;
      const bool splits = pass == Pass::tangents && step.parts.split > 1;
      const int64_t blocks = splits ? step.parts.tiles : step.parts.count;
      with_place(layout_.place, [&](auto choice) {
        launch(flow_pass_kernel<choice.value>, layout_, step.p.models, blocks, queue_, step, pass,
               splits ? layout_.plan.rows : step.parts.rows, points, scores, mean, scale, memory_);
      });
    }
  }
};

} // namespace

int64_t divergence_cuda_workspace(const DivergenceParams &p) {
  return most_floats([&](int budget) {
    return Parts(layout_for(p, false, budget), p.models, p.rows, most_value_parts, false).floats();
  });
}

int64_t divergence_gradient_cuda_workspace(const DivergenceParams &p) {
  return most_floats(
      [&](int budget) { return Parts(layout_for(p, true, budget), p.models, p.rows, most_parts, true).floats(); });
}

int64_t flow_loss_cuda_workspace(const FlowParams &p) {
  return most_floats([&](int budget) { return FlowParts(layout_for(p, budget), p.models, p.rows).floats(); });
}

int64_t flow_train_cuda_workspace(const FlowParams &p) { return flow_loss_cuda_workspace(p); }

void divergence_cuda(const DivergenceParams &p, const float *points, const float *parameters, float *velocity,
                     float *divergence, float *strain, float *workspace, CudaQueue queue) {
  if (p.models == 0 || p.rows == 0) return;
  check_sizes(p.models, p.rows);
  const DeviceGuard guard(queue.device);
  const Layout layout = layout_for(p, false, budget_of(queue.device));
  const Parts parts(layout, p.models, p.rows, most_value_parts, false);
  pack(layout, p.models, parameters, workspace, queue);
  with_place(layout.place, [&](auto choice) {
    launch(divergence_kernel<choice.value>, layout, p.models, parts.count, queue, p, layout.plan, parts.rows, points,
           workspace, velocity, divergence, strain, Memory{workspace + parts.packed, layout.outside()});
  });
}

void divergence_gradient_cuda(const DivergenceParams &p, const float *points, const float *parameters,
                              const float *velocity, const float *divergence, const float *strain, float *gradient,
                              float *workspace, CudaQueue queue) {
  if (p.models == 0 || p.rows == 0) return;
  check_sizes(p.models, p.rows);
  const DeviceGuard guard(queue.device);
  const Layout layout = layout_for(p, true, budget_of(queue.device));
  const Parts parts(layout, p.models, p.rows, most_parts, true);
  float *const memory = workspace + parts.packed, *const gradients = memory + parts.memory;
  pack(layout, p.models, parameters, workspace, queue);
  with_place(layout.place, [&](auto choice) {
    launch(divergence_gradient_kernel<choice.value>, layout, p.models, parts.count, queue, p, layout.plan, parts.rows,
           points, workspace, velocity, divergence, strain, gradients, Memory{memory, layout.outside()});
  });
  EQFLOW_LAUNCH(add_parts_kernel, blocks_of_parameters(p.models, layout.plan.parameters), threads, 0, stream_of(queue),
                Summed{gradients, parts.count, 1, 1, layout.plan.parameters}, gradient);
}

void flow_loss_cuda(const FlowParams &p, const float *points, const float *scores, const float *parameters, float *loss,
                    float *gradient, float *mean, float *scale, float *workspace, CudaQueue queue) {
  if (p.models == 0 || p.rows == 0) return;
  check_sizes(p.models, p.rows);
  const DeviceGuard guard(queue.device);
  const Passes passes(p, parameters, workspace, queue);
  passes.run(points, scores, mean, scale);
  EQFLOW_LAUNCH(flow_loss_kernel, blocks_of_parameters(p.models, passes.step.plan.parameters), threads, 0,
                stream_of(queue), passes.step, passes.summed, gradient, loss);
}

void flow_train_cuda(const FlowParams &p, const float *points, const float *scores, const AdamStep *steps,
                     const std::int32_t *mirror, float *parameters, float *moments, float *losses, float *workspace,
                     CudaQueue queue) {
  if (p.models == 0 || p.steps == 0) return;
  check_sizes(p.models, p.rows > p.pool ? p.rows : p.pool);
  const DeviceGuard guard(queue.device);
  Passes passes(p, parameters, workspace, queue);
  for (int64_t step = 0; step < p.steps; ++step, ++passes.step.number) {
    passes.run(points, scores, nullptr, nullptr);
    EQFLOW_LAUNCH(flow_adam_kernel, blocks_of_parameters(p.models, passes.step.plan.parameters), threads, 0,
                  stream_of(queue), passes.step, passes.summed, steps, mirror, parameters, moments, losses);
  }
}

} // namespace eqflow
