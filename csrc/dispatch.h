// The CPU kernels of the best instruction set that this processor has, or of the one that a test asked for.
#pragma once
#include <string>
#include <vector>

#include "kernels.h"

namespace eqflow {

std::vector<std::string> cpu_isas(); // what this build and this processor offer, the widest last
std::string cpu_isa();               // the one in use
void set_cpu_isa(const std::string &name);

void normal_cpu(const NormalParams &p, float *output, int threads);
template <class T>
void gray_scott_cpu(const GrayScottParams &p, const T *state, const GrayScottCoefficients<T> *coefficients, T *frames,
                    int threads);
void langevin_cpu(const LangevinParams &p, const LangevinFields &fields, int threads);
void kernel_score_cpu(const KernelScoreParams &p, const float *places, const float *table, const float *log_weights,
                      const std::int64_t *excluded, float *score, float *log_sum, float *smoothed, int threads);
void field_moments_cpu(const FieldMomentsParams &p, const FieldProgram &rows, const FieldProgram &columns,
                       const float *state, const float *at, const float *units, double *moments, int threads);
void scatter_cpu(const ScatterParams &p, const ScatterFields &fields, int threads);
void divergence_cpu(const DivergenceParams &p, const float *points, const float *parameters, float *velocity,
                    float *divergence, float *strain, int threads);
void divergence_gradient_cpu(const DivergenceParams &p, const float *points, const float *parameters,
                             const float *velocity, const float *divergence, const float *strain, float *gradient,
                             int threads);
void flow_loss_cpu(const FlowParams &p, const float *points, const float *scores, const float *parameters, float *loss,
                   float *gradient, float *mean, float *scale, int threads);
void flow_train_cpu(const FlowParams &p, const float *points, const float *scores, const AdamStep *steps,
                    const std::int32_t *mirror, float *parameters, float *moments, float *losses, int threads);

} // namespace eqflow
