// Gray-Scott on the CPU: many time steps while the rows stay in the nearest cache. The layout and the step itself are
// in csrc/gray_scott_step.h.
//
// Schedule. Level t of group g is written where level t - 1 of group g - 1 stood, so a window of 2 T + 2 groups
// advances T steps while it passes through the cache, in place. The first two groups of every level go to a side buffer
// and are read again at the end, which closes the period without redundant work.
//
// Threads share out the samples; or, where there are few, slabs of rows whose first and last groups repeat the
// neighbours' and are renewed every T steps, since a wrong border reaches one row further a step.
#include "gray_scott_step.h"
#include "kernels.h"

#include <cstdlib>
#include <cstring>
#ifdef __unix__
#include <unistd.h>
#endif

namespace eqflow::EQFLOW_ISA {
namespace {

using std::int64_t;
using std::uint64_t;

template <class T> EQFLOW_INLINE T smaller(T a, T b) { return a < b ? a : b; }
template <class T> EQFLOW_INLINE T larger(T a, T b) { return a > b ? a : b; }

// How a grid is cut.

constexpr int deepest = 8;              // most time steps in one pass
constexpr int drift = 32;               // passes between two moves of the state back to where it began
constexpr int64_t slab_cells = 1 << 16; // with fewer, threads would wait for one another most of the time

int64_t cache_bytes() { // of the first level
  int64_t size = 0;
#ifdef _SC_LEVEL1_DCACHE_SIZE
  size = sysconf(_SC_LEVEL1_DCACHE_SIZE);
#endif
  return size > 0 ? size : 32768;
}

struct Plan {
  int64_t height, width; // of the torus that is simulated: copies side by side where the grid is tiny
  int64_t vectors;       // per row
  uint64_t short_lanes;  // one bit a lane
  int64_t groups, group; // groups of R rows; elements of one, padding included
  int64_t depth;         // time steps in one pass
  int64_t starts[16];    // the column in the grid where the run of each lane begins
  int64_t slabs, halo;   // slabs of rows, one a thread; groups on either side that repeat a neighbour's

  int64_t first_group(int64_t slab) const { return slab * groups / slabs; }
  int64_t own_groups(int64_t slab) const { return first_group(slab + 1) - first_group(slab); }
  int64_t most_groups() const { return (groups + slabs - 1) / slabs + 2 * halo; } // stored by one slab
  int64_t slab_elements() const { return (most_groups() + drift + 2 + 2 * (depth + 1)) * group; }
  int64_t border_elements() const { return 2 * halo * group; } // of one slab
};

// As deep as the nearest cache allows; beyond its reach the second level carries any depth about equally well, and
// states that leave the last level too gain from every further step.
int64_t pass_depth(int64_t group_bytes, int64_t state_bytes) {
  const int64_t fits = (cache_bytes() * 15 / 16 / group_bytes - 2) / 2;
  return fits >= 2 ? smaller<int64_t>(fits, deepest) : state_bytes < (16 << 20) ? 4 : deepest;
}

template <class S, int R> Plan plan_for(int64_t height, int64_t width, int threads) {
  constexpr int64_t element = sizeof(typename S::T);
  Plan plan{};
  for (plan.width = width; plan.width < S::lanes;) plan.width += width;
  for (plan.height = height; plan.height < 4 * R || plan.height % R != 0;) plan.height += height;
  plan.vectors = (plan.width + S::lanes - 1) / S::lanes;
  for (int64_t lane = plan.width % S::lanes; lane > 0 && lane < S::lanes; ++lane)
    plan.short_lanes |= uint64_t{1} << lane;
  for (int64_t lane = 0; lane < S::lanes; ++lane) // runs of nearly equal length, the long ones first
    plan.starts[lane] = (lane * (plan.width / S::lanes) + smaller(lane, plan.width % S::lanes)) % width;
  plan.groups = plan.height / R;
  plan.group = 2 * R * plan.vectors * S::lanes + 64 / element; // the padding spreads groups over the sets of a cache
  plan.depth = pass_depth(plan.group * element, plan.groups * plan.group * element);
  plan.depth = larger<int64_t>(1, smaller(plan.depth, (plan.groups - 2) / 2));
  const int64_t halo = (plan.depth + R - 1) / R;
  const int64_t worthwhile = smaller(plan.height * plan.width / slab_cells, plan.groups / (4 * halo + 4));
  plan.slabs = larger<int64_t>(1, smaller<int64_t>(threads, worthwhile));
  if (plan.slabs > 1) plan.halo = halo;
  return plan;
}

template <class T> using Four __attribute__((vector_size(4 * sizeof(T)))) = T;

template <class T> EQFLOW_INLINE void transpose(Four<T> (&x)[4]) {
  const Four<T> a = __builtin_shufflevector(x[0], x[1], 0, 4, 2, 6),
                b = __builtin_shufflevector(x[0], x[1], 1, 5, 3, 7),
                c = __builtin_shufflevector(x[2], x[3], 0, 4, 2, 6),
                d = __builtin_shufflevector(x[2], x[3], 1, 5, 3, 7);
  x[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5), x[1] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
  x[2] = __builtin_shufflevector(a, c, 2, 3, 6, 7), x[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

// One slab in memory.

template <class S, int R, bool nine_point, bool scaled> struct Slab {
  using T = typename S::T;
  using V = typename S::V;

  Row<S> row;
  CellConstants<V> constants;
  T u_centre[8], v_centre[8];
  int64_t group, groups, halo, first; // elements of a group; stored groups; grid group of the first own one
  T *memory, *side;
  int64_t base; // slot of the first stored group
  int64_t turn; // which of the slab's groups that is

  void bind(const Plan &plan, int64_t index, T *at, const GrayScottCoefficients<T> &c, T root) {
    row = {plan.vectors, plan.short_lanes != 0, S::mask(static_cast<std::uint32_t>(plan.short_lanes))};
    constants = {S::set(c.diffusion_u), S::set(c.diffusion_v), V{}, V{}, S::set(root), S::set(T(0.25))};
    for (int n = 0; n < 8; ++n) {
      u_centre[n] = centre_coefficient(c.u_low, c.u_high, c.u_mask, n);
      v_centre[n] = centre_coefficient(c.v_low, c.v_high, c.v_mask, n);
    }
    group = plan.group;
    halo = plan.halo;
    groups = plan.own_groups(index) + 2 * halo;
    first = plan.first_group(index);
    memory = at;
    side = at + (plan.most_groups() + drift + 2) * group;
    base = drift;
    turn = 0;
  }

  T *slot(int64_t index) const { return memory + index * group; }
  T *group_of(int64_t index) const { return slot(base + (index - turn + groups) % groups); } // between passes

  // Where group g of level t stands in a pass; level 0 is the input, and level t holds the groups from t - 1 on.
  T *group_in_pass(int64_t depth, int64_t t, int64_t g) const {
    if (t == 0) return g < 0 ? slot(base + g + groups) : g >= groups ? side : slot(base + g);
    const int64_t count = g - (t - 1), place = count < groups ? count : count - groups;
    return t < depth && place < 2 ? side + (2 * t + place) * group : slot(base + g - t);
  }

  EQFLOW_INLINE void step(const CellConstants<V> &k, const Row<S> &row, const Groups<S, R> &g) {
    if constexpr (nine_point)
      step_nine_point<S, R, scaled>(k, row, g);
    else
      step_five_point<S, R, scaled>(k, row, g);
  }

  __attribute__((noinline)) void step_one(int64_t depth, int64_t t, int64_t g, int64_t first_step) const {
    CellConstants<V> k = constants;
    k.a = S::set(u_centre[(first_step + t - 1) & 7]);
    k.b = S::set(v_centre[(first_step + t - 1) & 7]);
    step(k, row,
         {group_in_pass(depth, t - 1, g - 1), group_in_pass(depth, t - 1, g), group_in_pass(depth, t - 1, g + 1),
          group_in_pass(depth, t, g)});
  }

  void edges(int64_t depth, int64_t from, int64_t to, int64_t first_step) const {
    for (int64_t s = from; s < to; ++s)
      for (int64_t t = 1; t <= depth; ++t) {
        const int64_t g = s - (t - 1);
        if (g >= t - 1 && g <= groups - 2 + t) step_one(depth, t, g, first_step);
      }
  }

  // The groups whose neighbours stand at fixed distances: most of the work.
  __attribute__((noinline)) void steady(int64_t depth, int64_t first_step) const {
    CellConstants<V> k = constants; // copies: a store could alias a member, for all the compiler knows
    const Row<S> own_row = row;
    const int64_t distance = group;
    T a[deepest], b[deepest];
    for (int64_t t = 0; t < depth; ++t) {
      a[t] = u_centre[(first_step + t) & 7];
      b[t] = v_centre[(first_step + t) & 7];
    }
    for (int64_t s = 2 * depth; s <= groups - 3; ++s) {
      T *out = slot(base + s - 1);
#pragma GCC unroll 1
      for (int64_t t = 0; t < depth; ++t, out -= 2 * distance) {
        k.a = S::set(a[t]);
        k.b = S::set(b[t]);
        step(k, own_row, {out, out + distance, out + 2 * distance, out});
      }
    }
  }

  void advance(int64_t depth, int64_t first_step) { // `depth` steps, in place
    std::memcpy(side, slot(base), sizeof(T) * static_cast<std::size_t>(group));
    edges(depth, 0, 2 * depth, first_step);
    steady(depth, first_step);
    edges(depth, groups - 2, groups - 2 + 2 * depth, first_step);
    turn = (turn + depth - 1) % groups;
    if (--base == 0) {
      std::memmove(slot(drift), slot(0), sizeof(T) * static_cast<std::size_t>(groups * group));
      base = drift;
    }
  }

  // Calls visit.four(column, place, step) for four columns of four lanes, visit.one(column, place) for what is left:
  // together every place of row `r` of a group and the column that belongs there. columns: [4], one a lane.
  template <class Visit>
  EQFLOW_INLINE void visit_row(const Plan &plan, int64_t width, int r, int field, const Visit &visit) {
    constexpr int together = S::lanes < 4 ? 1 : 4;
    const int64_t step = Groups<S, R>::place(1, 0, 0);
    for (int64_t lane = 0; lane < S::lanes; lane += together) {
      int64_t starts[together], place = Groups<S, R>::place(0, r, field) + lane, straight = plan.vectors, j = 0;
      for (int i = 0; i < together; ++i) {
        starts[i] = plan.starts[lane + i];
        straight = smaller(straight, width - starts[i]);
      }
      if constexpr (together == 4)
        for (; j + 4 <= straight; j += 4) visit.four(starts, j, place + j * step, step);
      for (; j < plan.vectors; ++j)
        for (int i = 0; i < together; ++i) {
          const int64_t column = starts[i] + j;
          visit.one(column < width ? column : column - width, place + j * step + i);
        }
    }
  }

  struct Reader {
    const T *from;
    T *to, root;
    bool complement;

    template <class N> __attribute__((always_inline)) N enter(N value) const {
      if (complement) value = T(1) - value;
      return scaled ? value * root : value;
    }
    __attribute__((always_inline)) void one(int64_t column, int64_t place) const { to[place] = enter(from[column]); }
    __attribute__((always_inline)) void four(const int64_t *starts, int64_t j, int64_t place, int64_t step) const {
      Four<T> x[4];
      for (int i = 0; i < 4; ++i) std::memcpy(&x[i], from + starts[i] + j, sizeof x[i]);
      transpose<T>(x);
      for (int i = 0; i < 4; ++i) {
        x[i] = enter(x[i]);
        std::memcpy(to + place + i * step, &x[i], sizeof x[i]);
      }
    }
  };

  struct Writer {
    const T *from;
    T *to, inverse_root;
    bool complement;

    template <class N> __attribute__((always_inline)) N leave(N value) const {
      if (scaled) value *= inverse_root;
      return complement ? T(1) - value : value;
    }
    __attribute__((always_inline)) void one(int64_t column, int64_t place) const { to[column] = leave(from[place]); }
    __attribute__((always_inline)) void four(const int64_t *starts, int64_t j, int64_t place, int64_t step) const {
      Four<T> x[4];
      for (int i = 0; i < 4; ++i) std::memcpy(&x[i], from + place + i * step, sizeof x[i]);
      transpose<T>(x);
      for (int i = 0; i < 4; ++i) {
        x[i] = leave(x[i]);
        std::memcpy(to + starts[i] + j, &x[i], sizeof x[i]);
      }
    }
  };

  void load(const T *state, const GrayScottParams &p, const Plan &plan, T root) const {
    for (int64_t i = 0; i < groups * R; ++i) {
      const int64_t grid_row = ((first - halo) * R + i + plan.height) % plan.height % p.height;
      for (int field = 0; field < 2; ++field)
        visit_row(plan, p.width, static_cast<int>(i % R), field,
                  Reader{state + (field * p.height + grid_row) * p.width, group_of(i / R), root, field == 0});
    }
  }

  void store(T *state, const GrayScottParams &p, const Plan &plan, T inverse_root) const { // own rows only
    for (int64_t i = halo * R; i < (groups - halo) * R; ++i) {
      const int64_t grid_row = (first - halo) * R + i;
      if (grid_row >= p.height) return;
      for (int field = 0; field < 2; ++field) // places that repeat a column hold equal bits
        visit_row(plan, p.width, static_cast<int>(i % R), field,
                  Writer{group_of(i / R), state + (field * p.height + grid_row) * p.width, inverse_root, field == 0});
    }
  }

  void copy_groups(T *to, const T *from) const { std::memcpy(to, from, sizeof(T) * static_cast<std::size_t>(group)); }
  void publish_borders(T *border) const { // the own groups at both ends
    for (int64_t i = 0; i < halo; ++i) {
      copy_groups(border + i * group, group_of(halo + i));
      copy_groups(border + (halo + i) * group, group_of(groups - 2 * halo + i));
    }
  }
  void renew_borders(const T *above, const T *below) const { // from what the neighbours published
    for (int64_t i = 0; i < halo; ++i) {
      copy_groups(group_of(i), above + (halo + i) * group);
      copy_groups(group_of(groups - halo + i), below + i * group);
    }
  }
};

// One sample, then a batch.

template <class P> struct Workspace { // of one worker
  using T = typename P::T;
  P *slabs = nullptr;
  T *memory = nullptr, *borders[2] = {};

  bool allocate(const Plan &plan) {
    const int64_t elements = plan.slabs * (plan.slab_elements() + 2 * plan.border_elements());
    void *a = nullptr, *b = nullptr;
    if (posix_memalign(&a, 64, static_cast<std::size_t>(plan.slabs) * sizeof(P)) != 0) return false;
    slabs = static_cast<P *>(a);
    if (posix_memalign(&b, 4096, static_cast<std::size_t>(elements) * sizeof(T)) != 0) return false;
    memory = static_cast<T *>(b);
    borders[0] = memory + plan.slabs * plan.slab_elements();
    borders[1] = borders[0] + plan.slabs * plan.border_elements();
    return true;
  }
  void release() {
    std::free(slabs);
    std::free(memory);
  }
};

// A parallel region of one thread would cost as much as a step of a small grid.
template <class Body> EQFLOW_INLINE void for_each_slab(int64_t count, const Body &body) {
  if (count == 1) return body(0);
#pragma omp parallel for num_threads(static_cast<int>(count))
  for (int64_t i = 0; i < count; ++i) body(i);
}

template <class P, class T>
void simulate(const GrayScottParams &p, const Plan &plan, Workspace<P> &work, const T *state,
              const GrayScottCoefficients<T> &coefficients, T *frames) {
  const int64_t count = plan.slabs, border = plan.border_elements();
  const T root = static_cast<T>(p.scale), inverse_root = static_cast<T>(1.0 / p.scale);
  for_each_slab(count, [&](int64_t i) {
    const FlushSubnormals flush;
    work.slabs[i].bind(plan, i, work.memory + i * plan.slab_elements(), coefficients, root);
    work.slabs[i].load(state, p, plan, root);
  });
  int64_t done = 0;
  for (int64_t frame = 0; frame < p.frames; ++frame) {
    for (const int64_t end = (frame + 1) * p.every; done < end;) {
      const int64_t depth = smaller(plan.depth, end - done);
      for_each_slab(count, [&](int64_t i) {
        const FlushSubnormals flush;
        if (count > 1 && done > 0)
          work.slabs[i].renew_borders(work.borders[0] + (i + count - 1) % count * border,
                                      work.borders[0] + (i + 1) % count * border);
        work.slabs[i].advance(depth, done);
        if (count > 1) work.slabs[i].publish_borders(work.borders[1] + i * border);
      });
      T *const published = work.borders[1];
      work.borders[1] = work.borders[0];
      work.borders[0] = published;
      done += depth;
    }
    for_each_slab(count, [&](int64_t i) {
      const FlushSubnormals flush;
      work.slabs[i].store(frames + frame * 2 * p.height * p.width, p, plan, inverse_root);
    });
  }
}

template <class S, int R, bool nine_point, bool scaled, class T = typename S::T>
bool run(const GrayScottParams &p, const T *state, const GrayScottCoefficients<T> *coefficients, T *frames,
         int threads) {
  const int workers = p.batch >= threads ? threads : 1;
  const Plan plan = plan_for<S, R>(p.height, p.width, threads / workers);
  const int64_t cells = 2 * p.height * p.width;
  bool enough_memory = true;
#pragma omp parallel num_threads(workers) if (workers > 1)
  {
    Workspace<Slab<S, R, nine_point, scaled>> work;
    const bool ready = work.allocate(plan);
    if (!ready) {
#pragma omp atomic write
      enough_memory = false;
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t sample = 0; sample < p.batch; ++sample)
      if (ready)
        simulate(p, plan, work, state + sample * cells, coefficients[sample], frames + sample * p.frames * cells);
    work.release();
  }
  return enough_memory;
}

template <class S, int R, class T>
bool choose_update(const GrayScottParams &p, const T *state, const GrayScottCoefficients<T> *coefficients, T *frames,
                   int threads) {
  if (p.nine_point)
    return p.scale == 1 ? run<S, R, true, false>(p, state, coefficients, frames, threads)
                        : run<S, R, true, true>(p, state, coefficients, frames, threads);
  return p.scale == 1 ? run<S, R, false, false>(p, state, coefficients, frames, threads)
                      : run<S, R, false, true>(p, state, coefficients, frames, threads);
}

// Two rows a group where there are registers for it and the height is even.
template <class S, class T>
bool choose_rows(const GrayScottParams &p, const T *state, const GrayScottCoefficients<T> *coefficients, T *frames,
                 int threads) {
#ifdef __AVX512F__
  if (p.height % 2 == 0) return choose_update<S, 2>(p, state, coefficients, frames, threads);
#endif
  return choose_update<S, 1>(p, state, coefficients, frames, threads);
}

#if defined(__AVX512F__)
using Floats = Float16;
using Doubles = Double8;
#elif defined(__AVX2__)
using Floats = Float8;
using Doubles = Double4;
#else
using Floats = One<float>;
using Doubles = One<double>;
#endif

} // namespace

bool gray_scott_cpu(const GrayScottParams &p, const float *state, const GrayScottCoefficients<float> *coefficients,
                    float *frames, int threads) {
  return choose_rows<Floats>(p, state, coefficients, frames, threads);
}

bool gray_scott_cpu(const GrayScottParams &p, const double *state, const GrayScottCoefficients<double> *coefficients,
                    double *frames, int threads) {
  return choose_rows<Doubles>(p, state, coefficients, frames, threads);
}

} // namespace eqflow::EQFLOW_ISA
