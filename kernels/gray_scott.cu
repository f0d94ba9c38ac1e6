// Gray-Scott in CUDA: a block simulates a tile of one sample, and the state stays in the registers between the steps.
//
// Layout. A strip is `rows` rows of the tile, and a lane holds 4 columns of them, so strips of up to 128 columns fit a
// warp, narrow ones several side by side. East and west neighbours come by shuffle, the rows above and below a strip
// through shared memory, double buffered, so that one barrier a step suffices. Where the height is no multiple of
// `rows`, some strips are one row short: their last row repeats the first row of the next strip, and what they exchange
// is one row further in. The same holds for the columns of the lanes.
//
// Tiles. A grid of up to 128 x 128 cells is one tile whose wrap is the period of the grid: one launch runs all steps
// and writes all frames. A longer axis is cut into overlapping tiles of 128 cells. They wrap too, which spoils one ring
// of cells a step, and a launch runs no more steps than the rings that are not stored.
//
// CMakeLists.txt has ptxas optimise this file at -O1: then it keeps the order of the source, in which a value from
// another lane is asked for a row before its use. At -O3 it moves the two together again, and spills (nvcc 13.0).
#include "gray_scott_plan.cuh"
#include "stencil.h"
#include "words.cuh"

#include <utility>

namespace eqflow {
namespace {

using std::int64_t;

// One step of a strip.

struct Scalar {
  static __host__ __device__ __forceinline__ float fused(float a, float b, float c) { return eqflow::fused(a, b, c); }
  static __host__ __device__ __forceinline__ float fused_negative(float a, float b, float c) {
    return eqflow::fused(-a, b, c);
  }
};

template <int rows> using Cells = Word[2][rows + 1]; // w and v; the last row is the one below the strip

__device__ __forceinline__ void copy(Word &to, const Word &from) {
  EQFLOW_UNROLL
  for (int c = 0; c < columns; ++c) to[c] = from[c];
}
__device__ __forceinline__ void select(Word &to, bool first, const Word &a, const Word &b) {
  EQFLOW_UNROLL
  for (int c = 0; c < columns; ++c) to[c] = first ? a[c] : b[c];
}
__device__ __forceinline__ float4 pack(const Word &x) { return make_float4(x[0], x[1], x[2], x[3]); }

template <bool ragged> struct Neighbours {
  int west, east;         // lanes of the warp
  int here, above, below; // places in shared memory
  bool short_lane, after_short_lane, short_strip, after_short_strip;

  __device__ __forceinline__ float from_west(const Word &x) const {
    return __shfl_sync(~0u, ragged && short_lane ? x[2] : x[3], west);
  }
  __device__ __forceinline__ float from_east(const Word &x) const {
    return __shfl_sync(~0u, ragged && after_short_lane ? x[1] : x[0], east);
  }
};

// north + east of a row's cells, the last of which has its eastern neighbour in another lane
__device__ __forceinline__ void add_pairs(const Word &north, const Word &row, float east, Word &pair) {
  EQFLOW_UNROLL
  for (int c = 0; c < columns; ++c) pair[c] = north[c] + (c < 3 ? row[c < 3 ? c + 1 : c] : east);
}

// 5-point: P(i, j) = N + E serves twice, since W + S of cell (i, j) is P(i + 1, j - 1). What comes from another lane is
// asked for a row ahead: two warps a scheduler would not hide the wait.
template <int rows, bool ragged, bool scaled>
__device__ __forceinline__ void step_five_point(const CellConstants<float> &k, const Neighbours<ragged> &n,
                                                const Word (&north)[2], Cells<rows> &x) {
  Word pair[2], next[2]; // P of the row and of the row below
  float west[2], east[2];
  EQFLOW_UNROLL
  for (int f = 0; f < 2; ++f) {
    add_pairs(north[f], x[f][0], n.from_east(x[f][0]), pair[f]);
    add_pairs(x[f][0], x[f][1], n.from_east(x[f][1]), next[f]);
    west[f] = n.from_west(next[f]);
    east[f] = n.from_east(x[f][2]);
  }
  EQFLOW_UNROLL
  for (int r = 0; r < rows; ++r) {
    Word sum[2];
    EQFLOW_UNROLL
    for (int f = 0; f < 2; ++f) {
      EQFLOW_UNROLL
      for (int c = 0; c < columns; ++c) sum[f][c] = pair[f][c] + (c > 0 ? next[f][c > 0 ? c - 1 : 0] : west[f]);
      copy(pair[f], next[f]);
      if (r < rows - 1) {
        add_pairs(x[f][r + 1], x[f][r < rows - 1 ? r + 2 : r], east[f], next[f]);
        west[f] = n.from_west(next[f]);
      }
      if (r < rows - 2) east[f] = n.from_east(x[f][r < rows - 2 ? r + 3 : r]);
    }
    EQFLOW_UNROLL
    for (int c = 0; c < columns; ++c)
      gray_scott_cell<Scalar, scaled>(k, x[0][r][c], x[1][r][c], sum[0][c], sum[1][c], x[0][r][c], x[1][r][c]);
  }
}

// A row with a column on either side.
struct Wide {
  float x[columns + 2];
};

template <bool ragged> __device__ __forceinline__ Wide widen(const Neighbours<ragged> &n, const Word &row) {
  return {{n.from_west(row), row[0], row[1], row[2], row[3], n.from_east(row)}};
}
__device__ __forceinline__ Wide add(const Wide &a, const Wide &b) {
  Wide sum;
  EQFLOW_UNROLL
  for (int c = 0; c < columns + 2; ++c) sum.x[c] = a.x[c] + b.x[c];
  return sum;
}

// 9-point: column sums c = N + S, and S = q (c(j - 1) + c(j + 1)) + (c(j) + (W + E)). The column sums of the next row
// come before a row's update, so that the new row can take the registers of the old one.
template <int rows, bool ragged, bool scaled>
__device__ __forceinline__ void step_nine_point(const CellConstants<float> &k, const Neighbours<ragged> &n,
                                                const Word (&north)[2], Cells<rows> &x) {
  Wide row[2], next[2], second[2]; // this row and the two below it
  Wide column[2];
  EQFLOW_UNROLL
  for (int f = 0; f < 2; ++f) {
    const Wide above = widen(n, north[f]);
    row[f] = widen(n, x[f][0]);
    next[f] = widen(n, x[f][1]);
    second[f] = widen(n, x[f][2]);
    column[f] = add(above, next[f]);
  }
  EQFLOW_UNROLL
  for (int r = 0; r < rows; ++r) {
    Word sum[2];
    EQFLOW_UNROLL
    for (int f = 0; f < 2; ++f) {
      EQFLOW_UNROLL
      for (int c = 0; c < columns; ++c)
        sum[f][c] =
            fused(k.corner, column[f].x[c] + column[f].x[c + 2], column[f].x[c + 1] + (row[f].x[c] + row[f].x[c + 2]));
      column[f] = add(row[f], second[f]);
      row[f] = next[f];
      next[f] = second[f];
      if (r < rows - 2) second[f] = widen(n, x[f][r < rows - 2 ? r + 3 : r]);
    }
    EQFLOW_UNROLL
    for (int c = 0; c < columns; ++c)
      gray_scott_cell<Scalar, scaled>(k, x[0][r][c], x[1][r][c], sum[0][c], sum[1][c], x[0][r][c], x[1][r][c]);
  }
}

// The grid cut into tiles, strips and lanes.

// A thread's piece of an axis.
struct Piece {
  int start;     // the first cell's place in the grid
  unsigned kept; // bit i: the tile stores cell i

  __device__ Piece(const Axis &axis, int tile, int piece) : kept(0) {
    const int origin = tile * axis.own, begin = axis.first(piece) - axis.margin;
    start = (origin + begin) % axis.size;
    if (start < 0) start += axis.size;
    const int end = axis.size - origin < axis.own ? axis.size - origin : axis.own;
    for (int i = 0; i < axis.length(piece); ++i)
      if (begin + i >= 0 && begin + i < end) kept |= 1u << i;
  }
  __device__ bool keeps(int i) const { return kept >> i & 1; }
};

// Read anew by a volatile instruction: otherwise the compiler would keep what it once computed from the index, from the
// load to the last store, in registers that the state needs.
__device__ __forceinline__ int thread_index() {
#if defined(__CUDA_ARCH__)
  int index;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
  return index;
#else
  return static_cast<int>(threadIdx.x);
#endif
}

// Which lane of which strip a thread is. Threads beyond the last ones repeat cells of the first strip, are their own
// neighbours, and store nothing.
struct Seat {
  int warp, thread, lane, strip; // thread: of the warp
  bool idle;

  __device__ explicit Seat(const Plan &plan) {
    const int index = thread_index();
    warp = index / 32;
    thread = index % 32;
    const int place = thread / plan.x.pieces;
    lane = thread % plan.x.pieces;
    strip = warp * plan.strips_in_warp + place;
    idle = place >= plan.strips_in_warp || strip >= plan.y.pieces;
    if (idle) strip = 0;
  }
};

template <bool ragged> __device__ __forceinline__ Neighbours<ragged> neighbours_of(const Plan &plan, const Seat &seat) {
  const int thread = seat.thread, here = seat.warp * words_of_warp + thread;
  Neighbours<ragged> n{thread, thread, here, here, here, false, false, false, false};
  if (seat.idle) return n;
  const int lanes = plan.x.pieces, strips = plan.y.pieces, abreast = plan.strips_in_warp;
  const int west = (seat.lane + lanes - 1) % lanes, east = (seat.lane + 1) % lanes;
  const int above = (seat.strip + strips - 1) % strips, below = (seat.strip + 1) % strips;
  n.west = thread - seat.lane + west;
  n.east = thread - seat.lane + east;
  n.above = words_of_side + above / abreast * words_of_warp + above % abreast * lanes + seat.lane;
  n.below = below / abreast * words_of_warp + below % abreast * lanes + seat.lane;
  n.short_lane = plan.x.length(seat.lane) < plan.x.unit;
  n.after_short_lane = plan.x.length(west) < plan.x.unit;
  n.short_strip = plan.y.length(seat.strip) < plan.y.unit;
  n.after_short_strip = plan.y.length(above) < plan.y.unit;
  return n;
}

// A tile in memory.

// What one launch does. Between the launches of a call the state stays w and v, so that no bit is lost.
struct Pass {
  const float *from; // u and v if natural, else w and v
  bool natural;
  float *between; // w and v at the end, or null
  float *frames;  // u and v after every `steps` steps, or null
  int64_t frames_of_sample, count, steps, first_step;
  float root, inverse_root; // of dt
};

// The cells of a thread in memory. Made anew for every load and store.
template <bool ragged, bool scaled> struct Tile {
  static constexpr int rows = rows_of<ragged>;

  Piece y, x;
  int height, width;
  int64_t cells;

  __device__ __forceinline__ explicit Tile(const Plan &plan) : Tile(plan, Seat(plan)) {}
  __device__ __forceinline__ Tile(const Plan &plan, const Seat &seat)
      : y(plan.y, blockIdx.z, seat.strip), x(plan.x, blockIdx.y, seat.lane), height(plan.y.size), width(plan.x.size),
        cells(plan.cells) {
    if (seat.idle) y.kept = 0;
  }

  __device__ __forceinline__ int64_t line(int field, int row) const {
    return (static_cast<int64_t>(field) * height + row) * width;
  }

  // natural: u and v, else w and v as the step uses them.
  __device__ __forceinline__ void load(const Pass &pass, Cells<rows> &state) const {
    const float *__restrict__ from = pass.from + blockIdx.x * cells;
    int row = y.start;
    EQFLOW_UNROLL
    for (int r = 0; r < rows; ++r) {
      EQFLOW_UNROLL
      for (int f = 0; f < 2; ++f) {
        Word &to = state[f][r];
        if constexpr (ragged) {
          int column = x.start;
          EQFLOW_UNROLL
          for (int c = 0; c < columns; ++c) {
            to[c] = from[line(f, row) + column];
            if (++column == width) column = 0;
          }
        } else {
          load_four(from + line(f, row) + x.start, to);
        }
        if (pass.natural) {
          EQFLOW_UNROLL
          for (int c = 0; c < columns; ++c) {
            const float value = f == 0 ? 1.0f - to[c] : to[c];
            to[c] = scaled ? value * pass.root : value;
          }
        }
      }
      if (++row == height) row = 0;
    }
  }

  // u and v
  __device__ __forceinline__ void store_frame(const Pass &pass, int64_t frame, const Cells<rows> &state) const {
    store(
        pass.frames + (blockIdx.x * pass.frames_of_sample + frame) * cells,
        [&](int field, float value) {
          if (scaled) value *= pass.inverse_root;
          return field == 0 ? 1.0f - value : value;
        },
        state);
  }
  // w and v
  __device__ __forceinline__ void store_between(const Pass &pass, const Cells<rows> &state) const {
    store(pass.between + blockIdx.x * cells, [](int, float value) { return value; }, state);
  }

private:
  template <class Convert>
  __device__ __forceinline__ void store(float *__restrict__ to, Convert convert, const Cells<rows> &state) const {
    int row = y.start;
    EQFLOW_UNROLL
    for (int r = 0; r < rows; ++r) {
      EQFLOW_UNROLL
      for (int f = 0; f < 2; ++f) {
        float *at = to + line(f, row) + x.start; // what is kept never wraps inside a piece
        Word word;
        EQFLOW_UNROLL
        for (int c = 0; c < columns; ++c) word[c] = convert(f, state[f][r][c]);
        if constexpr (ragged) {
          EQFLOW_UNROLL
          for (int c = 0; c < columns; ++c)
            if (y.keeps(r) && x.keeps(c)) at[c] = word[c];
        } else if (y.keeps(r) && x.keeps(0)) {
          store_four(at, word);
        }
      }
      if (++row == height) row = 0;
    }
  }
};

// All steps of a tile.

template <bool ragged, bool nine_point, bool scaled>
__global__ void __launch_bounds__(most_threads<ragged>)
    gray_scott_kernel(Plan plan, Pass pass, const GrayScottCoefficients<float> *__restrict__ coefficients) {
  constexpr int rows = rows_of<ragged>;
  EQFLOW_DYN_SHARED(float4, edges);
  __shared__ float4 coefficients_of_step[8]; // read in every step: between the steps the state needs the registers
  const Tile<ragged, scaled> tile(plan);
  const GrayScottCoefficients<float> &row = coefficients[blockIdx.x];
  if (threadIdx.x < 8)
    coefficients_of_step[threadIdx.x] = make_float4(row.diffusion_u, row.diffusion_v,
                                                    centre_coefficient(row.u_low, row.u_high, row.u_mask, threadIdx.x),
                                                    centre_coefficient(row.v_low, row.v_high, row.v_mask, threadIdx.x));
  Cells<rows> x;
  tile.load(pass, x);
  const Neighbours<ragged> n = neighbours_of<ragged>(plan, Seat(plan));

  const int buffer_words = plan.warps * words_of_warp;
  int step = static_cast<int>(pass.first_step & 7), buffer = 0;
  for (int64_t frame = 0; frame < pass.count; ++frame) {
#pragma unroll 1
    for (int64_t left = pass.steps; left > 0; --left) {
      float4 *const here = edges + buffer + n.here;
      EQFLOW_UNROLL
      for (int f = 0; f < 2; ++f) {
        Word upper, lower;
        select(upper, ragged && n.after_short_strip, x[f][1], x[f][0]);
        select(lower, ragged && n.short_strip, x[f][rows - 2], x[f][rows - 1]);
        here[f * words_of_field] = pack(upper);
        here[words_of_side + f * words_of_field] = pack(lower);
      }
      __syncthreads();
      const float4 *const above = edges + buffer + n.above, *const below = edges + buffer + n.below;
      Word north[2];
      EQFLOW_UNROLL
      for (int f = 0; f < 2; ++f) {
        unpack(above[f * words_of_field], north[f]);
        unpack(below[f * words_of_field], x[f][rows]);
      }
      const float4 now = coefficients_of_step[step & 7];
      const CellConstants<float> k{now.x, now.y, now.z, now.w, pass.root, 0.25f};
      if constexpr (nine_point)
        step_nine_point<rows, ragged, scaled>(k, n, north, x);
      else
        step_five_point<rows, ragged, scaled>(k, n, north, x);
      ++step;
      buffer = buffer_words - buffer;
    }
    if (pass.frames) Tile<ragged, scaled>(plan).store_frame(pass, frame, x);
  }
  if (pass.between) Tile<ragged, scaled>(plan).store_between(pass, x);
}

// Launching.

template <bool ragged> auto kernel_for(const GrayScottParams &p) {
  if (p.nine_point)
    return p.scale == 1 ? gray_scott_kernel<ragged, true, false> : gray_scott_kernel<ragged, true, true>;
  return p.scale == 1 ? gray_scott_kernel<ragged, false, false> : gray_scott_kernel<ragged, false, true>;
}

} // namespace

std::int64_t gray_scott_cuda_workspace(const GrayScottParams &p) {
  return p.height > largest || p.width > largest ? 2 * p.batch * 2 * p.height * p.width : 0;
}

void gray_scott_cuda(const GrayScottParams &p, const float *state, const GrayScottCoefficients<float> *coefficients,
                     float *frames, float *workspace, CudaQueue queue) {
  if (p.batch == 0 || p.frames == 0) return;
  const DeviceGuard guard(queue.device);
  const int64_t cells = 2 * p.height * p.width;
  const float root = static_cast<float>(p.scale), inverse_root = static_cast<float>(1.0 / p.scale);
  const Plan plan = plan_for(p, is_aligned(state) && is_aligned(frames) && is_aligned(workspace));
  const auto kernel = plan.ragged ? kernel_for<true>(p) : kernel_for<false>(p);
  if (plan.shared_bytes() > 48 * 1024) // more than this a kernel must ask for
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared_bytes()),
          "cudaFuncSetAttribute");
  const dim3 blocks(blocks_along_x(p.batch), plan.x.tiles, plan.y.tiles), threads(32 * plan.warps);
  const auto run = [&](const Pass &pass) {
    EQFLOW_LAUNCH(kernel, blocks, threads, plan.shared_bytes(), stream_of(queue), plan, pass, coefficients);
  };
  if (plan.depth == INT_MAX)
    return run({state, true, nullptr, frames, p.frames, p.frames, p.every, 0, root, inverse_root});

  float *between[2] = {workspace, workspace + p.batch * cells};
  Pass pass{state, true, nullptr, nullptr, p.frames, 1, 0, 0, root, inverse_root};
  int64_t done = 0;
  for (int64_t frame = 0; frame < p.frames; ++frame) {
    const int64_t end = (frame + 1) * p.every;
    do {
      pass.first_step = done;
      pass.steps = end - done < plan.depth ? end - done : plan.depth;
      done += pass.steps;
      pass.frames = done == end ? frames + frame * cells : nullptr;
      pass.between = done == end && frame == p.frames - 1 ? nullptr : between[0];
      run(pass);
      pass.from = between[0];
      pass.natural = false;
      std::swap(between[0], between[1]);
    } while (done < end);
  }
}

} // namespace eqflow
