// A Langevin update in CUDA: x' = base + A * x + B * f + c xi in one pass. eqflow/ops/langevin.py has the contract.
//
// A thread computes four consecutive pixels, the four sites of a Philox counter. Three kernels, in the order of speed:
// pixel_kernel   1x1 kernels of up to 16 channels: the inputs of all channels wait in registers for one output after
//                the other;
// tile_kernel    3x3 and 5x5: the tile of one input channel with its margins stands in shared memory, whose loading
//                wraps around the grid, and up to four output channels gather their sums;
// site_kernel    everything else, also where four sites of a counter lie in two channels.
#include "cuda.cuh"
#include "kernels.h"
#include "philox.h"

namespace eqflow {
namespace {

using std::int64_t;

constexpr unsigned block = 256;
constexpr int64_t most_blocks_x = INT_MAX, most_blocks_y = 65535;
constexpr int most_inputs = 16;               // of pixel_kernel
constexpr int tile_outputs = 4;               // of tile_kernel
constexpr int64_t most_sites = (1 << 29) - 1; // that tile_kernel and site_kernel can count in 32 bits

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// a modulo size for a from -2 size on; in 32 bits, since a long division is a function call.
__device__ __forceinline__ int wrap(int a, int size) {
  return static_cast<int>(static_cast<unsigned>(a + 2 * size) % static_cast<unsigned>(size));
}

// --- Numbers --------------------------------------------------------------------------------------------------------

using Word = float[4];

struct alignas(8) Halves {
  std::uint32_t low, high;
};

__device__ __forceinline__ float load(const float *from) { return *from; }
__device__ __forceinline__ float load(const std::uint16_t *from) { // bfloat16
  return bits_float(static_cast<std::uint32_t>(*from) << 16);
}
__device__ __forceinline__ float4 load_four(const float *from) { return *reinterpret_cast<const float4 *>(from); }
__device__ __forceinline__ float4 load_four(const std::uint16_t *from) {
  const Halves h = *reinterpret_cast<const Halves *>(from);
  return make_float4(bits_float(h.low << 16), bits_float(h.low & 0xffff0000u), bits_float(h.high << 16),
                     bits_float(h.high & 0xffff0000u));
}
__device__ __forceinline__ void unpack(const float4 &from, Word &to) {
  to[0] = from.x, to[1] = from.y, to[2] = from.z, to[3] = from.w;
}

__device__ __forceinline__ void begin_sum(const LangevinParams &p, const LangevinFields &f, int64_t place, Word &sum) {
  EQFLOW_UNROLL
  for (int c = 0; c < 4; ++c) sum[c] = 0.0f;
  if (!f.base) return;
  unpack(load_four(f.base + place), sum);
  EQFLOW_UNROLL
  for (int c = 0; c < 4; ++c) sum[c] = p.base_scale * sum[c];
}

__device__ __forceinline__ void add_product(float weight, const Word &x, Word &sum) {
  EQFLOW_UNROLL
  for (int c = 0; c < 4; ++c) sum[c] = fused(weight, x[c], sum[c]);
}

struct Counter {
  std::uint64_t step, seed;
  std::uint32_t stream;

  __device__ __forceinline__ Counter(const LangevinParams &p, const LangevinFields &f)
      : step(f.step ? static_cast<std::uint64_t>(*f.step) : p.step), seed(p.seed), stream(p.stream) {}
};

__device__ __forceinline__ std::uint32_t sample_number(const LangevinParams &p, int64_t row) {
  return static_cast<std::uint32_t>(p.first_sample + static_cast<std::uint64_t>(row));
}

// Spelled out, because nvcc cuts the assignment into four stores.
__device__ __forceinline__ void store_four(float *to, const Word &from) {
#if defined(__CUDA_ARCH__)
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(from[0]), "f"(from[1]), "f"(from[2]),
               "f"(from[3])
               : "memory");
#else
  *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
#endif
}

// Adds the noise of four sites, the first of them a multiple of 4.
__device__ __forceinline__ void add_noise(const LangevinParams &p, const Counter &counter, int64_t row, int64_t site,
                                          Word &sum) {
  if (p.noise_scale == 0.0f) return;
  const Normals n = site_normals(static_cast<std::uint32_t>(site / 4), sample_number(p, row), counter.step,
                                 counter.stream, counter.seed);
  sum[0] = fused(p.noise_scale, n.x, sum[0]);
  sum[1] = fused(p.noise_scale, n.y, sum[1]);
  sum[2] = fused(p.noise_scale, n.z, sum[2]);
  sum[3] = fused(p.noise_scale, n.w, sum[3]);
}

// Rows of samples along x, groups of four pixels or sites along y, so that no index needs a division.
struct Share {
  int64_t row, row_step, group, group_step;

  __device__ Share()
      : row(static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y),
        row_step(static_cast<int64_t>(gridDim.x) * blockDim.y),
        group(static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x),
        group_step(static_cast<int64_t>(gridDim.y) * blockDim.x) {}
};

// --- 1x1 kernels ----------------------------------------------------------------------------------------------------

// Up to four channels exactly `inputs`, else at most.
template <int inputs, class Number>
__global__ void __launch_bounds__(block) pixel_kernel(LangevinParams p, LangevinFields f) {
  constexpr bool exact = inputs <= 4;
  constexpr int unrolled = exact ? inputs : 1;
  __shared__ float weights[inputs * 2 * inputs]; // [output, field, input]
  const int channels = exact ? inputs : static_cast<int>(p.channels);
  const auto thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  for (int place = thread; place < channels * channels; place += static_cast<int>(blockDim.x * blockDim.y)) {
    const int o = place / channels, i = place % channels;
    weights[(2 * o) * inputs + i] = f.state_kernel[place];
    if (f.output) weights[(2 * o + 1) * inputs + i] = f.output_kernel[place];
  }
  __syncthreads();

  const Counter counter(p, f);
  const Share share;
  const int64_t pixels = p.height * p.width;
  for (int64_t row = share.row; row < p.batch; row += share.row_step)
    for (int64_t group = share.group; 4 * group < pixels; group += share.group_step) {
      const int64_t first = row * channels * pixels + 4 * group;
      Word x[2][inputs];
      EQFLOW_UNROLL
      for (int i = 0; i < inputs; ++i)
        if (exact || i < channels) {
          unpack(load_four(f.state + first + i * pixels), x[0][i]);
          if (f.output) unpack(load_four(static_cast<const Number *>(f.output) + first + i * pixels), x[1][i]);
        }
#pragma unroll unrolled
      for (int o = 0; o < channels; ++o) {
        Word sum;
        begin_sum(p, f, first + o * pixels, sum);
        EQFLOW_UNROLL
        for (int i = 0; i < inputs; ++i)
          if (exact || i < channels) add_product(weights[(2 * o) * inputs + i], x[0][i], sum);
        if (f.output) {
          EQFLOW_UNROLL
          for (int i = 0; i < inputs; ++i)
            if (exact || i < channels) add_product(weights[(2 * o + 1) * inputs + i], x[1][i], sum);
        }
        add_noise(p, counter, row, o * pixels + 4 * group, sum);
        store_four(f.result + first + o * pixels, sum);
      }
    }
}

// --- 3x3 and 5x5 kernels --------------------------------------------------------------------------------------------

// Words of four pixels: a tile has blockDim.x of them in a row, and a margin of one on either side.
template <int radius> constexpr int64_t tile_words(int64_t across, int64_t down) {
  return (across + 2) * (down + 2 * radius);
}

template <int radius, class Number>
__device__ __forceinline__ void load_tile(const Number *channel, int height, int words, int y, int word, float4 *tile) {
  const int across = static_cast<int>(blockDim.x), down = static_cast<int>(blockDim.y);
  for (int i = static_cast<int>(threadIdx.y); i < down + 2 * radius; i += down) {
    const Number *const from = channel + static_cast<int64_t>(wrap(y + i - radius, height)) * (4 * words);
    for (int j = static_cast<int>(threadIdx.x); j < across + 2; j += across)
      tile[i * (across + 2) + j] = load_four(from + 4 * wrap(word + j - 1, words));
  }
}

// Adds kernel * channel for this thread's four pixels and up to four outputs. weights: [tap], one output a lane.
template <int radius, int outputs>
__device__ __forceinline__ void add_taps(const float4 *tile, const float4 *weights, Word (&sum)[outputs]) {
  const int across = static_cast<int>(blockDim.x) + 2;
  EQFLOW_UNROLL
  for (int u = 0; u < 2 * radius + 1; ++u) {
    const float4 *const from = tile + (static_cast<int>(threadIdx.y) + u) * across + threadIdx.x;
    float x[12];
    EQFLOW_UNROLL
    for (int word = 0; word < 3; ++word) {
      const float4 four = from[word];
      x[4 * word] = four.x, x[4 * word + 1] = four.y, x[4 * word + 2] = four.z, x[4 * word + 3] = four.w;
    }
    EQFLOW_UNROLL
    for (int v = 0; v < 2 * radius + 1; ++v) {
      Word weight;
      unpack(weights[u * (2 * radius + 1) + v], weight);
      EQFLOW_UNROLL
      for (int o = 0; o < outputs; ++o) {
        EQFLOW_UNROLL
        for (int c = 0; c < 4; ++c) sum[o][c] = fused(weight[o], x[4 - radius + v + c], sum[o][c]);
      }
    }
  }
}

// Output channels outputs * blockIdx.z and on; the last block may have fewer. Two blocks a multiprocessor are asked
// for, because without a wish ptxas takes so few registers that it spills.
template <int radius, int outputs, class Number>
__global__ void __launch_bounds__(block, 2)
    tile_kernel(LangevinParams p, LangevinFields f, int tiles_across, int tiles) {
  constexpr int taps = (2 * radius + 1) * (2 * radius + 1);
  EQFLOW_DYN_SHARED(float4, tile);
  __shared__ float4 weights[taps];
  const Counter counter(p, f);
  const int64_t pixels = p.height * p.width, terms = p.channels * taps;
  const int64_t first = static_cast<int64_t>(blockIdx.z) * outputs, left = p.channels - first;
  const int height = static_cast<int>(p.height), words = static_cast<int>(p.width) / 4;
  const int across = static_cast<int>(blockDim.x), down = static_cast<int>(blockDim.y);
  const int thread_x = static_cast<int>(threadIdx.x), thread_y = static_cast<int>(threadIdx.y);
  for (int64_t row = blockIdx.x; row < p.batch; row += gridDim.x)
    for (int index = static_cast<int>(blockIdx.y); index < tiles; index += static_cast<int>(gridDim.y)) {
      const int y = index / tiles_across * down, word = index % tiles_across * across;
      const bool inside = y + thread_y < height && word + thread_x < words;
      const int64_t sample = row * p.channels * pixels;
      const int64_t place = first * pixels + (static_cast<int64_t>(y + thread_y) * words + word + thread_x) * 4;
      Word sum[outputs] = {};
      EQFLOW_UNROLL
      for (int o = 0; o < outputs; ++o)
        if (inside && o < left) begin_sum(p, f, sample + place + o * pixels, sum[o]);
      for (int field = 0; field < (f.output ? 2 : 1); ++field) {
        const float *const kernel = (field == 0 ? f.state_kernel : f.output_kernel) + first * terms;
        for (int64_t i = 0; i < p.channels; ++i) {
          const int64_t channel = sample + i * pixels;
          __syncthreads();
          if (field == 0)
            load_tile<radius>(f.state + channel, height, words, y, word, tile);
          else
            load_tile<radius>(static_cast<const Number *>(f.output) + channel, height, words, y, word, tile);
          for (int t = thread_y * across + thread_x; t < taps; t += across * down) {
            const float *const from = kernel + i * taps + t;
            weights[t] = make_float4(from[0], outputs > 1 && left > 1 ? from[terms] : 0.0f,
                                     outputs > 2 && left > 2 ? from[2 * terms] : 0.0f,
                                     outputs > 3 && left > 3 ? from[3 * terms] : 0.0f);
          }
          __syncthreads();
          add_taps<radius>(tile, weights, sum);
        }
      }
      EQFLOW_UNROLL
      for (int o = 0; o < outputs; ++o)
        if (inside && o < left) {
          add_noise(p, counter, row, place + o * pixels, sum[o]);
          store_four(f.result + sample + place + o * pixels, sum[o]);
        }
    }
}

// --- Any shape ------------------------------------------------------------------------------------------------------

template <class Number>
__device__ __forceinline__ float add_field(const LangevinParams &p, const Number *field, const float *kernel, int y,
                                           int x, float sum) {
  const int height = static_cast<int>(p.height), width = static_cast<int>(p.width), radius = static_cast<int>(p.radius);
  for (int64_t i = 0; i < p.channels; ++i, field += p.height * p.width)
    for (int u = -radius; u <= radius; ++u) {
      const Number *const row = field + static_cast<int64_t>(radius > 0 ? wrap(y + u % height, height) : y) * width;
      for (int v = -radius; v <= radius; ++v, ++kernel)
        sum = fused(*kernel, load(row + (radius > 0 ? wrap(x + v % width, width) : x)), sum);
    }
  return sum;
}

// Fewer than 2^29 sites.
template <class Number> __global__ void __launch_bounds__(block) site_kernel(LangevinParams p, LangevinFields f) {
  const Counter counter(p, f);
  const Share share;
  const int width = static_cast<int>(p.width), pixels = static_cast<int>(p.height) * width;
  const int sites = static_cast<int>(p.channels) * pixels;
  const int64_t terms = p.channels * (2 * p.radius + 1) * (2 * p.radius + 1);
  for (int64_t row = share.row; row < p.batch; row += share.row_step)
    for (int64_t group = share.group; 4 * group < sites; group += share.group_step) {
      const int64_t sample = row * sites;
      Word sum;
#pragma unroll 1
      for (int c = 0; c < 4; ++c) {
        const int site = static_cast<int>(4 * group) + c;
        if (site >= sites) break;
        const int o = pixels == 1 ? site : site / pixels, pixel = site - o * pixels;
        const int y = pixels == 1 ? 0 : pixel / width, x = pixel - y * width;
        float total = f.base ? p.base_scale * f.base[sample + site] : 0.0f;
        total = add_field(p, f.state + sample, f.state_kernel + o * terms, y, x, total);
        if (f.output)
          total =
              add_field(p, static_cast<const Number *>(f.output) + sample, f.output_kernel + o * terms, y, x, total);
        sum[3] = total; // by selection: an index that is no constant would put the word into memory
        if (c == 0) sum[0] = total;
        if (c == 1) sum[1] = total;
        if (c == 2) sum[2] = total;
      }
      add_noise(p, counter, row, 4 * group, sum);
      float *const to = f.result + sample + 4 * group;
      EQFLOW_UNROLL
      for (int c = 0; c < 4; ++c)
        if (4 * group + c < sites) to[c] = sum[c];
    }
}

// --- Launching ------------------------------------------------------------------------------------------------------

dim3 threads_for(int64_t groups, unsigned most_across, int64_t rows) {
  dim3 threads(1);
  while (threads.x < most_across && threads.x < groups) threads.x *= 2;
  while (threads.x * threads.y < block && threads.y < rows) threads.y *= 2;
  return threads;
}

template <class Kernel>
void launch_shares(Kernel kernel, const LangevinParams &p, const LangevinFields &f, int64_t groups, CudaQueue queue) {
  const dim3 threads = threads_for(groups, block, block);
  const dim3 blocks(static_cast<unsigned>(smaller(divide_up(p.batch, threads.y), most_blocks_x)),
                    static_cast<unsigned>(smaller(divide_up(groups, threads.x), most_blocks_y)));
  EQFLOW_LAUNCH(kernel, blocks, threads, 0, stream_of(queue), p, f);
}

template <int radius, int outputs, class Number>
void launch_tiles(const LangevinParams &p, const LangevinFields &f, CudaQueue queue) {
  const dim3 threads = threads_for(p.width / 4, 32, p.height);
  const auto across = static_cast<int>(divide_up(p.width / 4, threads.x));
  const auto tiles = static_cast<int>(across * divide_up(p.height, threads.y));
  const dim3 blocks(static_cast<unsigned>(smaller(p.batch, most_blocks_x)),
                    static_cast<unsigned>(smaller(tiles, most_blocks_y)),
                    static_cast<unsigned>(divide_up(p.channels, outputs)));
  const auto bytes = static_cast<unsigned>(sizeof(float4) * tile_words<radius>(threads.x, threads.y));
  const auto kernel = tile_kernel<radius, outputs, Number>;
  EQFLOW_LAUNCH(kernel, blocks, threads, bytes, stream_of(queue), p, f, across, tiles);
}

template <int radius, class Number>
void choose_outputs(const LangevinParams &p, const LangevinFields &f, CudaQueue queue) {
  switch (p.channels) {
  case 1:
    return launch_tiles<radius, 1, Number>(p, f, queue);
  case 2:
    return launch_tiles<radius, 2, Number>(p, f, queue);
  case 3:
    return launch_tiles<radius, 3, Number>(p, f, queue);
  default:
    return launch_tiles<radius, tile_outputs, Number>(p, f, queue);
  }
}

template <class Number> void choose_inputs(const LangevinParams &p, const LangevinFields &f, CudaQueue queue) {
  const int64_t groups = p.height * p.width / 4;
  switch (p.channels) {
  case 1:
    return launch_shares(pixel_kernel<1, Number>, p, f, groups, queue);
  case 2:
    return launch_shares(pixel_kernel<2, Number>, p, f, groups, queue);
  case 3:
    return launch_shares(pixel_kernel<3, Number>, p, f, groups, queue);
  case 4:
    return launch_shares(pixel_kernel<4, Number>, p, f, groups, queue);
  case 5:
  case 6:
  case 7:
  case 8:
    return launch_shares(pixel_kernel<8, Number>, p, f, groups, queue);
  default:
    return launch_shares(pixel_kernel<most_inputs, Number>, p, f, groups, queue);
  }
}

template <class Number> void choose(const LangevinParams &p, const LangevinFields &f, CudaQueue queue) {
  const bool aligned = is_aligned(f.state) && is_aligned(f.output) && is_aligned(f.base) && is_aligned(f.result);
  if (aligned && p.radius == 0 && p.height * p.width % 4 == 0 && p.channels <= most_inputs)
    return choose_inputs<Number>(p, f, queue);
  if (p.channels * p.height * p.width > most_sites)
    throw CudaError("expected at most 2^29 - 1 sites a sample for this shape, got " +
                    std::to_string(p.channels * p.height * p.width) + ": use another backend");
  if (aligned && p.radius == 1 && p.width % 4 == 0) return choose_outputs<1, Number>(p, f, queue);
  if (aligned && p.radius == 2 && p.width % 4 == 0) return choose_outputs<2, Number>(p, f, queue);
  launch_shares(site_kernel<Number>, p, f, divide_up(p.channels * p.height * p.width, 4), queue);
}

} // namespace

void langevin_cuda(const LangevinParams &p, const LangevinFields &fields, CudaQueue queue) {
  if (p.batch == 0 || p.channels * p.height * p.width == 0) return;
  const DeviceGuard guard(queue.device);
  p.output_is_bfloat16 ? choose<std::uint16_t>(p, fields, queue) : choose<float>(p, fields, queue);
}

} // namespace eqflow
