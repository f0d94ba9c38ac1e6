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
  EQFLOW_INLINE V larger(V a, V b) { return a > b ? a : b; } // b if either is NaN
  EQFLOW_INLINE V times_power(V value, V n) {                // value 2^n, n in the low bits
    std::uint32_t bits, shift;
    __builtin_memcpy(&bits, &value, 4);
    __builtin_memcpy(&shift, &n, 4);
    bits += shift << 23;
    __builtin_memcpy(&value, &bits, 4);
    return value;
  }
};

// Four numbers on a machine that is not known to have a fused multiply-add: the product is rounded before the sum.
struct Float4 {
  using T = float;
  using V = float __attribute__((vector_size(16)));
  using Bits = std::uint32_t __attribute__((vector_size(16)));
  static constexpr int lanes = 4;
  EQFLOW_INLINE V load(const T *p) { return *reinterpret_cast<const V *>(p); }
  EQFLOW_INLINE void store(T *p, V a) { *reinterpret_cast<V *>(p) = a; }
  EQFLOW_INLINE V set(T a) { return V{a, a, a, a}; }
  EQFLOW_INLINE V fused(V a, V b, V c) { return a * b + c; }
  EQFLOW_INLINE V larger(V a, V b) { return a > b ? a : b; }
  EQFLOW_INLINE V times_power(V value, V n) {
    return reinterpret_cast<V>(reinterpret_cast<Bits>(value) + (reinterpret_cast<Bits>(n) << 23));
  }
  EQFLOW_INLINE V sums(V a, V b, V c, V d) { // of the lanes of each
    return V{a[0] + a[1], b[0] + b[1], c[0] + c[1], d[0] + d[1]} +
           V{a[2] + a[3], b[2] + b[3], c[2] + c[3], d[2] + d[3]};
  }
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
  EQFLOW_INLINE V larger(V a, V b) { return _mm256_max_ps(a, b); }
  EQFLOW_INLINE V times_power(V value, V n) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(value), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
  }
  EQFLOW_INLINE Float4::V sums(V a, V b, V c, V d) {
    const V ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const V cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const V all = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
    return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  }
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
  EQFLOW_INLINE V larger(V a, V b) { return _mm512_max_ps(a, b); }
  EQFLOW_INLINE V times_power(V value, V n) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(value), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
  }
  EQFLOW_INLINE __m256 halved(V a) { // the upper half added to the lower one
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  }
  EQFLOW_INLINE Float4::V sums(V a, V b, V c, V d) { return Float8::sums(halved(a), halved(b), halved(c), halved(d)); }
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

// 2^x, 1 unit in the last place, for x up to 127; at -127 and below it is 0 (or at most 2^-126 close by).
template <class Lanes> EQFLOW_INLINE typename Lanes::V power_of_two(typename Lanes::V x) {
  using V = typename Lanes::V;
  const V magic = Lanes::set(12582912.0f); // 1.5 2^23: adding it rounds to a whole number, left in the low bits
  x = Lanes::larger(Lanes::set(-127.0f), x);
  const V n = x + magic, r = x - (n - magic);
  V p = Lanes::set(1.53533620e-4f);
  p = Lanes::fused(p, r, Lanes::set(1.33988750e-3f));
  p = Lanes::fused(p, r, Lanes::set(9.61843692e-3f));
  p = Lanes::fused(p, r, Lanes::set(5.55033237e-2f));
  p = Lanes::fused(p, r, Lanes::set(2.40226477e-1f));
  p = Lanes::fused(p, r, Lanes::set(6.93147182e-1f));
  return Lanes::times_power(Lanes::fused(p, r, Lanes::set(1.0f)), n);
}

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
