// How perceptrons and tiles of samples lie in memory while the passes of mlp_tile.h go over them.
//
// The inputs stand coordinate by coordinate, [x, sin x, cos x, sin 2x, ...] of each, so that a basis vector has a block
// of them to itself.
#pragma once
#include "kernels.h"
#include "mlp.h"

namespace eqflow::EQFLOW_ISA {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;

constexpr int most_levels = static_cast<int>(MlpShape::most_layers) + 1; // the inputs and the hidden layers
constexpr int most_dimension = static_cast<int>(MlpShape::most_dimension);

EQFLOW_INLINE int64_t tile_floats(int64_t rows) { return round_up<int64_t>(rows, padding) * samples; }

// How a network lies in memory, and what it is asked for.
struct Plan {
  MlpShape shape;
  Method method;
  Law law;
  int dimension, layers, block; // hidden layers; inputs of a coordinate
  int width[most_levels];       // of the inputs and the hidden layers
  int directions;

  Plan(const MlpShape &shape, Method method, Law law, int64_t probes) : shape(shape), method(method), law(law) {
    dimension = static_cast<int>(shape.dimension);
    layers = static_cast<int>(shape.layers);
    block = 1 + 2 * static_cast<int>(shape.frequencies);
    for (int l = 0; l <= layers; ++l) width[l] = static_cast<int>(shape.into(l));
    directions = method == Method::probes ? static_cast<int>(probes) : method == Method::tangents ? dimension : 0;
  }
  int out(int layer) const { return layer == layers ? dimension : width[layer + 1]; }
  bool basis() const { return method == Method::tangents; }
  int traces() const { return method == Method::probes ? directions : 1; }
  // Where an input stands among the numbers of a row of W_1.
  int input(int i) const { return i % block * dimension + i / block; }
  int64_t core() const { return method == Method::bilinear ? int64_t{width[1]} * width[2] : 0; }
};

// The weights of one model, packed.
struct Model {
  const float *parameters;
  Panels forward[most_levels], back[most_levels], core, core_back;
  float *bias[most_levels];

  static int64_t floats(const Plan &plan) {
    int64_t sum = 0;
    for (int l = 0; l <= plan.layers; ++l) {
      sum += Panels::size(plan.out(l), plan.width[l]) + Panels::size(plan.width[l], plan.out(l));
      sum += round_up<int64_t>(plan.out(l), 16);
    }
    if (plan.core()) sum += Panels::size(plan.width[2], plan.width[1]) + Panels::size(plan.width[1], plan.width[2]);
    return round_up<int64_t>(sum, 16);
  }
  void place(const Plan &plan, float *memory) {
    const auto panels = [&](int out, int into) {
      const Panels made{memory, out, into};
      memory += Panels::size(out, into);
      return made;
    };
    for (int l = 0; l <= plan.layers; ++l) {
      forward[l] = panels(plan.out(l), plan.width[l]);
      back[l] = panels(plan.width[l], plan.out(l));
      bias[l] = memory;
      memory += round_up(plan.out(l), 16);
    }
    if (!plan.core()) return;
    core = panels(plan.width[2], plan.width[1]);
    core_back = panels(plan.width[1], plan.width[2]);
  }
  const float *weights(const Plan &plan, int layer) const { return parameters + plan.shape.offset(layer); }
  void pack(const Plan &plan, const float *from) {
    parameters = from;
    for (int l = 0; l <= plan.layers; ++l) {
      const float *weight = weights(plan, l);
      const int into = plan.width[l], out = plan.out(l);
      if (l == 0) {
        forward[l].fill([&](int o, int i) { return weight[o * into + plan.input(i)]; });
      } else {
        forward[l].fill([&](int o, int i) { return weight[o * into + i]; });
        back[l].fill([&](int i, int o) { return weight[o * into + i]; });
      }
      for (int o = 0; o < round_up(out, 16); ++o)
        bias[l][o] = o < out && plan.shape.has_bias(l) ? weight[out * into + o] : 0.0f;
    }
  }
  // The matrix of the bilinear form, W_2 o (W_1 W_3)^T, with row c of W_3 times inverse[c].
  void pack_core(const Plan &plan, const float *inverse) {
    const float *first = weights(plan, 0), *second = weights(plan, 1), *last = weights(plan, 2);
    const int h1 = plan.width[1], h2 = plan.width[2], d = plan.dimension;
    const auto number = [&](int o, int i) {
      float sum = 0;
      for (int c = 0; c < d; ++c) sum += first[i * d + c] * inverse[c] * last[c * h2 + o];
      return second[o * h1 + i] * sum;
    };
    core.fill(number);
    core_back.fill([&](int i, int o) { return number(o, i); });
  }
};

// What is kept of a tile between the passes.
struct Tile {
  float *h[most_levels];                         // the inputs and the hidden layers
  float *gate[most_levels], *curve[most_levels]; // sigmoid(z), later the slope; what came through the slope
  float *output, *upstream, *scores;
  float *mask; // 1 for the samples that are there, else 0
  int64_t first;

  static int64_t floats(const Plan &plan) {
    int64_t sum = tile_floats(plan.width[0]) + 3 * tile_floats(plan.dimension) + tile_floats(1);
    for (int l = 1; l <= plan.layers; ++l) sum += 3 * tile_floats(plan.width[l]);
    return sum;
  }
  Tile(const Plan &plan, float *memory, int64_t first) : first(first) {
    const auto take = [&](int rows) {
      float *at = memory;
      memory += tile_floats(rows);
      return at;
    };
    h[0] = take(plan.width[0]);
    for (int l = 1; l <= plan.layers; ++l) {
      h[l] = take(plan.width[l]);
      gate[l] = take(plan.width[l]);
      curve[l] = take(plan.width[l]);
    }
    output = take(plan.dimension);
    upstream = take(plan.dimension);
    scores = take(plan.dimension);
    mask = take(1);
  }
  int count(int64_t rows) const { return static_cast<int>(rows - first < samples ? rows - first : samples); }
};

// What a thread needs for the derivatives of a tile.
struct Scratch {
  float *slope[most_levels];
  float *input_slopes;                               // of the inputs by their coordinate
  float *tangent[most_levels], *before[most_levels]; // T_l and Y_l, one matrix a direction
  float *pushed, *probes;                            // J z and z, one matrix a direction
  float *trace, *strain;                             // of a direction and sample; of a sample
  float *one, *other;                                // as wide as the widest layer

  static int64_t floats(const Plan &plan) {
    Scratch scratch;
    return scratch.place(plan, nullptr) + 4 * samples; // a product reads three rows beyond its matrix
  }
  int64_t place(const Plan &plan, float *memory) {
    int64_t used = 0;
    const auto take = [&](int rows, int matrices) {
      float *at = memory ? memory + used : nullptr;
      used += matrices * tile_floats(rows);
      return at;
    };
    int widest = plan.width[0];
    input_slopes = take(plan.width[0], 1);
    tangent[0] = plan.basis() ? input_slopes : take(plan.width[0], plan.directions);
    for (int l = 1; l <= plan.layers; ++l) {
      slope[l] = take(plan.width[l], 1);
      tangent[l] = take(plan.width[l], plan.directions);
      before[l] = take(plan.width[l], plan.directions);
      widest = plan.width[l] > widest ? plan.width[l] : widest;
    }
    pushed = take(plan.dimension, plan.directions);
    probes = take(plan.dimension, plan.method == Method::probes ? plan.directions : 0);
    trace = take(plan.traces(), 1);
    strain = take(1, 1);
    one = take(widest, abreast);
    other = take(widest, abreast);
    return used;
  }
};

} // namespace
} // namespace eqflow::EQFLOW_ISA
