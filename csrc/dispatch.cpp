#include "dispatch.h"

#include <algorithm>
#include <atomic>
#include <new>
#include <stdexcept>

namespace eqflow {
namespace {

struct CpuKernels {
  const char *name;
  bool (*normal)(const NormalParams &, float *, int);
  bool (*gray_scott_float)(const GrayScottParams &, const float *, const GrayScottCoefficients<float> *, float *, int);
  bool (*gray_scott_double)(const GrayScottParams &, const double *, const GrayScottCoefficients<double> *, double *,
                            int);
  bool (*langevin)(const LangevinParams &, const LangevinFields &, int);
  bool (*kernel_score)(const KernelScoreParams &, const float *, const float *, const float *, const std::int64_t *,
                       float *, float *, float *, int);
  bool (*field_moments)(const FieldMomentsParams &, const FieldProgram &, const FieldProgram &, const float *,
                        const float *, const float *, double *, int);
  bool (*scatter)(const ScatterParams &, const ScatterFields &, int);
  bool (*divergence)(const DivergenceParams &, const float *, const float *, float *, float *, float *, int);
  bool (*divergence_gradient)(const DivergenceParams &, const float *, const float *, const float *, const float *,
                              const float *, float *, int);
  bool (*flow_loss)(const FlowParams &, const float *, const float *, const float *, float *, float *, float *, float *,
                    int);
  bool (*flow_train)(const FlowParams &, const float *, const float *, const AdamStep *, const std::int32_t *, float *,
                     float *, float *, int);
};

#define EQFLOW_CPU_KERNELS(isa)                                                                                        \
  {#isa,                                                                                                               \
   isa::normal_cpu,                                                                                                    \
   isa::gray_scott_cpu,                                                                                                \
   isa::gray_scott_cpu,                                                                                                \
   isa::langevin_cpu,                                                                                                  \
   isa::kernel_score_cpu,                                                                                              \
   isa::field_moments_cpu,                                                                                             \
   isa::scatter_cpu,                                                                                                   \
   isa::divergence_cpu,                                                                                                \
   isa::divergence_gradient_cpu,                                                                                       \
   isa::flow_loss_cpu,                                                                                                 \
   isa::flow_train_cpu}
constexpr CpuKernels all_kernels[] = {
    EQFLOW_CPU_KERNELS(baseline),
#ifdef EQFLOW_X86
    EQFLOW_CPU_KERNELS(avx2),
    EQFLOW_CPU_KERNELS(avx512),
#endif
};
constexpr int kernel_count = sizeof(all_kernels) / sizeof(all_kernels[0]);

int supported() { // how many of all_kernels this processor can run
#ifdef EQFLOW_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return 3;
  if (__builtin_cpu_supports("x86-64-v3")) return 2;
#endif
  return 1;
}

std::atomic<const CpuKernels *> chosen{nullptr};

const CpuKernels &kernels() {
  const CpuKernels *current = chosen.load(std::memory_order_relaxed);
  if (!current) chosen = current = &all_kernels[supported() - 1];
  return *current;
}

void check_memory(bool enough) {
  if (!enough) throw std::bad_alloc();
}

} // namespace

std::vector<std::string> cpu_isas() {
  std::vector<std::string> names;
  for (int i = 0; i < std::min(supported(), kernel_count); ++i) names.push_back(all_kernels[i].name);
  return names;
}

std::string cpu_isa() { return kernels().name; }

void set_cpu_isa(const std::string &name) {
  for (int i = 0; i < std::min(supported(), kernel_count); ++i)
    if (name == all_kernels[i].name) {
      chosen = &all_kernels[i];
      return;
    }
  std::string known;
  for (const auto &isa : cpu_isas()) known += (known.empty() ? "" : ", ") + isa;
  throw std::invalid_argument("expected an instruction set of this machine (" + known + "), got " + name);
}

void normal_cpu(const NormalParams &p, float *output, int threads) {
  check_memory(kernels().normal(p, output, threads));
}

template <>
void gray_scott_cpu(const GrayScottParams &p, const float *state, const GrayScottCoefficients<float> *coefficients,
                    float *frames, int threads) {
  check_memory(kernels().gray_scott_float(p, state, coefficients, frames, threads));
}

template <>
void gray_scott_cpu(const GrayScottParams &p, const double *state, const GrayScottCoefficients<double> *coefficients,
                    double *frames, int threads) {
  check_memory(kernels().gray_scott_double(p, state, coefficients, frames, threads));
}

void langevin_cpu(const LangevinParams &p, const LangevinFields &fields, int threads) {
  check_memory(kernels().langevin(p, fields, threads));
}

void kernel_score_cpu(const KernelScoreParams &p, const float *places, const float *table, const float *log_weights,
                      const std::int64_t *excluded, float *score, float *log_sum, float *smoothed, int threads) {
  check_memory(kernels().kernel_score(p, places, table, log_weights, excluded, score, log_sum, smoothed, threads));
}

void field_moments_cpu(const FieldMomentsParams &p, const FieldProgram &rows, const FieldProgram &columns,
                       const float *state, const float *at, const float *units, double *moments, int threads) {
  check_memory(kernels().field_moments(p, rows, columns, state, at, units, moments, threads));
}

void scatter_cpu(const ScatterParams &p, const ScatterFields &fields, int threads) {
  check_memory(kernels().scatter(p, fields, threads));
}

void divergence_cpu(const DivergenceParams &p, const float *points, const float *parameters, float *velocity,
                    float *divergence, float *strain, int threads) {
  check_memory(kernels().divergence(p, points, parameters, velocity, divergence, strain, threads));
}

void divergence_gradient_cpu(const DivergenceParams &p, const float *points, const float *parameters,
                             const float *velocity, const float *divergence, const float *strain, float *gradient,
                             int threads) {
  check_memory(kernels().divergence_gradient(p, points, parameters, velocity, divergence, strain, gradient, threads));
}

void flow_loss_cpu(const FlowParams &p, const float *points, const float *scores, const float *parameters, float *loss,
                   float *gradient, float *mean, float *scale, int threads) {
  check_memory(kernels().flow_loss(p, points, scores, parameters, loss, gradient, mean, scale, threads));
}

void flow_train_cpu(const FlowParams &p, const float *points, const float *scores, const AdamStep *steps,
                    const std::int32_t *mirror, float *parameters, float *moments, float *losses, int threads) {
  check_memory(kernels().flow_train(p, points, scores, steps, mirror, parameters, moments, losses, threads));
}

} // namespace eqflow
