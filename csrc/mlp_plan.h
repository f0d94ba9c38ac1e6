// How a block of CUDA threads lays out one network and the rows that it treats at a time.
//
// A tile is some rows of the batch, and each row is 1 + directions columns: the state and its tangents. Column
// k * rows + b is direction k of row b, so that four columns side by side always belong to one direction. A buffer
// holds one number a feature and column. The rows of buffers and weights are odd multiples of four numbers long, so
// that the threads of a warp that read one column of many rows meet different banks.
#pragma once
#include "kernels.h"

namespace eqflow {

// Where the tile and the weights lie: in shared memory, or in the block's part of the workspace.
enum class Place { on_chip, off_chip };

// Addresses of device memory take more registers.
constexpr int most_threads(Place place) { return place == Place::on_chip ? 512 : 256; }

struct MlpLayer {
  int out, into;
  int stride;     // of the rows of the weights, which are filled up with zeros; of the first layer: of its columns
  int weights;    // where they lie among the packed ones; the first layer's are transposed
  int bias;       // the same, or -1
  int parameters; // where the weights lie in the parameters of a network; the bias follows them
};

struct MlpPlan {
  // A thread forms 8 x 4 numbers of a product: shared memory hands a warp 32 numbers a cycle while it multiplies 128,
  // so that every number which a thread reads must serve many products. A warp has 4 x 8 threads.
  static constexpr int high = 8, broad = 4, tall = 4 * high, wide = 8 * broad;
  static constexpr int most_sums = 2 * MlpShape::most_dimension + 1;
  static constexpr int most_slices = 4; // of the features, for the output

  MlpLayer layer[MlpShape::most_layers + 1];
  int threads, hidden_layers, dimension, frequencies, inputs, parameters;
  int probes, groups;         // Philox counters a probe
  bool along_probes;          // the tangents run along the probes; else along the axes
  int rows, directions;       // of a tile
  int columns, stride;        // of a tile and of its buffers
  int states, front;          // places of buffers as tall as the widest layer: one a layer kept, and one more
  int parts;                  // of the output
  int encoded, output, seeds; // of the inputs, of the output, of its adjoint
  int height;                 // floats of one of the first buffers
  bool kept;                  // the states of all layers, for the way back
  int points, scores, chosen, velocity_weights, row_numbers, drawn, estimates, terms;
  // Packed weights: all of them; those before the hidden layers' after the first; and of the largest of these, for
  // which alone there is room where `swapped`.
  int weights_floats, resident_floats, slab_floats;
  bool swapped;
  int held_floats, arena_floats; // shared memory holds weights, and the tile
};

namespace plan_detail {

constexpr int round_up(std::int64_t a, int unit) { return static_cast<int>((a + unit - 1) / unit * unit); }
constexpr int odd_fours(int a) { return round_up(a, 4) + (round_up(a, 4) % 8 == 0 ? 4 : 0); }
constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
constexpr int larger(int a, int b) { return a > b ? a : b; }

} // namespace plan_detail

// rows: of a tile, a multiple of four.
inline MlpPlan plan_for_rows(const MlpShape &network, std::int64_t probes, bool random, int rows, bool kept,
                             bool swapped) {
  using plan_detail::larger;
  using plan_detail::odd_fours;
  using plan_detail::round_up;
  MlpPlan plan{};
  plan.hidden_layers = static_cast<int>(network.layers);
  plan.dimension = static_cast<int>(network.dimension);
  plan.frequencies = static_cast<int>(network.frequencies);
  plan.inputs = static_cast<int>(network.inputs());
  plan.parameters = static_cast<int>(network.size());
  plan.kept = kept;
  plan.swapped = swapped;
  int tallest = 0;
  const auto take_weights = [&](int floats) {
    const int place = plan.weights_floats;
    plan.weights_floats += round_up(floats, 4);
    return place;
  };
  for (int l = 0; l <= plan.hidden_layers; ++l) {
    MlpLayer &layer = plan.layer[l];
    layer.out = static_cast<int>(network.out(l));
    layer.into = static_cast<int>(network.into(l));
    layer.stride = odd_fours(round_up(l == 0 ? layer.out : layer.into, MlpPlan::tall));
    layer.parameters = static_cast<int>(network.offset(l));
    layer.bias = network.has_bias(l) ? take_weights(round_up(layer.out, MlpPlan::tall)) : -1;
    if (l < plan.hidden_layers) tallest = larger(tallest, round_up(layer.out, MlpPlan::tall));
  }
  plan.layer[0].weights = take_weights(plan.layer[0].into * plan.layer[0].stride);
  MlpLayer &last = plan.layer[plan.hidden_layers];
  last.weights = take_weights(round_up(last.out, 4) * last.stride);
  plan.resident_floats = plan.weights_floats;
  for (int l = 1; l < plan.hidden_layers; ++l) {
    MlpLayer &layer = plan.layer[l];
    layer.weights = take_weights(round_up(layer.out, MlpPlan::tall) * layer.stride);
    plan.slab_floats = larger(plan.slab_floats, plan.weights_floats - layer.weights);
  }
  plan.held_floats = swapped ? plan.resident_floats + plan.slab_floats : plan.weights_floats;
  plan.probes = random ? static_cast<int>(probes) : 0;
  plan.groups = (plan.dimension + 3) / 4;
  plan.along_probes = random && probes < network.dimension;
  plan.rows = rows;
  plan.directions = plan.along_probes ? plan.probes : plan.dimension;
  plan.columns = rows * (1 + plan.directions);
  plan.stride = odd_fours(plan.columns);
  plan.height = tallest * plan.stride;
  plan.threads = 64; // or two for every 8 x 4 numbers of a layer, which then share their sums: more warps wait less
  while (plan.threads < most_threads(Place::on_chip) &&
         plan.threads * MlpPlan::high * MlpPlan::broad < 2 * tallest * plan.columns)
    plan.threads *= 2;
  const auto take = [&](int floats) {
    const int place = plan.arena_floats;
    plan.arena_floats += round_up(floats, 4);
    return place;
  };
  plan.states = take((kept ? plan.hidden_layers : 1) * plan.height);
  plan.front = take(plan.height);
  plan.encoded = take(round_up(plan.inputs, 4) * plan.stride);
  plan.output = take(plan.dimension * plan.stride);
  plan.points = take(plan.columns * plan.dimension);
  plan.scores = take(plan.columns * plan.dimension);
  plan.chosen = take(plan.columns);
  plan.drawn = take(rows * plan.probes * plan.dimension);
  plan.parts = plan.arena_floats; // which are read before anything that follows is written
  plan.seeds = take(plan.dimension * plan.stride);
  plan.velocity_weights = take(rows * plan.dimension);
  plan.row_numbers = take(3 * rows);
  plan.estimates = take(rows * plan.probes);
  plan.terms = take(2 * rows * plan.dimension);
  plan.arena_floats =
      larger(plan.arena_floats, plan.parts + MlpPlan::most_slices * plan.columns * round_up(plan.dimension, 4));
  return plan;
}

constexpr int most_parts = 128, most_value_parts = 1024;
constexpr int static_floats = 640 / 4;                      // more than the kernels' own variables take
constexpr int budgets[] = {227 << 10, 163 << 10, 99 << 10}; // shared memory of a block: sm_90 and on, sm_80, the others

struct Layout {
  MlpPlan plan;
  Place place;
  std::int64_t outside() const { return place == Place::off_chip ? plan.arena_floats : 0; } // floats of a block
  unsigned shared_bytes() const {
    return place == Place::off_chip ? 0 : static_cast<unsigned>(sizeof(float) * (plan.held_floats + plan.arena_floats));
  }
};

// About 64 columns a tile, fewer where memory is short. Two blocks a multiprocessor if they fit, because one computes
// while the other waits: then the weights of the hidden layers may have to take turns.
inline Layout layout_for(const MlpShape &network, std::int64_t rows, std::int64_t probes, bool random, bool backward,
                         int budget) {
  const std::int64_t directions = random ? plan_detail::smaller(probes, network.dimension) : network.dimension;
  const std::int64_t wanted = 64 / (1 + directions) / 4 * 4, most = plan_detail::divide_up(rows, 4) * 4;
  const auto begin = static_cast<int>(wanted < 4 ? 4 : plan_detail::smaller(wanted, most));
  const int half = (budget - 1024) / 2; // each block costs 1 KiB more
  for (const int bytes : {half, budget})
    for (int tile = begin; tile >= (bytes == half ? begin : 4); tile -= 4)
      for (const bool swapped : {false, true}) {
        const Layout layout{plan_for_rows(network, probes, random, tile, backward, swapped), Place::on_chip};
        if (bytes == half && 2 * layout.plan.threads > most_threads(Place::on_chip)) continue;
        if (layout.shared_bytes() + sizeof(float) * static_floats <= static_cast<unsigned>(bytes)) return layout;
      }
  Layout layout{plan_for_rows(network, probes, random, begin, backward, false), Place::off_chip};
  layout.plan.threads = static_cast<int>(plan_detail::smaller(layout.plan.threads, most_threads(Place::off_chip)));
  return layout;
}

inline Layout layout_for(const DivergenceParams &p, bool backward, int budget) {
  return layout_for(p.network, p.rows, p.probes, p.method == Method::probes, backward, budget);
}

inline Layout layout_for(const FlowParams &p, int budget) {
  const bool random = p.objective == Objective::sampled || p.objective == Objective::product;
  return layout_for(p.network, p.rows, p.probes, random, true, budget);
}

// The rows of a call, cut into parts that depend on their number alone. Floats: packed weights, memory of the blocks,
// gradients (if any).
struct Parts {
  std::int64_t rows, count, packed, memory, gradients;

  Parts(const Layout &layout, std::int64_t models, std::int64_t all_rows, std::int64_t most, bool backward)
      : rows(plan_detail::divide_up(plan_detail::divide_up(all_rows, layout.plan.rows), most) * layout.plan.rows),
        count(plan_detail::divide_up(all_rows, rows)), packed(models * layout.plan.weights_floats),
        memory(models * count * layout.outside()), gradients(backward ? models * count * layout.plan.parameters : 0) {}
  std::int64_t floats() const { return packed + memory + gradients; }
};

// The same for the three passes over a batch. The first and the last have no tangents, so that a tile of theirs has as
// many rows as a tile with tangents has columns, and a part is some of these. Each tile leaves its sums. A block
// gathers the gradient of a part; where the models are few, so that their parts are too few for a GPU, that of one tile
// with tangents. The order of all additions is the same.
struct FlowParts {
  static constexpr std::int64_t most = 32, most_split = 4096;

  std::int64_t rows, count;                  // of the parts
  std::int64_t short_rows;                   // of a tile without tangents
  std::int64_t short_tiles, tiles;           // without and with tangents, of a model
  std::int64_t split;                        // gradients of a part, of which the last part may have fewer
  std::int64_t slots;                        // gradients of a model
  std::int64_t sums, short_numbers, numbers; // floats of the sums; numbers of a tile
  std::int64_t packed, memory, gradients;

  FlowParts(const Layout &layout, std::int64_t models, std::int64_t all_rows) {
    using plan_detail::divide_up;
    const MlpPlan &plan = layout.plan;
    rows = divide_up(divide_up(all_rows, plan.columns), most) * plan.columns;
    count = divide_up(all_rows, rows);
    short_rows = plan_detail::smaller(plan.columns, divide_up(all_rows, 4) * 4);
    short_tiles = divide_up(all_rows, short_rows);
    tiles = divide_up(all_rows, plan.rows);
    split = layout.place == Place::on_chip && models * tiles <= most_split ? rows / plan.rows : 1;
    short_numbers = 2 * plan.dimension;
    numbers = short_numbers + 1;
    sums = plan_detail::round_up(2 * models * (short_tiles * short_numbers + tiles * numbers), 4);
    packed = models * plan.weights_floats;
    memory = models * count * layout.outside();
    slots = split > 1 ? tiles : count;
    gradients = models * slots * plan.parameters;
  }
  std::int64_t floats() const { return sums + packed + memory + gradients; }
};

// The most that any GPU needs: Python allocates before the device is known here.
template <class Floats> std::int64_t most_floats(Floats floats) {
  std::int64_t most = 0;
  for (const int budget : budgets) most = floats(budget) > most ? floats(budget) : most;
  return most;
}

} // namespace eqflow
