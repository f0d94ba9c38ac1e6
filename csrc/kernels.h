// Every operator, as the bridge sees it: plain pointers and one plain struct. Python checks and allocates.
#pragma once
#include <cstdint>
#include <stdexcept>

namespace eqflow {

struct NormalParams {
  std::int64_t batch, sites;
  std::uint64_t seed, step, first_sample;
  std::uint32_t stream;
};

// `frames` states, one after every `every` steps of explicit Euler on a periodic grid.
struct GrayScottParams {
  std::int64_t batch, height, width, frames, every;
  bool nine_point; // the isotropic 9-point Laplacian instead of the 5-point one
  double scale;    // sqrt(dt); 1 selects the shorter update of dt = 1
};

// One row of eight numbers a sample (eqflow/ops/gray_scott.py makes them). The centre coefficient of step n is
// high if bit n % 8 of the mask is set, else low; the masks are small whole numbers.
template <class T> struct GrayScottCoefficients {
  T diffusion_u, diffusion_v; // weight of an edge neighbour
  T u_low, u_high, v_low, v_high;
  T u_mask, v_mask;
};

// x' = base_scale base + A * x + B * f + noise_scale xi on periodic grids.
struct LangevinParams {
  std::int64_t batch, channels, height, width, radius; // the kernels have 2 radius + 1 taps along an axis
  bool output_is_bfloat16;
  float noise_scale, base_scale; // no noise is drawn where noise_scale is 0
  std::uint64_t seed, step, first_sample;
  std::uint32_t stream;
};

struct LangevinFields { // [batch, channels, height, width] and [channels, channels, taps, taps]
  const float *state;
  const void *output; // float or bfloat16, or null
  const float *state_kernel, *output_kernel;
  const float *base; // or null
  float *result;
  const std::int64_t *step; // CUDA: where the step is read from, or null
};

// Queries meet points: a row of the table is a point's place and then its values, `columns` numbers in all. Places are
// in units where log2 of a weight is minus a squared distance; score = scale (mean place - place).
struct KernelScoreParams {
  std::int64_t queries, points, dimension, columns;
  double scale;
};

// CPU: one namespace per instruction set; false means out of memory.
#define EQFLOW_DECLARE_CPU(isa)                                                                                        \
  namespace isa {                                                                                                      \
  bool normal_cpu(const NormalParams &p, float *output, int threads);                                                  \
  bool gray_scott_cpu(const GrayScottParams &p, const float *state, const GrayScottCoefficients<float> *coefficients,  \
                      float *frames, int threads);                                                                     \
  bool gray_scott_cpu(const GrayScottParams &p, const double *state,                                                   \
                      const GrayScottCoefficients<double> *coefficients, double *frames, int threads);                 \
  bool langevin_cpu(const LangevinParams &p, const LangevinFields &fields, int threads);                               \
  bool kernel_score_cpu(const KernelScoreParams &p, const float *places, const float *table, const float *log_weights, \
                        const std::int64_t *excluded, float *score, float *log_sum, float *smoothed, int threads);     \
  }
EQFLOW_DECLARE_CPU(baseline)
EQFLOW_DECLARE_CPU(avx2)
EQFLOW_DECLARE_CPU(avx512)
#undef EQFLOW_DECLARE_CPU

// CUDA: launches on a queue, never allocates, never waits.
struct CudaQueue {
  int device;
  void *stream;
};

struct CudaError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

int cuda_device_count();
void normal_cuda(const NormalParams &p, float *output, CudaQueue queue);
// Floats of scratch memory that gray_scott_cuda needs; 0 where one multiprocessor holds a whole sample.
std::int64_t gray_scott_cuda_workspace(const GrayScottParams &p);
void gray_scott_cuda(const GrayScottParams &p, const float *state, const GrayScottCoefficients<float> *coefficients,
                     float *frames, float *workspace, CudaQueue queue);
void langevin_cuda(const LangevinParams &p, const LangevinFields &fields, CudaQueue queue);
void kernel_score_cuda(const KernelScoreParams &p, const float *places, const float *table, const float *log_weights,
                       const std::int64_t *excluded, float *score, float *log_sum, float *smoothed, CudaQueue queue);

} // namespace eqflow
