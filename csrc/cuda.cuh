// The host side of every CUDA launcher. Launchers never allocate and never wait: they only queue work on the caller's
// stream.
#pragma once
#include <cuda_runtime.h>

#include <climits>
#include <string>

#include "kernels.h"

// Two macros and not the plain syntax, because csrc/emu/cuda_runtime.h gives both another meaning.
#ifndef EQFLOW_LAUNCH
#define EQFLOW_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                  \
  do {                                                                                                                 \
    (kernel)<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__);                                                      \
    ::eqflow::check(cudaGetLastError(), "cudaLaunchKernel");                                                           \
  } while (false)
#define EQFLOW_DYN_SHARED(T, name)                                                                                     \
  extern __shared__ float4 dynamic_shared[];                                                                           \
  T *name = reinterpret_cast<T *>(dynamic_shared)
#endif

namespace eqflow {

inline void check(cudaError_t status, const char *call) {
  if (status != cudaSuccess)
    throw CudaError(std::string(call) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

// The device of the tensors is current while this lives. Setting a device is slow, so only where it differs.
class DeviceGuard {
public:
  explicit DeviceGuard(int device) : device_(device) {
    check(cudaGetDevice(&previous_), "cudaGetDevice");
    if (device_ != previous_) check(cudaSetDevice(device_), "cudaSetDevice");
  }
  ~DeviceGuard() {
    if (device_ != previous_) cudaSetDevice(previous_);
  }
  DeviceGuard(const DeviceGuard &) = delete;
  DeviceGuard &operator=(const DeviceGuard &) = delete;

private:
  int device_, previous_ = 0;
};

inline cudaStream_t stream_of(CudaQueue queue) { return static_cast<cudaStream_t>(queue.stream); }

// Blocks along x, of which CUDA takes up to 2^31 - 1.
inline unsigned blocks_along_x(std::int64_t count) {
  if (count > INT_MAX)
    throw CudaError("expected work for at most 2^31 - 1 blocks, got " + std::to_string(count) + ": split the batch");
  return static_cast<unsigned>(count);
}

inline bool is_aligned(const void *address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

} // namespace eqflow
