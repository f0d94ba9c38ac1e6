// Words of four neighbouring numbers, float32 or bfloat16: 16 or 8 bytes at a time between memory and registers.
#pragma once
#include <cuda_runtime.h>

#include "philox.h"

namespace eqflow {
namespace {

using Word = float[4];

struct alignas(8) Halves {
  std::uint32_t low, high;
};
template <class Number> struct Four; // in memory
template <> struct Four<float> {
  using type = float4;
};
template <> struct Four<std::uint16_t> { // bfloat16
  using type = Halves;
};
template <class Number> using FourOf = typename Four<Number>::type;

__device__ __forceinline__ float load(const float *from) { return *from; }
__device__ __forceinline__ float load(const std::uint16_t *from) {
  return bits_float(static_cast<std::uint32_t>(*from) << 16);
}
__device__ __forceinline__ void unpack(const float4 &from, float *to) {
  to[0] = from.x, to[1] = from.y, to[2] = from.z, to[3] = from.w;
}
__device__ __forceinline__ void unpack(const Halves &from, float *to) {
  to[0] = bits_float(from.low << 16), to[1] = bits_float(from.low & 0xffff0000u);
  to[2] = bits_float(from.high << 16), to[3] = bits_float(from.high & 0xffff0000u);
}
template <class Number> __device__ __forceinline__ void load_four(const Number *from, Word &to) {
  const FourOf<Number> four = *reinterpret_cast<const FourOf<Number> *>(from); // in one piece, then its parts
  unpack(four, to);
}

// Into device memory alone. Spelled out, because nvcc cuts the assignment into four stores.
__device__ __forceinline__ void store_four(float *to, const Word &from) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(from[0]), "f"(from[1]), "f"(from[2]),
               "f"(from[3])
               : "memory");
#else
  *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
#endif
}

// The same for what passes once: the first to leave the cache, where it would displace what is met again.
__device__ __forceinline__ void load_four_once(const float *from, Word &to) {
#if defined(__CUDA_ARCH__)
  unpack(__ldcs(reinterpret_cast<const float4 *>(from)), to);
#else
  load_four(from, to);
#endif
}
__device__ __forceinline__ void load_four_once(const std::uint16_t *from, Word &to) {
#if defined(__CUDA_ARCH__)
  const uint2 four = __ldcs(reinterpret_cast<const uint2 *>(from));
  unpack(Halves{four.x, four.y}, to);
#else
  load_four(from, to);
#endif
}
__device__ __forceinline__ void store_four_once(float *to, const Word &from) {
#if defined(__CUDA_ARCH__)
  __stcs(reinterpret_cast<float4 *>(to), make_float4(from[0], from[1], from[2], from[3]));
#else
  store_four(to, from);
#endif
}

// Copies 4, 8 or 16 bytes into shared memory, past the registers: done after wait_for_copies.
template <class T> __device__ __forceinline__ void copy_later(T *to, const T *from) {
#if defined(__CUDA_ARCH__)
  const auto place = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (sizeof(T) == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(place), "l"(from) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(place), "l"(from), "n"(sizeof(T)) : "memory");
#else
  *to = *from;
#endif
}
__device__ __forceinline__ void wait_for_copies() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

} // namespace
} // namespace eqflow
