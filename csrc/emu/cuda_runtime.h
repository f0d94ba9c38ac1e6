// A CUDA device on the CPU, for the tests only. With this folder first on the include path, the .cu sources compile as
// C++ and their #include <cuda_runtime.h> finds this file.
//
// Blocks run one after another, and so do the warps of a block, each from one __syncthreads to the next. The threads
// are fibers, which give way to each other only there and at warp collectives. So a missing barrier gives wrong
// numbers, the same ones every time; EQFLOW_EMU_ORDER changes the order of warps and lanes (0 ascending, 1 descending,
// larger numbers are seeds of a shuffle), and a correct kernel must not notice. A barrier that some threads never reach
// is an error, and so is a warp collective without all the lanes of its mask. Dynamic shared memory starts as NaN;
// static shared memory keeps the values of the block before. With -fsanitize=address every access out of bounds is
// named.
//
// Not modelled: true concurrency, the order of memory between blocks, and whatever no kernel of eqflow uses.
#pragma once
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define EQFLOW_EMU_SANITIZER(call) call
#else
#define EQFLOW_EMU_SANITIZER(call)
#endif

// --- The language ---------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __shared__ static thread_local

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;

// --- The machine ----------------------------------------------------------------------------------------------------

namespace eqflow::emulation {

constexpr int warp_size = 32;
constexpr std::size_t stack_bytes = 64 << 10;
constexpr std::size_t most_shared_bytes = 227 << 10;

enum class State : char { ready, at_barrier, at_collective, done };

struct Fiber {
  jmp_buf place;
  ucontext_t context;
  void *stack = nullptr;
  void *fake_stack = nullptr; // of the address sanitizer
  State state = State::ready;
  bool started = false;
  unsigned mask = 0; // of the collective it waits at
};

// Two buffers, because a lane may reach the next collective before another has read the values of this one.
struct Warp {
  std::uint64_t values[2][warp_size];
  unsigned char turn[warp_size];
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<void *> free_stacks;
  std::vector<float4> shared;
  const std::function<void()> *kernel = nullptr;
  jmp_buf scheduler;
  int current = 0;
  std::string error;

  int threads() const { return static_cast<int>(fibers.size()); }
  Fiber &fiber() { return fibers[static_cast<std::size_t>(current)]; }
  ~Block() {
    for (void *stack : free_stacks) munmap(stack, stack_bytes);
  }
};

inline thread_local Block *running = nullptr;
inline thread_local const void *scheduler_stack = nullptr; // for the address sanitizer, which must know every switch
inline thread_local std::size_t scheduler_stack_bytes = 0;
inline thread_local void *scheduler_fake_stack = nullptr;

// makecontext starts a fiber; afterwards _setjmp and _longjmp switch, which unlike swapcontext need no system call.
inline void give_way(State state) {
  Fiber &self = running->fiber();
  self.state = state;
  const bool last = state == State::done;
  EQFLOW_EMU_SANITIZER(
      __sanitizer_start_switch_fiber(last ? nullptr : &self.fake_stack, scheduler_stack, scheduler_stack_bytes);)
  if (last || !_setjmp(self.place)) _longjmp(running->scheduler, 1);
  EQFLOW_EMU_SANITIZER(__sanitizer_finish_switch_fiber(self.fake_stack, nullptr, nullptr);)
}

inline void fiber_main() {
  EQFLOW_EMU_SANITIZER(__sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);)
  try {
    (*running->kernel)();
  } catch (const std::exception &error) {
    running->error = error.what();
  }
  give_way(State::done);
}

inline void *take_stack(Block &block) {
  if (block.free_stacks.empty()) {
    void *stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) throw std::bad_alloc();
    return stack;
  }
  void *stack = block.free_stacks.back();
  block.free_stacks.pop_back();
  return stack;
}

inline void resume(Block &block, int thread) {
  block.current = thread;
  Fiber &fiber = block.fiber();
  const auto t = static_cast<unsigned>(thread);
  threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
  if (!fiber.stack) fiber.stack = take_stack(block);
  if (!_setjmp(block.scheduler)) {
    EQFLOW_EMU_SANITIZER(__sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack, stack_bytes);)
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = stack_bytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
    setcontext(&fiber.context);
  }
  EQFLOW_EMU_SANITIZER(__sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);)
  if (block.fiber().state == State::done) block.free_stacks.push_back(block.fiber().stack);
}

// Lets the lanes of a warp go on whose collective all lanes of their mask have reached.
inline bool release_warp(Block &block, int first) {
  const int lanes = std::min(warp_size, block.threads() - first);
  Fiber *fibers = &block.fibers[static_cast<std::size_t>(first)];
  bool released = false;
  for (int lane = 0; lane < lanes; ++lane) {
    if (fibers[lane].state != State::at_collective) continue;
    const unsigned mask = fibers[lane].mask;
    bool complete = true;
    for (int i = 0; i < lanes; ++i)
      if (mask >> i & 1) complete &= fibers[i].state == State::at_collective && fibers[i].mask == mask;
    if (!complete) continue;
    for (int i = 0; i < lanes; ++i)
      if (mask >> i & 1) fibers[i].state = State::ready;
    released = true;
  }
  return released;
}

// 0 .. count - 1 in the order of a round.
class Turns {
public:
  Turns(int count, int order) : turns_(static_cast<std::size_t>(count)), order_(order) {
    std::iota(turns_.begin(), turns_.end(), 0);
    if (order == 1) std::reverse(turns_.begin(), turns_.end());
  }
  const std::vector<int> &next(std::mt19937 &random) {
    if (order_ > 1) std::shuffle(turns_.begin(), turns_.end(), random);
    return turns_;
  }

private:
  std::vector<int> turns_;
  int order_;
};

// A warp runs until all its lanes are at the barrier or done, before another warp does anything: so one that overwrites
// what others have yet to read is found out.
inline void run_block(Block &block, int order) {
  std::mt19937 random(static_cast<unsigned>(order) * 7919u + blockIdx.x);
  Turns warps(static_cast<int>(block.warps.size()), order), lanes(warp_size, order);
  for (;;) {
    for (int warp : warps.next(random)) do {
        for (int lane : lanes.next(random)) {
          const int thread = warp * warp_size + lane;
          if (thread >= block.threads() || block.fibers[static_cast<std::size_t>(thread)].state != State::ready)
            continue;
          resume(block, thread);
          if (!block.error.empty()) return;
        }
      } while (release_warp(block, warp * warp_size));

    const auto count = [&](State state) {
      return std::count_if(block.fibers.begin(), block.fibers.end(), [&](const Fiber &f) { return f.state == state; });
    };
    const auto waiting = count(State::at_barrier), done = count(State::done);
    if (done == block.threads()) return;
    if (waiting < block.threads()) {
      block.error = count(State::at_collective) > 0 ? "a warp collective was not reached by every lane of its mask"
                                                    : "__syncthreads was reached by " + std::to_string(waiting) +
                                                          " threads after " + std::to_string(done) + " had ended";
      return;
    }
    for (Fiber &fiber : block.fibers) fiber.state = State::ready;
  }
}

// The kernels are compiled with -ftz=true: subnormal inputs and results are zero.
class FlushSubnormals {
public:
#if defined(__SSE2__)
  FlushSubnormals() : previous_(_mm_getcsr()) { _mm_setcsr(previous_ | 0x8040u); }
  ~FlushSubnormals() { _mm_setcsr(previous_); }

private:
  unsigned previous_;
#endif
};

// The dynamic shared memory that kernels have asked for; the others get 48 KB.
inline std::size_t &most_shared_bytes_of(const void *kernel) {
  static thread_local std::map<const void *, std::size_t> asked;
  return asked.try_emplace(kernel, 48 << 10).first->second;
}

inline void launch(dim3 grid, dim3 block_size, std::size_t shared_bytes, std::size_t most,
                   const std::function<void()> &kernel) {
  const std::uint64_t threads = std::uint64_t{block_size.x} * block_size.y * block_size.z;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  if (threads < 1 || threads > 1024 || blocks < 1 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    throw std::runtime_error("emulated launch: invalid grid or block");
  if (shared_bytes > most || most > most_shared_bytes)
    throw std::runtime_error("emulated launch: too much shared memory");
  const char *wish = std::getenv("EQFLOW_EMU_ORDER");
  const int order = wish ? std::atoi(wish) : 0;
  const FlushSubnormals flush;
  Block block;
  block.kernel = &kernel;
  running = &block;
  blockDim = block_size;
  gridDim = grid;
  for (std::uint64_t i = 0; i < blocks && block.error.empty(); ++i) {
    const std::uint64_t index = order == 1 ? blocks - 1 - i : i;
    blockIdx = {static_cast<unsigned>(index % grid.x), static_cast<unsigned>(index / grid.x % grid.y),
                static_cast<unsigned>(index / grid.x / grid.y)};
    const float nan = std::nanf("");
    block.shared.assign((shared_bytes + sizeof(float4) - 1) / sizeof(float4), float4{nan, nan, nan, nan});
    block.fibers.assign(threads, Fiber{});
    block.warps.assign((threads + warp_size - 1) / warp_size, Warp{});
    run_block(block, order);
  }
  running = nullptr;
  if (!block.error.empty())
    throw std::runtime_error("emulated block " + std::to_string(blockIdx.x) + ": " + block.error);
}

// Leaves a value, waits for the other lanes of the mask, and gives the values of all lanes.
template <class T> const std::uint64_t *exchange(unsigned mask, T value) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  Block &block = *running;
  const int lane = block.current % warp_size;
  if (!(mask >> lane & 1)) throw std::runtime_error("a lane called a warp collective whose mask leaves it out");
  Warp &warp = block.warps[static_cast<std::size_t>(block.current / warp_size)];
  std::uint64_t *values = warp.values[warp.turn[lane] ^= 1];
  std::memcpy(&values[lane], &value, sizeof(T));
  block.fiber().mask = mask;
  give_way(State::at_collective);
  return values;
}

inline int lane() { return running->current % warp_size; }

template <class T> T *shared_memory() { return reinterpret_cast<T *>(running->shared.data()); }

} // namespace eqflow::emulation

// --- The functions of a kernel --------------------------------------------------------------------------------------

inline void __syncthreads() { eqflow::emulation::give_way(eqflow::emulation::State::at_barrier); }
inline void __syncwarp(unsigned mask = ~0u) { eqflow::emulation::exchange(mask, 0); }

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const std::uint64_t *values = eqflow::emulation::exchange(mask, value);
  const int segment = eqflow::emulation::lane() & ~(width - 1);
  T result;
  std::memcpy(&result, &values[segment | (source & (width - 1))], sizeof(T));
  return result;
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return __shfl_sync(mask, value, eqflow::emulation::lane() ^ bits);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, int distance) {
  const int source = eqflow::emulation::lane() + distance;
  return __shfl_sync(mask, value, source < 32 ? source : eqflow::emulation::lane());
}

// --- The host -------------------------------------------------------------------------------------------------------

using cudaError_t = int;
using cudaStream_t = void *;
constexpr cudaError_t cudaSuccess = 0;
constexpr int cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaFuncAttributePreferredSharedMemoryCarveout = 9;
constexpr int cudaSharedmemCarveoutMaxShared = 100;
constexpr int cudaDevAttrMaxSharedMemoryPerBlockOptin = 97;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char *cudaGetErrorName(cudaError_t) { return "cudaErrorEmulated"; }
inline const char *cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaGetDeviceCount(int *count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int *value, int, int) { // of the shared memory
  return *value = static_cast<int>(eqflow::emulation::most_shared_bytes), cudaSuccess;
}
template <class Kernel> cudaError_t cudaFuncSetAttribute(Kernel *kernel, int attribute, int value) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize)
    eqflow::emulation::most_shared_bytes_of(reinterpret_cast<const void *>(kernel)) = static_cast<std::size_t>(value);
  return cudaSuccess;
}

#define EQFLOW_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                  \
  ::eqflow::emulation::launch(grid, block, shared_bytes,                                                               \
                              ::eqflow::emulation::most_shared_bytes_of(reinterpret_cast<const void *>(kernel)),       \
                              [&] { (kernel)(__VA_ARGS__); })
#define EQFLOW_DYN_SHARED(T, name) T *name = ::eqflow::emulation::shared_memory<T>()
