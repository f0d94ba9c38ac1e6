// Random numbers compiled for host and device from one source: Philox4x32-10 and a portable Box-Muller transform.
//
// Only integer operations, add, multiply, explicit fma and correctly rounded sqrt of float32, in a fixed order, and
// both compilers are told to fuse nothing else (-ffp-contract=off, --fmad=false): every processor gives the same bits.
#pragma once
#include <cstdint>
#if defined(__CUDACC__)
#define EQFLOW_HD static __host__ __device__ __forceinline__
#define EQFLOW_UNROLL _Pragma("unroll")
#else
#include <cmath>
#define EQFLOW_HD static inline __attribute__((always_inline))
#define EQFLOW_UNROLL _Pragma("GCC unroll 16")
#endif

namespace eqflow {

struct Words {
  std::uint32_t x, y, z, w;
};

EQFLOW_HD std::uint32_t multiply_high(std::uint32_t a, std::uint32_t b) {
#if defined(__CUDA_ARCH__)
  return __umulhi(a, b);
#else
  return static_cast<std::uint32_t>((static_cast<std::uint64_t>(a) * b) >> 32);
#endif
}

EQFLOW_HD float fused(float a, float b, float c) { // a b + c, rounded once
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

EQFLOW_HD std::uint32_t float_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
#endif
}

EQFLOW_HD float bits_float(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
#endif
}

// The keys of the ten rounds. A kernel takes them as a parameter: an instruction reads a word of a parameter for
// nothing, while computing the keys would cost it two additions a round.
struct PhiloxKeys {
  std::uint32_t low[10], high[10];
};

EQFLOW_HD PhiloxKeys philox_keys(std::uint64_t seed) {
  PhiloxKeys keys;
  EQFLOW_UNROLL
  for (std::uint32_t round = 0; round < 10; ++round) {
    keys.low[round] = static_cast<std::uint32_t>(seed) + round * 0x9E3779B9u;
    keys.high[round] = static_cast<std::uint32_t>(seed >> 32) + round * 0xBB67AE85u;
  }
  return keys;
}

// Philox4x32-10 (Salmon et al. 2011, Random123).
EQFLOW_HD Words philox(Words counter, const PhiloxKeys &keys) {
  EQFLOW_UNROLL
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t high0 = multiply_high(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
    const std::uint32_t high1 = multiply_high(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
    counter = Words{high1 ^ counter.y ^ keys.low[round], low1, high0 ^ counter.w ^ keys.high[round], low0};
  }
  return counter;
}

EQFLOW_HD Words philox(Words counter, std::uint32_t key_low, std::uint32_t key_high) {
  return philox(counter, philox_keys(key_low | static_cast<std::uint64_t>(key_high) << 32));
}

// The counter of four consecutive sites of one sample. Sites count within the sample, never within a batch, so that a
// batch may be split over calls, devices and ranks without changing a bit.
EQFLOW_HD Words site_counter(std::uint32_t group, std::uint32_t sample, std::uint64_t step, std::uint32_t stream) {
  return Words{group, sample, static_cast<std::uint32_t>(step),
               (stream << 24) | static_cast<std::uint32_t>(step >> 32)};
}

// The low 32 bits of (high, low) >> bits: one instruction of a GPU, which so sets the exponent of a float for nothing.
EQFLOW_HD std::uint32_t shift_right(std::uint32_t high, std::uint32_t low, std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __funnelshift_r(low, high, bits);
#else
  return low >> bits | high << (32 - bits);
#endif
}

// Uniform in (0, 1): the top 23 bits plus a half, exact in float32. Those bits stand behind a one, in [1, 2), first:
// no conversion of an integer, which a GPU does at a quarter of the speed.
EQFLOW_HD float unit_interval(std::uint32_t word) {
  return bits_float(shift_right(127, word, 9)) - 0.999999940395355224609375f; // 1 - 2^-24
}

// -2 log x of a number in (0, 1), 8.0e-8 relative: the single-precision Cephes polynomial, branch-free. A power of two
// commutes with rounding, so that the factor -2 stands in the coefficients.
EQFLOW_HD float minus_two_log(float x) {
  const std::uint32_t shifted = float_bits(x) + (0x3f800000u - 0x3f3504f3u);                // (e + 127) 2^23 and more
  const float e = bits_float(shift_right(0x4b000000u >> 9, shifted, 23)) - (8388608 + 127); // 2^23 + e + 127, exact
  const float m = bits_float((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f; // in [sqrt(1/2) - 1, sqrt(2) - 1)
  float p = -2 * 7.0376836292e-2f;
  p = fused(p, m, 2 * 1.1514610310e-1f);
  p = fused(p, m, -2 * 1.1676998740e-1f);
  p = fused(p, m, 2 * 1.2420140846e-1f);
  p = fused(p, m, -2 * 1.4249322787e-1f);
  p = fused(p, m, 2 * 1.6668057665e-1f);
  p = fused(p, m, -2 * 2.0000714765e-1f);
  p = fused(p, m, 2 * 2.4999993993e-1f);
  p = fused(p, m, -2 * 3.3333331174e-1f);
  const float square = m * m;
  float y = (p * m) * square;
  y = fused(e, 2 * 2.12194440e-4f, y);
  y = y + square;
  return fused(e, -2 * 0.693359375f, fused(-2.0f, m, y));
}

// Square root of a number between 2^-100 and 2^100, correctly rounded. The GPU's own begins with a look whether the
// number lies there, a branch that keeps the two roots of a counter from overlapping.
EQFLOW_HD float square_root(float x) {
#if defined(__CUDA_ARCH__)
  float reciprocal;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(x));
  const float root = x * reciprocal, half = 0.5f * reciprocal;
  return fused(fused(-root, root, x), half, root);
#else
  return sqrtf(x);
#endif
}

// Sine and cosine of q quarters of a turn and r in [-pi / 4, pi / 4] more.
EQFLOW_HD void sine_cosine(std::int32_t q, float r, float &sine, float &cosine) {
  const float z = r * r;
  float s = fused(fused(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
  s = fused(s * z, r, r);
  float c = fused(fused(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
  c = fused(c * z, z, fused(z, -0.5f, 1.0f));
  const float even = (q & 1) ? c : s, odd = (q & 1) ? s : c;
  sine = bits_float(float_bits(even) ^ (static_cast<std::uint32_t>(q) << 30 & 0x80000000u));
  cosine = bits_float(float_bits(odd) ^ (static_cast<std::uint32_t>(q + 1) << 30 & 0x80000000u));
}

// Sine and cosine of 2 pi unit_interval(word), 1.1e-7 absolute. An eighth of a turn more, the quarters are the top two
// bits of the word; the next 21 bits stand behind a one, and what they are short of is added with a single rounding.
EQFLOW_HD void sine_cosine_of_turn(std::uint32_t word, float &sine, float &cosine) {
  constexpr float turn = 6.283185307179586f;
  const std::uint32_t later = word + 0x20000000u;
  const float rest = bits_float(shift_right(127 << 2, later << 2, 11)) - 1.125f;
  sine_cosine(static_cast<std::int32_t>(later >> 30), fused(rest, turn, turn * 5.9604644775390625e-08f), sine, cosine);
}

// Two independent standard normals from two random words.
EQFLOW_HD void box_muller(std::uint32_t radius_word, std::uint32_t angle_word, float &first, float &second) {
  const float radius = square_root(minus_two_log(unit_interval(radius_word))); // of 1.2e-7 to 33.3
  float sine, cosine;
  sine_cosine_of_turn(angle_word, sine, cosine);
  first = radius * cosine;
  second = radius * sine;
}

struct Normals {
  float x, y, z, w;
};

// The standard normals of sites 4 group .. 4 group + 3 of one sample.
EQFLOW_HD Normals site_normals(Words counter, const PhiloxKeys &keys) {
  const Words words = philox(counter, keys);
  Normals n;
  box_muller(words.x, words.y, n.x, n.y);
  box_muller(words.z, words.w, n.z, n.w);
  return n;
}

EQFLOW_HD Normals site_normals(std::uint32_t group, std::uint32_t sample, std::uint64_t step, std::uint32_t stream,
                               std::uint64_t seed) {
  return site_normals(site_counter(group, sample, step, stream), philox_keys(seed));
}

} // namespace eqflow
