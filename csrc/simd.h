// Vectors of one instruction set behind one interface. Lane l takes the value of lane l + 1 (from_next) or l - 1
// (from_previous), cyclically. Included by kernels only, inside which every instruction set has a namespace of its own.
#pragma once
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#define EQFLOW_INLINE static inline __attribute__((always_inline))

namespace eqflow::EQFLOW_ISA {

// The portable vector of one lane: a correctly rounded fma on any machine.
template <class Number> struct One {
  using T = Number;
  using V = Number;
  using Mask = bool;
  static constexpr int lanes = 1;
  EQFLOW_INLINE V load(const T *p) { return *p; }
  EQFLOW_INLINE void store(T *p, V a) { *p = a; }
  EQFLOW_INLINE V set(T a) { return a; }
  EQFLOW_INLINE V fused(V a, V b, V c) { return sizeof(T) == 4 ? __builtin_fmaf(a, b, c) : __builtin_fma(a, b, c); }
  EQFLOW_INLINE V fused_negative(V a, V b, V c) { return fused(-a, b, c); } // c - a b
  EQFLOW_INLINE V from_next(V a) { return a; }
  EQFLOW_INLINE V from_previous(V a) { return a; }
  EQFLOW_INLINE Mask mask(std::uint32_t bits) { return bits & 1; }
  EQFLOW_INLINE V select(Mask m, V yes, V no) { return m ? yes : no; }
};

#ifdef __AVX2__
struct Float8 {
  using T = float;
  using V = __m256;
  using Mask = __m256;
  static constexpr int lanes = 8;
  EQFLOW_INLINE V load(const T *p) { return _mm256_load_ps(p); }
  EQFLOW_INLINE void store(T *p, V a) { _mm256_store_ps(p, a); }
  EQFLOW_INLINE V set(T a) { return _mm256_set1_ps(a); }
  EQFLOW_INLINE V fused(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  EQFLOW_INLINE V fused_negative(V a, V b, V c) { return _mm256_fnmadd_ps(a, b, c); }
  EQFLOW_INLINE V from_next(V a) { return _mm256_permutevar8x32_ps(a, _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 0)); }
  EQFLOW_INLINE V from_previous(V a) { return _mm256_permutevar8x32_ps(a, _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6)); }
  EQFLOW_INLINE Mask mask(std::uint32_t bits) {
    const __m256i lane_bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i both = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane_bits);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(both, lane_bits));
  }
  EQFLOW_INLINE V select(Mask m, V yes, V no) { return _mm256_blendv_ps(no, yes, m); }
};

struct Double4 {
  using T = double;
  using V = __m256d;
  using Mask = __m256d;
  static constexpr int lanes = 4;
  EQFLOW_INLINE V load(const T *p) { return _mm256_load_pd(p); }
  EQFLOW_INLINE void store(T *p, V a) { _mm256_store_pd(p, a); }
  EQFLOW_INLINE V set(T a) { return _mm256_set1_pd(a); }
  EQFLOW_INLINE V fused(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
  EQFLOW_INLINE V fused_negative(V a, V b, V c) { return _mm256_fnmadd_pd(a, b, c); }
  EQFLOW_INLINE V from_next(V a) { return _mm256_permute4x64_pd(a, 0x39); }
  EQFLOW_INLINE V from_previous(V a) { return _mm256_permute4x64_pd(a, 0x93); }
  EQFLOW_INLINE Mask mask(std::uint32_t bits) {
    const __m256i lane_bits = _mm256_setr_epi64x(1, 2, 4, 8);
    const __m256i both = _mm256_and_si256(_mm256_set1_epi64x(bits), lane_bits);
    return _mm256_castsi256_pd(_mm256_cmpeq_epi64(both, lane_bits));
  }
  EQFLOW_INLINE V select(Mask m, V yes, V no) { return _mm256_blendv_pd(no, yes, m); }
};
#endif

#ifdef __AVX512F__
struct Float16 {
  using T = float;
  using V = __m512;
  using Mask = __mmask16;
  static constexpr int lanes = 16;
  EQFLOW_INLINE V load(const T *p) { return _mm512_load_ps(p); }
  EQFLOW_INLINE void store(T *p, V a) { _mm512_store_ps(p, a); }
  EQFLOW_INLINE V set(T a) { return _mm512_set1_ps(a); }
  EQFLOW_INLINE V fused(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  EQFLOW_INLINE V fused_negative(V a, V b, V c) { return _mm512_fnmadd_ps(a, b, c); }
  EQFLOW_INLINE V from_next(V a) {
    const __m512i i = _mm512_castps_si512(a);
    return _mm512_castsi512_ps(_mm512_alignr_epi32(i, i, 1));
  }
  EQFLOW_INLINE V from_previous(V a) {
    const __m512i i = _mm512_castps_si512(a);
    return _mm512_castsi512_ps(_mm512_alignr_epi32(i, i, 15));
  }
  EQFLOW_INLINE Mask mask(std::uint32_t bits) { return static_cast<Mask>(bits); }
  EQFLOW_INLINE V select(Mask m, V yes, V no) { return _mm512_mask_blend_ps(m, no, yes); }
};

struct Double8 {
  using T = double;
  using V = __m512d;
  using Mask = __mmask8;
  static constexpr int lanes = 8;
  EQFLOW_INLINE V load(const T *p) { return _mm512_load_pd(p); }
  EQFLOW_INLINE void store(T *p, V a) { _mm512_store_pd(p, a); }
  EQFLOW_INLINE V set(T a) { return _mm512_set1_pd(a); }
  EQFLOW_INLINE V fused(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
  EQFLOW_INLINE V fused_negative(V a, V b, V c) { return _mm512_fnmadd_pd(a, b, c); }
  EQFLOW_INLINE V from_next(V a) {
    const __m512i i = _mm512_castpd_si512(a);
    return _mm512_castsi512_pd(_mm512_alignr_epi64(i, i, 1));
  }
  EQFLOW_INLINE V from_previous(V a) {
    const __m512i i = _mm512_castpd_si512(a);
    return _mm512_castsi512_pd(_mm512_alignr_epi64(i, i, 7));
  }
  EQFLOW_INLINE Mask mask(std::uint32_t bits) { return static_cast<Mask>(bits); }
  EQFLOW_INLINE V select(Mask m, V yes, V no) { return _mm512_mask_blend_pd(m, no, yes); }
};
#endif

// Subnormals read and write as zero while this lives: without it a dying pattern runs five times slower.
class FlushSubnormals {
public:
#if defined(__x86_64__)
  __attribute__((always_inline)) FlushSubnormals() : saved(_mm_getcsr()) { _mm_setcsr(saved | 0x8040); }
  __attribute__((always_inline)) ~FlushSubnormals() { _mm_setcsr(saved); }

private:
  unsigned saved;
#elif defined(__aarch64__)
  __attribute__((always_inline)) FlushSubnormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved));
    asm volatile("msr fpcr, %0" ::"r"(saved | (std::uint64_t{1} << 24)));
  }
  __attribute__((always_inline)) ~FlushSubnormals() { asm volatile("msr fpcr, %0" ::"r"(saved)); }

private:
  std::uint64_t saved;
#endif
};

} // namespace eqflow::EQFLOW_ISA
