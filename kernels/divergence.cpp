// Velocity, divergence and strain of perceptrons, and the training of equilibrium flows, on the CPU: see
// eqflow/ops/divergence.py and flow_loss.py for the contracts, csrc/mlp_tile.h for the passes over a tile and
// csrc/flow_batch.h for the loss.
#include "flow_batch.h"
#include "kernels.h"

namespace eqflow::EQFLOW_ISA {
namespace {

constexpr float ones[most_dimension] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

const float *points_of(const DivergenceParams &p, const float *points, int64_t model) {
  return p.shared_points ? points : points + model * p.rows * p.network.dimension;
}

// Loads and evaluates one tile of a divergence.
void evaluate(const DivergenceParams &p, const Plan &plan, const Model &model, const float *points, int64_t index,
              const Tile &tile, const Scratch &scratch) {
  const int count = tile.count(p.rows);
  turn(points, plan.dimension, count, [&](int s) { return tile.first + s; }, tile.h[0], plan.block);
  values(plan, model, tile);
  if (p.method == Method::probes)
    draw_probes(plan, tile, p.seed, p.step, p.first_model + static_cast<uint64_t>(index), scratch.probes);
  differentiate(plan, model, tile, scratch, ones);
}

Plan plan_for(const FlowParams &p) {
  const bool drawn = p.objective == Objective::sampled || p.objective == Objective::product;
  return Plan(p.network, drawn ? Method::probes : p.method, p.law, p.probes);
}

} // namespace

bool divergence_cpu(const DivergenceParams &p, const float *points, const float *parameters, float *velocity,
                    float *divergence, float *strain, int threads) {
  const Plan plan(p.network, p.method, p.law, p.probes);
  const int64_t packed = Model::floats(plan), tile = Tile::floats(plan);
  const int64_t thread = round_up<int64_t>(tile + Scratch::floats(plan), 16);
  const int d = plan.dimension, k = plan.traces();
  const auto floats = [&](int inner) { return packed + inner * thread; };
  return for_models(p.models, threads, floats, [&](int64_t index, float *memory, int inner) {
    Model model;
    model.place(plan, memory);
    model.pack(plan, parameters + index * p.network.size());
    if (plan.core()) model.pack_core(plan, ones);
    in_parallel(inner, tiles_of(p.rows), [&](int64_t at, int me) {
      float *own = memory + packed + me * thread;
      const Tile tile_here(plan, own, at * samples);
      Scratch scratch;
      scratch.place(plan, own + tile);
      evaluate(p, plan, model, points_of(p, points, index), index, tile_here, scratch);
      const int64_t first = index * p.rows + tile_here.first;
      for (int s = 0; s < tile_here.count(p.rows); ++s) {
        for (int c = 0; c < d; ++c) velocity[(first + s) * d + c] = tile_here.output[c * samples + s];
        float sum = 0;
        for (int j = 0; j < k; ++j) sum += scratch.trace[j * samples + s];
        divergence[first + s] = sum / static_cast<float>(k);
        if (strain) strain[first + s] = scratch.strain[s];
      }
    });
  });
}

bool divergence_gradient_cpu(const DivergenceParams &p, const float *points, const float *parameters,
                             const float *velocity, const float *divergence, const float *strain, float *gradient,
                             int threads) {
  const Plan plan(p.network, p.method, p.law, p.probes);
  const int64_t packed = Model::floats(plan), tile = Tile::floats(plan), size = p.network.size();
  const int64_t thread = round_up<int64_t>(tile + Scratch::floats(plan), 16);
  const int64_t share_floats = round_up<int64_t>(size + plan.core(), 16), shares = shares_of(p.rows);
  const int64_t tiles = tiles_of(p.rows);
  const int d = plan.dimension, k = plan.traces();
  const auto floats = [&](int inner) { return packed + inner * thread + shares * share_floats; };
  return for_models(p.models, threads, floats, [&](int64_t index, float *memory, int inner) {
    float *const sums = memory + packed + inner * thread, *const result = gradient + index * size;
    std::memset(sums, 0, sizeof(float) * static_cast<std::size_t>(shares * share_floats));
    std::memset(result, 0, sizeof(float) * static_cast<std::size_t>(size));
    Model model;
    model.place(plan, memory);
    model.pack(plan, parameters + index * size);
    if (plan.core()) model.pack_core(plan, ones);
    in_parallel(inner, shares, [&](int64_t share, int me) {
      float *own = memory + packed + me * thread, *const sum = sums + share * share_floats;
      Scratch scratch;
      scratch.place(plan, own + tile);
      V stretch[most_dimension];
      for (V &unused : stretch) unused = Lanes::set(0.0f);
      for (int64_t at = share * tiles / shares; at < (share + 1) * tiles / shares; ++at) {
        const Tile here(plan, own, at * samples);
        evaluate(p, plan, model, points_of(p, points, index), index, here, scratch);
        const int64_t first = index * p.rows + here.first;
        const int count = here.count(p.rows);
        turn(velocity + first * d, d, count, [](int s) { return int64_t{s}; }, here.upstream, 1);
        for (int s = 0; s < samples; ++s) {
          for (int j = 0; j < k; ++j)
            scratch.trace[j * samples + s] = s < count ? divergence[first + s] / static_cast<float>(k) : 0.0f;
          scratch.strain[s] = strain && s < count ? strain[first + s] : 0.0f;
        }
        differentiate_back(plan, model, here, scratch, ones, sum, sum + size, stretch);
        values_back(plan, model, here, 0, 1, scratch, sum);
      }
    });
    if (plan.core()) {
      for (int64_t share = 1; share < shares; ++share)
        for (int64_t i = size; i < size + plan.core(); ++i) sums[i] += sums[share * share_floats + i];
      double unused[most_dimension] = {};
      core_back(plan, model, ones, sums + size, result, unused);
    }
    add_shares(plan, sums, shares, share_floats, result);
  });
}

bool flow_loss_cpu(const FlowParams &p, const float *points, const float *scores, const float *parameters, float *loss,
                   float *gradient, float *mean, float *scale, int threads) {
  const Plan plan = plan_for(p);
  const int64_t size = p.network.size(), d = plan.dimension;
  const auto floats = [&](int inner) { return Work::floats(plan, p.rows, inner); };
  return for_models(p.models, threads, floats, [&](int64_t index, float *memory, int inner) {
    Work work;
    work.place(plan, p.rows, inner, memory);
    const int64_t skip = p.shared_points ? 0 : index * p.rows * d;
    Batch batch{points + skip, scores + skip, p.step, p.first_model + static_cast<uint64_t>(index)};
    loss[index] = static_cast<float>(learn(p, plan, work, parameters + index * size, batch, inner));
    std::memcpy(gradient + index * size, work.total, sizeof(float) * static_cast<std::size_t>(size));
    std::memcpy(mean + index * d, batch.mean, sizeof(float) * static_cast<std::size_t>(d));
    std::memcpy(scale + index * d, batch.scale, sizeof(float) * static_cast<std::size_t>(d));
  });
}

bool flow_train_cpu(const FlowParams &p, const float *points, const float *scores, const AdamStep *steps,
                    const std::int32_t *mirror, float *parameters, float *moments, float *losses, int threads) {
  const Plan plan = plan_for(p);
  const int64_t size = p.network.size();
  const auto floats = [&](int inner) { return Work::floats(plan, p.rows, inner); };
  return for_models(p.models, threads, floats, [&](int64_t index, float *memory, int inner) {
    Work work;
    work.place(plan, p.rows, inner, memory);
    float *const own = parameters + index * size;
    float *const first = moments + index * size, *const second = moments + (p.models + index) * size;
    for (int64_t step = 0; step < p.steps; ++step) {
      Batch batch{points, scores, p.step + static_cast<uint64_t>(step), p.first_model + static_cast<uint64_t>(index)};
      losses[index * p.steps + step] = static_cast<float>(learn(p, plan, work, own, batch, inner));
      adam(steps[step], p.weight_decay, mirror, size, work.total, own, first, second);
    }
  });
}

} // namespace eqflow::EQFLOW_ISA
