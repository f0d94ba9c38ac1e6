// A Langevin update in CUDA: x' = base + A * x + B * f + c xi in one pass. eqflow/ops/langevin.py has the contract.
//
// A thread computes four consecutive pixels, the four sites of a Philox counter. Four kernels, in the order of speed:
// pixel_kernel   1x1 kernels of up to 4 channels: the inputs of all channels stand in registers, and the noise, which
//                takes most of the instructions, is drawn while they are on their way;
// channel_kernel 1x1 kernels of up to 32 channels: the inputs of a block's pixels stand in shared memory, and a thread
//                gathers four output channels;
// tile_kernel    3x3 and 5x5: so do the tiles of up to four inputs, with margins whose loading wraps around the grid,
//                and a thread gathers four output channels, or two rows of up to two;
// site_kernel    everything else, also where four sites of a counter lie in two channels.
#include "kernels.h"
#include "philox.h"
#include "rows.cuh"
#include "words.cuh"

namespace eqflow {
namespace {

using std::int64_t;

constexpr unsigned block = 256;
constexpr int most_pixel_channels = 4; // of pixel_kernel
constexpr int most_channels = 32;      // of channel_kernel
constexpr int quad = 4;                // output channels of a thread of channel_kernel, at most of tile_kernel
constexpr int tile_planes = 4;         // of tile_kernel: inputs at a time
template <int outputs> constexpr int tile_rows = outputs > 2 ? 1 : 2; // of a thread of tile_kernel
constexpr int64_t most_sites = (1 << 29) - 1; // that tile_kernel and site_kernel can count in 32 bits

// a modulo size for a from -size to 2 size - 1.
__device__ __forceinline__ int wrap(int a, int size) { return a < 0 ? a + size : a >= size ? a - size : a; }

// --- The terms of a sum, in their order -----------------------------------------------------------------------------

__device__ __forceinline__ void begin_sum(const LangevinParams &p, const LangevinFields &f, int64_t place, Word &sum) {
  if (f.base) {
    load_four(f.base + place, sum);
    EQFLOW_UNROLL
    for (int c = 0; c < 4; ++c) sum[c] = p.base_scale * sum[c];
  } else {
    EQFLOW_UNROLL
    for (int c = 0; c < 4; ++c) sum[c] = 0.0f;
  }
}

__device__ __forceinline__ void add_product(float weight, const Word &x, Word &sum) {
  EQFLOW_UNROLL
  for (int c = 0; c < 4; ++c) sum[c] = fused(weight, x[c], sum[c]);
}

__device__ __forceinline__ std::uint64_t step_of(const LangevinParams &p, const LangevinFields &f) {
  return f.step ? static_cast<std::uint64_t>(*f.step) : p.step;
}

// The noise of four sites of a sample of the batch, the first of them a multiple of 4.
__device__ __forceinline__ void draw(const LangevinParams &p, const PhiloxKeys &keys, std::uint64_t step, int64_t row,
                                     int64_t site, Word &noise) {
  if (p.noise_scale == 0.0f) return;
  const auto sample = static_cast<std::uint32_t>(p.first_sample + static_cast<std::uint64_t>(row));
  const Normals n = site_normals(site_counter(static_cast<std::uint32_t>(site / 4), sample, step, p.stream), keys);
  noise[0] = n.x, noise[1] = n.y, noise[2] = n.z, noise[3] = n.w;
}

__device__ __forceinline__ void add_noise(const LangevinParams &p, const Word &noise, Word &sum) {
  if (p.noise_scale != 0.0f) add_product(p.noise_scale, noise, sum);
}

// --- 1x1 kernels ----------------------------------------------------------------------------------------------------

template <int channels, class Number>
__global__ void __launch_bounds__(block) pixel_kernel(LangevinParams p, LangevinFields f, PhiloxKeys keys) {
  __shared__ float weights[channels][2][channels]; // [output, field, input]
  const auto thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  if (thread < channels * channels) {
    weights[thread / channels][0][thread % channels] = f.state_kernel[thread];
    if (f.output) weights[thread / channels][1][thread % channels] = f.output_kernel[thread];
  }
  __syncthreads();

  const std::uint64_t step = step_of(p, f);
  const Share share;
  const int64_t pixels = p.height * p.width;
  for (int64_t row = share.row; row < p.batch; row += share.row_step)
    for (int64_t group = share.group; 4 * group < pixels; group += share.group_step) {
      const int64_t first = row * channels * pixels + 4 * group;
      Word x[2][channels];
      EQFLOW_UNROLL
      for (int i = 0; i < channels; ++i) {
        load_four_once(f.state + first + i * pixels, x[0][i]);
        if (f.output) load_four_once(static_cast<const Number *>(f.output) + first + i * pixels, x[1][i]);
      }
      EQFLOW_UNROLL
      for (int o = 0; o < channels; ++o) {
        Word noise, sum;
        draw(p, keys, step, row, o * pixels + 4 * group, noise);
        begin_sum(p, f, first + o * pixels, sum);
        EQFLOW_UNROLL
        for (int i = 0; i < channels; ++i) add_product(weights[o][0][i], x[0][i], sum);
        if (f.output) {
          EQFLOW_UNROLL
          for (int i = 0; i < channels; ++i) add_product(weights[o][1][i], x[1][i], sum);
        }
        add_noise(p, noise, sum);
        store_four_once(f.result + first + o * pixels, sum);
      }
    }
}

// Threads along y take four output channels each, those along x one group of pixels, 32 of them or a multiple.
constexpr int64_t channel_kernel_words(int64_t channels, int64_t threads_across) {
  return 2 * channels * (threads_across + divide_up(channels, quad));
}

template <class Number>
__global__ void __launch_bounds__(block, 4) channel_kernel(LangevinParams p, LangevinFields f, PhiloxKeys keys) {
  EQFLOW_DYN_SHARED(float4, shared);
  const auto across = static_cast<int>(blockDim.x), quads = static_cast<int>(blockDim.y);
  const auto x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const auto channels = static_cast<int>(p.channels);
  const int fields = f.output ? 2 : 1;
  float4 *const states = shared; // [input, group]
  auto *const outputs = reinterpret_cast<FourOf<Number> *>(states + channels * across);
  float4 *const weights = shared + 2 * channels * across; // [field, input, quad of outputs]
  for (int t = y * across + x; t < fields * channels * quads * quad; t += across * quads) {
    const int o = t % (quads * quad), term = t / (quads * quad); // term: [field, input]
    const float *const kernel = term < channels ? f.state_kernel : f.output_kernel - channels;
    reinterpret_cast<float *>(weights)[t] = o < channels ? kernel[o * channels + term] : 0.0f;
  }

  const std::uint64_t step = step_of(p, f);
  const int64_t pixels = p.height * p.width, groups = pixels / 4;
  for (int64_t row = blockIdx.y; row < p.batch; row += gridDim.y)
    for (int64_t begin = static_cast<int64_t>(blockIdx.x) * across; begin < groups;
         begin += static_cast<int64_t>(gridDim.x) * across) {
      const int64_t group = begin + x, first = row * channels * pixels + 4 * group;
      const bool inside = group < groups;
      if (inside)
        for (int i = y; i < channels; i += quads) {
          const int64_t place = first + i * pixels;
          copy_later(states + i * across + x, reinterpret_cast<const float4 *>(f.state + place));
          if (f.output)
            copy_later(outputs + i * across + x,
                       reinterpret_cast<const FourOf<Number> *>(static_cast<const Number *>(f.output) + place));
        }
      Word sum[quad];
      EQFLOW_UNROLL
      for (int k = 0; k < quad; ++k)
        if (const int o = quad * y + k; inside && o < channels) begin_sum(p, f, first + o * pixels, sum[k]);
      wait_for_copies();
      __syncthreads();
#pragma unroll 2
      for (int i = 0; i < channels; ++i) {
        Word four, weight;
        unpack(states[i * across + x], four);
        unpack(weights[i * quads + y], weight);
        EQFLOW_UNROLL
        for (int k = 0; k < quad; ++k) add_product(weight[k], four, sum[k]);
      }
      if (f.output) {
#pragma unroll 2
        for (int i = 0; i < channels; ++i) {
          Word four, weight;
          unpack(outputs[i * across + x], four);
          unpack(weights[(channels + i) * quads + y], weight);
          EQFLOW_UNROLL
          for (int k = 0; k < quad; ++k) add_product(weight[k], four, sum[k]);
        }
      }
      __syncthreads();
      EQFLOW_UNROLL
      for (int k = 0; k < quad; ++k)
        if (const int o = quad * y + k; inside && o < channels) {
          Word noise;
          draw(p, keys, step, row, o * pixels + 4 * group, noise);
          add_noise(p, noise, sum[k]);
          store_four_once(f.result + first + o * pixels, sum[k]);
        }
    }
}

// --- 3x3 and 5x5 kernels --------------------------------------------------------------------------------------------

// Words of four pixels: a tile has blockDim.x of them in a row, and a margin of one on either side.
template <int radius> EQFLOW_HD int tile_words(int across, int down) { return (across + 2) * (down + 2 * radius); }

// Asks for one word of planes first .. last - 1, of which the first `channels` are those of the state. Each plane of
// shared memory has room for float32.
template <class Number>
__device__ __forceinline__ void copy_word(const float *states, const Number *outputs, int channels, int first, int last,
                                          int pixels, int from, float4 *planes, int words, int to) {
  EQFLOW_UNROLL
  for (int k = 0; k < tile_planes; ++k) {
    const int plane = first + k;
    if (plane < last && plane < channels)
      copy_later(planes + k * words + to, reinterpret_cast<const float4 *>(states + plane * pixels + from));
    else if (plane < last)
      copy_later(reinterpret_cast<FourOf<Number> *>(planes + k * words) + to,
                 reinterpret_cast<const FourOf<Number> *>(outputs + (plane - channels) * pixels + from));
  }
}

// Adds kernel * plane for this thread's rows of four pixels and up to four outputs. weights: [tap], one output a lane.
template <int radius, int rows, int outputs, class T>
__device__ __forceinline__ void add_taps(const T *plane, const float4 *weights, Word (&sum)[rows][outputs]) {
  constexpr int size = 2 * radius + 1;
  const int across = static_cast<int>(blockDim.x) + 2;
  const T *const from = plane + rows * static_cast<int>(threadIdx.y) * across + threadIdx.x;
  float x[rows][12]; // row u + r of the tile stands in place (u + r) % rows
  EQFLOW_UNROLL
  for (int u = 1 - rows; u < size; ++u) {
    EQFLOW_UNROLL
    for (int word = 0; word < 3; ++word)
      unpack(from[(u + rows - 1) * across + word], x[(u + rows - 1) % rows] + 4 * word);
    if (u < 0) continue;
    EQFLOW_UNROLL
    for (int v = 0; v < size; ++v) {
      Word weight;
      unpack(weights[u * size + v], weight);
      EQFLOW_UNROLL
      for (int r = 0; r < rows; ++r) {
        EQFLOW_UNROLL
        for (int o = 0; o < outputs; ++o) {
          EQFLOW_UNROLL
          for (int c = 0; c < 4; ++c)
            sum[r][o][c] = fused(weight[o], x[(u + r) % rows][4 - radius + v + c], sum[r][o][c]);
        }
      }
    }
  }
}

// Blocks that a multiprocessor shall hold: as many as there are registers for without a spill.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
template <int outputs, class Number> constexpr int tile_blocks = outputs > 2 ? 2 : sizeof(Number) == 4 ? 4 : 3;
#else
template <int outputs, class Number> constexpr int tile_blocks = 2;
#endif

// Output channels outputs * blockIdx.z and on; the last block may have fewer.
template <int radius, int outputs, class Number>
__global__ void __launch_bounds__(block, tile_blocks<outputs, Number>)
    tile_kernel(LangevinParams p, LangevinFields f, PhiloxKeys keys, int tiles_across) {
  constexpr int rows = tile_rows<outputs>;
  constexpr int taps = (2 * radius + 1) * (2 * radius + 1);
  EQFLOW_DYN_SHARED(float4, planes);
  __shared__ float4 weights[tile_planes * taps];
  const std::uint64_t step = step_of(p, f);
  const int channels = static_cast<int>(p.channels), inputs = f.output ? 2 * channels : channels;
  const int first = static_cast<int>(blockIdx.z) * outputs, left = channels - first;
  const int height = static_cast<int>(p.height), width = static_cast<int>(p.width), words_across = width / 4;
  const int pixels = height * width;
  const int across = static_cast<int>(blockDim.x), down = rows * static_cast<int>(blockDim.y);
  const int thread_x = static_cast<int>(threadIdx.x), thread_y = static_cast<int>(threadIdx.y);
  const int thread = thread_y * across + thread_x, threads = across * static_cast<int>(blockDim.y);
  const int words = tile_words<radius>(across, down);
  const int y = static_cast<int>(blockIdx.x) / tiles_across * down;
  const int word = static_cast<int>(blockIdx.x) % tiles_across * across;
  const int own_y = y + rows * thread_y, own_word = word + thread_x;
  const int place = first * pixels + own_y * width + 4 * own_word;
  const auto is_mine = [&](int r, int o) { return own_word < words_across && own_y + r < height && o < left; };
  const int rows_here = (height - y < down ? height - y : down) + 2 * radius;
  const int words_here = words_across - word < across ? words_across - word : across;
  for (int64_t row = blockIdx.y; row < p.batch; row += gridDim.y) {
    const int64_t sample = row * (channels * pixels);
    Word sum[rows][outputs];
    EQFLOW_UNROLL
    for (int r = 0; r < rows; ++r) {
      EQFLOW_UNROLL
      for (int o = 0; o < outputs; ++o)
        if (is_mine(r, o)) begin_sum(p, f, sample + place + o * pixels + r * width, sum[r][o]);
    }
    for (int begin = 0; begin < inputs; begin += tile_planes) {
      const int end = begin + tile_planes < inputs ? begin + tile_planes : inputs;
      const auto copy = [&](int i, int j) {
        const int from = wrap(y + i - radius, height) * width + 4 * wrap(word + j - 1, words_across);
        copy_word(f.state + sample, static_cast<const Number *>(f.output) + sample, channels, begin, end, pixels, from,
                  planes, words, i * (across + 2) + j);
      };
      if (thread_x < words_here)
#pragma unroll 1
        for (int i = thread_y; i < rows_here; i += static_cast<int>(blockDim.y)) copy(i, thread_x + 1);
#pragma unroll 1
      for (int t = thread; t < 2 * rows_here; t += threads) copy(t / 2, t % 2 * (words_here + 1));
#pragma unroll 1
      for (int t = thread; t < (end - begin) * taps * outputs; t += threads) {
        const int o = t % outputs, tap = t / outputs % taps, plane = begin + t / (outputs * taps);
        const float *const kernel =
            plane < channels ? f.state_kernel + plane * taps : f.output_kernel + (plane - channels) * taps;
        if (o < left)
          copy_later(reinterpret_cast<float *>(weights + t / outputs) + o,
                     kernel + (first + o) * channels * taps + tap);
      }
      wait_for_copies();
      __syncthreads();
#pragma unroll 1
      for (int k = 0; k < end - begin; ++k) {
        const float4 *const plane = planes + k * words;
        if (sizeof(Number) == sizeof(float) || begin + k < channels)
          add_taps<radius>(plane, weights + k * taps, sum);
        else
          add_taps<radius>(reinterpret_cast<const FourOf<Number> *>(plane), weights + k * taps, sum);
      }
      __syncthreads();
    }
    EQFLOW_UNROLL
    for (int r = 0; r < rows; ++r) {
      EQFLOW_UNROLL
      for (int o = 0; o < outputs; ++o)
        if (is_mine(r, o)) {
          const int site = place + o * pixels + r * width;
          Word noise;
          draw(p, keys, step, row, site, noise);
          add_noise(p, noise, sum[r][o]);
          store_four_once(f.result + sample + site, sum[r][o]);
        }
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
template <class Number>
__global__ void __launch_bounds__(block, 2) site_kernel(LangevinParams p, LangevinFields f, PhiloxKeys keys) {
  const std::uint64_t step = step_of(p, f);
  const Share share;
  const int width = static_cast<int>(p.width), pixels = static_cast<int>(p.height) * width;
  const int sites = static_cast<int>(p.channels) * pixels;
  const int64_t terms = p.channels * (2 * p.radius + 1) * (2 * p.radius + 1);
  for (int64_t row = share.row; row < p.batch; row += share.row_step)
    for (int64_t group = share.group; 4 * group < sites; group += share.group_step) {
      const int64_t sample = row * sites;
      Word noise, sum;
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
      draw(p, keys, step, row, 4 * group, noise);
      add_noise(p, noise, sum);
      float *const to = f.result + sample + 4 * group;
      EQFLOW_UNROLL
      for (int c = 0; c < 4; ++c)
        if (4 * group + c < sites) to[c] = sum[c];
    }
}

// --- Launching ------------------------------------------------------------------------------------------------------

template <class Kernel>
void launch_shares(Kernel kernel, const LangevinParams &p, const LangevinFields &f, int64_t groups, CudaQueue queue) {
  const dim3 threads = threads_of_shares(block, groups), blocks = blocks_of_shares(threads, p.batch, groups);
  EQFLOW_LAUNCH(kernel, blocks, threads, 0, stream_of(queue), p, f, philox_keys(p.seed));
}

template <class Number> void launch_channels(const LangevinParams &p, const LangevinFields &f, CudaQueue queue) {
  const auto quads = static_cast<unsigned>(divide_up(p.channels, quad));
  const unsigned across = block / quads / 32 * 32; // a warp has one quad
  const int64_t groups = p.height * p.width / 4;
  const dim3 blocks = blocks_of_shares(dim3(across), p.batch, groups);
  const auto bytes = static_cast<unsigned>(sizeof(float4) * channel_kernel_words(p.channels, across));
  EQFLOW_LAUNCH(channel_kernel<Number>, blocks, dim3(across, quads), bytes, stream_of(queue), p, f,
                philox_keys(p.seed));
}

template <int radius, int outputs, class Number>
void launch_tiles(const LangevinParams &p, const LangevinFields &f, CudaQueue queue) {
  const int64_t words = p.width / 4, rows = divide_up(p.height, tile_rows<outputs>);
  const auto bytes_of = [](unsigned across, unsigned down) {
    const int tile = tile_words<radius>(static_cast<int>(across), tile_rows<outputs> * static_cast<int>(down));
    return static_cast<unsigned>(sizeof(float4)) * tile_planes * static_cast<unsigned>(tile);
  };
  dim3 threads(1);
  while (threads.x < 32 && threads.x < words) threads.x *= 2;
  // The margins of a tall and narrow tile are most of it: beside the weights 46 KiB are left.
  while (threads.x * threads.y < block && threads.y < rows && bytes_of(threads.x, 2 * threads.y) <= 46 * 1024)
    threads.y *= 2;
  const auto across = static_cast<int>(divide_up(words, threads.x));
  const auto tiles = static_cast<int>(across * divide_up(rows, threads.y));
  const dim3 blocks(static_cast<unsigned>(tiles), static_cast<unsigned>(smaller(p.batch, most_blocks_y)),
                    static_cast<unsigned>(divide_up(p.channels, outputs)));
  const auto kernel = tile_kernel<radius, outputs, Number>;
  EQFLOW_LAUNCH(kernel, blocks, threads, bytes_of(threads.x, threads.y), stream_of(queue), p, f, philox_keys(p.seed),
                across);
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
    return launch_tiles<radius, quad, Number>(p, f, queue);
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
  case most_pixel_channels:
    return launch_shares(pixel_kernel<most_pixel_channels, Number>, p, f, groups, queue);
  default:
    return launch_channels<Number>(p, f, queue);
  }
}

template <class Number> void choose(const LangevinParams &p, const LangevinFields &f, CudaQueue queue) {
  const bool aligned = is_aligned(f.state) && is_aligned(f.output) && is_aligned(f.base) && is_aligned(f.result);
  if (aligned && p.radius == 0 && p.height * p.width % 4 == 0 && p.channels <= most_channels)
    return choose_inputs<Number>(p, f, queue);
  if (p.channels * p.height * p.width > most_sites)
    throw CudaError("expected at most 2^29 - 1 sites a sample for this shape, got " +
                    std::to_string(p.channels * p.height * p.width) + ": use another backend");
  if (aligned && p.radius == 1 && p.width % 4 == 0) return choose_outputs<1, Number>(p, f, queue);
  if (aligned && p.radius == 2 && p.height >= 2 && p.width % 4 == 0) return choose_outputs<2, Number>(p, f, queue);
  launch_shares(site_kernel<Number>, p, f, divide_up(p.channels * p.height * p.width, 4), queue);
}

} // namespace

void langevin_cuda(const LangevinParams &p, const LangevinFields &fields, CudaQueue queue) {
  if (p.batch == 0 || p.channels * p.height * p.width == 0) return;
  const DeviceGuard guard(queue.device);
  p.output_is_bfloat16 ? choose<std::uint16_t>(p, fields, queue) : choose<float>(p, fields, queue);
}

} // namespace eqflow
