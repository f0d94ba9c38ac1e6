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

// In the order of OPERATORS in eqflow/ops/field_terms.py.
enum class FieldOperator : std::int32_t { value, laplacian, bilaplacian, squared_gradient, x_derivative, y_derivative };

// Products of fields of a picture with grid spacing 1, all tables of two columns. A monomial is a lower one times a
// channel, and the first is 1; a field is an operator of a monomial; a product is that of two fields, or one field and
// -1. The tables lie where the pictures are.
struct FieldProgram {
  std::int64_t monomial_count, field_count, product_count;
  const std::int32_t *monomials, *fields, *products;
};

// The mean over pixels of every product of one picture times every product of another. Channels are multiplied by
// units [batch, channels] first.
struct FieldMomentsParams {
  std::int64_t batch, channels, height, width;
  std::int64_t margin; // of pixels that do not count; stencils wrap around the picture
  bool nine_point;
};

// Pictures on periodic canvases: `species` squares, from pixel to pixel alpha-weighted colours and then alpha.
struct ScatterParams {
  std::int64_t batch, channels, height, width, species, side, attempts;
  float oversample;                               // pixels of a picture for each of the canvas
  float scale_low, scale_high, overlap, coverage; // coverage: pixels that may be covered in all
  float fading, threshold; // share of the pictures that fade; amplitude from which one counts as whole
  bool turn;
  std::uint64_t seed, first_sample;
  std::uint32_t stream;
};

struct ScatterFields {
  const float *pictures;      // [species, side, side, channels + 1], transparent along the border
  const float *areas, *radii; // [species], in pixels of the canvas
  const float *background;    // [channels]
  float *images;              // [batch, channels, height, width]
  float *faded;               // the same shape, or null
  float *placements;          // [batch, attempts, 5]: species, row, column, turn, scale; NaN where there is no place
};

// v(x) = W_o a(... a(W_1 h_0 + b_1) ...) + b_o, see eqflow/ops/mlp.py. The parameters of a network are one row of
// `size` numbers: W_1 (row by row), b_1, W_2, b_2, ..., W_o, b_o. h_0 = [x, sin x, cos x, sin 2x, cos 2x, ...], each a
// group of `dimension` numbers.
struct MlpShape {
  static constexpr std::int64_t most_layers = 4, most_width = 256, most_dimension = 16, most_inputs = 256;

  std::int64_t dimension, frequencies;
  std::int64_t layers; // hidden ones
  std::int64_t hidden[most_layers];
  bool output_bias;

  constexpr std::int64_t inputs() const { return dimension * (1 + 2 * frequencies); }
  // The layers 0 .. layers, of which the last one is W_o.
  constexpr std::int64_t into(std::int64_t layer) const { return layer == 0 ? inputs() : hidden[layer - 1]; }
  constexpr std::int64_t out(std::int64_t layer) const { return layer == layers ? dimension : hidden[layer]; }
  constexpr bool has_bias(std::int64_t layer) const { return layer < layers || output_bias; }
  constexpr std::int64_t offset(std::int64_t layer) const { // of the weights; the bias follows them
    std::int64_t sum = 0;
    for (std::int64_t l = 0; l < layer; ++l) sum += out(l) * (into(l) + 1);
    return sum;
  }
  constexpr std::int64_t size() const { return offset(layers + 1) - (output_bias ? 0 : dimension); }
};

// In the order of the tuples in eqflow/ops/divergence.py and flow_loss.py.
enum class Method : int { tangents, bilinear, probes };
enum class Law : int { gaussian, rademacher };
enum class Objective : int { exact, expected, sampled, product };
enum class Norm : int { scalar, per_coordinate, none };

struct DivergenceParams {
  MlpShape network;
  std::int64_t models, rows;
  bool shared_points; // points [rows, dimension] for all models, else [models, rows, dimension]
  Method method;
  Law law; // of the probes, and of the strain: without the squares of the diagonal for rademacher
  std::int64_t probes;
  std::uint64_t seed, step, first_model; // of the probes: those of draw_probes
};

// The loss of flow_loss, and of every step of flow_train.
struct FlowParams {
  MlpShape network;
  std::int64_t models, rows; // rows of a batch
  bool shared_points;        // points and scores [rows, dimension], else [models, rows, dimension]; flow_loss only
  Objective objective;
  Norm norm;
  Method method; // tangents or bilinear: of the objectives exact and expected
  Law law;
  std::int64_t probes;
  std::uint64_t seed, step, first_model; // of the probes and of the minibatch; step: that of the first step
  std::int64_t pool, steps;              // flow_train only: rows of points and scores, which all models share
  double weight_decay;                   // flow_train only
};

struct NetworkStreams { // of the random numbers, as in eqflow/ops/philox.py
  static constexpr std::uint32_t probes = 3, minibatch = 5;
};

struct FlowConstants {
  static constexpr double epsilon = 1e-5, beta1 = 0.9, beta2 = 0.999, adam_epsilon = 1e-8;
};

// Two numbers a step: rate / (1 - beta1^t) and 1 - beta2^t, with t = step + 1.
struct AdamStep {
  double rate, correction;
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
  bool field_moments_cpu(const FieldMomentsParams &p, const FieldProgram &rows, const FieldProgram &columns,           \
                         const float *state, const float *at, const float *units, double *moments, int threads);       \
  bool scatter_cpu(const ScatterParams &p, const ScatterFields &fields, int threads);                                  \
  bool divergence_cpu(const DivergenceParams &p, const float *points, const float *parameters, float *velocity,        \
                      float *divergence, float *strain, int threads);                                                  \
  bool divergence_gradient_cpu(const DivergenceParams &p, const float *points, const float *parameters,                \
                               const float *velocity, const float *divergence, const float *strain, float *gradient,   \
                               int threads);                                                                           \
  bool flow_loss_cpu(const FlowParams &p, const float *points, const float *scores, const float *parameters,           \
                     float *loss, float *gradient, float *mean, float *scale, int threads);                            \
  bool flow_train_cpu(const FlowParams &p, const float *points, const float *scores, const AdamStep *steps,            \
                      const std::int32_t *mirror, float *parameters, float *moments, float *losses, int threads);      \
  }
EQFLOW_DECLARE_CPU(baseline)
EQFLOW_DECLARE_CPU(avx2)
EQFLOW_DECLARE_CPU(avx512)
#undef EQFLOW_DECLARE_CPU

// What the four functions of a network read and write, on the CPU and in CUDA:
//   points      [rows, dimension] or [models, rows, dimension]; flow_train [pool, dimension]. scores the same
//   parameters  [models, size]; flow_train updates them and the moments [2, models, size] in place
//   divergence: velocity [models, rows, dimension], divergence and strain [models, rows]; strain may be null
//   divergence_gradient: takes the derivatives of a loss with respect to these three, the last may be null; writes
//               gradient [models, size]
//   flow_loss:  loss [models], gradient [models, size], mean and scale [models, dimension]
//   flow_train: steps [steps], losses [models, steps]; mirror [size] or null: partner + 1 of each parameter, negative
//               where the partner's derivative counts with the other sign. With weight decay added, the derivatives g
//               become (g[j] + sign g[partner]) / 2

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
// Floats of scratch memory for one picture; field_moments_cuda takes as many pictures at a time as the workspace holds.
std::int64_t field_moments_cuda_workspace(const FieldMomentsParams &p, const FieldProgram &rows,
                                          const FieldProgram &columns);
void field_moments_cuda(const FieldMomentsParams &p, const FieldProgram &rows, const FieldProgram &columns,
                        const float *state, const float *at, const float *units, double *moments, float *workspace,
                        std::int64_t workspace_size, CudaQueue queue);

// Each needs a workspace of so many floats, aligned to 16 bytes.
std::int64_t divergence_cuda_workspace(const DivergenceParams &p);
std::int64_t divergence_gradient_cuda_workspace(const DivergenceParams &p);
std::int64_t flow_loss_cuda_workspace(const FlowParams &p);
std::int64_t flow_train_cuda_workspace(const FlowParams &p);
void divergence_cuda(const DivergenceParams &p, const float *points, const float *parameters, float *velocity,
                     float *divergence, float *strain, float *workspace, CudaQueue queue);
void divergence_gradient_cuda(const DivergenceParams &p, const float *points, const float *parameters,
                              const float *velocity, const float *divergence, const float *strain, float *gradient,
                              float *workspace, CudaQueue queue);
void flow_loss_cuda(const FlowParams &p, const float *points, const float *scores, const float *parameters, float *loss,
                    float *gradient, float *mean, float *scale, float *workspace, CudaQueue queue);
void flow_train_cuda(const FlowParams &p, const float *points, const float *scores, const AdamStep *steps,
                     const std::int32_t *mirror, float *parameters, float *moments, float *losses, float *workspace,
                     CudaQueue queue);

} // namespace eqflow
