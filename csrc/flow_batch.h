// Loss, gradient and Adam of an equilibrium flow on the CPU: eqflow/ops/flow_loss.py has the contract.
//
// A normalised batch takes three passes, since the statistics come between: the values; the directions, forward and
// backward; the values backward. What is kept between the passes is as wide as the layers, not as the directions.
#pragma once
#include <cmath>

#include "mlp_shares.h"
#include "mlp_tile.h"

namespace eqflow::EQFLOW_ISA {
namespace {

EQFLOW_INLINE void set_mask(const Tile &tile, int count) {
  for (int s = 0; s < samples; ++s) tile.mask[s] = s < count ? 1.0f : 0.0f;
}

EQFLOW_INLINE double total(V sums) {
  alignas(64) float numbers[Lanes::lanes];
  Lanes::store(numbers, sums);
  double sum = 0;
  for (const float number : numbers) sum += static_cast<double>(number);
  return sum;
}

struct Sums { // of a share, over its samples
  double loss, shift[most_dimension], stretch[most_dimension];
};

struct Batch { // of one model in one step
  const float *points, *scores;
  uint64_t step, model;
  float mean[most_dimension], scale[most_dimension], inverse[most_dimension];
  float shift[most_dimension], stretch[most_dimension]; // what mean and scale add to the derivative by the output
  double rest[most_dimension]; // of the mean, which float cuts off: it counts where the outputs hardly differ
};

// What a model has at hand.
struct Work {
  Model model;
  float *tiles, *gradients, *scratch, *total; // of all tiles, shares, threads; of the model
  Sums *sums;
  int64_t tile, gradient, thread; // floats of one

  static int64_t floats(const Plan &plan, int64_t rows, int threads) {
    return Work().place(plan, rows, threads, nullptr);
  }
  int64_t place(const Plan &plan, int64_t rows, int threads, float *memory) {
    int64_t used = 0;
    const auto take = [&](int64_t floats) {
      float *at = memory ? memory + used : nullptr;
      used += round_up<int64_t>(floats, 16);
      return at;
    };
    float *packed = take(Model::floats(plan));
    if (memory) model.place(plan, packed);
    tile = Tile::floats(plan);
    gradient = round_up<int64_t>(plan.shape.size() + plan.core(), 16);
    thread = round_up<int64_t>(Scratch::floats(plan), 16);
    tiles = take(tile * tiles_of(rows));
    gradients = take(gradient * shares_of(rows));
    scratch = take(thread * threads);
    total = take(gradient);
    sums = reinterpret_cast<Sums *>(take(shares_of(rows) * static_cast<int64_t>(sizeof(Sums) / sizeof(float))));
    return used;
  }
  Tile tile_at(const Plan &plan, int64_t index) const { return Tile(plan, tiles + index * tile, index * samples); }
};

// Body(tile, count, scratch, share) for all tiles, up to `group` at once: the first of `count`.
template <class Body>
void for_tiles(const Plan &plan, const Work &work, int64_t rows, int threads, int group, Body body) {
  const int64_t tiles = tiles_of(rows), shares = shares_of(rows);
  in_parallel(threads, shares, [&](int64_t share, int thread) {
    Scratch scratch;
    scratch.place(plan, work.scratch + thread * work.thread);
    const int64_t end = (share + 1) * tiles / shares;
    for (int64_t at = share * tiles / shares; at < end; at += group)
      body(work.tile_at(plan, at), static_cast<int>(end - at < group ? end - at : group), scratch, share);
  });
}

void load(const FlowParams &p, const Plan &plan, const Batch &batch, const Tile &tile) {
  const int count = tile.count(p.rows);
  int64_t rows[samples];
  if (p.steps) { // drawn from the pool
    WordBlock words;
    const CounterBlock counters{static_cast<uint32_t>(tile.first / 4),
                                static_cast<uint32_t>(batch.model),
                                1,
                                0,
                                batch.step,
                                p.seed,
                                NetworkStreams::minibatch};
    fill_words(counters, samples / 4, words);
    for (int i = 0; i < samples / 4; ++i) {
      const uint32_t four[] = {words.x[i], words.y[i], words.z[i], words.w[i]};
      for (int lane = 0; lane < 4; ++lane)
        rows[4 * i + lane] = static_cast<int64_t>(four[lane] * static_cast<uint64_t>(p.pool) >> 32);
    }
  } else {
    for (int s = 0; s < samples; ++s) rows[s] = tile.first + s;
  }
  const auto index = [&](int s) { return rows[s]; };
  turn(batch.points, plan.dimension, count, index, tile.h[0], plan.block);
  turn(batch.scores, plan.dimension, count, index, tile.scores, 1);
  set_mask(tile, count);
}

// Mean and scale of the output over the batch.
void normalise(const FlowParams &p, const Plan &plan, const Work &work, Batch &batch) {
  const int d = plan.dimension;
  double mean[most_dimension], variance[most_dimension], common = 0;
  const auto average = [&](int c, double centre, int power) {
    double sum = 0;
    for (int64_t at = 0; at < tiles_of(p.rows); ++at) {
      const Tile tile = work.tile_at(plan, at);
      for (int s = 0; s < tile.count(p.rows); ++s) {
        const double away = static_cast<double>(tile.output[c * samples + s]) - centre;
        sum += power == 1 ? away : away * away;
      }
    }
    return sum / static_cast<double>(p.rows);
  };
  for (int c = 0; c < d; ++c) {
    mean[c] = average(c, 0, 1);
    variance[c] = average(c, mean[c], 2);
    common += variance[c] / d;
  }
  for (int c = 0; c < d; ++c) {
    const double scale = std::sqrt((p.norm == Norm::scalar ? common : variance[c]) + FlowConstants::epsilon);
    batch.mean[c] = p.norm == Norm::none ? 0.0f : static_cast<float>(mean[c]);
    batch.rest[c] = mean[c] - static_cast<double>(batch.mean[c]);
    batch.scale[c] = p.norm == Norm::none ? 1.0f : static_cast<float>(scale);
    batch.inverse[c] = p.norm == Norm::none ? 1.0f : static_cast<float>(1 / scale);
  }
}

// The loss of the samples of a tile: derivatives by trace and strain replace them, those by v go to tile.upstream.
void lose(const FlowParams &p, const Plan &plan, const Batch &batch, const Tile &tile, const Scratch &scratch,
          Sums &sums) {
  const int d = plan.dimension, k = plan.traces();
  const double probes = static_cast<double>(p.probes);
  const bool strained = p.objective == Objective::expected, product = p.objective == Objective::product;
  const V one_row = Lanes::set(static_cast<float>(1 / static_cast<double>(p.rows)));
  const V weight = Lanes::set(static_cast<float>(2 / probes));
  const V pairs = Lanes::set(product ? static_cast<float>(1 / (probes * (probes - 1))) : 1.0f);
  const V share = Lanes::set(1 / static_cast<float>(k));
  V loss = Lanes::set(0.0f), shift[most_dimension], stretch[most_dimension];
  for (int c = 0; c < d; ++c) shift[c] = stretch[c] = loss;
  along([&](int at) {
    const V here = Lanes::load(tile.mask + at), each = here * one_row;
    const auto velocity = [&](int c) __attribute__((always_inline)) {
      return (Lanes::load(tile.output + c * samples + at) - Lanes::set(batch.mean[c])) * Lanes::set(batch.inverse[c]);
    };
    V ahead = Lanes::set(0.0f), sum = ahead, squares = ahead;
    for (int c = 0; c < d; ++c) ahead = Lanes::fused(velocity(c), Lanes::load(tile.scores + c * samples + at), ahead);
    for (int j = 0; j < k; ++j) {
      const V residual = Lanes::load(scratch.trace + j * samples + at) + ahead;
      Lanes::store(scratch.trace + j * samples + at, residual);
      sum = sum + residual;
      squares = Lanes::fused(residual, residual, squares);
    }
    V of_ahead; // the derivative by v . s: the sum of those by the residuals
    if (product) {
      loss = Lanes::fused((sum * sum - squares) * pairs, each, loss);
      of_ahead = Lanes::set(0.0f);
      for (int j = 0; j < k; ++j) {
        const V slope = (sum - Lanes::load(scratch.trace + j * samples + at)) * pairs * (each + each);
        Lanes::store(scratch.trace + j * samples + at, slope);
        of_ahead = of_ahead + slope;
      }
    } else {
      const V residual = sum * share;
      loss = Lanes::fused(residual * residual, each, loss);
      of_ahead = residual * (each + each);
      for (int j = 0; j < k; ++j) Lanes::store(scratch.trace + j * samples + at, of_ahead * share);
    }
    if (strained) loss = Lanes::fused(Lanes::load(scratch.strain + at) * weight, each, loss);
    if (plan.basis()) Lanes::store(scratch.strain + at, strained ? weight * each : Lanes::set(0.0f));
    for (int c = 0; c < d; ++c) {
      const V slope = of_ahead * Lanes::load(tile.scores + c * samples + at);
      Lanes::store(tile.upstream + c * samples + at, slope);
      shift[c] = shift[c] + slope;
      stretch[c] = Lanes::fused(slope, velocity(c), stretch[c]);
    }
  });
  sums.loss += total(loss);
  for (int c = 0; c < d; ++c) {
    sums.shift[c] += total(shift[c]);
    sums.stretch[c] += total(stretch[c]);
  }
}

// The derivatives by mean and scale, as numbers that every sample adds.
void spread(const FlowParams &p, const Plan &plan, const Sums &sums, Batch &batch) {
  const double rows = static_cast<double>(p.rows);
  double common = 0;
  for (int c = 0; c < plan.dimension; ++c) common -= static_cast<double>(batch.inverse[c]) * sums.stretch[c];
  for (int c = 0; c < plan.dimension; ++c) {
    const double inverse = static_cast<double>(batch.inverse[c]);
    const double by_scale = p.norm == Norm::scalar ? common / plan.dimension : -inverse * sums.stretch[c];
    const double stretch = p.norm == Norm::none ? 0 : by_scale * inverse / rows;
    const double shift = p.norm == Norm::none ? 0 : -inverse * sums.shift[c] / rows;
    batch.stretch[c] = static_cast<float>(stretch);
    batch.shift[c] = static_cast<float>(shift - stretch * batch.rest[c]);
  }
}

// The derivative by the output from that by the velocity.
void unnormalise(const Plan &plan, const Batch &batch, const Tile &tile) {
  for (int c = 0; c < plan.dimension; ++c)
    along([&](int at) {
      float *slope = tile.upstream + c * samples + at;
      const V away = Lanes::load(tile.output + c * samples + at) - Lanes::set(batch.mean[c]);
      const V common = Lanes::fused(away, Lanes::set(batch.stretch[c]), Lanes::set(batch.shift[c]));
      Lanes::store(
          slope, Lanes::fused(Lanes::load(slope), Lanes::set(batch.inverse[c]), common * Lanes::load(tile.mask + at)));
    });
}

// Loss and, in work.total, gradient of one batch of one model.
double learn(const FlowParams &p, const Plan &plan, Work &work, const float *parameters, Batch &batch, int threads) {
  const int64_t shares = shares_of(p.rows), size = plan.shape.size();
  Model &model = work.model;
  model.pack(plan, parameters);
  std::memset(work.gradients, 0, sizeof(float) * static_cast<std::size_t>(shares * work.gradient));
  std::memset(work.total, 0, sizeof(float) * static_cast<std::size_t>(work.gradient));
  std::memset(work.sums, 0, sizeof(Sums) * static_cast<std::size_t>(shares));

  for_tiles(plan, work, p.rows, threads, 1, [&](const Tile &tile, int, const Scratch &, int64_t) {
    load(p, plan, batch, tile);
    values(plan, model, tile);
  });
  normalise(p, plan, work, batch);
  if (plan.core()) model.pack_core(plan, batch.inverse);

  for_tiles(plan, work, p.rows, threads, 1, [&](const Tile &tile, int, const Scratch &scratch, int64_t share) {
    float *gradient = work.gradients + share * work.gradient;
    V stretch[most_dimension];
    for (V &sum : stretch) sum = Lanes::set(0.0f);
    if (plan.method == Method::probes) draw_probes(plan, tile, p.seed, batch.step, batch.model, scratch.probes);
    differentiate(plan, model, tile, scratch, batch.inverse);
    lose(p, plan, batch, tile, scratch, work.sums[share]);
    differentiate_back(plan, model, tile, scratch, batch.inverse, gradient, gradient + size, stretch);
    for (int c = 0; c < plan.dimension; ++c) work.sums[share].stretch[c] += total(stretch[c]);
  });
  Sums sums{};
  for (int64_t share = 0; share < shares; ++share) {
    sums.loss += work.sums[share].loss;
    for (int c = 0; c < plan.dimension; ++c) {
      sums.shift[c] += work.sums[share].shift[c];
      sums.stretch[c] += work.sums[share].stretch[c];
    }
  }
  if (plan.core()) {
    float *core = work.total + size;
    for (int64_t share = 0; share < shares; ++share)
      for (int64_t i = 0; i < plan.core(); ++i) core[i] += work.gradients[share * work.gradient + size + i];
    core_back(plan, model, batch.inverse, core, work.total, sums.stretch);
  }
  spread(p, plan, sums, batch);

  for_tiles(plan, work, p.rows, threads, abreast,
            [&](const Tile &tile, int count, const Scratch &scratch, int64_t share) {
              for (int n = 0; n < count; ++n) unnormalise(plan, batch, work.tile_at(plan, tile.first / samples + n));
              values_back(plan, model, tile, work.tile, count, scratch, work.gradients + share * work.gradient);
            });
  add_shares(plan, work.gradients, shares, work.gradient, work.total);
  return sums.loss;
}

void adam(const AdamStep &step, double weight_decay, const std::int32_t *mirror, int64_t size,
          float *__restrict gradient, float *__restrict parameters, float *__restrict first, float *__restrict second) {
  const float decay = static_cast<float>(weight_decay), rate = static_cast<float>(step.rate);
  const float forget1 = static_cast<float>(1 - FlowConstants::beta1);
  const float forget2 = static_cast<float>(1 - FlowConstants::beta2);
  const float correction = static_cast<float>(1 / step.correction);
  const float epsilon = static_cast<float>(FlowConstants::adam_epsilon);
  for (int64_t i = 0; i < size; ++i) gradient[i] += decay * parameters[i];
  const auto move = [&](int64_t i, float slope) __attribute__((always_inline)) {
    first[i] += forget1 * (slope - first[i]);
    second[i] += forget2 * (slope * slope - second[i]);
    parameters[i] -= rate * first[i] / (sqrtf(second[i] * correction) + epsilon);
  };
  if (mirror)
    for (int64_t i = 0; i < size; ++i) {
      const float partner = gradient[(mirror[i] < 0 ? -mirror[i] : mirror[i]) - 1];
      move(i, 0.5f * (gradient[i] + (mirror[i] < 0 ? -partner : partner)));
    }
  else
    for (int64_t i = 0; i < size; ++i) move(i, gradient[i]);
}

} // namespace
} // namespace eqflow::EQFLOW_ISA
