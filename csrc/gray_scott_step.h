// One time step of a group of R rows, on vectors of any instruction set: the inner loop of kernels/gray_scott.cpp.
//
// Lane l of vector j of a row holds column j of the l-th run of columns, so the east and west neighbours of vector j
// are the vectors j + 1 and j - 1; only the ends of a row need a rotation of the lanes, and that rotation is the
// periodic boundary. Where the width is no multiple of the lanes, some runs are one column short: their last place
// repeats the first column of the next run. The vectors of a group stand in the order [j][row][w, v], so that one
// address and small constants reach all of them.
#pragma once
#include "simd.h"
#include "stencil.h"

namespace eqflow::EQFLOW_ISA {
namespace {

using std::int64_t;

template <class S> struct Row {
  int64_t vectors;
  bool ragged;
  typename S::Mask is_short; // lanes whose last place is not a column of their own
};

template <class S, int R> struct Groups {
  using T = typename S::T;
  using V = typename S::V;
  const T *north, *centre, *south; // the group above, this one, the one below
  T *out;                          // may be `north`: vector j of it is read before vector j is written

  static constexpr int64_t place(int64_t j, int r, int field) { return ((j * R + r) * 2 + field) * S::lanes; }
  __attribute__((always_inline)) V load(int field, int r, int64_t j) const { // rows -1 and R belong to the neighbours
    return S::load(r < 0    ? north + place(j, R - 1, field)
                   : r == R ? south + place(j, 0, field)
                            : centre + place(j, r, field));
  }
  __attribute__((always_inline)) void store(int field, int r, int64_t j, V value) const {
    S::store(out + place(j, r, field), value);
  }
  // The last column of every lane, moved to the lane on the right: the western neighbour of vector 0.
  __attribute__((always_inline)) V before_first(const Row<S> &row, int field, int r) const {
    V last = load(field, r, row.vectors - 1);
    if (row.ragged) last = S::select(row.is_short, load(field, r, row.vectors - 2), last);
    return S::from_previous(last);
  }
  // The last place of short lanes repeats the first column of the next lane.
  __attribute__((always_inline)) void mend_short_lanes(const Row<S> &row) const {
    if (!row.ragged) return;
    for (int r = 0; r < R; ++r)
      for (int field = 0; field < 2; ++field) {
        T *last = out + place(row.vectors - 1, r, field);
        S::store(last, S::select(row.is_short, S::from_next(S::load(out + place(0, r, field))), S::load(last)));
      }
  }
};

// 5-point: P(i, j) = N + E serves twice, since W + S of cell (i, j) is P(i + 1, j - 1).
template <class S, int R, bool scaled>
EQFLOW_INLINE void step_five_point(const CellConstants<typename S::V> &k, const Row<S> &row, const Groups<S, R> &g) {
  using V = typename S::V;
  V x[2][R], first[2][R], pair[2][R]; // x: vector j; pair[r]: P one row down and one column west
  EQFLOW_UNROLL
  for (int f = 0; f < 2; ++f) {
    EQFLOW_UNROLL
    for (int r = 0; r < R; ++r) {
      x[f][r] = g.load(f, r, 0);
      first[f][r] = S::from_next(x[f][r]);
    }
    EQFLOW_UNROLL
    for (int r = 0; r < R; ++r)
      pair[f][r] = g.before_first(row, f, r) + (r == R - 1 ? g.load(f, R, 0) : x[f][r < R - 1 ? r + 1 : r]);
  }
  const auto column = [&](int64_t j, bool last) __attribute__((always_inline)) {
    V sum[2][R], east[2][R];
    EQFLOW_UNROLL
    for (int f = 0; f < 2; ++f) {
      EQFLOW_UNROLL
      for (int r = 0; r < R; ++r) east[f][r] = last ? first[f][r] : g.load(f, r, j + 1);
      V below[R + 1];
      below[0] = east[f][0] + g.load(f, -1, j);
      EQFLOW_UNROLL
      for (int r = 1; r < R; ++r) below[r] = x[f][r - 1] + east[f][r];
      below[R] = last ? below[0] : x[f][R - 1] + g.load(f, R, j + 1); // not used after the last column
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
      g.store(0, r, j, w);
      g.store(1, r, j, v);
      x[0][r] = east[0][r];
      x[1][r] = east[1][r];
    }
  };
#pragma GCC unroll 4
  for (int64_t j = 0; j < row.vectors - 1; ++j) column(j, false);
  column(row.vectors - 1, true);
  g.mend_short_lanes(row);
}

// 9-point: column sums c = N + S, and S = q (c(j - 1) + c(j + 1)) + (c(j) + (W + E)).
template <class S, int R, bool scaled>
EQFLOW_INLINE void step_nine_point(const CellConstants<typename S::V> &k, const Row<S> &row, const Groups<S, R> &g) {
  using V = typename S::V;
  V west[2][R], x[2][R], first[2][R], sum_west[2][R], sum_here[2][R], sum_first[2][R];
  EQFLOW_UNROLL
  for (int f = 0; f < 2; ++f) {
    V wrapped[R + 2];
    EQFLOW_UNROLL
    for (int r = -1; r <= R; ++r) wrapped[r + 1] = g.before_first(row, f, r);
    EQFLOW_UNROLL
    for (int r = 0; r < R; ++r) {
      west[f][r] = wrapped[r + 1];
      sum_west[f][r] = wrapped[r] + wrapped[r + 2];
      x[f][r] = g.load(f, r, 0);
      first[f][r] = S::from_next(x[f][r]);
      sum_here[f][r] = g.load(f, r - 1, 0) + g.load(f, r + 1, 0);
      sum_first[f][r] = S::from_next(sum_here[f][r]);
    }
  }
  const auto column = [&](int64_t j, bool last) __attribute__((always_inline)) {
    V sum[2][R], east[2][R], sum_east[2][R];
    EQFLOW_UNROLL
    for (int f = 0; f < 2; ++f) {
      EQFLOW_UNROLL
      for (int r = 0; r < R; ++r) east[f][r] = last ? first[f][r] : g.load(f, r, j + 1);
      EQFLOW_UNROLL
      for (int r = 0; r < R; ++r) {
        if (last) {
          sum_east[f][r] = sum_first[f][r];
        } else {
          const V above = r == 0 ? g.load(f, -1, j + 1) : east[f][r > 0 ? r - 1 : 0];
          const V below = r == R - 1 ? g.load(f, R, j + 1) : east[f][r < R - 1 ? r + 1 : r];
          sum_east[f][r] = above + below;
        }
        sum[f][r] = S::fused(k.corner, sum_west[f][r] + sum_east[f][r], sum_here[f][r] + (west[f][r] + east[f][r]));
        sum_west[f][r] = sum_here[f][r];
        sum_here[f][r] = sum_east[f][r];
        west[f][r] = x[f][r];
      }
    }
    EQFLOW_UNROLL
    for (int r = 0; r < R; ++r) {
      V w, v;
      gray_scott_cell<S, scaled>(k, x[0][r], x[1][r], sum[0][r], sum[1][r], w, v);
      g.store(0, r, j, w);
      g.store(1, r, j, v);
      x[0][r] = east[0][r];
      x[1][r] = east[1][r];
    }
  };
#pragma GCC unroll 4
  for (int64_t j = 0; j < row.vectors - 1; ++j) column(j, false);
  column(row.vectors - 1, true);
  g.mend_short_lanes(row);
}

} // namespace
} // namespace eqflow::EQFLOW_ISA
