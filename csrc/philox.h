// Random numbers compiled for host and device from one source: Philox4x32-10 and a portable Box-Muller transform.
//
// Only integer operations, int-to-float, add, multiply, explicit fma and correctly rounded sqrt, in a fixed order, and
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

// Philox4x32-10 (Salmon et al. 2011, Random123).
EQFLOW_HD Words philox(Words counter, std::uint32_t key_low, std::uint32_t key_high) {
  EQFLOW_UNROLL
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t high0 = multiply_high(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
    const std::uint32_t high1 = multiply_high(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
    counter = Words{high1 ^ counter.y ^ key_low, low1, high0 ^ counter.w ^ key_high, low0};
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  return counter;
}

// The counter of four consecutive sites of one sample. Sites count within the sample, never within a batch, so that a
// batch may be split over calls, devices and ranks without changing a bit.
EQFLOW_HD Words site_counter(std::uint32_t group, std::uint32_t sample, std::uint64_t step, std::uint32_t stream) {
  return Words{group, sample, static_cast<std::uint32_t>(step),
               (stream << 24) | static_cast<std::uint32_t>(step >> 32)};
}

// Uniform in (0, 1): the top 23 bits plus a half, exact in float32.
EQFLOW_HD float unit_interval(std::uint32_t word) {
  return (static_cast<float>(static_cast<std::int32_t>(word >> 9)) + 0.5f) * 1.1920928955078125e-07f;
}

// Natural logarithm of a positive normal number, 8.0e-8 relative: the single-precision Cephes polynomial, branch-free.
EQFLOW_HD float natural_log(float x) {
  const std::uint32_t shifted = float_bits(x) - 0x3f3504f3u;
  const float e = static_cast<float>(static_cast<std::int32_t>(shifted) >> 23);
  const float m = bits_float((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f; // in [sqrt(1/2) - 1, sqrt(2) - 1)
  float p = 7.0376836292e-2f;
  p = fused(p, m, -1.1514610310e-1f);
  p = fused(p, m, 1.1676998740e-1f);
  p = fused(p, m, -1.2420140846e-1f);
  p = fused(p, m, 1.4249322787e-1f);
  p = fused(p, m, -1.6668057665e-1f);
  p = fused(p, m, 2.0000714765e-1f);
  p = fused(p, m, -2.4999993993e-1f);
  p = fused(p, m, 3.3333331174e-1f);
  const float square = m * m;
  float y = (p * m) * square;
  y = fused(e, -2.12194440e-4f, y);
  y = fused(square, -0.5f, y);
  return fused(e, 0.693359375f, m + y);
}

// Sine and cosine of q quarters of a turn and r in [-pi / 4, pi / 4] more.
EQFLOW_HD void sine_cosine(std::int32_t q, float r, float &sine, float &cosine) {
  const float z = r * r;
  float s = fused(fused(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
  s = fused(s * z, r, r);
  float c = fused(fused(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
  c = fused(c * z, z, fused(z, -0.5f, 1.0f));
  const float even = (q & 1) ? c : s, odd = (q & 1) ? s : c;
  sine = (q & 2) ? -even : even;
  cosine = ((q + 1) & 2) ? -odd : odd;
}

// Sine and cosine of 2 pi t for t in (0, 1), 1.1e-7 absolute; the reduction to an eighth of a turn is exact.
EQFLOW_HD void sine_cosine_of_turn(float t, float &sine, float &cosine) {
  const float quarter = static_cast<float>(static_cast<std::int32_t>(4.0f * t + 0.5f)); // 0 .. 4
  sine_cosine(static_cast<std::int32_t>(quarter), fused(quarter, -0.25f, t) * 6.283185307179586f, sine, cosine);
}

// Two independent standard normals from two random words.
EQFLOW_HD void box_muller(std::uint32_t radius_word, std::uint32_t angle_word, float &first, float &second) {
  const float radius = sqrtf(-2.0f * natural_log(unit_interval(radius_word)));
  float sine, cosine;
  sine_cosine_of_turn(unit_interval(angle_word), sine, cosine);
  first = radius * cosine;
  second = radius * sine;
}

struct Normals {
  float x, y, z, w;
};

// The standard normals of sites 4 group .. 4 group + 3 of one sample.
EQFLOW_HD Normals site_normals(std::uint32_t group, std::uint32_t sample, std::uint64_t step, std::uint32_t stream,
                               std::uint64_t seed) {
  const Words words = philox(site_counter(group, sample, step, stream), static_cast<std::uint32_t>(seed),
                             static_cast<std::uint32_t>(seed >> 32));
  Normals n;
  box_muller(words.x, words.y, n.x, n.y);
  box_muller(words.z, words.w, n.z, n.w);
  return n;
}

} // namespace eqflow
