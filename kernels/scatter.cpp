// Pictures scattered on periodic canvases: see eqflow/ops/scatter.py for the contract.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "kernels.h"
#include "philox.h"

namespace eqflow::EQFLOW_ISA {
namespace {

using std::int64_t;

struct Place {
  int64_t species;
  float row, column, turn, sine, cosine, scale;
  bool fades, haunts;                      // what haunts fades too, may lie over others, and never stays
  float strength, slope_down, slope_right; // of what is left of it: strength + slope . (place / radius), in [0, 1]
};

Place draw(const ScatterParams &p, std::uint32_t sample, int64_t attempt, const PhiloxKeys &keys) {
  const auto group = static_cast<std::uint32_t>(2 * attempt);
  const Words a = philox(site_counter(group, sample, 0, p.stream), keys);
  const Words b = philox(site_counter(group + 1, sample, 0, p.stream), keys);
  Place place;
  place.species = multiply_high(a.x, static_cast<std::uint32_t>(p.species));
  place.row = unit_interval(a.y) * static_cast<float>(p.height);
  place.column = unit_interval(a.z) * static_cast<float>(p.width);
  place.turn = p.turn ? unit_interval(a.w) : 0.0f;
  place.sine = 0.0f, place.cosine = 1.0f;
  if (p.turn) sine_cosine_of_turn(a.w, place.sine, place.cosine);
  place.scale = fused(p.scale_high - p.scale_low, unit_interval(b.x), p.scale_low);
  const float lot = unit_interval(b.y);
  place.fades = lot < 2.0f * p.fading;
  place.haunts = place.fades && lot >= p.fading;
  const float length = place.fades ? 3.0f * ((place.haunts ? lot - p.fading : lot) / p.fading) : 0.0f;
  place.strength = fused(1.0f + length, unit_interval(b.w), -0.5f * length);
  sine_cosine_of_turn(b.z, place.slope_down, place.slope_right);
  place.slope_down *= length, place.slope_right *= length;
  return place;
}

// Where a pixel of the canvas falls in a picture: the corner above and to the left of it, and what is left to go.
struct Spot {
  int64_t corner;
  float down, right;
};

class Canvas {
public:
  Canvas(const ScatterParams &p, const ScatterFields &f, float *image, float *faded)
      : p(p), f(f), image(image), faded(faded), alpha(static_cast<std::size_t>(p.height * p.width)) {
    for (int64_t channel = 0; channel < p.channels; ++channel)
      for (int64_t i = 0; i < p.height * p.width; ++i) image[channel * p.height * p.width + i] = f.background[channel];
    if (faded) std::copy(image, image + p.channels * p.height * p.width, faded);
  }

  bool full(const Place &place) const {
    return covered + f.areas[place.species] * place.scale * place.scale > p.coverage;
  }

  // Puts the picture there, unless it overlaps what is there; whether it did, and not as a ghost.
  bool put(const Place &place) {
    const float reach = f.radii[place.species] * place.scale;
    const auto top = static_cast<int64_t>(std::ceil(place.row - reach));
    const auto left = static_cast<int64_t>(std::ceil(place.column - reach));
    const int64_t rows = static_cast<int64_t>(std::floor(place.row + reach)) - top + 1;
    const int64_t columns = static_cast<int64_t>(std::floor(place.column + reach)) - left + 1;
    stamp.resize(static_cast<std::size_t>(rows * columns));
    const float *layer = f.pictures + place.species * p.side * p.side * (p.channels + 1);
    const int64_t depth = p.channels + 1;
    float added = 0.0f;
    for (int64_t y = 0; y < rows; ++y) {
      const int64_t line = wrapped(top + y, p.height) * p.width;
      for (int64_t x = 0; x < columns; ++x) {
        Spot spot;
        float here = 0.0f;
        if (find(place, top + y, left + x, spot)) here = sample(layer + spot.corner * depth + p.channels, depth, spot);
        stamp[static_cast<std::size_t>(y * columns + x)] = here;
        if (!place.haunts && here > p.overlap &&
            alpha[static_cast<std::size_t>(line + wrapped(left + x, p.width))] > p.overlap)
          return false;
        added += here;
      }
    }
    const bool fades = faded && place.fades;
    // Squared distances of what is left from nothing, of it from the whole picture, and of that from nothing.
    float left_over = 0.0f, gone = 0.0f, whole = 0.0f;
    if (fades)
      each(place, top, left, rows, columns,
           [&](const float *corner, const Spot &spot, float here, int64_t, float kept) {
             for (int64_t channel = 0; channel < p.channels; ++channel) {
               const float value = sample(corner + channel, depth, spot) - here * f.background[channel];
               left_over = fused(kept * kept, value * value, left_over);
               gone = fused((1.0f - kept) * (1.0f - kept), value * value, gone);
               whole = fused(value, value, whole);
             }
           });
    if (place.haunts && left_over >= gone) return false;
    const bool stays = !fades || (!place.haunts && left_over - gone > (2.0f * p.threshold - 1.0f) * whole);
    each(place, top, left, rows, columns,
         [&](const float *corner, const Spot &spot, float here, int64_t at, float kept) {
           for (int64_t channel = 0; channel < p.channels; ++channel) {
             const float value = sample(corner + channel, depth, spot);
             if (stays) blend(image[channel * p.height * p.width + at], here, value);
             if (faded) blend(faded[channel * p.height * p.width + at], kept * here, kept * value);
           }
           if (!place.haunts) blend(alpha[static_cast<std::size_t>(at)], here, here);
         });
    if (place.haunts) return false;
    covered += added;
    return true;
  }

private:
  static int64_t wrapped(int64_t index, int64_t size) {
    return index < 0 ? index + size : index >= size ? index - size : index;
  }

  static void blend(float &value, float share, float over) { value = fused(1.0f - share, value, over); }

  // Every pixel that the stamp reaches: where it is in the picture, its alpha, its place, what is left of it.
  template <class Work>
  void each(const Place &place, int64_t top, int64_t left, int64_t rows, int64_t columns, const Work &work) {
    const float *layer = f.pictures + place.species * p.side * p.side * (p.channels + 1);
    const float reach = 1.0f / (f.radii[place.species] * place.scale);
    for (int64_t y = 0; y < rows; ++y) {
      const int64_t line = wrapped(top + y, p.height) * p.width;
      for (int64_t x = 0; x < columns; ++x) {
        const float here = stamp[static_cast<std::size_t>(y * columns + x)];
        if (here == 0.0f) continue;
        Spot spot;
        find(place, top + y, left + x, spot);
        float kept = 1.0f;
        if (place.fades && faded) {
          const float down = (static_cast<float>(top + y) - place.row) * reach;
          const float right = (static_cast<float>(left + x) - place.column) * reach;
          kept = fused(place.slope_down, down, fused(place.slope_right, right, place.strength));
          kept = std::min(1.0f, std::max(0.0f, kept));
        }
        work(layer + spot.corner * (p.channels + 1), spot, here, line + wrapped(left + x, p.width), kept);
      }
    }
  }

  bool find(const Place &place, int64_t row, int64_t column, Spot &spot) const {
    const float dy = (static_cast<float>(row) - place.row) * (p.oversample / place.scale);
    const float dx = (static_cast<float>(column) - place.column) * (p.oversample / place.scale);
    const float middle = 0.5f * static_cast<float>(p.side - 1);
    const float y = fused(place.sine, dx, fused(place.cosine, dy, middle));
    const float x = fused(place.cosine, dx, fused(-place.sine, dy, middle));
    const auto last = static_cast<float>(p.side - 1);
    if (!(y >= 0.0f && x >= 0.0f && y < last && x < last)) return false;
    const auto i = static_cast<int64_t>(y), j = static_cast<int64_t>(x);
    spot = {i * p.side + j, y - static_cast<float>(i), x - static_cast<float>(j)};
    return true;
  }

  float sample(const float *corner, int64_t depth, const Spot &spot) const {
    const float *below = corner + p.side * depth;
    const float upper = fused(spot.right, corner[depth] - corner[0], corner[0]);
    const float lower = fused(spot.right, below[depth] - below[0], below[0]);
    return fused(spot.down, lower - upper, upper);
  }

  const ScatterParams &p;
  const ScatterFields &f;
  float *image, *faded;
  std::vector<float> alpha, stamp;
  float covered = 0.0f;
};

void scatter_one(const ScatterParams &p, const ScatterFields &f, const PhiloxKeys &keys, int64_t index) {
  const auto sample = static_cast<std::uint32_t>(p.first_sample + static_cast<std::uint64_t>(index));
  const int64_t first = index * p.channels * p.height * p.width;
  Canvas canvas(p, f, f.images + first, f.faded ? f.faded + first : nullptr);
  for (int64_t attempt = 0; attempt < p.attempts; ++attempt) {
    const Place place = draw(p, sample, attempt, keys);
    float *row = f.placements + (index * p.attempts + attempt) * 5;
    if (canvas.full(place) || !canvas.put(place)) {
      for (int i = 0; i < 5; ++i) row[i] = std::nanf("");
      continue;
    }
    const float values[5] = {static_cast<float>(place.species), place.row, place.column, place.turn, place.scale};
    for (int i = 0; i < 5; ++i) row[i] = values[i];
  }
}

} // namespace

bool scatter_cpu(const ScatterParams &p, const ScatterFields &f, int threads) {
  const PhiloxKeys keys = philox_keys(p.seed);
  bool enough = true;
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1 && p.batch > 1) reduction(&& : enough)
  for (int64_t index = 0; index < p.batch; ++index) {
    try {
      scatter_one(p, f, keys, index);
    } catch (const std::bad_alloc &) {
      enough = false;
    }
  }
  return enough;
}

} // namespace eqflow::EQFLOW_ISA
