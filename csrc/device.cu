#include "cuda.cuh"

namespace eqflow {

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError(); // no driver or no device is an answer: leave no error behind for the next call
  return 0;
}

} // namespace eqflow
