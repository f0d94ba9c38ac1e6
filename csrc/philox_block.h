// Blocks of normals on the CPU: Philox on whole vectors, then a Box-Muller loop that the compiler vectorises.
//
// A vector holds 32-bit words in 64-bit places, whose upper halves are never looked at: one multiplication then gives
// both halves of a product where they are needed. Left to the compiler, the same rounds take three times as long.
#pragma once
#include "philox.h"
#include "simd.h"

namespace eqflow::EQFLOW_ISA {
namespace {

constexpr int normal_block = 256; // counters at a time: 4 KiB of normals

// Counter i of a block: (group + i * group_step, sample + i * sample_step), one of the steps 1 and the other 0.
struct CounterBlock {
  std::uint32_t group, sample, group_step, sample_step;
  std::uint64_t step, seed;
  std::uint32_t stream;
};

#if defined(__AVX512F__)
struct Places {
  using V = __m512i;
  static constexpr int count = 8;
  EQFLOW_INLINE V set(std::uint64_t a) { return _mm512_set1_epi64(static_cast<long long>(a)); }
  EQFLOW_INLINE V index() { return _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7); }
  EQFLOW_INLINE V add(V a, V b) { return _mm512_add_epi64(a, b); }
  EQFLOW_INLINE V multiply(V a, V b) { return _mm512_mul_epu32(a, b); }
  EQFLOW_INLINE V high(V a) { return _mm512_srli_epi64(a, 32); }
  EQFLOW_INLINE V exclusive_or(V a, V b, V c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
  EQFLOW_INLINE void store_low(std::uint32_t *to, V a, V b) {
    const V even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    _mm512_store_si512(to, _mm512_permutex2var_epi32(a, even, b));
  }
};
#elif defined(__AVX2__)
struct Places {
  using V = __m256i;
  static constexpr int count = 4;
  EQFLOW_INLINE V set(std::uint64_t a) { return _mm256_set1_epi64x(static_cast<long long>(a)); }
  EQFLOW_INLINE V index() { return _mm256_setr_epi64x(0, 1, 2, 3); }
  EQFLOW_INLINE V add(V a, V b) { return _mm256_add_epi64(a, b); }
  EQFLOW_INLINE V multiply(V a, V b) { return _mm256_mul_epu32(a, b); }
  EQFLOW_INLINE V high(V a) { return _mm256_srli_epi64(a, 32); }
  EQFLOW_INLINE V exclusive_or(V a, V b, V c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
  EQFLOW_INLINE void store_low(std::uint32_t *to, V a, V b) {
    const __m256 both = _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88);
    _mm256_store_si256(reinterpret_cast<V *>(to), _mm256_permute4x64_epi64(_mm256_castps_si256(both), 0xD8));
  }
};
#endif

struct WordBlock {
  alignas(64) std::uint32_t x[normal_block], y[normal_block], z[normal_block], w[normal_block];
};

#ifdef __AVX2__
EQFLOW_INLINE void fill_words(const CounterBlock &c, int count, WordBlock &words) {
  using P = Places;
  using V = P::V;
  const Words first = site_counter(c.group, c.sample, c.step, c.stream);
  const V multiplier0 = P::set(0xD2511F53u), multiplier1 = P::set(0xCD9E8D57u);
  for (int at = 0; at < count; at += 2 * P::count) {
    V x[2], y[2], z[2], w[2]; // two vectors at once, to fill the pipes
    for (int i = 0; i < 2; ++i) {
      const V place = P::add(P::index(), P::set(static_cast<std::uint64_t>(at + i * P::count)));
      x[i] = P::add(P::set(first.x), P::multiply(place, P::set(c.group_step)));
      y[i] = P::add(P::set(first.y), P::multiply(place, P::set(c.sample_step)));
      z[i] = P::set(first.z);
      w[i] = P::set(first.w);
    }
    std::uint32_t key0 = static_cast<std::uint32_t>(c.seed), key1 = static_cast<std::uint32_t>(c.seed >> 32);
    EQFLOW_UNROLL
    for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) EQFLOW_UNROLL
    for (int i = 0; i < 2; ++i) {
      const V product0 = P::multiply(x[i], multiplier0), product1 = P::multiply(z[i], multiplier1);
      x[i] = P::exclusive_or(P::high(product1), y[i], P::set(key0));
      z[i] = P::exclusive_or(P::high(product0), w[i], P::set(key1));
      y[i] = product1;
      w[i] = product0;
    }
    P::store_low(words.x + at, x[0], x[1]);
    P::store_low(words.y + at, y[0], y[1]);
    P::store_low(words.z + at, z[0], z[1]);
    P::store_low(words.w + at, w[0], w[1]);
  }
}
#else
EQFLOW_INLINE void fill_words(const CounterBlock &c, int count, WordBlock &words) {
  for (int i = 0; i < count; ++i) {
    const auto n = static_cast<std::uint32_t>(i);
    const Words word = philox(site_counter(c.group + n * c.group_step, c.sample + n * c.sample_step, c.step, c.stream),
                              static_cast<std::uint32_t>(c.seed), static_cast<std::uint32_t>(c.seed >> 32));
    words.x[i] = word.x, words.y[i] = word.y, words.z[i] = word.z, words.w[i] = word.w;
  }
}
#endif

// Four normals each for `count` counters, at most normal_block: output[4 i + lane].
__attribute__((noinline)) void fill_normals(const CounterBlock &c, int count, float *__restrict output) {
  WordBlock words;
  fill_words(c, count, words);
  for (int i = 0; i < count; ++i) {
    Normals n;
    box_muller(words.x[i], words.y[i], n.x, n.y);
    box_muller(words.z[i], words.w[i], n.z, n.w);
    output[4 * i] = n.x;
    output[4 * i + 1] = n.y;
    output[4 * i + 2] = n.z;
    output[4 * i + 3] = n.w;
  }
}

} // namespace
} // namespace eqflow::EQFLOW_ISA
