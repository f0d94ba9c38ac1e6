// One cell of Gray-Scott, for host vectors and device scalars alike: the canonical arithmetic.
//
// Inside the engines the state is w = 1 - u and v (both times sqrt(dt) where dt is not 1). With S the sum of the
// neighbours, in the order (N + E) + (W + S) for 5 points, one step is
//     r = (1 - w) v v        w' = D_u S_w + a w + r        v' = D_v S_v + b v + r
// where a = 1 - dt F - 4 dt D_u and b = 1 - dt (F + k) - 4 dt D_v. Every product feeds an explicit fma, so no compiler
// can round differently.
#pragma once
#include "philox.h"

namespace eqflow {

template <class V> struct CellConstants {
  V diffusion_u, diffusion_v;
  V a, b;   // the centre coefficients of this step
  V root;   // sqrt(dt)
  V corner; // corner weight over edge weight of the 9-point Laplacian
};

// S::fused(a, b, c) is a b + c, S::fused_negative(a, b, c) is c - a b, each rounded once.
template <class S, bool scaled, class V>
EQFLOW_HD void gray_scott_cell(const CellConstants<V> &k, V w, V v, V sum_w, V sum_v, V &w_next, V &v_next) {
  const V r = (scaled ? (k.root - w) * v : S::fused_negative(w, v, v)) * v;
  w_next = S::fused(k.diffusion_u, sum_w, S::fused(k.a, w, r));
  v_next = S::fused(k.diffusion_v, sum_v, S::fused(k.b, v, r));
}

// The dithered centre coefficient: its mean over eight steps is right to 1/16 of a unit in the last place.
template <class T> EQFLOW_HD T centre_coefficient(T low, T high, T mask, std::int64_t step) {
  return (static_cast<unsigned>(mask) >> (step & 7)) & 1 ? high : low;
}

} // namespace eqflow
