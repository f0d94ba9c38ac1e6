// A borrowed view of a torch.Tensor, read through DLPack's C exchange API: no libtorch, no copy, no ownership. It is
// valid while the caller holds the tensor, that is for one call.
#pragma once
#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>
#include <vector>

#include "dlpack.h"

namespace eqflow {

template <class T> constexpr std::uint8_t type_code = dlpack::floating;
template <> inline constexpr std::uint8_t type_code<std::int64_t> = dlpack::integer;
template <> inline constexpr std::uint8_t type_code<std::int32_t> = dlpack::integer;
template <> inline constexpr std::uint8_t type_code<std::uint16_t> = dlpack::bfloat; // as its bits

class Tensor {
public:
  dlpack::Tensor view{};
  const dlpack::ExchangeApi *api = nullptr;

  std::int64_t size(int axis) const { return view.shape[axis]; }
  bool on_cuda() const { return view.device.type == dlpack::cuda; }
  bool is_bfloat16() const { return view.dtype.code == dlpack::bfloat; }
  bool is_double() const { return view.dtype.code == dlpack::floating && view.dtype.bits == 64; }

  void *current_stream() const {
    void *stream = nullptr;
    if (api->current_work_stream(view.device.type, view.device.index, &stream) != 0)
      throw pybind11::error_already_set();
    return stream;
  }

  // The address of a contiguous tensor of T with this shape; whatever else comes is a bug of the caller in Python.
  template <class T> T *data(const char *name, std::vector<std::int64_t> shape) const {
    if (view.dtype.code != type_code<T> || view.dtype.bits != 8 * sizeof(T) || view.dtype.lanes != 1) {
      const char *kind = type_code<T> == dlpack::floating ? "float" : type_code<T> == dlpack::bfloat ? "bfloat" : "int";
      throw pybind11::type_error(std::string(name) + " must be " + kind + std::to_string(8 * sizeof(T)));
    }
    if (view.rank != static_cast<int>(shape.size()) || !std::equal(shape.begin(), shape.end(), view.shape))
      throw pybind11::value_error(std::string(name) + " has the wrong shape");
    std::int64_t stride = 1, count = 1;
    for (int axis = view.rank - 1; axis >= 0; --axis) {
      if (view.strides && view.shape[axis] > 1 && view.strides[axis] != stride)
        throw pybind11::value_error(std::string(name) + " must be contiguous");
      stride *= view.shape[axis];
      count *= view.shape[axis];
    }
    if (!view.data && count > 0) throw pybind11::value_error(std::string(name) + " has no memory (a fake tensor?)");
    return reinterpret_cast<T *>(static_cast<char *>(view.data) + view.byte_offset);
  }
};

// The table of functions hangs on the type of the tensor, not on the object; subclasses inherit it.
inline const dlpack::ExchangeApi *exchange_api(pybind11::handle type) {
  pybind11::object capsule = pybind11::getattr(type, "__dlpack_c_exchange_api__", pybind11::none());
  if (capsule.is_none()) throw pybind11::type_error("expected a torch.Tensor of torch 2.10 or newer");
  auto api = static_cast<const dlpack::ExchangeApi *>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (!api) throw pybind11::error_already_set();
  while (api && api->version.major != 1) api = api->previous;
  if (!api) throw pybind11::type_error("this torch speaks no DLPack of major version 1");
  return api;
}

} // namespace eqflow

namespace pybind11::detail {
template <> struct type_caster<eqflow::Tensor> {
  PYBIND11_TYPE_CASTER(eqflow::Tensor, const_name("torch.Tensor"));
  bool load(handle source, bool) {
    value.api = eqflow::exchange_api(type::handle_of(source));
    if (value.api->tensor_from_object(source.ptr(), &value.view) != 0) throw error_already_set();
    return true;
  }
};
} // namespace pybind11::detail
