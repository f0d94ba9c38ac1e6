// What a CUDA thread does to the numbers of a network: its functions, and four numbers at a time to and from memory.
#pragma once
#include "cuda.cuh"
#include "mlp_plan.h"
#include "philox.h"

namespace eqflow {

// sigmoid of z, and with it all of a(z) = z sigmoid(z): a' = s (1 + z (1 - s)), a'' = s (1 - s) (2 + z (1 - 2 s)).
__device__ __forceinline__ float sigmoid(float z) {
#if defined(__CUDA_ARCH__)
  return __fdividef(1.0f, 1.0f + expf(-z));
#else
  return 1.0f / (1.0f + expf(-z));
#endif
}

__device__ __forceinline__ float slope_of_silu(float z, float s) { return s * fused(z, 1.0f - s, 1.0f); }

__device__ __forceinline__ float bend_of_silu(float z, float s) {
  return s * (1.0f - s) * fused(z, fused(-2.0f, s, 1.0f), 2.0f);
}

// Absolute error below 2e-7 for |angle| up to 10^4: reduced by quarters of a turn in three parts.
__device__ __forceinline__ void sine_cosine(float angle, float &sine, float &cosine) {
  const float quarter = rintf(angle * 0.636619772367581343f);
  float r = fused(quarter, -1.5703125f, angle);
  r = fused(quarter, -4.837512969970703e-4f, r);
  r = fused(quarter, -7.549789948768648e-8f, r);
  const float z = r * r;
  float s = fused(fused(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
  s = fused(s * z, r, r);
  float c = fused(fused(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
  c = fused(c * z, z, fused(z, -0.5f, 1.0f));
  const int q = static_cast<int>(quarter);
  const float even = (q & 1) ? c : s, odd = (q & 1) ? s : c;
  sine = (q & 2) ? -even : even;
  cosine = ((q + 1) & 2) ? -odd : odd;
}

// 16 bytes into shared memory, which are there for this thread after wait_for_copies.
__device__ __forceinline__ void copy_four(float *to, const float *from) {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(__cvta_generic_to_global(from))
               : "memory");
#else
  *reinterpret_cast<float4 *>(to) = *reinterpret_cast<const float4 *>(from);
#endif
}

__device__ __forceinline__ void wait_for_copies() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Four columns side by side.
using Four = float[4];

__device__ __forceinline__ void load_four(const float *from, Four &to) {
  const float4 four = *reinterpret_cast<const float4 *>(from);
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

// Spelled out, because nvcc cuts the assignment into four stores.
template <Place place> __device__ __forceinline__ void store_four(float *to, const Four &from) {
#if defined(__CUDA_ARCH__)
  if constexpr (place == Place::on_chip)
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
                 "f"(from[0]), "f"(from[1]), "f"(from[2]), "f"(from[3])
                 : "memory");
  else
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "f"(from[0]),
                 "f"(from[1]), "f"(from[2]), "f"(from[3])
                 : "memory");
#else
  *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
#endif
}

} // namespace eqflow
