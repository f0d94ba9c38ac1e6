// One block of CUDA threads takes a tile of rows through a network and back: states, tangents and their adjoints.
//
//   z_l = W_l h_{l-1} + b_l,  h_l = a(z_l)         Y_l,j = W_l T_{l-1,j},  T_l,j = a'(z_l) o Y_l,j
//   back: z_l' = a'(z_l) o h_l' + a''(z_l) o sum over j of Y_l,j o T_l,j',  Y_l,j' = a'(z_l) o T_l,j'
//         dW_l = z_l' h_{l-1}^T + sum over j of Y_l,j' T_{l-1,j}^T,  db_l = z_l',  h_{l-1}' = W_l^T z_l', and so T'
//
// A matrix product gives every thread eight features of four columns. Where a warp lies within one group of eight
// features it reads its weights once for all lanes. Every sum runs in an order that depends on shapes alone.
#pragma once
#include "cuda.cuh"
#include "mlp_plan.h"
#include "philox.h"

namespace eqflow {

// sigmoid of z, and with it all of a(z) = z sigmoid(z): a' = s (1 + z (1 - s)), a'' = s (1 - s) (2 + z (1 - 2 s)).
__device__ __forceinline__ float sigmoid(float z) {
#if defined(__CUDA_ARCH__)
  return __fdividef(1.0f, 1.0f + expf(-z));
#else
  return 1.0f / (1.0f + expf(-z));
#endif
}

__device__ __forceinline__ float slope_of_silu(float z, float s) { return s * fused(z, 1.0f - s, 1.0f); }

__device__ __forceinline__ float bend_of_silu(float z, float s) {
  return s * (1.0f - s) * fused(z, fused(-2.0f, s, 1.0f), 2.0f);
}

// Absolute error below 2e-7 for |angle| up to 10^4: reduced by quarters of a turn in three parts.
__device__ __forceinline__ void sine_cosine(float angle, float &sine, float &cosine) {
  const float quarter = rintf(angle * 0.636619772367581343f);
  float r = fused(quarter, -1.5703125f, angle);
  r = fused(quarter, -4.837512969970703e-4f, r);
  r = fused(quarter, -7.549789948768648e-8f, r);
  const float z = r * r;
  float s = fused(fused(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
  s = fused(s * z, r, r);
  float c = fused(fused(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
  c = fused(c * z, z, fused(z, -0.5f, 1.0f));
  const int q = static_cast<int>(quarter);
  const float even = (q & 1) ? c : s, odd = (q & 1) ? s : c;
  sine = (q & 2) ? -even : even;
  cosine = ((q + 1) & 2) ? -odd : odd;
}

// Four columns side by side.
using Four = float[4];

__device__ __forceinline__ void load_four(const float *from, Four &to) {
  const float4 four = *reinterpret_cast<const float4 *>(from);
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

__device__ __forceinline__ void store_four(float *to, const Four &from) {
  *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
}

template <Place place> class MlpBlock {
public:
  const MlpPlan &plan;
  float *weights, *arena;
  int thread = static_cast<int>(threadIdx.x);
  int rows = 0, directions = 0, columns = 0, count = 0; // count: rows that are there
  float *from, *adjoint;

  // memory: as much as lies outside shared memory, this block's.
  __device__ __forceinline__ MlpBlock(const MlpPlan &plan, float *shared, float *memory) : plan(plan) {
    if constexpr (place == Place::on_chip) {
      weights = shared;
      arena = shared + plan.weights_floats;
    } else if constexpr (place == Place::tile_on_chip) {
      weights = memory;
      arena = shared;
    } else {
      weights = memory;
      arena = memory + plan.weights_floats;
    }
    from = arena + plan.from;
    adjoint = arena + plan.adjoint;
  }

  // Rows with their tangents, or more rows without, but not many more than there are.
  __device__ __forceinline__ void set_extent(bool tangents, std::int64_t available) {
    rows = tangents ? plan.rows : available < plan.columns ? static_cast<int>(available + 3) & ~3 : plan.columns;
    directions = tangents ? plan.directions : 0;
    columns = rows * (1 + directions);
  }

  __device__ __forceinline__ void set_count(std::int64_t left) { count = left < rows ? static_cast<int>(left) : rows; }

  // parameters and place within the block, for each parameter of the network.
  template <class Function> __device__ __forceinline__ void for_each_parameter(Function function) const {
    for (int l = 0; l <= plan.hidden_layers; ++l) {
      const MlpLayer &layer = plan.layer[l];
      const int numbers = layer.out * layer.into;
      for (int i = thread; i < numbers; i += MlpPlan::threads)
        function(layer.parameters + i, layer.weights + i / layer.into * layer.stride + i % layer.into);
      if (layer.bias >= 0)
        for (int i = thread; i < layer.out; i += MlpPlan::threads)
          function(layer.parameters + numbers + i, layer.bias + i);
    }
  }

  __device__ __forceinline__ void load_weights(const float *parameters) {
    for (int i = thread; i < plan.weights_floats; i += MlpPlan::threads) weights[i] = 0.0f;
    __syncthreads();
    for_each_parameter([&](int parameter, int at) { weights[at] = parameters[parameter]; });
    __syncthreads();
  }

  // --- The way out ---------------------------------------------------------------------------------------------------

  // h_0 of the points, and its tangents. Along the axes only the features of one coordinate depend on it: nothing else
  // of those columns is ever read.
  __device__ __forceinline__ void encode() {
    const int height = (plan.inputs + 7) & ~7;
    float *const to = arena + plan.encoded;
    const float *const points = arena + plan.points, *const drawn = arena + plan.drawn;
    for (int item = thread; item < height * rows; item += MlpPlan::threads) {
      const int i = item / rows, b = item % rows, coordinate = i % plan.dimension, group = i / plan.dimension;
      float value = 0.0f, slope = 0.0f;
      if (i < plan.inputs) {
        const float x = points[b * plan.dimension + coordinate];
        if (group == 0) {
          value = x;
          slope = 1.0f;
        } else {
          const float frequency = static_cast<float>(1 << ((group - 1) / 2));
          float sine, cosine;
          sine_cosine(frequency * x, sine, cosine);
          value = group & 1 ? sine : cosine;
          slope = frequency * (group & 1 ? cosine : -sine);
        }
      }
      float *const column = to + i * plan.stride + b;
      column[0] = value;
      if (directions == 0) continue;
      if (plan.along_probes) {
        for (int k = 0; k < directions; ++k)
          column[(1 + k) * rows] = slope * drawn[(b * directions + k) * plan.dimension + coordinate];
      } else {
        column[(1 + coordinate) * rows] = slope;
      }
    }
  }

  // to = W from + b. steps: of the features that a tangent of the first layer depends on, 1 for all of them.
  __device__ __forceinline__ void multiply(const MlpLayer &layer, const float *source, float *to, int step) {
    const int groups = columns / 4, tiles = (layer.out + 7) / 8 * groups;
#pragma unroll 1
    for (int tile = thread; tile < tiles; tile += MlpPlan::threads) {
      const int column = tile % groups * 4, first = tile / groups * 8, direction = column / rows;
      const float *w = weights + layer.weights + first * layer.stride;
      const float *x = source + column;
      float sum[8][4];
      EQFLOW_UNROLL
      for (int r = 0; r < 8; ++r) {
        const float start = layer.bias >= 0 && direction == 0 ? weights[layer.bias + first + r] : 0.0f;
        EQFLOW_UNROLL
        for (int c = 0; c < 4; ++c) sum[r][c] = start;
      }
      if (step > 1) {
        const int skip = direction == 0 ? 1 : step;
        int i = direction == 0 ? 0 : direction - 1;
#pragma unroll 1
        for (; i < layer.into; i += skip) {
          Four four;
          load_four(x + i * plan.stride, four);
          EQFLOW_UNROLL
          for (int r = 0; r < 8; ++r) {
            const float weight = w[r * layer.stride + i];
            EQFLOW_UNROLL
            for (int c = 0; c < 4; ++c) sum[r][c] = fused(weight, four[c], sum[r][c]);
          }
        }
      } else {
#pragma unroll 1
        for (int i = 0; i < layer.into; i += 4, w += 4, x += 4 * plan.stride) {
          Four four[4];
          EQFLOW_UNROLL
          for (int k = 0; k < 4; ++k) load_four(x + k * plan.stride, four[k]);
          EQFLOW_UNROLL
          for (int r = 0; r < 8; ++r) {
            Four weight;
            load_four(w + r * layer.stride, weight);
            EQFLOW_UNROLL
            for (int k = 0; k < 4; ++k) {
              EQFLOW_UNROLL
              for (int c = 0; c < 4; ++c) sum[r][c] = fused(weight[k], four[k][c], sum[r][c]);
            }
          }
        }
      }
      EQFLOW_UNROLL
      for (int r = 0; r < 8; ++r) store_four(to + (first + r) * plan.stride + column, sum[r]);
    }
  }

  // to: h and T of the layer whose z and Y these are.
  __device__ __forceinline__ void activate(const MlpLayer &layer, const float *state, float *to) const {
    const int groups = rows / 4, height = (layer.out + 7) & ~7;
    for (int item = thread; item < height * groups; item += MlpPlan::threads) {
      const int at = item / groups * plan.stride + item % groups * 4;
      Four z, slope;
      load_four(state + at, z);
      EQFLOW_UNROLL
      for (int c = 0; c < 4; ++c) {
        const float s = sigmoid(z[c]);
        slope[c] = slope_of_silu(z[c], s);
        z[c] *= s;
      }
      store_four(to + at, z);
      for (int k = 1; k <= directions; ++k) {
        Four y;
        load_four(state + at + k * rows, y);
        EQFLOW_UNROLL
        for (int c = 0; c < 4; ++c) y[c] *= slope[c];
        store_four(to + at + k * rows, y);
      }
    }
  }

  // The output, moved and scaled. The threads share out the features too, and the parts are added up afterwards.
  __device__ __forceinline__ void project(const float *mean, const float *mean_rest, const float *inverse_scale) {
    const MlpLayer &layer = plan.layer[plan.hidden_layers];
    const int slices = columns < MlpPlan::threads ? MlpPlan::threads / columns : 1;
    const int height = (plan.dimension + 3) & ~3;
    float *const parts = adjoint;
#pragma unroll 1
    for (int item = thread; item < slices * columns; item += MlpPlan::threads) {
      const int slice = item / columns, column = item % columns;
#pragma unroll 1
      for (int first = 0; first < plan.dimension; first += 4) {
        const float *const w = weights + layer.weights + first * layer.stride;
        Four sum = {};
#pragma unroll 1
        for (int i = 4 * slice; i < layer.into; i += 4 * slices) {
          float x[4];
          EQFLOW_UNROLL
          for (int k = 0; k < 4; ++k) x[k] = from[(i + k) * plan.stride + column];
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
    for (int item = thread; item < plan.dimension * columns; item += MlpPlan::threads) {
      const int c = item / columns, column = item % columns;
      float sum = layer.bias >= 0 && column < rows ? weights[layer.bias + c] : 0.0f;
      for (int slice = 0; slice < slices; ++slice) sum += parts[(slice * height + c) * columns + column];
      output[c * plan.stride + column] = (column < rows ? sum - mean[c] - mean_rest[c] : sum) * inverse_scale[c];
    }
    __syncthreads();
  }

  // From the points to output = (v, J z). Leaves h and T of the last hidden layer in `from`.
  __device__ __forceinline__ void forward(const float *mean, const float *mean_rest, const float *inverse_scale) {
    encode();
    __syncthreads();
#pragma unroll 1
    for (int l = 0; l < plan.hidden_layers; ++l) {
      float *const state = arena + plan.states + (plan.stored > 1 ? l * plan.height : 0);
      const bool sparse = l == 0 && directions > 0 && !plan.along_probes;
      multiply(plan.layer[l], l == 0 ? arena + plan.encoded : from, state, sparse ? plan.dimension : 1);
      __syncthreads();
      activate(plan.layer[l], state, from);
      __syncthreads();
    }
    project(mean, mean_rest, inverse_scale);
  }

  // --- The way back --------------------------------------------------------------------------------------------------

  // to = W^T source.
  __device__ __forceinline__ void multiply_transposed(const MlpLayer &layer, const float *source, float *to) {
    const int groups = columns / 4, tiles = (layer.into + 7) / 8 * groups;
#pragma unroll 1
    for (int tile = thread; tile < tiles; tile += MlpPlan::threads) {
      const int column = tile % groups * 4, first = tile / groups * 8;
      const float *w = weights + layer.weights + first;
      const float *x = source + column;
      float sum[8][4] = {};
#pragma unroll 4
      for (int o = 0; o < layer.out; ++o, w += layer.stride, x += plan.stride) {
        Four low, high, four;
        load_four(w, low);
        load_four(w + 4, high);
        load_four(x, four);
        EQFLOW_UNROLL
        for (int r = 0; r < 4; ++r) {
          EQFLOW_UNROLL
          for (int c = 0; c < 4; ++c) {
            sum[r][c] = fused(low[r], four[c], sum[r][c]);
            sum[4 + r][c] = fused(high[r], four[c], sum[4 + r][c]);
          }
        }
      }
      EQFLOW_UNROLL
      for (int r = 0; r < 8; ++r) store_four(to + (first + r) * plan.stride + column, sum[r]);
    }
  }

  // In place: from h' and T' to z' and Y'.
  __device__ __forceinline__ void deactivate(const MlpLayer &layer, const float *state, float *both) const {
    const int groups = rows / 4, height = (layer.out + 7) & ~7;
    for (int item = thread; item < height * groups; item += MlpPlan::threads) {
      const int at = item / groups * plan.stride + item % groups * 4;
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
      for (int k = 1; k <= directions; ++k) {
        Four y, t;
        load_four(state + at + k * rows, y);
        load_four(both + at + k * rows, t);
        EQFLOW_UNROLL
        for (int c = 0; c < 4; ++c) {
          sum[c] = fused(bend[c] * y[c], t[c], sum[c]);
          t[c] *= slope[c];
        }
        store_four(both + at + k * rows, t);
      }
      store_four(both + at, sum);
    }
  }

  // Adds both * source^T over the columns to the gradient of a layer, tall x wide numbers a thread. step: of the
  // features that a tangent of the first layer depends on; the features of a thread then have one coordinate, so that
  // the columns of the others need not be met.
  template <int tall, int wide>
  __device__ __forceinline__ void add_gradient(const MlpLayer &layer, const float *both, const float *source, int step,
                                               float *gradient) const {
    const int blocks = layer.into / step, across = (blocks + wide - 1) / wide, down = (layer.out + tall - 1) / tall;
    float *const matrix = gradient + layer.parameters;
#pragma unroll 1
    for (int tile = thread; tile < across * step * down; tile += MlpPlan::threads) {
      const int q = tile % across, coordinate = tile / across % step, first = tile / across / step * tall;
      int feature[wide];
      bool there[wide];
      EQFLOW_UNROLL
      for (int i = 0; i < wide; ++i) {
        there[i] = q + i * across < blocks;
        feature[i] = there[i] ? coordinate + step * (q + i * across) : coordinate;
      }
      float before[tall][wide], sum[tall][wide];
      EQFLOW_UNROLL
      for (int o = 0; o < tall; ++o) {
        EQFLOW_UNROLL
        for (int i = 0; i < wide; ++i) {
          sum[o][i] = 0.0f;
          if (there[i] && first + o < layer.out) before[o][i] = matrix[(first + o) * layer.into + feature[i]];
        }
      }
      const float *const left = both + first * plan.stride;
      // The state's columns, and those of the tangents that are not zero.
      const int width = (columns - rows) / step;
#pragma unroll 1
      for (int part = 0; part < 2; ++part) {
        const int begin = part == 0 ? 0 : rows + coordinate * width, end = part == 0 ? rows : begin + width;
#pragma unroll 1
        for (int column = begin; column < end; column += 4) {
          Four a[tall], x;
          EQFLOW_UNROLL
          for (int o = 0; o < tall; ++o) load_four(left + o * plan.stride + column, a[o]);
          EQFLOW_UNROLL
          for (int i = 0; i < wide; ++i) {
            load_four(source + feature[i] * plan.stride + column, x);
            EQFLOW_UNROLL
            for (int o = 0; o < tall; ++o) {
              EQFLOW_UNROLL
              for (int c = 0; c < 4; ++c) sum[o][i] = fused(a[o][c], x[c], sum[o][i]);
            }
          }
        }
      }
      EQFLOW_UNROLL
      for (int o = 0; o < tall; ++o) {
        EQFLOW_UNROLL
        for (int i = 0; i < wide; ++i)
          if (there[i] && first + o < layer.out)
            matrix[(first + o) * layer.into + feature[i]] = before[o][i] + sum[o][i];
      }
    }
    if (layer.bias < 0) return;
    float *const bias = matrix + layer.out * layer.into;
    for (int o = thread; o < layer.out; o += MlpPlan::threads) {
      Four sum = {}, four;
      for (int column = 0; column < rows; column += 4) {
        load_four(both + o * plan.stride + column, four);
        EQFLOW_UNROLL
        for (int c = 0; c < 4; ++c) sum[c] += four[c];
      }
      bias[o] += sum[0] + sum[1] + (sum[2] + sum[3]);
    }
  }

  // From the seeds, the derivatives with respect to output, to the gradient. Wants `from` as forward leaves it.
  __device__ __forceinline__ void backward(float *gradient) {
    const float *const seeds = arena + plan.seeds;
    add_gradient<1, 1>(plan.layer[plan.hidden_layers], seeds, from, 1, gradient);
    multiply_transposed(plan.layer[plan.hidden_layers], seeds, adjoint);
    __syncthreads();
#pragma unroll 1
    for (int l = plan.hidden_layers - 1; l >= 0; --l) {
      const float *const state = arena + plan.states + l * plan.height;
      deactivate(plan.layer[l], state, adjoint);
      if (l > 0) activate(plan.layer[l - 1], state - plan.height, from);
      __syncthreads();
      const bool sparse = l == 0 && directions > 0 && !plan.along_probes;
      add_gradient<4, 4>(plan.layer[l], adjoint, l > 0 ? from : arena + plan.encoded, sparse ? plan.dimension : 1,
                         gradient);
      if (l == 0) break;
      __syncthreads();
      multiply_transposed(plan.layer[l], adjoint, from);
      float *const other = from;
      from = adjoint;
      adjoint = other;
      __syncthreads();
    }
    __syncthreads();
  }
};

} // namespace eqflow
