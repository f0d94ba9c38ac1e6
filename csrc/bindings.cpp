// The module: looks at the device of the output, borrows the tensors, releases the interpreter, calls the kernel.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

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
}

} // namespace eqflow
