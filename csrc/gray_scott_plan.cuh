// How the CUDA kernel of Gray-Scott cuts a grid: tiles, strips of rows, lanes of columns, and how deep the tiles are.
// kernels/gray_scott.cu says what these are.
#pragma once
#include "cuda.cuh"
#include "kernels.h"

namespace eqflow {
namespace {

using std::int64_t;

constexpr int columns = 4;      // of a lane: one Word
constexpr int largest = 128;    // cells along an axis of a tile: 128 x 128 cells fill half of the registers
constexpr double passage = 4.5; // what it takes to load and store a tile, in steps (measured on an H200)

// Rows of a strip: 16 take 11.9 instructions a cell on sm_90 and leave a scheduler two warps, 8 leave it four, which is
// no faster. Ragged tiles take 8 (13.9 instructions), with which more heights fit.
template <bool ragged> constexpr int rows_of = ragged ? 8 : 16;
template <bool ragged> constexpr int most_threads = largest * largest / (columns * rows_of<ragged>);

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t unit) { return divide_up(a, unit) * unit; }

// Words of a thread in shared memory: [warp][upper, lower][w, v][thread of the warp].
constexpr int words_of_field = 32, words_of_side = 2 * words_of_field, words_of_warp = 2 * words_of_side;

// One axis: tiles of `span` cells, of which `own` after the margin are stored, cut into pieces of at most `unit` cells.
// Pieces differ by at most one in length; the long ones come first. A launch may run `depth` steps.
struct Axis {
  int size, tiles, own, margin, span, depth, unit, pieces, shorter, long_pieces; // shorter: length of the other pieces

  __device__ int first(int piece) const { return piece * shorter + (piece < long_pieces ? piece : long_pieces); }
  __device__ int length(int piece) const { return shorter + (piece < long_pieces); }
};

// Tiles with at least `depth` cells more on either side than they store, or one tile where the axis is short enough.
Axis cut_axis(int64_t size, int unit, int depth) {
  Axis axis{};
  axis.size = axis.own = axis.span = static_cast<int>(size);
  axis.tiles = 1;
  axis.depth = INT_MAX;
  axis.unit = unit;
  if (size > largest) {
    axis.tiles = static_cast<int>(divide_up(size, largest - 2 * depth));
    axis.own = static_cast<int>(round_up(divide_up(size, axis.tiles), columns)); // 16-byte words stay whole
    axis.span = largest;
    axis.depth = axis.margin = (largest - axis.own) / 2 / columns * columns;
  }
  // No piece may miss more than one cell: where too many are missing, copies of the grid side by side fill a torus.
  while (round_up(axis.span, unit) - axis.span > divide_up(axis.span, unit)) axis.span += axis.size;
  axis.pieces = static_cast<int>(divide_up(axis.span, unit));
  axis.shorter = axis.span / axis.pieces;
  axis.long_pieces = axis.span % axis.pieces;
  return axis;
}

struct Plan {
  Axis y, x;
  int64_t cells; // of both fields of a sample
  int strips_in_warp, warps, depth;
  bool ragged;

  // The upper and the lower row of w and v of every thread, twice.
  int shared_bytes() const { return 2 * warps * words_of_warp * static_cast<int>(sizeof(float4)); }
  double cost() const { return y.tiles * x.tiles * (1 + passage / depth); } // of a step, in steps of a tile
};

Plan plan_with(const GrayScottParams &p, bool ragged, int depth) {
  Plan plan{};
  plan.y = cut_axis(p.height, ragged ? rows_of<true> : rows_of<false>, depth);
  plan.x = cut_axis(p.width, columns, depth);
  plan.cells = 2 * p.height * p.width;
  plan.strips_in_warp = 32 / plan.x.pieces;
  plan.warps = static_cast<int>(divide_up(plan.y.pieces, plan.strips_in_warp));
  plan.depth = plan.y.depth < plan.x.depth ? plan.y.depth : plan.x.depth;
  plan.ragged = ragged;
  return plan;
}

// Deep tiles are met seldom, and much of them is computed in vain.
Plan cheapest_plan(const GrayScottParams &p, bool ragged) {
  Plan best = plan_with(p, ragged, columns);
  for (int depth = 2 * columns; depth <= largest / 4; depth += columns) {
    const Plan plan = plan_with(p, ragged, depth);
    if (plan.cost() < best.cost()) best = plan;
  }
  return best;
}

// Ragged tiles cost four selects a row, but their lower strips fill a warp where the grid is small.
Plan plan_for(const GrayScottParams &p, bool aligned) {
  const Plan even = cheapest_plan(p, false), ragged = cheapest_plan(p, true);
  const bool fits = even.y.span % even.y.unit == 0 && p.width % columns == 0 && aligned;
  return fits && rows_of<false> * even.warps <= rows_of<true> * ragged.warps ? even : ragged;
}

} // namespace
} // namespace eqflow
