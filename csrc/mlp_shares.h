// Work over models, tiles and threads.
//
// Tiles of a batch belong to shares, whose number depends on the batch alone. A share adds up its own gradient tile by
// tile, and the shares are added in their order: neither the number of threads nor the other models touch a bit.
#pragma once
#include <cstdlib>

#include "mlp_memory.h"

namespace eqflow::EQFLOW_ISA {
namespace {

constexpr int64_t most_shares = 8;

EQFLOW_INLINE int64_t tiles_of(int64_t rows) { return (rows + samples - 1) / samples; }
EQFLOW_INLINE int64_t shares_of(int64_t rows) { return tiles_of(rows) < most_shares ? tiles_of(rows) : most_shares; }

float *allocate(int64_t floats) {
  void *memory = nullptr;
  const auto bytes = sizeof(float) * static_cast<std::size_t>(floats);
  return posix_memalign(&memory, 64, bytes) == 0 ? static_cast<float *>(memory) : nullptr;
}

// Body(item, thread) for all items.
template <class Body> void in_parallel(int threads, int64_t items, Body body) {
  if (threads == 1) {
    for (int64_t item = 0; item < items; ++item) body(item, 0);
    return;
  }
  int arrived = 0;
#pragma omp parallel num_threads(threads)
  {
    const FlushSubnormals flush;
    int thread;
#pragma omp atomic capture
    thread = arrived++;
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < items; ++item) body(item, thread);
  }
}

// Body(model, memory, threads) for all models, abreast where they are as many as the threads.
template <class Floats, class Body> bool for_models(int64_t models, int threads, Floats floats, Body body) {
  const bool abreast = models >= threads;
  const int inner = abreast ? 1 : threads;
  bool enough = true;
#pragma omp parallel num_threads(threads) reduction(&& : enough) if (abreast && threads > 1)
  {
    const FlushSubnormals flush;
    float *const memory = allocate(floats(inner));
    enough = memory != nullptr;
#pragma omp for schedule(dynamic)
    for (int64_t model = 0; model < models; ++model)
      if (memory) body(model, memory, inner);
    std::free(memory);
  }
  return enough;
}

// Gradients of the shares, of size `stride` each, with W_1 in the order of the tile; `count` numbers to `gradient`.
void add_shares(const Plan &plan, const float *shares, int64_t count, int64_t stride, float *gradient) {
  const int64_t size = plan.shape.size(), inputs = plan.width[0], first = plan.width[0] * plan.width[1];
  for (int64_t share = 0; share < count; ++share) {
    const float *from = shares + share * stride;
    for (int64_t at = 0; at < first; at += inputs)
      for (int64_t i = 0; i < inputs; ++i) gradient[at + plan.input(static_cast<int>(i))] += from[at + i];
    for (int64_t at = first; at < size; ++at) gradient[at] += from[at];
  }
}

} // namespace
} // namespace eqflow::EQFLOW_ISA
