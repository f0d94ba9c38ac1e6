// A Langevin update on the CPU: x' = base + A * x + B * f + c xi in one pass. eqflow/ops/langevin.py has the contract.
//
// Every output is a sum of terms, coefficient times source, in a fixed order: the taps of A over the state, then those
// of B over the network's output. A source is a run of numbers in memory, so that one loop (mix) serves all kernels.
//
// Fields run along their pixels, in bands of rows: a 1x1 kernel reads them where they stand, and others from a copy of
// the band with its margins, whose wrap is the period. Samples of a few pixels run abreast: a tile of samples is turned
// so that a run holds one site of all of them.
#include "kernels.h"
#include "philox_block.h"

#include <cstdlib>
#include <cstring>
#include <type_traits>

namespace eqflow::EQFLOW_ISA {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;

#if defined(__AVX512F__)
using Wide = Float16;
#elif defined(__AVX2__)
using Wide = Float8;
#else
using Wide = One<float>;
#endif

constexpr int64_t few_pixels = 32;    // below, samples run abreast
constexpr int64_t tile = 64;          // samples abreast
constexpr int64_t band_pixels = 1024; // about as many fit the nearest cache with all that they need
constexpr int most_outputs = 4;       // that one pass over the sources computes

template <class T> EQFLOW_INLINE T smaller(T a, T b) { return a < b ? a : b; }
template <class T> EQFLOW_INLINE T larger(T a, T b) { return a > b ? a : b; }
EQFLOW_INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
EQFLOW_INLINE int64_t wrap(int64_t a, int64_t size) { return (a % size + size) % size; }

EQFLOW_INLINE float number(float x) { return x; }
EQFLOW_INLINE float number(std::uint16_t x) { return bits_float(static_cast<uint32_t>(x) << 16); } // bfloat16

// Noise.

EQFLOW_INLINE CounterBlock counters(const LangevinParams &p, int64_t row, int64_t site, bool along_samples) {
  const auto sample = static_cast<uint32_t>(p.first_sample + static_cast<uint64_t>(row));
  return {static_cast<uint32_t>(site / 4), sample, !along_samples, along_samples, p.step, p.seed, p.stream};
}

// Sites of one sample from a multiple of 4 on; a whole number of vectors, so up to 63 more than asked for.
void draw_sites(const LangevinParams &p, int64_t row, int64_t site, int64_t count, float *normals) {
  for (int64_t done = 0; done < count; done += 4 * normal_block) {
    const int64_t groups = divide_up(count - done, 64) * 16;
    fill_normals(counters(p, row, site + done, false), static_cast<int>(smaller<int64_t>(groups, normal_block)),
                 normals + done);
  }
}

// All sites of a tile of samples, one site after the other; whole groups of four.
void draw_tile(const LangevinParams &p, int64_t row, int64_t sites, float *__restrict normals) {
  WordBlock words;
  for (int64_t site = 0; site < sites; site += 4, normals += 4 * tile) {
    fill_words(counters(p, row, site, true), tile, words);
    for (int64_t i = 0; i < tile; ++i) box_muller(words.x[i], words.y[i], normals[i], normals[tile + i]);
    if (sites - site <= 2) return;
    for (int64_t i = 0; i < tile; ++i) box_muller(words.z[i], words.w[i], normals[2 * tile + i], normals[3 * tile + i]);
  }
}

// Sums of terms.

// Runs of `count` numbers for all output channels. Source t of a field begins at origin + offsets[t].
struct Mix {
  const float *coefficients; // [outputs, fields * terms]
  const float *origins[2];   // state, output
  const int64_t *offsets;    // [terms]
  int64_t fields, terms;
  const float *base, *noise; // or null
  float *result;
  int64_t base_stride, noise_stride, result_stride; // from one output channel to the next
  float base_scale, noise_scale;
};

template <class V> EQFLOW_INLINE V load(const float *from) { // from any address
  V value;
  __builtin_memcpy(&value, from, sizeof(V));
  return value;
}

template <class S, int outputs, int vectors> EQFLOW_INLINE void mix_block(const Mix &m, int64_t at) {
  using V = typename S::V;
  V sum[outputs][vectors];
  EQFLOW_UNROLL
  for (int o = 0; o < outputs; ++o) {
    EQFLOW_UNROLL
    for (int v = 0; v < vectors; ++v)
      sum[o][v] = m.base ? S::set(m.base_scale) * load<V>(m.base + o * m.base_stride + at + v * S::lanes) : S::set(0);
  }
  const float *coefficient = m.coefficients;
  const int64_t row = m.fields * m.terms;
  for (int64_t field = 0; field < m.fields; ++field) {
    const float *const origin = m.origins[field] + at;
    for (int64_t t = 0; t < m.terms; ++t, ++coefficient) {
      V x[vectors];
      EQFLOW_UNROLL
      for (int v = 0; v < vectors; ++v) x[v] = load<V>(origin + m.offsets[t] + v * S::lanes);
      EQFLOW_UNROLL
      for (int o = 0; o < outputs; ++o) {
        const V weight = S::set(coefficient[o * row]);
        EQFLOW_UNROLL
        for (int v = 0; v < vectors; ++v) sum[o][v] = S::fused(weight, x[v], sum[o][v]);
      }
    }
  }
  EQFLOW_UNROLL
  for (int o = 0; o < outputs; ++o) {
    EQFLOW_UNROLL
    for (int v = 0; v < vectors; ++v) {
      if (m.noise) {
        const V noise = load<V>(m.noise + o * m.noise_stride + at + v * S::lanes);
        sum[o][v] = S::fused(S::set(m.noise_scale), noise, sum[o][v]);
      }
      __builtin_memcpy(m.result + o * m.result_stride + at + v * S::lanes, &sum[o][v], sizeof(V));
    }
  }
}

template <int outputs> void mix(const Mix &m, int64_t count) {
  constexpr int vectors = Wide::lanes == 16 ? 4 : Wide::lanes == 8 ? 2 : 8;
  constexpr int64_t block = vectors * Wide::lanes;
  const int64_t blocks = count / block * block, whole = count / Wide::lanes * Wide::lanes;
  for (int64_t at = 0; at < blocks; at += block) mix_block<Wide, outputs, vectors>(m, at);
  for (int64_t at = blocks; at < whole; at += Wide::lanes) mix_block<Wide, outputs, 1>(m, at);
  for (int64_t at = whole; at < count; ++at) mix_block<One<float>, outputs, 1>(m, at);
}

void mix(const Mix &m, int outputs, int64_t count) {
  switch (outputs) {
  case 1:
    return mix<1>(m, count);
  case 2:
    return mix<2>(m, count);
  case 3:
    return mix<3>(m, count);
  default:
    return mix<most_outputs>(m, count);
  }
}

// What all threads share: how the work is cut into items, and tables.
struct Plan {
  int64_t channels, pixels, terms, fields; // terms of one field; fields: the state and perhaps the output
  bool abreast, copied;                    // tiles of samples; bands that are copied
  int64_t height, width, rows, columns;    // the grid that bands are cut from, a line where the kernel is 1x1; a band
  int64_t row, plane;                      // strides of the copy of a band
  int64_t items;                           // bands or tiles
  int64_t copy, noise, turned;             // numbers that a thread keeps of each
  float *coefficients = nullptr;           // [channels, fields, terms]
  int64_t *offsets = nullptr;              // [terms]; abreast [pixels, terms]

  int64_t sites() const { return channels * pixels; }
  int64_t down() const { return divide_up(height, rows); }
  int64_t across() const { return divide_up(width, columns); }
  int64_t noise_of_channel() const { return 16 + divide_up(rows * columns + 3, 64) * 64; }
};

Plan plan_for(const LangevinParams &p, const LangevinFields &f) {
  Plan plan{};
  const int64_t side = 2 * p.radius + 1;
  plan.channels = p.channels;
  plan.pixels = p.height * p.width;
  plan.terms = p.channels * side * side;
  plan.fields = f.output ? 2 : 1;
  plan.abreast = plan.pixels < few_pixels;
  if (plan.abreast) {
    plan.items = divide_up(p.batch, tile);
    plan.copy = plan.fields * plan.sites() * tile;
    plan.noise = p.noise_scale != 0 ? divide_up(plan.sites(), 4) * 4 * tile : 0;
    plan.turned = (f.base ? 2 : 1) * plan.sites() * tile;
    return plan;
  }
  plan.copied = p.radius > 0 || p.output_is_bfloat16;
  plan.height = p.radius > 0 ? p.height : 1;
  plan.width = p.radius > 0 ? p.width : plan.pixels;
  // Where 4 does not divide the pixels, a band begins inside a group of four sites: a little less fits the same turns.
  const int64_t most = plan.pixels % 4 == 0 ? band_pixels : band_pixels - 16;
  plan.columns = p.radius > 0 ? plan.width : smaller(plan.width, most);
  plan.rows = p.radius > 0 ? smaller(larger<int64_t>(most / plan.width, 1), plan.height) : 1;
  plan.row = plan.columns + 2 * p.radius;
  plan.plane = (plan.rows + 2 * p.radius) * plan.row;
  plan.items = p.batch * plan.down() * plan.across();
  plan.copy = plan.copied ? plan.fields * p.channels * plan.plane : 0;
  plan.noise = p.noise_scale != 0 ? most_outputs * plan.noise_of_channel() : 0;
  return plan;
}

void fill_tables(const LangevinParams &p, const LangevinFields &f, const Plan &plan) {
  for (int64_t o = 0; o < p.channels; ++o)
    for (int64_t field = 0; field < plan.fields; ++field)
      std::memcpy(plan.coefficients + (o * plan.fields + field) * plan.terms,
                  (field == 0 ? f.state_kernel : f.output_kernel) + o * plan.terms,
                  sizeof(float) * static_cast<std::size_t>(plan.terms));
  int64_t *to = plan.offsets;
  const int64_t side = 2 * p.radius + 1;
  for (int64_t pixel = 0; pixel < (plan.abreast ? plan.pixels : 1); ++pixel)
    for (int64_t i = 0; i < p.channels; ++i)
      for (int64_t u = 0; u < side; ++u)
        for (int64_t v = 0; v < side; ++v) {
          const int64_t y = wrap(pixel / p.width + u - p.radius, p.height);
          const int64_t x = wrap(pixel % p.width + v - p.radius, p.width);
          *to++ = plan.abreast  ? (i * plan.pixels + y * p.width + x) * tile
                  : plan.copied ? i * plan.plane + u * plan.row + v
                                : i * plan.pixels;
        }
}

// All outputs of `rows` runs of pixels, a few at a time; `draw` makes their noise. From run to run the sources move on
// by `row` and the result and the base by `grid_row`.
template <class Draw>
void mix_all(const Mix &start, const Plan &plan, int64_t rows, int64_t columns, int64_t row, int64_t grid_row,
             Draw draw) {
  for (int64_t first = 0; first < plan.channels; first += most_outputs) {
    const int outputs = static_cast<int>(smaller<int64_t>(most_outputs, plan.channels - first));
    Mix m = start;
    m.coefficients += first * plan.fields * plan.terms;
    m.noise = draw(first, outputs);
    m.result += first * m.result_stride;
    if (m.base) m.base += first * m.base_stride;
    for (int64_t y = 0; y < rows; ++y) {
      mix(m, outputs, columns);
      for (const float *&origin : m.origins) origin += row;
      m.result += grid_row;
      if (m.base) m.base += grid_row;
      if (m.noise) m.noise += columns;
    }
  }
}

// Bands.

EQFLOW_INLINE void copy_run(const float *from, int64_t count, float *__restrict to) {
  std::memcpy(to, from, sizeof(float) * static_cast<std::size_t>(count));
}
EQFLOW_INLINE void copy_run(const std::uint16_t *from, int64_t count, float *__restrict to) {
  for (int64_t i = 0; i < count; ++i) to[i] = number(from[i]);
}

// Rows of all channels of one sample with `radius` cells more on every side.
template <class T>
void copy_band(const LangevinParams &p, const Plan &plan, const T *from, int64_t y, int64_t x, int64_t rows,
               int64_t columns, float *copy) {
  const int64_t radius = p.radius;
  for (int64_t channel = 0; channel < p.channels; ++channel)
    for (int64_t i = 0; i < rows + 2 * radius; ++i) {
      float *to = copy + channel * plan.plane + i * plan.row;
      copy_run(from + channel * plan.pixels + wrap(y + i - radius, plan.height) * plan.width + x, columns, to + radius);
      for (int64_t j = 0; j < radius; ++j) {
        to[j] = to[radius + wrap(j - radius, columns)];
        to[radius + columns + j] = to[radius + j % columns];
      }
    }
}

void update_band(const LangevinParams &p, const LangevinFields &f, const Plan &plan, int64_t item, float *memory) {
  const int64_t across = plan.across(), down = plan.down();
  const int64_t sample = item / across / down, y = item / across % down * plan.rows, x = item % across * plan.columns;
  const int64_t rows = smaller(plan.rows, plan.height - y), columns = smaller(plan.columns, plan.width - x);
  const int64_t from = sample * plan.sites(), pixel = y * plan.width + x;
  const auto *halves = static_cast<const std::uint16_t *>(f.output);
  const auto *floats = static_cast<const float *>(f.output);
  float *const copies[2] = {memory, memory + p.channels * plan.plane}, *const noise = memory + plan.copy;

  Mix m{
      plan.coefficients, {f.state + from + pixel, floats + from + pixel},
      plan.offsets,      plan.fields,
      plan.terms,        f.base ? f.base + from + pixel : nullptr,
      nullptr,           f.result + from + pixel,
      plan.pixels,       plan.noise_of_channel(),
      plan.pixels,       p.base_scale,
      p.noise_scale,
  };
  if (plan.copied) {
    copy_band(p, plan, f.state + from, y, x, rows, columns, copies[0]);
    if (f.output && p.output_is_bfloat16) copy_band(p, plan, halves + from, y, x, rows, columns, copies[1]);
    if (f.output && !p.output_is_bfloat16) copy_band(p, plan, floats + from, y, x, rows, columns, copies[1]);
    m.origins[0] = copies[0];
    m.origins[1] = copies[1];
  }
  mix_all(m, plan, rows, columns, plan.row, plan.width, [&](int64_t first, int outputs) -> const float * {
    if (p.noise_scale == 0) return nullptr;
    for (int o = 0; o < outputs; ++o) {
      const int64_t site = (first + o) * plan.pixels + pixel, lane = site % 4; // of the first pixel
      draw_sites(p, sample, site - lane, lane + rows * columns, noise + o * plan.noise_of_channel() + 16 - lane);
    }
    return noise + 16;
  });
}

// Tiles.

// Calls with a constant where the samples have few sites, so that the compiler can turn whole vectors.
template <class Body> EQFLOW_INLINE void with_sites(int64_t sites, Body body) {
  switch (sites) {
  case 1:
    return body(std::integral_constant<int64_t, 1>());
  case 2:
    return body(std::integral_constant<int64_t, 2>());
  case 3:
    return body(std::integral_constant<int64_t, 3>());
  case 4:
    return body(std::integral_constant<int64_t, 4>());
  default:
    return body(sites);
  }
}

template <class T> void turn(const T *__restrict from, int64_t count, int64_t sites, float *__restrict to) {
  with_sites(sites, [&](auto number_of_sites) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t site = 0; site < number_of_sites; ++site)
        to[site * tile + i] = number(from[i * number_of_sites + site]);
  });
}

void turn_back(const float *__restrict from, int64_t count, int64_t sites, float *__restrict to) {
  with_sites(sites, [&](auto number_of_sites) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t site = 0; site < number_of_sites; ++site) to[i * number_of_sites + site] = from[site * tile + i];
  });
}

void update_tile(const LangevinParams &p, const LangevinFields &f, const Plan &plan, int64_t item, float *memory) {
  const int64_t sites = plan.sites(), numbers = sites * tile;
  const int64_t first = item * tile, count = smaller(tile, p.batch - first), from = first * sites;
  float *const state = memory, *const output = memory + numbers;
  float *const noise = memory + plan.copy, *const result = noise + plan.noise, *const base = result + numbers;

  turn(f.state + from, count, sites, state);
  if (f.output && p.output_is_bfloat16) turn(static_cast<const std::uint16_t *>(f.output) + from, count, sites, output);
  if (f.output && !p.output_is_bfloat16) turn(static_cast<const float *>(f.output) + from, count, sites, output);
  if (f.base) turn(f.base + from, count, sites, base);
  if (p.noise_scale != 0) draw_tile(p, first, sites, noise);

  const int64_t stride = plan.pixels * tile;
  for (int64_t pixel = 0; pixel < plan.pixels; ++pixel) {
    const int64_t at = pixel * tile;
    const Mix m{
        plan.coefficients,
        {state, output},
        plan.offsets + pixel * plan.terms,
        plan.fields,
        plan.terms,
        f.base ? base + at : nullptr,
        nullptr,
        result + at,
        stride,
        stride,
        stride,
        p.base_scale,
        p.noise_scale,
    };
    mix_all(m, plan, 1, tile, 0, 0,
            [&](int64_t channel, int) { return p.noise_scale != 0 ? noise + at + channel * stride : nullptr; });
  }
  turn_back(result, count, sites, f.result + from);
}

template <class T> T *allocate(int64_t count) {
  void *memory = nullptr;
  const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(count + 64);
  return posix_memalign(&memory, 64, bytes) == 0 ? static_cast<T *>(memory) : nullptr;
}

} // namespace

bool langevin_cpu(const LangevinParams &p, const LangevinFields &f, int threads) {
  Plan plan = plan_for(p, f);
  plan.coefficients = allocate<float>(plan.channels * plan.fields * plan.terms);
  plan.offsets = allocate<int64_t>(plan.terms * (plan.abreast ? plan.pixels : 1));
  bool enough_memory = plan.coefficients && plan.offsets;
  if (enough_memory) {
    fill_tables(p, f, plan);
#pragma omp parallel num_threads(threads) if (threads > 1 && p.batch * plan.sites() > (1 << 14))
    {
      const FlushSubnormals flush;
      float *const memory = allocate<float>(plan.copy + plan.noise + plan.turned);
      if (!memory) {
#pragma omp atomic write
        enough_memory = false;
      }
#pragma omp for schedule(static)
      for (int64_t item = 0; item < plan.items; ++item) {
        if (!memory) continue;
        plan.abreast ? update_tile(p, f, plan, item, memory) : update_band(p, f, plan, item, memory);
      }
      std::free(memory);
    }
  }
  std::free(plan.coefficients);
  std::free(plan.offsets);
  return enough_memory;
}

} // namespace eqflow::EQFLOW_ISA
