// Small matrix products for perceptrons on the CPU. A matrix of activations is [rows][samples]: one lane is one sample,
// so layers, activations and derivatives run down the rows and never mix the lanes. Rows end at a multiple of
// `padding`, and what stands between is never used.
#pragma once
#include "simd.h"

namespace eqflow::EQFLOW_ISA {
namespace {

#if defined(__AVX512F__)
using Lanes = Float16;
constexpr int panel_rows = 8, gradient_rows = 6; // as many sums as the registers hold
#elif defined(__AVX2__)
using Lanes = Float8;
constexpr int panel_rows = 4, gradient_rows = 3;
#else
using Lanes = Float4;
constexpr int panel_rows = 4, gradient_rows = 3;
#endif
using V = Lanes::V;

constexpr int samples = 48; // of a tile
constexpr int abreast = 3;  // tiles that a backward pass takes at once
constexpr int padding = 8;
constexpr int panel_vectors = 3;
static_assert(samples % (panel_vectors * Lanes::lanes) == 0 && padding % panel_rows == 0);

template <class T> EQFLOW_INLINE T round_up(T a, T b) { return (a + b - 1) / b * b; }

// Body(at) for every vector of one row.
template <class Body> EQFLOW_INLINE void along(Body body) {
  for (int at = 0; at < samples; at += Lanes::lanes) body(at);
}

// Body(at) for every vector of some rows.
template <class Body> EQFLOW_INLINE void over(std::int64_t rows, Body body) {
  for (std::int64_t at = 0; at < rows * samples; at += Lanes::lanes) body(at);
}

EQFLOW_INLINE V sigmoid(V z) {
  const V turned = Lanes::larger(Lanes::set(-126.0f), z * Lanes::set(1.44269504f)); // keeps a NaN
  return Lanes::set(1.0f) / (Lanes::set(1.0f) + power_of_two<Lanes>(-turned));
}

// A matrix [out, into] as panels [out / panel_rows][into][panel_rows], which a product reads from front to back.
struct Panels {
  float *at;
  int out, into;

  static std::int64_t size(std::int64_t out, std::int64_t into) { return round_up<std::int64_t>(out, padding) * into; }
  template <class Number> void fill(Number number) const { // number(o, i)
    float *to = at;
    for (int first = 0; first < out; first += panel_rows)
      for (int i = 0; i < into; ++i)
        for (int r = 0; r < panel_rows; ++r) *to++ = first + r < out ? number(first + r, i) : 0.0f;
  }
  // The columns from `first` on; `depth` of a product says how many.
  const float *columns(int first) const { return at + first * panel_rows; }
};

// The product of some columns of a matrix with [depth][samples]: Finish(row, sample, sums) takes every vector, those of
// the padding too.
template <class Finish>
EQFLOW_INLINE void multiply(const Panels &panels, const float *weights, int depth, const float *from, Finish finish) {
  constexpr int width = panel_vectors * Lanes::lanes;
  for (int column = 0; column < samples; column += width)
    for (int first = 0; first < panels.out; first += panel_rows) {
      const float *weight = weights + first * panels.into, *x = from + column;
      V sum[panel_rows][panel_vectors];
#pragma GCC unroll 8
      for (int r = 0; r < panel_rows; ++r)
#pragma GCC unroll 3
        for (int v = 0; v < panel_vectors; ++v) sum[r][v] = Lanes::set(0.0f);
      for (int k = 0; k < depth; ++k, weight += panel_rows, x += samples) {
        V numbers[panel_vectors];
#pragma GCC unroll 3
        for (int v = 0; v < panel_vectors; ++v) numbers[v] = Lanes::load(x + v * Lanes::lanes);
#pragma GCC unroll 8
        for (int r = 0; r < panel_rows; ++r) {
          const V w = Lanes::set(weight[r]);
#pragma GCC unroll 3
          for (int v = 0; v < panel_vectors; ++v) sum[r][v] = Lanes::fused(w, numbers[v], sum[r][v]);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < panel_rows; ++r)
#pragma GCC unroll 3
        for (int v = 0; v < panel_vectors; ++v) finish(first + r, column + v * Lanes::lanes, sum[r][v]);
    }
}

template <class Finish> EQFLOW_INLINE void multiply(const Panels &panels, const float *from, Finish finish) {
  multiply(panels, panels.at, panels.into, from, finish);
}

// A run of matrices of equal shape, one a direction.
struct Run {
  const float *at;
  std::int64_t stride;
  int count;
};

template <int rows>
EQFLOW_INLINE void add_products(const float *a, const float *b, const Run &left, const Run &right, int columns,
                                float *to, int stride) {
  V sum[rows][4];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) sum[r][c] = Lanes::set(0.0f);
  for (int n = 0; n < left.count; ++n, a += left.stride, b += right.stride)
    for (int at = 0; at < samples; at += Lanes::lanes) {
      V x[rows];
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) x[r] = Lanes::load(a + r * samples + at);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        const V y = Lanes::load(b + c * samples + at);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) sum[r][c] = Lanes::fused(x[r], y, sum[r][c]);
      }
    }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    const Float4::V sums = Lanes::sums(sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
    for (int c = 0; c < columns; ++c) to[r * stride + c] += sums[c];
  }
}

// to[r][c] += sum over the matrices and samples of left[r] right[c].
void add_outer(const Run &left, int rows, const Run &right, int columns, float *to, int stride) {
  for (int r = 0; r < rows; r += gradient_rows)
    for (int c = 0; c < columns; c += 4) {
      const float *a = left.at + r * samples, *b = right.at + c * samples;
      float *at = to + r * stride + c;
      const int wide = columns - c < 4 ? columns - c : 4;
      switch (rows - r) {
      case 1:
        add_products<1>(a, b, left, right, wide, at, stride);
        break;
      case 2:
        add_products<2>(a, b, left, right, wide, at, stride);
        break;
#if defined(__AVX512F__)
      case 3:
        add_products<3>(a, b, left, right, wide, at, stride);
        break;
      case 4:
        add_products<4>(a, b, left, right, wide, at, stride);
        break;
      case 5:
        add_products<5>(a, b, left, right, wide, at, stride);
        break;
#endif
      default:
        add_products<gradient_rows>(a, b, left, right, wide, at, stride);
      }
    }
}

// to[r] += sum over the samples of matrix[r].
void add_sums(const float *matrix, int rows, float *to) {
  for (int r = 0; r < rows; r += 4, matrix += 4 * samples) {
    V sum[4];
    for (int c = 0; c < 4; ++c) {
      sum[c] = Lanes::load(matrix + c * samples);
      for (int at = Lanes::lanes; at < samples; at += Lanes::lanes)
        sum[c] = sum[c] + Lanes::load(matrix + c * samples + at);
    }
    const Float4::V sums = Lanes::sums(sum[0], sum[1], sum[2], sum[3]);
    for (int c = 0; c < 4 && r + c < rows; ++c) to[r + c] += sums[c];
  }
}

} // namespace
} // namespace eqflow::EQFLOW_ISA
