// The module: looks at the device of the output, borrows the tensors, releases the interpreter, calls the kernel.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>

#include "dispatch.h"
#include "tensor.h"

#ifndef EQFLOW_MODULE
#define EQFLOW_MODULE _C
#endif

namespace py = pybind11;
namespace eqflow {
namespace {

// The emulation build runs the CUDA kernels on the memory of the CPU.
bool runs_cuda(const Tensor &output) {
#ifdef EQFLOW_EMULATE
  return !output.on_cuda();
#else
  return output.on_cuda();
#endif
}

CudaQueue queue_of(const Tensor &output) {
#ifdef EQFLOW_EMULATE
  return {0, nullptr};
#else
  return {output.view.device.index, output.current_stream()};
#endif
}

#if !EQFLOW_CUDA
[[noreturn]] void no_cuda() {
  throw CudaError("eqflow was built without CUDA: install nvcc and reinstall eqflow, or use backend='triton'");
}
#endif

void normal(const Tensor &output, std::uint64_t seed, std::uint64_t step, std::uint32_t stream,
            std::uint64_t first_sample, int threads) {
  const NormalParams p{output.size(0), output.size(1), seed, step, first_sample, stream};
  float *data = output.data<float>("output", {p.batch, p.sites});
  if (!runs_cuda(output)) {
    py::gil_scoped_release release;
    return normal_cpu(p, data, threads);
  }
#if EQFLOW_CUDA
  const CudaQueue queue = queue_of(output);
  py::gil_scoped_release release;
  normal_cuda(p, data, queue);
#else
  no_cuda();
#endif
}

GrayScottParams gray_scott_params(const Tensor &frames, std::int64_t every, bool nine_point, double scale) {
  return {frames.size(0), frames.size(3), frames.size(4), frames.size(1), every, nine_point, scale};
}

template <class T>
void gray_scott_on_cpu(const GrayScottParams &p, const Tensor &state, const Tensor &coefficients, const Tensor &frames,
                       int threads) {
  const T *from = state.data<T>("state", {p.batch, 2, p.height, p.width});
  const auto *rows =
      reinterpret_cast<const GrayScottCoefficients<T> *>(coefficients.data<T>("coefficients", {p.batch, 8}));
  T *to = frames.data<T>("frames", {p.batch, p.frames, 2, p.height, p.width});
  py::gil_scoped_release release;
  gray_scott_cpu<T>(p, from, rows, to, threads);
}

std::int64_t gray_scott_workspace(const Tensor &frames, std::int64_t every, bool nine_point, double scale) {
#if EQFLOW_CUDA
  if (runs_cuda(frames)) return gray_scott_cuda_workspace(gray_scott_params(frames, every, nine_point, scale));
#endif
  return 0;
}

void gray_scott(const Tensor &state, const Tensor &coefficients, const Tensor &frames, const Tensor &workspace,
                std::int64_t every, bool nine_point, double scale, int threads) {
  const GrayScottParams p = gray_scott_params(frames, every, nine_point, scale);
  if (!runs_cuda(frames))
    return frames.is_double() ? gray_scott_on_cpu<double>(p, state, coefficients, frames, threads)
                              : gray_scott_on_cpu<float>(p, state, coefficients, frames, threads);
#if EQFLOW_CUDA
  const float *from = state.data<float>("state", {p.batch, 2, p.height, p.width});
  const auto *rows =
      reinterpret_cast<const GrayScottCoefficients<float> *>(coefficients.data<float>("coefficients", {p.batch, 8}));
  float *to = frames.data<float>("frames", {p.batch, p.frames, 2, p.height, p.width});
  float *scratch = workspace.data<float>("workspace", {gray_scott_cuda_workspace(p)});
  const CudaQueue queue = queue_of(frames);
  py::gil_scoped_release release;
  gray_scott_cuda(p, from, rows, to, scratch, queue);
#else
  no_cuda();
#endif
}

using MaybeTensor = std::optional<Tensor>;

void langevin(const Tensor &state, const MaybeTensor &output, const Tensor &state_kernel,
              const MaybeTensor &output_kernel, const MaybeTensor &base, const Tensor &result, float noise_scale,
              float base_scale, std::uint64_t seed, std::uint64_t step, const MaybeTensor &step_in_memory,
              std::uint32_t stream, std::uint64_t first_sample, int threads) {
  const bool grid = result.view.rank == 4; // else [batch, dimension], a grid of one pixel
  const std::vector<std::int64_t> shape(result.view.shape, result.view.shape + (grid ? 4 : 2));
  const LangevinParams p{shape[0],
                         shape[1],
                         grid ? shape[2] : 1,
                         grid ? shape[3] : 1,
                         state_kernel.size(3) / 2,
                         output && output->is_bfloat16(),
                         noise_scale,
                         base_scale,
                         seed,
                         step,
                         first_sample,
                         stream};
  const std::vector<std::int64_t> taps{p.channels, p.channels, 2 * p.radius + 1, 2 * p.radius + 1};
  LangevinFields fields{};
  fields.state = state.data<float>("state", shape);
  fields.state_kernel = state_kernel.data<float>("state_kernel", taps);
  if (output && output_kernel) {
    if (p.output_is_bfloat16)
      fields.output = output->data<std::uint16_t>("output", shape);
    else
      fields.output = output->data<float>("output", shape);
    fields.output_kernel = output_kernel->data<float>("output_kernel", taps);
  }
  if (base) fields.base = base->data<float>("base", shape);
  fields.result = result.data<float>("result", shape);
  if (step_in_memory) fields.step = step_in_memory->data<std::int64_t>("step", {});
  if (!runs_cuda(result)) {
    py::gil_scoped_release release;
    return langevin_cpu(p, fields, threads);
  }
#if EQFLOW_CUDA
  const CudaQueue queue = queue_of(result);
  py::gil_scoped_release release;
  langevin_cuda(p, fields, queue);
#else
  no_cuda();
#endif
}

void kernel_score(const Tensor &places, const Tensor &table, const MaybeTensor &log_weights,
                  const MaybeTensor &excluded, const Tensor &score, const Tensor &log_sum, const MaybeTensor &smoothed,
                  double scale, int threads) {
  const KernelScoreParams p{places.size(0), table.size(0), places.size(1), table.size(1), scale};
  const float *from = places.data<float>("places", {p.queries, p.dimension});
  const float *rows = table.data<float>("table", {p.points, p.columns});
  const float *weights = log_weights ? log_weights->data<float>("log_weights", {p.points}) : nullptr;
  const auto *own = excluded ? excluded->data<std::int64_t>("excluded", {p.queries}) : nullptr;
  float *to = score.data<float>("score", {p.queries, p.dimension});
  float *sums = log_sum.data<float>("log_sum", {p.queries});
  float *means = smoothed ? smoothed->data<float>("smoothed", {p.queries, p.columns - p.dimension}) : nullptr;
  if (!means && p.columns != p.dimension) throw py::value_error("a table with values needs memory for smoothed");
  if (!runs_cuda(score)) {
    py::gil_scoped_release release;
    return kernel_score_cpu(p, from, rows, weights, own, to, sums, means, threads);
  }
#if EQFLOW_CUDA
  const CudaQueue queue = queue_of(score);
  py::gil_scoped_release release;
  kernel_score_cuda(p, from, rows, weights, own, to, sums, means, queue);
#else
  no_cuda();
#endif
}

using FieldTables = std::array<Tensor, 3>; // monomials, fields, products

FieldProgram program_of(const FieldTables &tables) {
  const auto &[monomials, fields, products] = tables;
  return {monomials.size(0),
          fields.size(0),
          products.size(0),
          monomials.data<std::int32_t>("monomials", {monomials.size(0), 2}),
          fields.data<std::int32_t>("fields", {fields.size(0), 2}),
          products.data<std::int32_t>("products", {products.size(0), 2})};
}

FieldMomentsParams field_moments_params(const Tensor &state, std::int64_t margin, bool nine_point) {
  return {state.size(0), state.size(1), state.size(2), state.size(3), margin, nine_point};
}

std::int64_t field_moments_workspace(const Tensor &state, const FieldTables &rows, const FieldTables &columns,
                                     std::int64_t margin, bool nine_point) {
#if EQFLOW_CUDA
  if (runs_cuda(state))
    return field_moments_cuda_workspace(field_moments_params(state, margin, nine_point), program_of(rows),
                                        program_of(columns));
#endif
  return 0;
}

void field_moments(const Tensor &state, const Tensor &at, const Tensor &units, const FieldTables &rows,
                   const FieldTables &columns, const Tensor &moments, const Tensor &workspace, std::int64_t margin,
                   bool nine_point, int threads) {
  const FieldMomentsParams p = field_moments_params(state, margin, nine_point);
  const FieldProgram of_rows = program_of(rows), of_columns = program_of(columns);
  const std::vector<std::int64_t> shape{p.batch, p.channels, p.height, p.width};
  const float *from = state.data<float>("state", shape), *gradients_at = at.data<float>("at", shape);
  const float *scales = units.data<float>("units", {p.batch, p.channels});
  double *to = moments.data<double>("moments", {p.batch, of_rows.product_count, of_columns.product_count});
  if (!runs_cuda(moments)) {
    py::gil_scoped_release release;
    return field_moments_cpu(p, of_rows, of_columns, from, gradients_at, scales, to, threads);
  }
#if EQFLOW_CUDA
  float *scratch = workspace.data<float>("workspace", {workspace.size(0)});
  const std::int64_t floats = workspace.size(0);
  const CudaQueue queue = queue_of(moments);
  py::gil_scoped_release release;
  field_moments_cuda(p, of_rows, of_columns, from, gradients_at, scales, to, scratch, floats, queue);
#else
  no_cuda();
#endif
}

MlpShape network_of(std::int64_t dimension, std::int64_t frequencies, const std::vector<std::int64_t> &hidden,
                    bool output_bias) {
  MlpShape network{dimension, frequencies, static_cast<std::int64_t>(hidden.size()), {}, output_bias};
  if (hidden.empty() || network.layers > MlpShape::most_layers || dimension > MlpShape::most_dimension ||
      network.inputs() > MlpShape::most_inputs)
    throw py::value_error("the network is too large for the native kernels");
  for (std::size_t l = 0; l < hidden.size(); ++l) {
    if (hidden[l] > MlpShape::most_width) throw py::value_error("a layer is too wide for the native kernels");
    network.hidden[l] = hidden[l];
  }
  return network;
}

std::vector<std::int64_t> points_shape(const MlpShape &network, std::int64_t models, std::int64_t rows, bool shared) {
  if (shared) return {rows, network.dimension};
  return {models, rows, network.dimension};
}

const float *maybe_data(const MaybeTensor &tensor, const char *name, const std::vector<std::int64_t> &shape) {
  return tensor ? tensor->data<float>(name, shape) : nullptr;
}

void scatter(const Tensor &pictures, const Tensor &areas, const Tensor &radii, const Tensor &background,
             const Tensor &images, const MaybeTensor &faded, const Tensor &placements, float oversample,
             float scale_low, float scale_high, float overlap, float coverage, float fading, float threshold, bool turn,
             std::uint64_t seed, std::uint64_t first_sample, std::uint32_t stream, int threads) {
  const ScatterParams p{images.size(0),
                        images.size(1),
                        images.size(2),
                        images.size(3),
                        pictures.size(0),
                        pictures.size(1),
                        placements.size(1),
                        oversample,
                        scale_low,
                        scale_high,
                        overlap,
                        coverage,
                        fading,
                        threshold,
                        turn,
                        seed,
                        first_sample,
                        stream};
  const ScatterFields fields{pictures.data<float>("pictures", {p.species, p.side, p.side, p.channels + 1}),
                             areas.data<float>("areas", {p.species}),
                             radii.data<float>("radii", {p.species}),
                             background.data<float>("background", {p.channels}),
                             images.data<float>("images", {p.batch, p.channels, p.height, p.width}),
                             faded ? faded->data<float>("faded", {p.batch, p.channels, p.height, p.width}) : nullptr,
                             placements.data<float>("placements", {p.batch, p.attempts, 5})};
  py::gil_scoped_release release;
  scatter_cpu(p, fields, threads);
}

std::int64_t divergence_workspace(const DivergenceParams &p, const Tensor &output) {
#if EQFLOW_CUDA
  if (runs_cuda(output)) return divergence_cuda_workspace(p);
#endif
  return 0;
}

void divergence(const DivergenceParams &p, const Tensor &points, const Tensor &parameters, const Tensor &velocity,
                const Tensor &divergence, const MaybeTensor &strain, const Tensor &workspace, int threads) {
  const std::vector<std::int64_t> numbers{p.models, p.rows};
  const float *from = points.data<float>("points", points_shape(p.network, p.models, p.rows, p.shared_points));
  const float *weights = parameters.data<float>("parameters", {p.models, p.network.size()});
  float *to = velocity.data<float>("velocity", {p.models, p.rows, p.network.dimension});
  float *traces = divergence.data<float>("divergence", numbers);
  float *strains = strain ? strain->data<float>("strain", numbers) : nullptr;
  if (!runs_cuda(velocity)) {
    py::gil_scoped_release release;
    return divergence_cpu(p, from, weights, to, traces, strains, threads);
  }
#if EQFLOW_CUDA
  float *scratch = workspace.data<float>("workspace", {divergence_cuda_workspace(p)});
  const CudaQueue queue = queue_of(velocity);
  py::gil_scoped_release release;
  divergence_cuda(p, from, weights, to, traces, strains, scratch, queue);
#else
  no_cuda();
#endif
}

std::int64_t divergence_gradient_workspace(const DivergenceParams &p, const Tensor &output) {
#if EQFLOW_CUDA
  if (runs_cuda(output)) return divergence_gradient_cuda_workspace(p);
#endif
  return 0;
}

void divergence_gradient(const DivergenceParams &p, const Tensor &points, const Tensor &parameters,
                         const Tensor &velocity, const Tensor &divergence, const MaybeTensor &strain,
                         const Tensor &gradient, const Tensor &workspace, int threads) {
  const std::vector<std::int64_t> numbers{p.models, p.rows};
  const float *from = points.data<float>("points", points_shape(p.network, p.models, p.rows, p.shared_points));
  const float *weights = parameters.data<float>("parameters", {p.models, p.network.size()});
  const float *of_velocity = velocity.data<float>("velocity", {p.models, p.rows, p.network.dimension});
  const float *of_divergence = divergence.data<float>("divergence", numbers);
  const float *of_strain = maybe_data(strain, "strain", numbers);
  float *to = gradient.data<float>("gradient", {p.models, p.network.size()});
  if (!runs_cuda(gradient)) {
    py::gil_scoped_release release;
    return divergence_gradient_cpu(p, from, weights, of_velocity, of_divergence, of_strain, to, threads);
  }
#if EQFLOW_CUDA
  float *scratch = workspace.data<float>("workspace", {divergence_gradient_cuda_workspace(p)});
  const CudaQueue queue = queue_of(gradient);
  py::gil_scoped_release release;
  divergence_gradient_cuda(p, from, weights, of_velocity, of_divergence, of_strain, to, scratch, queue);
#else
  no_cuda();
#endif
}

std::int64_t flow_loss_workspace(const FlowParams &p, const Tensor &output) {
#if EQFLOW_CUDA
  if (runs_cuda(output)) return flow_loss_cuda_workspace(p);
#endif
  return 0;
}

void flow_loss(const FlowParams &p, const Tensor &points, const Tensor &scores, const Tensor &parameters,
               const Tensor &loss, const Tensor &gradient, const Tensor &mean, const Tensor &scale,
               const Tensor &workspace, int threads) {
  const auto shape = points_shape(p.network, p.models, p.rows, p.shared_points);
  const float *from = points.data<float>("points", shape);
  const float *slopes = scores.data<float>("scores", shape);
  const float *weights = parameters.data<float>("parameters", {p.models, p.network.size()});
  float *losses = loss.data<float>("loss", {p.models});
  float *to = gradient.data<float>("gradient", {p.models, p.network.size()});
  float *means = mean.data<float>("mean", {p.models, p.network.dimension});
  float *scales = scale.data<float>("scale", {p.models, p.network.dimension});
  if (!runs_cuda(gradient)) {
    py::gil_scoped_release release;
    return flow_loss_cpu(p, from, slopes, weights, losses, to, means, scales, threads);
  }
#if EQFLOW_CUDA
  float *scratch = workspace.data<float>("workspace", {flow_loss_cuda_workspace(p)});
  const CudaQueue queue = queue_of(gradient);
  py::gil_scoped_release release;
  flow_loss_cuda(p, from, slopes, weights, losses, to, means, scales, scratch, queue);
#else
  no_cuda();
#endif
}

std::int64_t flow_train_workspace(const FlowParams &p, const Tensor &output) {
#if EQFLOW_CUDA
  if (runs_cuda(output)) return flow_train_cuda_workspace(p);
#endif
  return 0;
}

void flow_train(const FlowParams &p, const Tensor &points, const Tensor &scores, const Tensor &steps,
                const MaybeTensor &mirror, const Tensor &parameters, const Tensor &moments, const Tensor &losses,
                const Tensor &workspace, int threads) {
  const float *from = points.data<float>("points", {p.pool, p.network.dimension});
  const float *slopes = scores.data<float>("scores", {p.pool, p.network.dimension});
  const auto *adam = reinterpret_cast<const AdamStep *>(steps.data<double>("steps", {p.steps, 2}));
  const auto *partners = mirror ? mirror->data<std::int32_t>("mirror", {p.network.size()}) : nullptr;
  float *weights = parameters.data<float>("parameters", {p.models, p.network.size()});
  float *averages = moments.data<float>("moments", {2, p.models, p.network.size()});
  float *to = losses.data<float>("losses", {p.models, p.steps});
  if (!runs_cuda(losses)) {
    py::gil_scoped_release release;
    return flow_train_cpu(p, from, slopes, adam, partners, weights, averages, to, threads);
  }
#if EQFLOW_CUDA
  float *scratch = workspace.data<float>("workspace", {flow_train_cuda_workspace(p)});
  const CudaQueue queue = queue_of(losses);
  py::gil_scoped_release release;
  flow_train_cuda(p, from, slopes, adam, partners, weights, averages, to, scratch, queue);
#else
  no_cuda();
#endif
}

int device_count() {
#if EQFLOW_CUDA
  return cuda_device_count();
#else
  return 0;
#endif
}

} // namespace

PYBIND11_MODULE(EQFLOW_MODULE, m) {
  m.doc() = "The compiled kernels of eqflow.";
  m.attr("with_cuda") = static_cast<bool>(EQFLOW_CUDA);
  py::register_local_exception<CudaError>(m, "CudaError", PyExc_RuntimeError);
  m.def("cuda_device_count", &device_count);
  m.def("cpu_isas", &cpu_isas);
  m.def("cpu_isa", &cpu_isa);
  m.def("set_cpu_isa", &set_cpu_isa, py::arg("name"));
  m.def("normal", &normal, py::arg("output"), py::arg("seed"), py::arg("step"), py::arg("stream"),
        py::arg("first_sample"), py::arg("threads"));
  m.def("gray_scott_workspace", &gray_scott_workspace, py::arg("frames"), py::arg("every"), py::arg("nine_point"),
        py::arg("scale"));
  m.def("gray_scott", &gray_scott, py::arg("state"), py::arg("coefficients"), py::arg("frames"), py::arg("workspace"),
        py::arg("every"), py::arg("nine_point"), py::arg("scale"), py::arg("threads"));
  m.def("langevin", &langevin, py::arg("state"), py::arg("output"), py::arg("state_kernel"), py::arg("output_kernel"),
        py::arg("base"), py::arg("result"), py::arg("noise_scale"), py::arg("base_scale"), py::arg("seed"),
        py::arg("step"), py::arg("step_in_memory"), py::arg("stream"), py::arg("first_sample"), py::arg("threads"));
  m.def("kernel_score", &kernel_score, py::arg("places"), py::arg("table"), py::arg("log_weights"), py::arg("excluded"),
        py::arg("score"), py::arg("log_sum"), py::arg("smoothed"), py::arg("scale"), py::arg("threads"));
  m.def("scatter", &scatter, py::arg("pictures"), py::arg("areas"), py::arg("radii"), py::arg("background"),
        py::arg("images"), py::arg("faded"), py::arg("placements"), py::arg("oversample"), py::arg("scale_low"),
        py::arg("scale_high"), py::arg("overlap"), py::arg("coverage"), py::arg("fading"), py::arg("threshold"),
        py::arg("turn"), py::arg("seed"), py::arg("first_sample"), py::arg("stream"), py::arg("threads"));
  m.def("field_moments_workspace", &field_moments_workspace, py::arg("state"), py::arg("rows"), py::arg("columns"),
        py::arg("margin"), py::arg("nine_point"));
  m.def("field_moments", &field_moments, py::arg("state"), py::arg("at"), py::arg("units"), py::arg("rows"),
        py::arg("columns"), py::arg("moments"), py::arg("workspace"), py::arg("margin"), py::arg("nine_point"),
        py::arg("threads"));

  // The constants of a call, with options as their places in the tuples of Python.
  py::class_<MlpShape>(m, "MlpShape", py::module_local())
      .def(py::init(&network_of), py::arg("dimension"), py::arg("frequencies"), py::arg("hidden"),
           py::arg("output_bias"));
  py::class_<DivergenceParams>(m, "DivergenceParams", py::module_local())
      .def(
          py::init([](const MlpShape &network, std::int64_t models, std::int64_t rows, bool shared_points, int method,
                      int law, std::int64_t probes, std::uint64_t seed, std::uint64_t step, std::uint64_t first_model) {
            return DivergenceParams{
                network, models, rows, shared_points, static_cast<Method>(method), static_cast<Law>(law),
                probes,  seed,   step, first_model};
          }),
          py::kw_only(), py::arg("network"), py::arg("models"), py::arg("rows"), py::arg("shared_points"),
          py::arg("method"), py::arg("law"), py::arg("probes"), py::arg("seed"), py::arg("step"),
          py::arg("first_model"));
  py::class_<FlowParams>(m, "FlowParams", py::module_local())
      .def(py::init([](const MlpShape &network, std::int64_t models, std::int64_t rows, bool shared_points,
                       int objective, int norm, int method, int law, std::int64_t probes, std::uint64_t seed,
                       std::uint64_t step, std::uint64_t first_model, std::int64_t pool, std::int64_t steps,
                       double weight_decay) {
             return FlowParams{network,
                               models,
                               rows,
                               shared_points,
                               static_cast<Objective>(objective),
                               static_cast<Norm>(norm),
                               static_cast<Method>(method),
                               static_cast<Law>(law),
                               probes,
                               seed,
                               step,
                               first_model,
                               pool,
                               steps,
                               weight_decay};
           }),
           py::kw_only(), py::arg("network"), py::arg("models"), py::arg("rows"), py::arg("shared_points"),
           py::arg("objective"), py::arg("norm"), py::arg("method"), py::arg("law"), py::arg("probes"), py::arg("seed"),
           py::arg("step"), py::arg("first_model"), py::arg("pool") = 0, py::arg("steps") = 0,
           py::arg("weight_decay") = 0.0);
  m.def("divergence_workspace", &divergence_workspace, py::arg("params"), py::arg("output"));
  m.def("divergence", &divergence, py::arg("params"), py::arg("points"), py::arg("parameters"), py::arg("velocity"),
        py::arg("divergence"), py::arg("strain"), py::arg("workspace"), py::arg("threads"));
  m.def("divergence_gradient_workspace", &divergence_gradient_workspace, py::arg("params"), py::arg("output"));
  m.def("divergence_gradient", &divergence_gradient, py::arg("params"), py::arg("points"), py::arg("parameters"),
        py::arg("velocity"), py::arg("divergence"), py::arg("strain"), py::arg("gradient"), py::arg("workspace"),
        py::arg("threads"));
  m.def("flow_loss_workspace", &flow_loss_workspace, py::arg("params"), py::arg("output"));
  m.def("flow_loss", &flow_loss, py::arg("params"), py::arg("points"), py::arg("scores"), py::arg("parameters"),
        py::arg("loss"), py::arg("gradient"), py::arg("mean"), py::arg("scale"), py::arg("workspace"),
        py::arg("threads"));
  m.def("flow_train_workspace", &flow_train_workspace, py::arg("params"), py::arg("output"));
  m.def("flow_train", &flow_train, py::arg("params"), py::arg("points"), py::arg("scores"), py::arg("steps"),
        py::arg("mirror"), py::arg("parameters"), py::arg("moments"), py::arg("losses"), py::arg("workspace"),
        py::arg("threads"));
}

} // namespace eqflow
