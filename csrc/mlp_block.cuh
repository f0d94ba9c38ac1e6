// One block of CUDA threads takes a tile of rows through a network and back: states, tangents and their adjoints.
//
//   z_l = W_l h_{l-1} + b_l,  h_l = a(z_l)         Y_l,j = W_l T_{l-1,j},  T_l,j = a'(z_l) o Y_l,j
//   back: z_l' = a'(z_l) o h_l' + a''(z_l) o sum over j of Y_l,j o T_l,j',  Y_l,j' = a'(z_l) o T_l,j'
//         dW_l = z_l' h_{l-1}^T + sum over j of Y_l,j' T_{l-1,j}^T,  db_l = z_l',  h_{l-1}' = W_l^T z_l', and so T'
//
// A matrix product gives every thread 8 x 4 numbers, and a warp's threads lie so that what they read at a time fills
// whole rows of the banks of shared memory. Every sum runs in an order that depends on shapes alone.
#pragma once
#include "mlp_numbers.cuh"
#include "mlp_plan.h"

namespace eqflow {

constexpr int warp = 32;

// The gradient that a block adds to: the sum of `before` arrays, `stride` apart, in their order. It replaces the first.
struct Gradient {
  float *numbers;
  std::int64_t stride;
  int before;

  // sum[i] goes to place[i], where that is not negative.
  template <int count> __device__ __forceinline__ void add(const int (&place)[count], const float (&sum)[count]) const {
    float all[count] = {};
#pragma unroll 1
    for (int array = 0; array < before; ++array) {
      EQFLOW_UNROLL
      for (int i = 0; i < count; ++i)
        if (place[i] >= 0) all[i] += numbers[array * stride + place[i]];
    }
    EQFLOW_UNROLL
    for (int i = 0; i < count; ++i)
      if (place[i] >= 0) numbers[place[i]] = all[i] + sum[i];
  }
};

template <Place place> class MlpBlock {
public:
  const MlpPlan &plan;
  const float *packed; // all weights of the model
  float *held, *arena; // what shared memory holds of them, and the tile
  int thread = static_cast<int>(threadIdx.x);
  int rows = 0, directions = 0, columns = 0, count = 0; // count: rows that are there
  int swapped_in = 0; // the hidden layer whose weights are held, where they take turns
  float *front;

  // memory: as much as lies outside shared memory, this block's.
  __device__ __forceinline__ MlpBlock(const MlpPlan &plan, const float *packed, float *shared, float *memory)
      : plan(plan), packed(packed), held(shared), arena(place == Place::on_chip ? shared + plan.held_floats : memory),
        front(arena + plan.front) {
    if constexpr (place == Place::on_chip)
      fetch_weights(0, 0, plan.swapped ? plan.resident_floats : plan.weights_floats);
  }

  // Rows with their tangents, or as many rows without as there would be columns with them.
  __device__ __forceinline__ void set_extent(bool tangents, std::int64_t all_rows) {
    rows = tangents ? plan.rows : all_rows < plan.columns ? static_cast<int>(all_rows + 3) & ~3 : plan.columns;
    directions = tangents ? plan.directions : 0;
    columns = rows * (1 + directions);
  }

  __device__ __forceinline__ void set_count(std::int64_t left) { count = left < rows ? static_cast<int>(left) : rows; }

  __device__ __forceinline__ void fetch_weights(int to, int from, int floats) {
    for (int i = 4 * thread; i < floats; i += 4 * plan.threads) copy_four(held + to + i, packed + from + i);
  }

  // Begins to fetch the weights of a layer where hidden layers take turns. Nobody may still read those of another.
  __device__ __forceinline__ void swap_in(int l) {
    if (place == Place::off_chip || !plan.swapped || l == 0 || l == swapped_in) return;
    swapped_in = l;
    fetch_weights(plan.resident_floats, plan.layer[l].weights, padded(plan.layer[l].out) * plan.layer[l].stride);
  }

  __device__ __forceinline__ const float *weights_of(int l) const {
    if constexpr (place == Place::off_chip) return packed + plan.layer[l].weights;
    return held + (plan.swapped && l > 0 && l < plan.hidden_layers ? plan.resident_floats : plan.layer[l].weights);
  }

  __device__ __forceinline__ const float *bias_of(int l) const { // or null
    if (plan.layer[l].bias < 0) return nullptr;
    return (place == Place::on_chip ? held : packed) + plan.layer[l].bias;
  }

  // --- The way out ---------------------------------------------------------------------------------------------------

  // h_0 of the points, and its tangents. Along the axes only the features of one coordinate depend on it: nothing else
  // of those columns is ever read.
  __device__ __forceinline__ void encode() {
    float *const to = arena + plan.encoded;
    const float *const points = arena + plan.points, *const drawn = arena + plan.drawn;
    const auto put = [&](int feature, int b, int coordinate, float value, float slope) {
      float *const column = to + feature * plan.stride + b;
      column[0] = value;
      if (directions == 0) return;
      if (plan.along_probes) {
#pragma unroll 1
        for (int k = 0; k < directions; ++k)
          column[(1 + k) * rows] = slope * drawn[(b * directions + k) * plan.dimension + coordinate];
      } else {
        column[(1 + coordinate) * rows] = slope;
      }
    };
    for (int item = thread; item < (1 + plan.frequencies) * plan.dimension * rows; item += plan.threads) {
      const int b = item % rows, octave = item / rows / plan.dimension, coordinate = item / rows % plan.dimension;
      const float x = points[b * plan.dimension + coordinate];
      if (octave == 0) {
        put(coordinate, b, coordinate, x, 1.0f);
        continue;
      }
      const float frequency = static_cast<float>(1 << (octave - 1));
      float sine, cosine;
      sine_cosine(frequency * x, sine, cosine);
      const int feature = (2 * octave - 1) * plan.dimension + coordinate;
      put(feature, b, coordinate, sine, frequency * cosine);
      put(feature + plan.dimension, b, coordinate, cosine, -frequency * sine);
    }
  }

  // A product that is `features` tall: 8 x 4 numbers of it, or half of what they are sums of, are formed by
  // accumulate(column, feature, half, halves, sum), `column` and `feature` being the first ones and `distance` the step
  // from one of the features to the next. row(band, lane) is that first feature, for which of four threads a warp has
  // beside each other on the features from `band` on. Two threads share a sum where there are enough of them.
  template <class Row, class Accumulate>
  __device__ __forceinline__ void form(int features, float *to, Row row, int distance, Accumulate accumulate) const {
    const int across = (columns + MlpPlan::wide - 1) / MlpPlan::wide;
    const int items = padded(features) / MlpPlan::tall * across * warp, halves = 2 * items <= plan.threads ? 2 : 1;
#pragma unroll 1
    for (int start = 0; start < halves * items; start += plan.threads) {
      const int half = (start + thread) / items, item = start + thread - half * items;
      const int share = item / warp, lane = item % warp;
      const int column = share % across * MlpPlan::wide + lane % 8 * broad, band = share / across * MlpPlan::tall;
      const bool there = half < halves && column < columns;
      float *const at = to + row(band, lane / 8) * plan.stride + column;
      float sum[high][4] = {};
      if (there) accumulate(column, row(band, lane / 8), half, halves, sum);
      if (halves == 2) {
        if (there && half == 1) store_rows(at, distance, sum);
        __syncthreads();
        if (!there || half == 1) continue;
        EQFLOW_UNROLL
        for (int r = 0; r < high; ++r) {
          Four other;
          load_four(at + r * distance * plan.stride, other);
          EQFLOW_UNROLL
          for (int c = 0; c < 4; ++c) sum[r][c] += other[c];
        }
      }
      if (there) store_rows(at, distance, sum);
    }
  }

  __device__ __forceinline__ void store_rows(float *at, int distance, const float (&sum)[MlpPlan::high][4]) const {
    EQFLOW_UNROLL
    for (int r = 0; r < MlpPlan::high; ++r) store_four<place>(at + r * distance * plan.stride, sum[r]);
  }

  // Where a sum begins: at the bias in the columns of the state.
  __device__ __forceinline__ void begin(const float *bias, int distance, float (&sum)[MlpPlan::high][4]) const {
    EQFLOW_UNROLL
    for (int r = 0; r < MlpPlan::high; ++r) {
      EQFLOW_UNROLL
      for (int c = 0; c < 4; ++c) sum[r][c] = bias[r * distance];
    }
  }

  // to = W source + b, of a hidden layer after the first.
  __device__ __forceinline__ void multiply(int l, const float *source, float *to) const {
    const MlpLayer &layer = plan.layer[l];
    // Every fourth feature, so that the rows that a warp reads lie side by side.
    const auto row = [](int band, int lane) { return band + lane; };
    form(layer.out, to, row, 4, [&](int column, int first, int half, int halves, float (&sum)[high][4]) {
      const int middle = halves == 2 ? (layer.into / 2 + 3) & ~3 : layer.into;
      const int from = half == 0 ? 0 : middle, end = half == 0 ? middle : layer.into;
      const float *w = weights_of(l) + first * layer.stride + from, *x = source + from * plan.stride + column;
      if (half == 0 && column < rows) begin(bias_of(l) + first, 4, sum);
#pragma unroll 1
      for (int i = from; i < end; i += 4, w += 4, x += 4 * plan.stride) {
        Four four[4];
        EQFLOW_UNROLL
        for (int k = 0; k < 4; ++k) load_four(x + k * plan.stride, four[k]);
        EQFLOW_UNROLL
        for (int r = 0; r < high; ++r) {
          Four weight;
          load_four(w + 4 * r * layer.stride, weight);
          EQFLOW_UNROLL
          for (int k = 0; k < 4; ++k) {
            EQFLOW_UNROLL
            for (int c = 0; c < 4; ++c) sum[r][c] = fused(weight[k], four[k][c], sum[r][c]);
          }
        }
      }
    });
  }

  // to = W^T source (+ b), W of `height` rows. along_axes: of the rows, the tangent of direction j has j, j + d, ...
  __device__ __forceinline__ void multiply_transposed(const float *weights, int stride, int height, const float *bias,
                                                      int features, bool along_axes, const float *source,
                                                      float *to) const {
    const auto row = [](int band, int lane) { return band + high * lane; };
    form(features, to, row, 1, [&](int column, int first, int half, int halves, float (&sum)[high][4]) {
      const int direction = along_axes ? column / rows : 0, step = direction == 0 ? 1 : plan.dimension;
      const int start = direction == 0 ? 0 : direction - 1,
                middle = halves == 2 ? (height / step + 1) / 2 * step : height;
      const int from = start + (half == 0 ? 0 : middle), end = half == 0 && halves == 2 ? start + middle : height;
      const float *w = weights + from * stride + first, *x = source + from * plan.stride + column;
      if (bias && half == 0 && column < rows) begin(bias + first, 1, sum);
#pragma unroll 4
      for (int o = from; o < end; o += step, w += step * stride, x += step * plan.stride) {
        Four weight[high / 4], four;
        EQFLOW_UNROLL
        for (int r = 0; r < high / 4; ++r) load_four(w + 4 * r, weight[r]);
        load_four(x, four);
        EQFLOW_UNROLL
        for (int r = 0; r < high; ++r) {
          EQFLOW_UNROLL
          for (int c = 0; c < 4; ++c) sum[r][c] = fused(weight[r / 4][r % 4], four[c], sum[r][c]);
        }
      }
    });
  }

  // Where four rows of a feature lie in a buffer, for each feature of a layer: the lanes of a warp take many features,
  // which lie in different banks.
  template <class Function>
  __device__ __forceinline__ void for_each_four(const MlpLayer &layer, Function function) const {
    const int height = padded(layer.out);
#pragma unroll 1
    for (int item = thread; item < height * rows / 4; item += plan.threads)
      function(item % height * plan.stride + item / height * 4);
  }

  // to: h and T of the layer whose z and Y these are.
  __device__ __forceinline__ void activate(const MlpLayer &layer, const float *state, float *to) const {
    for_each_four(layer, [&](int at) {
      Four z, slope;
      load_four(state + at, z);
      EQFLOW_UNROLL
      for (int c = 0; c < 4; ++c) {
        const float s = sigmoid(z[c]);
        slope[c] = slope_of_silu(z[c], s);
        z[c] *= s;
      }
      store_four<place>(to + at, z);
#pragma unroll 1
      for (int k = 1; k <= directions; ++k) {
        Four y;
        load_four(state + at + k * rows, y);
        EQFLOW_UNROLL
        for (int c = 0; c < 4; ++c) y[c] *= slope[c];
        store_four<place>(to + at + k * rows, y);
      }
    });
  }

  // The output, moved and scaled. The threads share out the features too, and the parts are added up afterwards.
  __device__ __forceinline__ void project(const float *mean, const float *mean_rest, const float *inverse_scale) {
    const MlpLayer &layer = plan.layer[plan.hidden_layers];
    const float *const weights = weights_of(plan.hidden_layers), *const bias = bias_of(plan.hidden_layers);
    const int fitting = plan.threads / columns, slices = fitting > MlpPlan::most_slices ? MlpPlan::most_slices
                                                         : fitting > 1                  ? fitting
                                                                                        : 1;
    const int height = (plan.dimension + 3) & ~3;
    float *const parts = arena + plan.parts;
#pragma unroll 1
    for (int item = thread; item < slices * columns; item += plan.threads) {
      const int slice = item / columns, column = item % columns;
#pragma unroll 1
      for (int first = 0; first < plan.dimension; first += 4) {
        const float *const w = weights + first * layer.stride;
        Four sum = {};
#pragma unroll 1
        for (int i = 4 * slice; i < layer.into; i += 4 * slices) {
          float x[4];
          EQFLOW_UNROLL
          for (int k = 0; k < 4; ++k) x[k] = front[(i + k) * plan.stride + column];
          EQFLOW_UNROLL
          for (int r = 0; r < 4; ++r) {
            Four weight;
            load_four(w + r * layer.stride + i, weight);
            EQFLOW_UNROLL
            for (int k = 0; k < 4; ++k) sum[r] = fused(weight[k], x[k], sum[r]);
          }
        }
        EQFLOW_UNROLL
        for (int r = 0; r < 4; ++r) parts[(slice * height + first + r) * columns + column] = sum[r];
      }
    }
    __syncthreads();
    float *const output = arena + plan.output;
    for (int item = thread; item < plan.dimension * columns; item += plan.threads) {
      const int c = item / columns, column = item % columns;
      float sum = bias && column < rows ? bias[c] : 0.0f;
      for (int slice = 0; slice < slices; ++slice) sum += parts[(slice * height + c) * columns + column];
      output[c * plan.stride + column] = (column < rows ? sum - mean[c] - mean_rest[c] : sum) * inverse_scale[c];
    }
    __syncthreads();
  }

  // From the points to output = (v, J z). Leaves h and T of the last hidden layer in `front`.
  __device__ __forceinline__ void forward(const float *mean, const float *mean_rest, const float *inverse_scale) {
    encode();
    wait_for_copies();
    __syncthreads();
#pragma unroll 1
    for (int l = 0; l < plan.hidden_layers; ++l) {
      const MlpLayer &layer = plan.layer[l];
      float *const state = state_of(l);
      if (l == 0)
        multiply_transposed(weights_of(0), layer.stride, layer.into, bias_of(0), layer.out, !plan.along_probes,
                            arena + plan.encoded, state);
      else
        multiply(l, front, state);
      __syncthreads();
      if (l + 1 < plan.hidden_layers) swap_in(l + 1);
      activate(layer, state, front);
      wait_for_copies();
      __syncthreads();
    }
    project(mean, mean_rest, inverse_scale);
  }

  // --- The way back --------------------------------------------------------------------------------------------------

  // In place: from h' and T' to z' and Y'.
  __device__ __forceinline__ void deactivate(const MlpLayer &layer, const float *state, float *both) const {
    for_each_four(layer, [&](int at) {
      Four z, slope, bend, sum;
      load_four(state + at, z);
      load_four(both + at, sum);
      EQFLOW_UNROLL
      for (int c = 0; c < 4; ++c) {
        const float s = sigmoid(z[c]);
        slope[c] = slope_of_silu(z[c], s);
        bend[c] = bend_of_silu(z[c], s);
        sum[c] *= slope[c];
      }
#pragma unroll 1
      for (int k = 1; k <= directions; ++k) {
        Four y, t;
        load_four(state + at + k * rows, y);
        load_four(both + at + k * rows, t);
        EQFLOW_UNROLL
        for (int c = 0; c < 4; ++c) {
          sum[c] = fused(bend[c] * y[c], t[c], sum[c]);
          t[c] *= slope[c];
        }
        store_four<place>(both + at + k * rows, t);
      }
      store_four<place>(both + at, sum);
    });
  }

  // Adds both * source^T over the columns to the gradient of a layer, outs x ins numbers two threads. step: of the
  // features that a tangent of the first layer depends on; the features of a thread then have one coordinate, so that
  // the columns of the others need not be met. A warp takes 4 rows times 4 features side by side, and so does each of
  // the other rows and features of its threads; two threads share the columns, and then the numbers.
  template <int outs, int ins>
  __device__ __forceinline__ void add_gradient(const MlpLayer &layer, const float *both, const float *source, int step,
                                               const Gradient &gradient) const {
    const int blocks = layer.into / step, across = (blocks + ins - 1) / ins, down = (layer.out + outs - 1) / outs;
    const int shares = (across * step + 3) / 4;
#pragma unroll 1
    for (int item = thread; item < shares * ((down + 3) / 4) * warp; item += plan.threads) {
      const int share = item / warp, lane = item % warp, half = lane / 16;
      const int wanted = share % shares * 4 + lane % 4, wanted_row = share / shares * 4 + lane / 4 % 4;
      const bool there = wanted < across * step && wanted_row < down; // all lanes exchange their sums
      const int q = there ? wanted : 0, first = there ? wanted_row : 0;
      const int coordinate = q / across; // 0 where step is 1
      const auto feature = [&](int i) {  // or -1
        const int place_of_feature = q - coordinate * across + i * across;
        return there && place_of_feature < blocks ? coordinate + step * place_of_feature : -1;
      };
      const auto row = [&](int o) { return first + o * down < layer.out ? first + o * down : -1; };
      // Half of the columns; or the state's, and those of the tangents that are not zero.
      const int middle = (columns / 2 + 3) & ~3;
      const int begin = half == 0 ? 0 : step == 1 ? middle : rows * (1 + coordinate);
      const int end = step > 1 ? begin + rows : half == 0 ? middle : columns;
      const float *left[outs], *right[ins];
      float sum[outs * ins] = {};
      EQFLOW_UNROLL
      for (int o = 0; o < outs; ++o) left[o] = both + (row(o) < 0 ? first : row(o)) * plan.stride + begin;
      EQFLOW_UNROLL
      for (int i = 0; i < ins; ++i)
        right[i] = source + (feature(i) < 0 ? coordinate : feature(i)) * plan.stride + begin;
#pragma unroll 1
      for (int column = begin; column < end; column += 4) {
        Four x[ins], a;
        EQFLOW_UNROLL
        for (int i = 0; i < ins; ++i) {
          load_four(right[i], x[i]);
          right[i] += 4;
        }
        EQFLOW_UNROLL
        for (int o = 0; o < outs; ++o) {
          load_four(left[o], a);
          left[o] += 4;
          EQFLOW_UNROLL
          for (int i = 0; i < ins; ++i) {
            EQFLOW_UNROLL
            for (int c = 0; c < 4; ++c) sum[o * ins + i] = fused(a[c], x[i][c], sum[o * ins + i]);
          }
        }
      }
      constexpr int kept = (outs + 1) / 2; // rows of each of the two threads; the only row is the first one's
      float own[kept * ins];
      int place_of_sum[kept * ins];
      EQFLOW_UNROLL
      for (int o = 0; o < kept; ++o) {
        const int own_row = outs == 1 && half == 1 ? -1 : half == 0 ? row(o) : row(o + outs / 2);
        EQFLOW_UNROLL
        for (int i = 0; i < ins; ++i) {
          const float lower = sum[o * ins + i], upper = sum[(o + outs / 2) * ins + i];
          own[o * ins + i] = (half == 0 ? lower : upper) + __shfl_xor_sync(~0u, half == 0 ? upper : lower, 16);
          place_of_sum[o * ins + i] =
              own_row < 0 || feature(i) < 0 ? -1 : layer.parameters + own_row * layer.into + feature(i);
        }
      }
      gradient.add(place_of_sum, own);
    }
    if (layer.bias < 0) return;
    for (int o = plan.threads - 1 - thread; o < layer.out; o += plan.threads) { // the last warps had less to do
      Four sum = {}, four;
#pragma unroll 1
      for (int column = 0; column < rows; column += 4) {
        load_four(both + o * plan.stride + column, four);
        EQFLOW_UNROLL
        for (int c = 0; c < 4; ++c) sum[c] += four[c];
      }
      gradient.add({layer.parameters + layer.out * layer.into + o}, {sum[0] + sum[1] + (sum[2] + sum[3])});
    }
  }

  // From the seeds, the derivatives with respect to output, to the gradient. Wants `front` as forward leaves it.
  __device__ __forceinline__ void backward(const Gradient &gradient) {
    const float *const seeds = arena + plan.seeds;
    const MlpLayer &last = plan.layer[plan.hidden_layers];
    add_gradient<1, 1>(last, seeds, front, 1, gradient);
    float *adjoint = front;
#pragma unroll 1
    for (int l = plan.hidden_layers - 1;; --l) {
      // The states of the layer above, and before them `front`, are not needed any more: so its h_{l-1} and T_{l-1} and
      // then the adjoint of this one take their place.
      float *const free = l + 1 < plan.hidden_layers ? state_of(l + 1) : front;
      const MlpLayer &above = plan.layer[l + 1];
      wait_for_copies();
      __syncthreads();
      multiply_transposed(weights_of(l + 1), above.stride, above.out, nullptr, above.into, false,
                          l + 1 < plan.hidden_layers ? adjoint : seeds, free);
      adjoint = free;
      __syncthreads();
      swap_in(l);
      deactivate(plan.layer[l], state_of(l), adjoint);
      __syncthreads();
      if (l > 0) {
        activate(plan.layer[l - 1], state_of(l - 1), state_of(l));
        __syncthreads();
      }
      const bool sparse = l == 0 && directions > 0 && !plan.along_probes;
      add_gradient<high, broad>(plan.layer[l], adjoint, l > 0 ? state_of(l) : arena + plan.encoded,
                                sparse ? plan.dimension : 1, gradient);
      if (l == 0) break;
    }
    __syncthreads();
  }

private:
  static constexpr int high = MlpPlan::high, broad = MlpPlan::broad;

  __device__ __forceinline__ static int padded(int features) {
    return (features + MlpPlan::tall - 1) / MlpPlan::tall * MlpPlan::tall;
  }

  __device__ __forceinline__ float *state_of(int l) const {
    return arena + plan.states + (plan.kept ? l * plan.height : 0);
  }
};

} // namespace eqflow
