// Gray-Scott on the CPU: lane-split rows, and many time steps while the rows stay in the first-level cache.
//
// Layout. A row is a vector of w, one of v, the next of w, and so on. Lane l of vector j holds column j of the l-th run
// of columns, so the east and west neighbours of vector j are the vectors j + 1 and j - 1; only the ends of a row
// need a rotation of the lanes, and that rotation is the periodic boundary. Where the width is no multiple of the
// lanes, some runs are one column short: their last place repeats the first column of the next run.
//
// Schedule. Rows go in groups. Level t of group g is written where level t - 1 of group g - 1 stood, so a window of
// 2 T + 2 groups advances T steps while it passes through the cache, in place. The first two groups of every level go to
// a side buffer and are read again at the end, which closes the period without redundant work.
//
// Wide grids are cut into panels of columns whose first and last lane repeat the neighbours' lanes; these spoil by one
// column a step and are renewed after every T steps.
#include "kernels.h"
#include "simd.h"
#include "stencil.h"

#include <cstdlib>
#include <cstdio>
#include <cstring>
#ifdef __unix__
#include <unistd.h>
#endif

namespace eqflow::EQFLOW_ISA {
namespace {

using std::int64_t;
using std::uint32_t;

template <class T> EQFLOW_INLINE T smaller(T a, T b) { return a < b ? a : b; }
template <class T> EQFLOW_INLINE T larger(T a, T b) { return a > b ? a : b; }
EQFLOW_INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// --- One step of R rows ---------------------------------------------------------------------------------------------

template <class S> struct Lanes {
  int64_t vectors;
  bool ragged;
  typename S::Mask is_short; // lanes whose last place is not a column of their own
};

// R rows that are `stride` apart.
template <class S, int R> struct Rows {
  const typename S::T *north, *centre, *south; // the row above, the first of R rows, the row below
  typename S::T *out;
  int64_t stride;

  __attribute__((always_inline)) typename S::V load(int field, int r, int64_t j) const {
    const auto *row = r < 0 ? north : r == R ? south : centre + r * stride;
    return S::load(row + (2 * j + field) * S::lanes);
  }
  __attribute__((always_inline)) void store(int field, int r, int64_t j, typename S::V value) const {
    S::store(out + r * stride + (2 * j + field) * S::lanes, value);
  }
  // The last column of every lane, moved to the lane on the right: the western neighbour of vector 0.
  __attribute__((always_inline)) typename S::V before_first(const Lanes<S> &lanes, int field, int r) const {
    auto last = load(field, r, lanes.vectors - 1);
    if (lanes.ragged) last = S::select(lanes.is_short, load(field, r, lanes.vectors - 2), last);
    return S::from_previous(last);
  }
  // The last place of short lanes repeats the first column of the next lane.
  __attribute__((always_inline)) void mend_short_lanes(const Lanes<S> &lanes) const {
    if (!lanes.ragged) return;
    for (int r = 0; r < R; ++r)
      for (int field = 0; field < 2; ++field) {
        auto *first = out + r * stride + field * S::lanes;
        auto *last = first + 2 * (lanes.vectors - 1) * S::lanes;
        S::store(last, S::select(lanes.is_short, S::from_next(S::load(first)), S::load(last)));
      }
  }
};

// 5-point: P(i, j) = N + E serves twice, since W + S of cell (i, j) is P(i + 1, j - 1).
template <class S, int R, bool scaled, int fixed>
EQFLOW_INLINE void step_five_point(const CellConstants<typename S::V> &k, const Lanes<S> &lanes, const Rows<S, R> &rows) {
  using V = typename S::V;
  V x[2][R], first[2][R], pair[2][R]; // x: vector j; pair[r]: P one row down and one column west
  EQFLOW_UNROLL
  for (int f = 0; f < 2; ++f)
    EQFLOW_UNROLL
    for (int r = 0; r < R; ++r) {
      x[f][r] = rows.load(f, r, 0);
      first[f][r] = S::from_next(x[f][r]);
    }
  EQFLOW_UNROLL
  for (int f = 0; f < 2; ++f)
    EQFLOW_UNROLL
    for (int r = 0; r < R; ++r)
      pair[f][r] = rows.before_first(lanes, f, r) + (r == R - 1 ? rows.load(f, R, 0) : x[f][r < R - 1 ? r + 1 : r]);

  const auto column = [&](int64_t j, bool last) __attribute__((always_inline)) {
    V sum[2][R], east[2][R];
    EQFLOW_UNROLL
    for (int f = 0; f < 2; ++f) {
      EQFLOW_UNROLL
      for (int r = 0; r < R; ++r) east[f][r] = last ? first[f][r] : rows.load(f, r, j + 1);
      V below[R + 1];
      below[0] = east[f][0] + rows.load(f, -1, j);
      EQFLOW_UNROLL
      for (int r = 1; r < R; ++r) below[r] = x[f][r - 1] + east[f][r];
      below[R] = last ? below[0] : x[f][R - 1] + rows.load(f, R, j + 1); // unused after the last column
      EQFLOW_UNROLL
      for (int r = 0; r < R; ++r) {
        sum[f][r] = below[r] + pair[f][r];
        pair[f][r] = below[r + 1];
      }
    }
    EQFLOW_UNROLL
    for (int r = 0; r < R; ++r) {
      V w, v;
      gray_scott_cell<S, scaled>(k, x[0][r], x[1][r], sum[0][r], sum[1][r], w, v);
      rows.store(0, r, j, w);
      rows.store(1, r, j, v);
    }
    EQFLOW_UNROLL
    for (int f = 0; f < 2; ++f)
      EQFLOW_UNROLL
      for (int r = 0; r < R; ++r) x[f][r] = east[f][r];
  };
  const int64_t vectors = fixed ? fixed : lanes.vectors;
#pragma GCC unroll 8
  for (int64_t j = 0; j < vectors - 1; ++j) column(j, false);
  column(vectors - 1, true);
  rows.mend_short_lanes(lanes);
}

// 9-point: column sums c = N + S, and S = q (c(j - 1) + c(j + 1)) + (c(j) + (W + E)).
template <class S, int R, bool scaled, int fixed>
EQFLOW_INLINE void step_nine_point(const CellConstants<typename S::V> &k, const Lanes<S> &lanes, const Rows<S, R> &rows) {
  using V = typename S::V;
  V west[2][R], x[2][R], first[2][R], sum_west[2][R], sum_here[2][R], sum_first[2][R];
  EQFLOW_UNROLL
  for (int f = 0; f < 2; ++f) {
    V wrapped[R + 2];
    EQFLOW_UNROLL
    for (int r = -1; r <= R; ++r) wrapped[r + 1] = rows.before_first(lanes, f, r);
    EQFLOW_UNROLL
    for (int r = 0; r < R; ++r) {
      west[f][r] = wrapped[r + 1];
      sum_west[f][r] = wrapped[r] + wrapped[r + 2];
      x[f][r] = rows.load(f, r, 0);
      first[f][r] = S::from_next(x[f][r]);
      sum_here[f][r] = rows.load(f, r - 1, 0) + rows.load(f, r + 1, 0);
      sum_first[f][r] = S::from_next(sum_here[f][r]);
    }
  }

  const auto column = [&](int64_t j, bool last) __attribute__((always_inline)) {
    V sum[2][R], east[2][R], sum_east[2][R];
    EQFLOW_UNROLL
    for (int f = 0; f < 2; ++f) {
      EQFLOW_UNROLL
      for (int r = 0; r < R; ++r) east[f][r] = last ? first[f][r] : rows.load(f, r, j + 1);
      EQFLOW_UNROLL
      for (int r = 0; r < R; ++r) {
        if (last) {
          sum_east[f][r] = sum_first[f][r];
        } else {
          const V above = r == 0 ? rows.load(f, -1, j + 1) : east[f][r > 0 ? r - 1 : 0];
          const V below = r == R - 1 ? rows.load(f, R, j + 1) : east[f][r < R - 1 ? r + 1 : r];
          sum_east[f][r] = above + below;
        }
        sum[f][r] = S::fused(k.corner, sum_west[f][r] + sum_east[f][r], sum_here[f][r] + (west[f][r] + east[f][r]));
      }
    }
    EQFLOW_UNROLL
    for (int r = 0; r < R; ++r) {
      V w, v;
      gray_scott_cell<S, scaled>(k, x[0][r], x[1][r], sum[0][r], sum[1][r], w, v);
      rows.store(0, r, j, w);
      rows.store(1, r, j, v);
    }
    EQFLOW_UNROLL
    for (int f = 0; f < 2; ++f)
      EQFLOW_UNROLL
      for (int r = 0; r < R; ++r) {
        west[f][r] = x[f][r];
        x[f][r] = east[f][r];
        sum_west[f][r] = sum_here[f][r];
        sum_here[f][r] = sum_east[f][r];
      }
  };
  const int64_t vectors = fixed ? fixed : lanes.vectors;
#pragma GCC unroll 8
  for (int64_t j = 0; j < vectors - 1; ++j) column(j, false);
  column(vectors - 1, true);
  rows.mend_short_lanes(lanes);
}

// --- The grid cut into lanes, groups and panels ---------------------------------------------------------------------

constexpr int deepest = 8; // time steps in one pass; deeper windows leave the first-level cache
constexpr int drift = 32;  // passes between two moves of the state back to where it began

int64_t cache_bytes() { // five sixths of the first-level data cache
  static const int64_t bytes = [] {
    int64_t size = 0;
#ifdef _SC_LEVEL1_DCACHE_SIZE
    size = sysconf(_SC_LEVEL1_DCACHE_SIZE);
#endif
    return (size > 0 ? size : 32768) * 5 / 6;
  }();
  return bytes;
}

struct Plan {
  int64_t height, width;     // of the torus that is simulated: copies side by side where the grid is tiny
  int64_t panels, vectors, lanes, own_lanes; // own_lanes: lanes of a panel that are not repeats of a neighbour's
  int64_t groups, depth;     // row groups; most time steps in one pass
  int64_t row, group;        // elements of a row and of a group of rows with its padding
  bool ragged;

  int64_t all_lanes() const { return panels * own_lanes; }
  // Runs of columns differ by at most one in length; the long ones come first.
  int64_t first_column(int64_t lane) const {
    const int64_t small = width / all_lanes(), longer = width % all_lanes();
    return lane * small + smaller(lane, longer);
  }
  int64_t columns(int64_t lane) const { return first_column(lane + 1) - first_column(lane); }
  // Lane `lane` of a panel, as a lane of the whole width.
  int64_t global_lane(int64_t panel, int64_t lane) const {
    if (panels == 1) return lane;
    return (panel * own_lanes + lane - 1 + all_lanes()) % all_lanes();
  }
  uint32_t short_lanes(int64_t panel) const {
    uint32_t bits = 0;
    for (int64_t lane = 0; lane < lanes; ++lane)
      if (columns(global_lane(panel, lane)) < vectors) bits |= 1u << lane;
    return bits;
  }
  int64_t panel_elements() const { return (groups + drift + 2) * group + 2 * (depth + 1) * group; }
  int64_t border_elements() const { return panels == 1 ? 0 : 2 * height * 2 * vectors; } // of one panel
};

// Relative cost of a choice: redundant columns, and passes too shallow to hide the memory behind the first-level cache.
double cost(const Plan &plan) {
  const double redundant = static_cast<double>(plan.panels * plan.lanes * plan.vectors) / plan.width;
  const double pass = plan.depth >= 4 ? 1.0 : plan.depth == 3 ? 1.03 : plan.depth == 2 ? 1.1 : 1.5;
  return redundant * pass * (plan.panels > 1 ? 1.03 : 1.0);
}

template <class S, int R> Plan plan_for(int64_t height, int64_t width) {
  Plan best{};
  Plan plan{};
  plan.lanes = S::lanes;
  plan.width = width * (width < S::lanes ? divide_up(S::lanes, width) : 1);
  for (plan.height = height; plan.height < 4 * R || plan.height % R != 0;) plan.height += height;
  plan.groups = plan.height / R;
  constexpr int64_t element = sizeof(typename S::T);
  for (plan.panels = 1; plan.panels == 1 || (S::lanes > 2 && plan.panels * (S::lanes - 2) * 4 <= plan.width); ++plan.panels) {
    plan.own_lanes = plan.panels == 1 ? S::lanes : S::lanes - 2;
    plan.vectors = divide_up(plan.width, plan.all_lanes());
    plan.ragged = plan.width % plan.all_lanes() != 0;
    plan.row = 2 * plan.vectors * S::lanes;
    plan.group = R * plan.row + 64 / element;
    const int64_t window = cache_bytes() / (plan.group * element); // groups in the first-level cache
    plan.depth = smaller<int64_t>(deepest, smaller((plan.groups - 2) / 2, (window - 2) / 2));
    if (plan.panels > 1) plan.depth = smaller(plan.depth, plan.vectors - (plan.ragged ? 1 : 0));
    plan.depth = larger<int64_t>(plan.depth, 1);
    if (getenv("GSD")) plan.depth = smaller<int64_t>(atoi(getenv("GSD")), smaller((plan.groups - 2) / 2, plan.panels>1?plan.vectors - (plan.ragged ? 1 : 0):99));
    if (getenv("GSK") && plan.panels == atoi(getenv("GSK"))) {printf("K %ld vec %ld depth %ld ragged %d cost %g\n",plan.panels,plan.vectors,plan.depth,plan.ragged,cost(plan)); return plan;}
    if (plan.panels == 1 || cost(plan) < cost(best)) best = plan;
    if (plan.panels > 1 && plan.depth == deepest && plan.vectors <= deepest) break;
  }
  return best;
}

// --- One panel in memory --------------------------------------------------------------------------------------------

template <class S, int R, bool nine_point, bool scaled> struct Panel {
  using T = typename S::T;
  using V = typename S::V;

  Plan plan;
  Lanes<S> lanes;
  CellConstants<V> constants;
  T u_centre[8], v_centre[8];
  uint32_t short_bits;
  T *memory, *side;
  int64_t base; // slot of the first stored group
  int64_t turn; // grid group that is stored first

  void bind(const Plan &chosen, int64_t panel, T *at, const GrayScottCoefficients<T> &c, T root) {
    plan = chosen;
    short_bits = plan.short_lanes(panel);
    lanes = {plan.vectors, plan.ragged, S::mask(short_bits)};
    constants = {S::set(c.diffusion_u), S::set(c.diffusion_v), V{}, V{}, S::set(root), S::set(T(0.25))};
    for (int n = 0; n < 8; ++n) {
      u_centre[n] = centre_coefficient(c.u_low, c.u_high, c.u_mask, n);
      v_centre[n] = centre_coefficient(c.v_low, c.v_high, c.v_mask, n);
    }
    memory = at;
    side = at + (plan.groups + drift + 2) * plan.group;
    base = drift;
    turn = 0;
  }

  T *slot(int64_t index) const { return memory + index * plan.group; }
  T *stored_row(int64_t row) const { return slot(base + row / R) + row % R * plan.row; } // row: counted from the first stored

  // Where group g of level t stands in this pass; level 0 is the input, and level t holds the groups from t - 1 on.
  T *group_at(int64_t depth, int64_t t, int64_t g) const {
    if (t == 0) return g < 0 ? slot(base + g + plan.groups) : g >= plan.groups ? side + (g - plan.groups) * plan.group : slot(base + g);
    if (t == depth) return slot(base + g - t);
    int64_t place = g - (t - 1);
    if (place >= plan.groups) place -= plan.groups;
    return place < 2 ? side + (2 * t + place) * plan.group : slot(base + g - t);
  }

  template <int fixed> EQFLOW_INLINE void step(const CellConstants<V> &k, const Lanes<S> &lanes, const Rows<S, R> &rows) {
    if constexpr (nine_point)
      step_nine_point<S, R, scaled, fixed>(k, lanes, rows);
    else
      step_five_point<S, R, scaled, fixed>(k, lanes, rows);
  }

  template <int fixed> __attribute__((noinline)) void step_group(int64_t depth, int64_t t, int64_t g, int64_t first_step) const {
    CellConstants<V> k = constants;
    k.a = S::set(u_centre[(first_step + t - 1) & 7]);
    k.b = S::set(v_centre[(first_step + t - 1) & 7]);
    Lanes<S> lanes = this->lanes; if (fixed) {lanes.vectors = fixed; lanes.ragged = false;}
    step<fixed>(k, lanes, {group_at(depth, t - 1, g - 1) + (R - 1) * plan.row, group_at(depth, t - 1, g),
                    group_at(depth, t - 1, g + 1), group_at(depth, t, g), fixed ? 2*fixed*S::lanes : plan.row});
  }

  // The groups whose neighbours stand at fixed distances: nearly all of the work.
  template <int fixed> __attribute__((noinline)) void steady(int64_t depth, int64_t first_step) const {
    CellConstants<V> k = constants; // copies: a store could alias a member, for all the compiler knows
    Lanes<S> own_lanes = lanes; if (fixed) {own_lanes.vectors = fixed; own_lanes.ragged = false;}
    const int64_t row = fixed ? 2*fixed*S::lanes : plan.row, group = fixed ? R*row + 16 : plan.group;
    T a[deepest], b[deepest];
    for (int64_t t = 0; t < depth; ++t) {
      a[t] = u_centre[(first_step + t) & 7];
      b[t] = v_centre[(first_step + t) & 7];
    }
    for (int64_t s = 2 * depth; s <= plan.groups - 3; ++s) {
      T *out = slot(base + s - 1);
#pragma GCC unroll 1
      for (int64_t t = 0; t < depth; ++t, out -= 2 * group) {
        k.a = S::set(a[t]);
        k.b = S::set(b[t]);
        step<fixed>(k, own_lanes, {out + (R - 1) * row, out + group, out + 2 * group, out, row});
      }
    }
  }

  void edges(int64_t depth, int64_t from, int64_t to, int64_t first_step) const {
    for (int64_t s = from; s < to; ++s)
      for (int64_t t = 1; t <= depth; ++t) {
        const int64_t g = s - (t - 1);
        if (g >= t - 1 && g <= plan.groups - 2 + t) if (plan.vectors == 8 && !plan.ragged) step_group<8>(depth, t, g, first_step); else step_group<0>(depth, t, g, first_step);
      }
  }

  void advance(int64_t depth, int64_t first_step) { // `depth` steps, in place
    std::memcpy(side, slot(base), sizeof(T) * static_cast<std::size_t>(plan.group));
    edges(depth, 0, 2 * depth, first_step);
    if (plan.vectors == 8 && !plan.ragged) steady<8>(depth, first_step); else steady<0>(depth, first_step);
    edges(depth, plan.groups - 2, plan.groups - 2 + 2 * depth, first_step);
    turn = (turn + depth - 1) % plan.groups;
    if (--base == 0) {
      std::memmove(slot(drift), slot(0), sizeof(T) * static_cast<std::size_t>(plan.groups * plan.group));
      base = drift;
    }
  }

  void load(const T *state, const GrayScottParams &p, int64_t panel, T root) {
    base = drift;
    turn = 0;
    for (int64_t row = 0; row < plan.height; ++row)
      for (int field = 0; field < 2; ++field) {
        const T *from = state + (field * p.height + row % p.height) * p.width;
        T *to = stored_row(row) + field * plan.lanes;
        for (int64_t lane = 0; lane < plan.lanes; ++lane) {
          int64_t column = plan.first_column(plan.global_lane(panel, lane)) % p.width;
          for (int64_t j = 0; j < plan.vectors; ++j) {
            const T value = field == 0 ? T(1) - from[column] : from[column];
            to[2 * j * plan.lanes + lane] = scaled ? value * root : value;
            if (++column == p.width) column = 0;
          }
        }
      }
  }

  void store(T *state, const GrayScottParams &p, int64_t panel, T inverse_root) const {
    const int64_t first_lane = plan.panels > 1;
    for (int64_t stored = 0; stored < plan.height; ++stored) {
      const int64_t row = (stored + turn * R) % plan.height;
      if (row >= p.height) continue;
      for (int field = 0; field < 2; ++field) {
        const T *from = stored_row(stored) + field * plan.lanes;
        T *to = state + (field * p.height + row) * p.width;
        for (int64_t lane = first_lane; lane < first_lane + plan.own_lanes; ++lane) {
          const int64_t global = plan.global_lane(panel, lane), first = plan.first_column(global);
          const int64_t count = smaller(plan.columns(global), p.width - first);
          for (int64_t j = 0; j < count; ++j) {
            T value = from[2 * j * plan.lanes + lane];
            if (scaled) value *= inverse_root;
            to[first + j] = field == 0 ? T(1) - value : value;
          }
        }
      }
    }
  }

  // The own lanes at both ends, [row][field][side][column], for the neighbouring panels to repeat.
  void publish_borders(T *border) const {
    for (int64_t row = 0; row < plan.height; ++row)
      for (int field = 0; field < 2; ++field) {
        const T *from = stored_row(row) + field * plan.lanes;
        for (int64_t lane : {int64_t(1), plan.lanes - 2})
          for (int64_t j = 0; j < plan.vectors; ++j) *border++ = from[2 * j * plan.lanes + lane];
      }
  }
  void renew_borders(const T *left, const T *right) {
    const int64_t count = plan.vectors;
    for (int64_t row = 0; row < plan.height; ++row)
      for (int field = 0; field < 2; ++field, left += 2 * count, right += 2 * count) {
        T *to = stored_row(row) + field * plan.lanes;
        for (int64_t j = 0; j < count; ++j) {
          to[2 * j * plan.lanes] = left[count + j];
          to[2 * j * plan.lanes + plan.lanes - 1] = right[j];
        }
        if (plan.ragged) mend_borders(to);
      }
  }
  void mend_borders(T *row) const { // as Rows::mend_short_lanes, for the lanes that touch a renewed one
    for (int64_t lane : {int64_t(0), plan.lanes - 2})
      if (short_bits >> lane & 1) row[2 * (plan.vectors - 1) * plan.lanes + lane] = row[lane + 1];
  }
};

// --- One sample, then a batch ---------------------------------------------------------------------------------------

template <class P> struct Workspace { // of one worker
  using T = typename P::T;
  P *panels = nullptr;
  T *memory = nullptr;
  bool allocate(const Plan &plan) {
    const int64_t elements = plan.panels * (plan.panel_elements() + 2 * plan.border_elements());
    void *a = nullptr, *b = nullptr;
    if (posix_memalign(&a, 64, static_cast<std::size_t>(plan.panels) * sizeof(P))) return false;
    panels = static_cast<P *>(a);
    if (posix_memalign(&b, 4096, static_cast<std::size_t>(elements) * sizeof(T))) return false;
    memory = static_cast<T *>(b);
    return true;
  }
  void release() {
    std::free(panels);
    std::free(memory);
  }
};

template <class P, class T>
void simulate(const GrayScottParams &p, const Plan &plan, const Workspace<P> &work, const T *state,
              const GrayScottCoefficients<T> &coefficients, T *frames, int threads) {
  const int64_t size = plan.panel_elements(), border = plan.border_elements(), count = plan.panels;
  const T root = static_cast<T>(p.scale), inverse_root = static_cast<T>(1.0 / p.scale);
  T *borders[2] = {work.memory + count * size, work.memory + count * (size + border)};
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < count; ++i) {
    const FlushSubnormals flush;
    work.panels[i].bind(plan, i, work.memory + i * size, coefficients, root);
    work.panels[i].load(state, p, i, root);
  }
  int64_t done = 0;
  for (int64_t frame = 0; frame < p.frames; ++frame) {
    for (int64_t end = (frame + 1) * p.every; done < end;) {
      const int64_t depth = smaller(plan.depth, end - done);
#pragma omp parallel for num_threads(threads) if (threads > 1)
      for (int64_t i = 0; i < count; ++i) {
        const FlushSubnormals flush;
        P &panel = work.panels[i];
        if (count > 1 && done > 0)
          panel.renew_borders(borders[0] + (i + count - 1) % count * border, borders[0] + (i + 1) % count * border);
        panel.advance(depth, done);
        if (count > 1) panel.publish_borders(borders[1] + i * border);
      }
      T *swap = borders[0];
      borders[0] = borders[1];
      borders[1] = swap;
      done += depth;
    }
    T *to = frames + frame * 2 * p.height * p.width;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < count; ++i) {
      const FlushSubnormals flush;
      work.panels[i].store(to, p, i, inverse_root);
    }
  }
}

template <class S, int R, bool nine_point, bool scaled, class T = typename S::T>
bool run(const GrayScottParams &p, const T *state, const GrayScottCoefficients<T> *coefficients, T *frames,
         int threads) {
  using P = Panel<S, R, nine_point, scaled>;
  const Plan plan = plan_for<S, R>(p.height, p.width);
  const bool split_panels = plan.panels > 1 && p.batch < threads; // a few wide samples: threads share a sample
  const int workers = split_panels ? 1 : static_cast<int>(smaller<int64_t>(threads, p.batch));
  const int64_t cells = 2 * p.height * p.width;
  bool enough_memory = true;
#pragma omp parallel num_threads(workers) if (workers > 1)
  {
    Workspace<P> work;
    const bool ready = work.allocate(plan);
    if (!ready) {
#pragma omp atomic write
      enough_memory = false;
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t sample = 0; sample < p.batch; ++sample)
      if (ready)
        simulate(p, plan, work, state + sample * cells, coefficients[sample], frames + sample * p.frames * cells,
                 split_panels ? threads : 1);
    work.release();
  }
  return enough_memory;
}

template <class S, int R, class T>
bool choose(const GrayScottParams &p, const T *state, const GrayScottCoefficients<T> *coefficients, T *frames,
            int threads) {
  if (p.nine_point)
    return p.scale == 1 ? run<S, R, true, false>(p, state, coefficients, frames, threads)
                        : run<S, R, true, true>(p, state, coefficients, frames, threads);
  return p.scale == 1 ? run<S, R, false, false>(p, state, coefficients, frames, threads)
                      : run<S, R, false, true>(p, state, coefficients, frames, threads);
}

} // namespace

bool gray_scott_cpu(const GrayScottParams &p, const float *state, const GrayScottCoefficients<float> *coefficients,
                    float *frames, int threads) {
#if defined(__AVX512F__)
  if (p.height % 2 == 0 || p.height < 4) return choose<Float16, 2>(p, state, coefficients, frames, threads);
  return choose<Float16, 1>(p, state, coefficients, frames, threads);
#elif defined(__AVX2__)
  return choose<Float8, 1>(p, state, coefficients, frames, threads);
#else
  return choose<One<float>, 1>(p, state, coefficients, frames, threads);
#endif
}

bool gray_scott_cpu(const GrayScottParams &p, const double *state, const GrayScottCoefficients<double> *coefficients,
                    double *frames, int threads) {
#if defined(__AVX512F__)
  if (p.height % 2 == 0 || p.height < 4) return choose<Double8, 2>(p, state, coefficients, frames, threads);
  return choose<Double8, 1>(p, state, coefficients, frames, threads);
#elif defined(__AVX2__)
  return choose<Double4, 1>(p, state, coefficients, frames, threads);
#else
  return choose<One<double>, 1>(p, state, coefficients, frames, threads);
#endif
}

} // namespace eqflow::EQFLOW_ISA
