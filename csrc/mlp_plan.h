// How a block of CUDA threads lays out one network and the rows that it treats at a time.
//
// A tile is some rows of the batch, and each row is 1 + directions columns: the state and its tangents. Column
// k * rows + b is direction k of row b, so that four columns side by side always belong to one direction. A buffer
// holds one number a feature and column; the rows of a buffer have four numbers to spare, so that the threads of a warp
// that read one column of many features meet different banks.
#pragma once
#include "kernels.h"

namespace eqflow {

// What lies in shared memory: weights and tile, the tile, nothing.
enum class Place { on_chip, tile_on_chip, off_chip };

struct MlpLayer {
  int out, into;
  int stride;     // of the rows of the weights within a block, which are filled up with zeros to multiples of eight
  int weights;    // where they lie within a block
  int bias;       // the same, or -1
  int parameters; // where the weights lie in the parameters of a network; the bias follows them
};

struct MlpPlan {
  static constexpr int threads = 256, most_sums = 2 * MlpShape::most_dimension + 1;

  MlpLayer layer[MlpShape::most_layers + 1];
  int hidden_layers, dimension, inputs, parameters;
  int probes, groups;         // Philox counters a probe
  bool along_probes;          // the tangents run along the probes; else along the axes
  int rows, directions;       // of a tile
  int columns, stride;        // of a tile and of its buffers
  int stored;                 // layers whose states are kept for the way back
  int states, from, adjoint;  // places of buffers as tall as the widest layer
  int encoded, output, seeds; // of the inputs, of the output, of its adjoint
  int height;                 // floats of one of the first buffers
  int points, scores, chosen, velocity_weights, row_numbers, drawn, estimates, terms;
  int weights_floats, arena_floats; // the weights lie before the rest
};

namespace plan_detail {

constexpr int round_up(std::int64_t a, int unit) { return static_cast<int>((a + unit - 1) / unit * unit); }
constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
constexpr int larger(int a, int b) { return a > b ? a : b; }

} // namespace plan_detail

// rows: of a tile, a multiple of four. stored: as many states as are kept.
inline MlpPlan plan_for_rows(const MlpShape &network, std::int64_t probes, bool random, int rows, int stored) {
  using plan_detail::larger;
  using plan_detail::round_up;
  MlpPlan plan{};
  plan.hidden_layers = static_cast<int>(network.layers);
  plan.dimension = static_cast<int>(network.dimension);
  plan.inputs = static_cast<int>(network.inputs());
  plan.parameters = static_cast<int>(network.size());
  int at = 0, tallest = 0;
  for (int l = 0; l <= plan.hidden_layers; ++l) {
    MlpLayer &layer = plan.layer[l];
    layer.out = static_cast<int>(network.out(l));
    layer.into = static_cast<int>(network.into(l));
    layer.stride = round_up(layer.into, 8);
    layer.parameters = static_cast<int>(network.offset(l));
    layer.weights = at;
    at += round_up(layer.out, 8) * layer.stride;
    layer.bias = network.has_bias(l) ? at : -1;
    if (network.has_bias(l)) at += round_up(layer.out, 8);
    if (l < plan.hidden_layers) tallest = larger(tallest, round_up(layer.out, 8));
  }
  plan.weights_floats = at;
  plan.probes = random ? static_cast<int>(probes) : 0;
  plan.groups = (plan.dimension + 3) / 4;
  plan.along_probes = random && probes < network.dimension;
  plan.rows = rows;
  plan.directions = plan.along_probes ? plan.probes : plan.dimension;
  plan.columns = rows * (1 + plan.directions);
  plan.stride = plan.columns + 4;
  plan.stored = stored;
  // The parts of the output are gathered where the adjoint stands later.
  const int parts = larger(MlpPlan::threads, plan.columns) * round_up(plan.dimension, 4);
  plan.height = tallest * plan.stride;
  const auto take = [&](int floats) {
    const int place = plan.arena_floats;
    plan.arena_floats += round_up(floats, 4);
    return place;
  };
  plan.states = take(stored * plan.height);
  plan.from = take(larger(plan.height, parts));
  plan.adjoint = take(larger(plan.height, parts));
  plan.encoded = take(round_up(plan.inputs, 8) * plan.stride);
  plan.output = take(plan.dimension * plan.stride);
  plan.seeds = take(plan.dimension * plan.stride);
  plan.points = take(plan.columns * plan.dimension);
  plan.scores = take(plan.columns * plan.dimension);
  plan.chosen = take(plan.columns);
  plan.velocity_weights = take(rows * plan.dimension);
  plan.row_numbers = take(3 * rows);
  plan.drawn = take(rows * plan.probes * plan.dimension);
  plan.estimates = take(rows * plan.probes);
  plan.terms = take(2 * rows * plan.dimension);
  return plan;
}

constexpr int most_parts = 128, most_value_parts = 1024;
constexpr int static_floats = 1024 / 4;                     // more than the kernels' own variables take
constexpr int budgets[] = {227 << 10, 163 << 10, 99 << 10}; // shared memory of a block: sm_90 and on, sm_80, the others

struct Layout {
  MlpPlan plan;
  Place place;
  std::int64_t outside() const { // floats of a block beyond shared memory
    return place == Place::on_chip ? 0 : plan.weights_floats + (place == Place::off_chip ? plan.arena_floats : 0);
  }
  unsigned shared_bytes() const {
    const int floats = (place == Place::on_chip ? plan.weights_floats : 0) + plan.arena_floats;
    return place == Place::off_chip ? 0 : static_cast<unsigned>(sizeof(float) * floats);
  }
};

// About 128 columns a tile, so that 8 warps have 8 x 4 products a thread at width 64; fewer where memory is short. The
// weights stand back before the tile falls below 64 columns.
inline Layout layout_for(const MlpShape &network, std::int64_t rows, std::int64_t probes, bool random, bool backward,
                         int budget) {
  const std::int64_t directions = random ? plan_detail::smaller(probes, network.dimension) : network.dimension;
  const std::int64_t wanted = 128 / (1 + directions) / 4 * 4, most = plan_detail::divide_up(rows, 4) * 4;
  const auto begin = static_cast<int>(wanted < 4 ? 4 : plan_detail::smaller(wanted, most));
  const int stored = backward ? static_cast<int>(network.layers) : 1, floats = budget / 4 - static_floats;
  for (const Place place : {Place::on_chip, Place::tile_on_chip})
    for (int tile = begin; tile >= 4; tile -= 4) {
      const MlpPlan plan = plan_for_rows(network, probes, random, tile, stored);
      if (place == Place::on_chip && tile < begin && plan.columns < 64) break;
      if (plan.arena_floats + (place == Place::on_chip ? plan.weights_floats : 0) <= floats) return {plan, place};
    }
  return {plan_for_rows(network, probes, random, begin, stored), Place::off_chip};
}

inline Layout layout_for(const DivergenceParams &p, bool backward, int budget) {
  return layout_for(p.network, p.rows, p.probes, p.method == Method::probes, backward, budget);
}

inline Layout layout_for(const FlowParams &p, int budget) {
  const bool random = p.objective == Objective::sampled || p.objective == Objective::product;
  return layout_for(p.network, p.rows, p.probes, random, true, budget);
}

inline std::int64_t rows_of_part(const Layout &layout, std::int64_t rows, std::int64_t most) {
  return plan_detail::divide_up(plan_detail::divide_up(rows, layout.plan.rows), most) * layout.plan.rows;
}

// Floats: sums (if any), memory of the blocks, gradients (if any).
struct Parts {
  std::int64_t rows, count, sums, memory, gradients;

  Parts(const Layout &layout, std::int64_t models, std::int64_t all_rows, std::int64_t most, bool summed, bool backward)
      : rows(rows_of_part(layout, all_rows, most)), count(plan_detail::divide_up(all_rows, rows)),
        sums(summed ? models * count * 2 * MlpPlan::most_sums * 2 : 0), memory(models * count * layout.outside()),
        gradients(backward ? models * count * layout.plan.parameters : 0) {}
  std::int64_t floats() const { return sums + memory + gradients; }
};

// The most that any GPU needs: Python allocates before the device is known here.
template <class Floats> std::int64_t most_floats(Floats floats) {
  std::int64_t most = 0;
  for (const int budget : budgets) most = floats(budget) > most ? floats(budget) : most;
  return most;
}

} // namespace eqflow
