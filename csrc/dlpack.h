// The part of DLPack 1.3's binary interface that the bridge uses: how a framework hands over a tensor without being
// linked against. Layouts follow the specification at https://dmlc.github.io/dlpack.
#pragma once
#include <cstdint>

namespace eqflow::dlpack {

enum DeviceType : std::int32_t { cpu = 1, cuda = 2 };
enum TypeCode : std::uint8_t { integer = 0, unsigned_integer = 1, floating = 2, bfloat = 4 };

struct Device {
  DeviceType type;
  std::int32_t index;
};

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void *data;
  Device device;
  std::int32_t rank;
  DataType dtype;
  std::int64_t *shape;
  std::int64_t *strides; // in elements; null means contiguous
  std::uint64_t byte_offset;
};

// Hangs on the type of the framework's tensor as the capsule `__dlpack_c_exchange_api__`.
struct ExchangeApi {
  struct {
    std::uint32_t major, minor;
  } version;
  ExchangeApi *previous;
  void *managed_tensor_allocator, *managed_tensor_from_object, *managed_tensor_to_object;
  int (*tensor_from_object)(void *object, Tensor *out); // non-zero: a Python error is set
  int (*current_work_stream)(DeviceType type, std::int32_t index, void **stream);
};

} // namespace eqflow::dlpack
