// What CUDA has only as machine instructions: copies that go on in the background, a barrier that is left before all
// have come, and 16-byte accesses that the compiler may not cut up.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

namespace eqflow {

#if defined(__CUDA_ARCH__)
__device__ __forceinline__ unsigned shared_address(const void *place) {
  return static_cast<unsigned>(__cvta_generic_to_shared(place));
}
#endif

// 16 bytes from global to shared memory. They are there after wait_for_copies, for the thread that asked.
__device__ __forceinline__ void copy_in_background(float4 *to, const float *from) {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
#else
  *to = *reinterpret_cast<const float4 *>(from);
#endif
}

__device__ __forceinline__ void wait_for_copies() {
#if defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// 16 bytes, aligned. nvcc makes four accesses of the plain assignment wherever it likes.
__device__ __forceinline__ float4 load_word(const float *from) {
#if defined(__CUDA_ARCH__)
  float4 word;
  asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(word.x), "=f"(word.y), "=f"(word.z), "=f"(word.w)
               : "l"(from));
  return word;
#else
  return *reinterpret_cast<const float4 *>(from);
#endif
}

__device__ __forceinline__ void store_word(float *to, const float4 &word) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(word.x), "f"(word.y), "f"(word.z), "f"(word.w)
               : "memory");
#else
  *reinterpret_cast<float4 *>(to) = word;
#endif
}

// A barrier of a block in two halves: between arrive and wait a warp does what needs nobody else. Whoever waits for
// round n sees what all wrote before they arrived for it. Rounds count 0, 1, ...; every warp takes part in each.
class SplitBarrier {
public:
  // By one thread, before a __syncthreads.
  __device__ __forceinline__ void open(int warps) {
#if defined(__CUDA_ARCH__)
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(&word_)), "r"(warps) : "memory");
#endif
  }
  __device__ __forceinline__ void arrive(int lane) {
#if defined(__CUDA_ARCH__)
    __syncwarp();
    if (lane == 0)
      asm volatile("{\n\t.reg .b64 state;\n\tmbarrier.arrive.shared.b64 state, [%0];\n\t}" ::"r"(shared_address(&word_))
                   : "memory");
#endif
  }
  __device__ __forceinline__ void wait(unsigned round) {
#if defined(__CUDA_ARCH__)
    unsigned passed = 0;
    while (!passed)
      asm volatile("{\n\t.reg .pred p;\n\t"
#if __CUDA_ARCH__ >= 900
                   "mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n\t"
#else
                   "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n\t"
#endif
                   "selp.u32 %0, 1, 0, p;\n\t}"
                   : "=r"(passed)
                   : "r"(shared_address(&word_)), "r"(round & 1)
                   : "memory");
#else
    __syncthreads(); // the emulation knows no halves
#endif
  }

private:
  std::uint64_t word_;
};

} // namespace eqflow
