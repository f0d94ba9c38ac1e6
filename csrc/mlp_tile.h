// A perceptron and its derivatives on one tile of samples, forward and backward: eqflow/ops/divergence.py has the
// formulas. With z_l = W_l h_{l-1} + b_l, h_l = a(z_l), slope = a'(z_l), a = SiLU:
//
//   values              h_l and the gates sigmoid(z_l), then the output
//   differentiate       the tangents T_0 = dh_0 z, Y_l = W_l T_{l-1}, T_l = slope_l Y_l, W_o T_L of all directions z,
//   or
//                       the bilinear form; then the trace and the strain of every sample
//   differentiate_back  takes the derivatives by trace and strain; gives those by the weights, and for every layer the
//                       part of the derivative by z_l that came through the slopes
//   values_back         takes the derivative by the output; gives the rest of the gradient
#pragma once
#include <cstring>

#include "mlp_memory.h"
#include "philox_block.h"

namespace eqflow::EQFLOW_ISA {
namespace {

// The numbers of random vectors for the rows of a tile: draw_probes.
void draw_probes(const Plan &plan, const Tile &tile, uint64_t seed, uint64_t step, uint64_t model, float *probes) {
  const int d = plan.dimension, groups = (d + 3) / 4, count = plan.directions;
  const int64_t total = int64_t{samples} * count * groups, matrix = tile_floats(d);
  alignas(64) float numbers[4 * normal_block];
  WordBlock words;
  for (int64_t done = 0; done < total; done += normal_block) {
    const int block = static_cast<int>(total - done < normal_block ? total - done : normal_block);
    const CounterBlock counters{static_cast<uint32_t>(tile.first * count * groups + done),
                                static_cast<uint32_t>(model),
                                1,
                                0,
                                step,
                                seed,
                                NetworkStreams::probes};
    if (plan.law == Law::gaussian) {
      fill_normals(counters, block, numbers);
    } else {
      fill_words(counters, block, words);
      for (int i = 0; i < block; ++i) {
        const uint32_t four[] = {words.x[i], words.y[i], words.z[i], words.w[i]};
        for (int lane = 0; lane < 4; ++lane) numbers[4 * i + lane] = four[lane] >> 31 ? -1.0f : 1.0f;
      }
    }
    for (int i = 0; i < block; ++i) {
      const int64_t group = done + i, probe = group / groups;
      const int c = static_cast<int>(group % groups) * 4;
      float *to = probes + probe % count * matrix + c * samples + probe / count;
      for (int lane = 0; lane < 4 && c + lane < d; ++lane) to[lane * samples] = numbers[4 * i + lane];
    }
  }
}

// Numbers [rows][dimension] as [dimension][samples], each coordinate `spread` rows after the one before; zeros fill up.
template <class Index> void turn(const float *from, int dimension, int count, Index index, float *to, int spread) {
  for (int s = 0; s < samples; ++s)
    for (int c = 0; c < dimension; ++c)
      to[c * spread * samples + s] = s < count ? from[index(s) * dimension + c] : 0.0f;
}

// Sines and cosines of the coordinates, which stand at the heads of their blocks.
void encode(const Plan &plan, const Tile &tile) {
  alignas(64) float rest[samples], sine[samples], cosine[samples]; // of their own, so that the loops vectorise
  alignas(64) std::int32_t quarter[samples];
  for (int c = 0; c < plan.dimension; ++c) {
    float *block = tile.h[0] + c * plan.block * samples;
    double quarters = 0.6366197723675814; // of a turn, in double: the octaves of far points count too
    for (int row = 1; row < plan.block; row += 2, quarters *= 2) {
      for (int s = 0; s < samples; ++s) {
        const double angle = quarters * static_cast<double>(block[s]), whole = __builtin_floor(angle + 0.5);
        rest[s] = static_cast<float>((angle - whole) * 1.5707963267948966);
        quarter[s] = static_cast<std::int32_t>(whole - 4 * __builtin_floor(0.25 * whole));
      }
      for (int s = 0; s < samples; ++s) sine_cosine(quarter[s], rest[s], sine[s], cosine[s]);
      std::memcpy(block + row * samples, sine, sizeof(sine));
      std::memcpy(block + (row + 1) * samples, cosine, sizeof(cosine));
    }
  }
}

void values(const Plan &plan, const Model &model, const Tile &tile) {
  encode(plan, tile);
  for (int l = 1; l <= plan.layers; ++l) {
    float *h = tile.h[l], *gate = tile.gate[l];
    const float *bias = model.bias[l - 1];
    multiply(model.forward[l - 1], tile.h[l - 1], [&](int row, int at, V z) __attribute__((always_inline)) {
      Lanes::store(h + row * samples + at, z + Lanes::set(bias[row]));
    });
    over(plan.width[l], [&](int64_t at) {
      const V z = Lanes::load(h + at), open = sigmoid(z);
      Lanes::store(gate + at, open);
      Lanes::store(h + at, z * open);
    });
  }
  const float *bias = model.bias[plan.layers];
  multiply(model.forward[plan.layers], tile.h[plan.layers], [&](int row, int at, V u) __attribute__((always_inline)) {
    Lanes::store(tile.output + row * samples + at, u + Lanes::set(bias[row]));
  });
}

void slopes(const Plan &plan, const Tile &tile, const Scratch &scratch) {
  for (int l = 1; l <= plan.layers; ++l)
    over(plan.width[l], [&](int64_t at) {
      const V open = Lanes::load(tile.gate[l] + at), h = Lanes::load(tile.h[l] + at);
      Lanes::store(scratch.slope[l] + at, Lanes::fused(h, Lanes::set(1.0f) - open, open));
    });
}

void input_slopes(const Plan &plan, const Tile &tile, const Scratch &scratch) {
  for (int c = 0; c < plan.dimension; ++c) {
    const int64_t block = int64_t{c} * plan.block * samples;
    const float *from = tile.h[0] + block;
    float *to = scratch.input_slopes + block;
    for (int s = 0; s < samples; ++s) to[s] = 1.0f;
    float frequency = 1;
    for (int row = 1; row < plan.block; row += 2, frequency *= 2)
      for (int s = 0; s < samples; ++s) {
        to[row * samples + s] = frequency * from[(row + 1) * samples + s];
        to[(row + 1) * samples + s] = -frequency * from[row * samples + s];
      }
  }
}

// J z for every direction.
void push(const Plan &plan, const Model &model, const Tile &tile, const Scratch &scratch) {
  input_slopes(plan, tile, scratch);
  if (!plan.basis())
    for (int j = 0; j < plan.directions; ++j)
      for (int i = 0; i < plan.width[0]; ++i) {
        const float *probe = scratch.probes + j * tile_floats(plan.dimension) + i / plan.block * samples;
        along([&](int at) {
          const int64_t place = i * samples + at;
          Lanes::store(scratch.tangent[0] + j * tile_floats(plan.width[0]) + place,
                       Lanes::load(scratch.input_slopes + place) * Lanes::load(probe + at));
        });
      }
  for (int l = 1; l <= plan.layers; ++l) {
    const Panels &weights = model.forward[l - 1];
    const float *slope = scratch.slope[l];
    const int64_t matrix = tile_floats(plan.width[l]);
    for (int j = 0; j < plan.directions; ++j) {
      float *before = scratch.before[l] + j * matrix, *tangent = scratch.tangent[l] + j * matrix;
      const auto finish = [&](int row, int sample, V y) __attribute__((always_inline)) {
        const int at = row * samples + sample;
        Lanes::store(before + at, y);
        Lanes::store(tangent + at, Lanes::load(slope + at) * y);
      };
      const int first = j * plan.block;
      if (l == 1 && plan.basis())
        multiply(weights, weights.columns(first), plan.block, scratch.input_slopes + first * samples, finish);
      else
        multiply(weights, scratch.tangent[l - 1] + j * tile_floats(plan.width[l - 1]), finish);
    }
  }
  for (int j = 0; j < plan.directions; ++j) {
    float *pushed = scratch.pushed + j * tile_floats(plan.dimension);
    multiply(model.forward[plan.layers], scratch.tangent[plan.layers] + j * tile_floats(plan.width[plan.layers]),
             [&](int row, int at, V y)
                 __attribute__((always_inline)) { Lanes::store(pushed + row * samples + at, y); });
  }
}

// The traces, z^T J z of every probe, and the strain, for an output that is scaled by inverse[c].
void contract(const Plan &plan, const Scratch &scratch, const float *inverse) {
  const int d = plan.dimension;
  const int64_t matrix = tile_floats(d);
  along([&](int at) {
    const auto entry = [&](int i, int j) __attribute__((always_inline)) {
      return Lanes::load(scratch.pushed + j * matrix + i * samples + at) * Lanes::set(inverse[i]);
    };
    if (!plan.basis()) {
      for (int j = 0; j < plan.directions; ++j) {
        V sum = Lanes::set(0.0f);
        for (int i = 0; i < d; ++i)
          sum = Lanes::fused(Lanes::load(scratch.probes + j * matrix + i * samples + at), entry(i, j), sum);
        Lanes::store(scratch.trace + j * samples + at, sum);
      }
      return;
    }
    V trace = Lanes::set(0.0f), strain = trace;
    for (int i = 0; i < d; ++i) {
      const V diagonal = entry(i, i);
      trace = trace + diagonal;
      if (plan.law == Law::gaussian) strain = Lanes::fused(diagonal, diagonal, strain);
      for (int j = 0; j < i; ++j) {
        const V both = entry(i, j) + entry(j, i);
        strain = Lanes::fused(both * Lanes::set(0.5f), both, strain);
      }
    }
    Lanes::store(scratch.trace + at, trace);
    Lanes::store(scratch.strain + at, strain);
  });
}

// Backwards through contract: derivatives by the traces and the strain stand in their places, those by J z replace it.
// stretch[c] takes the sum over the entries of row c of J of entry times derivative.
void expand(const Plan &plan, const Scratch &scratch, const float *inverse, V *stretch) {
  const int d = plan.dimension;
  const int64_t matrix = tile_floats(d);
  along([&](int at) {
    const auto bend = [&](int i, int j, V entry, V slope) __attribute__((always_inline)) {
      stretch[i] = Lanes::fused(entry, slope, stretch[i]);
      Lanes::store(scratch.pushed + j * matrix + i * samples + at, slope * Lanes::set(inverse[i]));
    };
    const auto entry = [&](int i, int j) __attribute__((always_inline)) {
      return Lanes::load(scratch.pushed + j * matrix + i * samples + at) * Lanes::set(inverse[i]);
    };
    if (!plan.basis()) {
      for (int j = 0; j < plan.directions; ++j) {
        const V slope = Lanes::load(scratch.trace + j * samples + at);
        for (int i = 0; i < d; ++i)
          bend(i, j, entry(i, j), slope * Lanes::load(scratch.probes + j * matrix + i * samples + at));
      }
      return;
    }
    const V of_trace = Lanes::load(scratch.trace + at), of_strain = Lanes::load(scratch.strain + at);
    for (int i = 0; i < d; ++i) {
      const V diagonal = entry(i, i);
      bend(i, i, diagonal,
           plan.law == Law::gaussian ? Lanes::fused(of_strain * Lanes::set(2.0f), diagonal, of_trace) : of_trace);
      for (int j = 0; j < i; ++j) {
        const V lower = entry(i, j), upper = entry(j, i), slope = of_strain * (lower + upper);
        bend(i, j, lower, slope);
        bend(j, i, upper, slope);
      }
    }
  });
}

// Backwards through push: derivatives by J z stand in its place.
void pull(const Plan &plan, const Model &model, const Tile &tile, const Scratch &scratch, float *gradient) {
  const int last = plan.layers, count = plan.directions;
  const auto run = [&](const float *at, int rows) { return Run{at, tile_floats(rows), count}; };
  add_outer(run(scratch.pushed, plan.dimension), plan.dimension, run(scratch.tangent[last], plan.width[last]),
            plan.width[last], gradient + plan.shape.offset(last), plan.width[last]);
  for (int l = last; l >= 1; --l) {
    const int width = plan.width[l], into = plan.width[l - 1];
    const float *slope = scratch.slope[l];
    float *curve = tile.curve[l];
    std::memset(curve, 0, sizeof(float) * static_cast<std::size_t>(tile_floats(width)));
    for (int j = 0; j < count; ++j) {
      float *before = scratch.before[l] + j * tile_floats(width);
      const float *from = l == last ? scratch.pushed + j * tile_floats(plan.dimension)
                                    : scratch.before[l + 1] + j * tile_floats(plan.width[l + 1]);
      multiply(model.back[l], from, [&](int row, int sample, V t) __attribute__((always_inline)) {
        const int at = row * samples + sample;
        Lanes::store(curve + at, Lanes::fused(Lanes::load(before + at), t, Lanes::load(curve + at)));
        Lanes::store(before + at, Lanes::load(slope + at) * t);
      });
    }
    float *to = gradient + plan.shape.offset(l - 1);
    if (l > 1 || !plan.basis()) {
      add_outer(run(scratch.before[l], width), width, run(scratch.tangent[l - 1], into), into, to, into);
      continue;
    }
    for (int j = 0; j < count; ++j) {
      const int first = j * plan.block;
      add_outer({scratch.before[1] + j * tile_floats(width), 0, 1}, width,
                {scratch.input_slopes + first * samples, 0, 1}, plan.block, to + first, into);
    }
  }
}

void differentiate(const Plan &plan, const Model &model, const Tile &tile, const Scratch &scratch,
                   const float *inverse) {
  slopes(plan, tile, scratch);
  if (plan.method != Method::bilinear) {
    push(plan, model, tile, scratch);
    return contract(plan, scratch, inverse);
  }
  float *product = scratch.one;
  multiply(model.core, scratch.slope[1],
           [&](int row, int at, V g) __attribute__((always_inline)) { Lanes::store(product + row * samples + at, g); });
  along([&](int at) {
    V trace = Lanes::set(0.0f);
    for (int row = 0; row < plan.width[2]; ++row)
      trace = Lanes::fused(Lanes::load(product + row * samples + at),
                           Lanes::load(scratch.slope[2] + row * samples + at), trace);
    Lanes::store(scratch.trace + at, trace);
  });
}

// `core` takes the derivatives by the matrix of the bilinear form.
void differentiate_back(const Plan &plan, const Model &model, const Tile &tile, const Scratch &scratch,
                        const float *inverse, float *gradient, float *core, V *stretch) {
  if (plan.method != Method::bilinear) {
    expand(plan, scratch, inverse, stretch);
    pull(plan, model, tile, scratch, gradient);
  } else {
    float *weighted = scratch.other;
    for (int row = 0; row < plan.width[2]; ++row)
      along([&](int at) {
        const V of_trace = Lanes::load(scratch.trace + at);
        const int place = row * samples + at;
        Lanes::store(tile.curve[2] + place, of_trace * Lanes::load(scratch.one + place));
        Lanes::store(weighted + place, of_trace * Lanes::load(scratch.slope[2] + place));
      });
    multiply(model.core_back, weighted, [&](int row, int at, V t) __attribute__((always_inline)) {
      Lanes::store(tile.curve[1] + row * samples + at, t);
    });
    add_outer({weighted, 0, 1}, plan.width[2], {scratch.slope[1], 0, 1}, plan.width[1], core, plan.width[1]);
  }
  for (int l = 1; l <= plan.layers; ++l) // a'' = (1 - gate)(2 gate + h (1 - 2 gate))
    over(plan.width[l], [&](int64_t at) {
      const V open = Lanes::load(tile.gate[l] + at), h = Lanes::load(tile.h[l] + at), one = Lanes::set(1.0f);
      const V bent = (one - open) * Lanes::fused(h, one - (open + open), open + open);
      Lanes::store(tile.curve[l] + at, bent * Lanes::load(tile.curve[l] + at));
      Lanes::store(tile.gate[l] + at, Lanes::load(scratch.slope[l] + at));
    });
}

// The derivative by the output stands in tile.upstream. Goes over `count` tiles at once, at most `abreast`, each
// `stride` numbers after the one before: the sums of their gradient are reduced only once.
void values_back(const Plan &plan, const Model &model, const Tile &tile, int64_t stride, int count,
                 const Scratch &scratch, float *gradient) {
  Run from{tile.upstream, stride, count};
  float *next = scratch.one, *after = scratch.other;
  for (int l = plan.layers; l >= 0; --l) {
    const int out = plan.out(l), into = plan.width[l];
    float *to = gradient + plan.shape.offset(l);
    add_outer(from, out, {tile.h[l], stride, count}, into, to, into);
    if (plan.shape.has_bias(l))
      for (int n = 0; n < count; ++n) add_sums(from.at + n * from.stride, out, to + out * into);
    if (l == 0) break;
    for (int n = 0; n < count; ++n) {
      const float *gate = tile.gate[l] + n * stride, *curve = tile.curve[l] + n * stride;
      float *slope = next + n * tile_floats(into);
      multiply(model.back[l], from.at + n * from.stride, [&](int row, int sample, V t) __attribute__((always_inline)) {
        const int at = row * samples + sample;
        Lanes::store(slope + at, Lanes::fused(Lanes::load(gate + at), t, Lanes::load(curve + at)));
      });
    }
    from = {next, tile_floats(into), count};
    float *const spare = next;
    next = after;
    after = spare;
  }
}

// What the derivatives by the core mean for the weights. inverse[c] scales row c of W_3; stretch[c] takes the sum over
// row c of W_3 of entry times derivative.
void core_back(const Plan &plan, const Model &model, const float *inverse, const float *core, float *gradient,
               double *stretch) {
  const float *first = model.weights(plan, 0), *second = model.weights(plan, 1), *last = model.weights(plan, 2);
  const int h1 = plan.width[1], h2 = plan.width[2], d = plan.dimension;
  float *to_first = gradient, *to_second = gradient + plan.shape.offset(1), *to_last = gradient + plan.shape.offset(2);
  for (int o = 0; o < h2; ++o) {
    float of_last[most_dimension] = {};
    for (int i = 0; i < h1; ++i) {
      const float of_core = core[o * h1 + i], of_chain = of_core * second[o * h1 + i];
      float chain = 0;
      for (int c = 0; c < d; ++c) {
        chain += first[i * d + c] * inverse[c] * last[c * h2 + o];
        to_first[i * d + c] += of_chain * inverse[c] * last[c * h2 + o];
        of_last[c] += of_chain * first[i * d + c];
      }
      to_second[o * h1 + i] += of_core * chain;
    }
    for (int c = 0; c < d; ++c) {
      to_last[c * h2 + o] += of_last[c] * inverse[c];
      stretch[c] += static_cast<double>(of_last[c]) * static_cast<double>(inverse[c] * last[c * h2 + o]);
    }
  }
}

} // namespace
} // namespace eqflow::EQFLOW_ISA
