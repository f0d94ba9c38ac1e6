// The moments of still pictures: see eqflow/ops/field_moments.py for the contract, eqflow/ops/_moment_plan.py for the
// programs.
//
// Two kernels take turns on as many pictures as the workspace holds. The first evaluates every field of a picture, each
// thread one field at one pixel, in float64, and rounds it to float32. The second multiplies rows by columns: a block
// makes 16 x 16 moments of a picture, a thread 4 x 4 of them over one pixel in 16. Sums are float32 over 32 products
// and float64 beyond.
#include "cuda.cuh"
#include "kernels.h"
#include "philox.h"

namespace eqflow {
namespace {

constexpr int threads = 256;
constexpr int side = 16;          // rows, and columns, of a block
constexpr int shares = 16;        // threads that share the pixels of 4 x 4 moments
constexpr int tile = 128;         // pixels in shared memory
constexpr int stretch = 4 * tile; // pixels whose sums are float32
constexpr int padded = side + 4;  // a stride at which 8 threads read their 16 bytes from all banks

constexpr int reach = 2, span = 2 * reach + 1;
constexpr int operators = 6;

// The weights of each operator on a pixel and its surroundings, row by row; a squared gradient has those of its slope
// along a row here, and its slope down a column is that of y_derivative.
struct Stencils {
  double weights[operators][span * span];
};

Stencils stencils_of(bool nine_point) {
  Stencils all{};
  const auto weight = [&](FieldOperator operation, int down, int right) -> double & {
    return all.weights[static_cast<int>(operation)][(reach + down) * span + reach + right];
  };
  const double edge = nine_point ? 4.0 / 6 : 1, corner = nine_point ? 1.0 / 6 : 0;
  const double laplacian[3][3] = {{corner, edge, corner}, {edge, -4 * (edge + corner), edge}, {corner, edge, corner}};
  weight(FieldOperator::value, 0, 0) = 1;
  for (int i = 0; i < 9; ++i) {
    weight(FieldOperator::laplacian, i / 3 - 1, i % 3 - 1) = laplacian[i / 3][i % 3];
    for (int j = 0; j < 9; ++j)
      weight(FieldOperator::bilaplacian, i / 3 + j / 3 - 2, i % 3 + j % 3 - 2) +=
          laplacian[i / 3][i % 3] * laplacian[j / 3][j % 3];
  }
  for (const int sign : {-1, 1}) {
    weight(FieldOperator::squared_gradient, 0, sign) = weight(FieldOperator::x_derivative, 0, sign) = 0.5 * sign;
    weight(FieldOperator::y_derivative, sign, 0) = 0.5 * sign;
  }
  return all;
}

__device__ __forceinline__ std::int64_t wrapped(std::int64_t i, std::int64_t size) {
  return i < 0 ? i + size : i >= size ? i - size : i;
}

// An operator of a monomial at a pixel.
__device__ __forceinline__ double field(const FieldMomentsParams &p, const FieldProgram &program,
                                        const Stencils &stencils, std::int64_t index, const float *__restrict__ picture,
                                        const float *__restrict__ units, std::int64_t i, std::int64_t j) {
  const int first = program.fields[2 * index], operation = program.fields[2 * index + 1];
  const bool squared = operation == static_cast<int>(FieldOperator::squared_gradient);
  double along = 0, across = 0;
  for (int at = 0; at < span * span; ++at) {
    const double weight = stencils.weights[operation][at];
    const double other = squared ? stencils.weights[static_cast<int>(FieldOperator::y_derivative)][at] : 0;
    if (weight == 0 && other == 0) continue;
    const std::int64_t row = wrapped(i + at / span - reach, p.height), column = wrapped(j + at % span - reach, p.width);
    double value = 1;
    for (int m = first; m > 0; m = program.monomials[2 * m]) {
      const int channel = program.monomials[2 * m + 1];
      const double number = static_cast<double>(picture[(channel * p.height + row) * p.width + column]);
      value *= static_cast<double>(units[channel]) * number;
    }
    along += weight * value;
    across += other * value;
  }
  return squared ? along * along + across * across : along;
}

// fields[picture][row fields, then column fields][pixel inside the margin]; blocks along x are pixels of a picture,
// along y fields.
__global__ void __launch_bounds__(threads)
    fields_kernel(FieldMomentsParams p, FieldProgram rows, FieldProgram columns, Stencils stencils,
                  std::int64_t blocks_of_picture, const float *__restrict__ state, const float *__restrict__ at,
                  const float *__restrict__ units, float *__restrict__ fields) {
  const std::int64_t width = p.width - 2 * p.margin, pixels = (p.height - 2 * p.margin) * width;
  const std::int64_t picture = blockIdx.x / blocks_of_picture;
  const std::int64_t pixel = (blockIdx.x % blocks_of_picture) * threads + threadIdx.x;
  if (pixel >= pixels) return;
  const std::int64_t offset = picture * p.channels * p.height * p.width, count = rows.field_count + columns.field_count;
  const float *unit = units + picture * p.channels;
  const std::int64_t i = p.margin + pixel / width, j = p.margin + pixel % width;
  for (std::int64_t f = blockIdx.y; f < count; f += gridDim.y) {
    const bool of_row = f < rows.field_count;
    const double value = of_row ? field(p, rows, stencils, f, at + offset, unit, i, j)
                                : field(p, columns, stencils, f - rows.field_count, state + offset, unit, i, j);
    fields[(picture * count + f) * pixels + pixel] = static_cast<float>(value);
  }
}

// One pixel of one product; zero where there is no such product.
__device__ __forceinline__ float product(const FieldProgram &program, const float *__restrict__ fields,
                                         std::int64_t pixels, std::int64_t index, std::int64_t pixel) {
  if (index >= program.product_count || pixel >= pixels) return 0;
  const int first = program.products[2 * index], second = program.products[2 * index + 1];
  const float value = fields[first * pixels + pixel];
  return second < 0 ? value : value * fields[second * pixels + pixel];
}

__global__ void __launch_bounds__(threads)
    products_kernel(FieldMomentsParams p, FieldProgram rows, FieldProgram columns, std::int64_t row_blocks,
                    std::int64_t column_blocks, const float *__restrict__ fields, double *__restrict__ moments) {
  __shared__ float4 row_tile[tile * padded / 4], column_tile[tile * padded / 4];
  const std::int64_t pixels = (p.height - 2 * p.margin) * (p.width - 2 * p.margin);
  const std::int64_t picture = blockIdx.x / (row_blocks * column_blocks);
  const std::int64_t first_row = blockIdx.x / column_blocks % row_blocks * side;
  const std::int64_t first_column = blockIdx.x % column_blocks * side;
  const float *row_fields = fields + picture * (rows.field_count + columns.field_count) * pixels;
  const float *column_fields = row_fields + rows.field_count * pixels;
  const int thread = static_cast<int>(threadIdx.x), share = thread % shares;
  const int row = thread / shares / 4, column = thread / shares % 4; // of the 4 x 4 groups of 4 x 4 moments

  double sums[16] = {}; // of 4 rows by 4 columns
  for (std::int64_t start = 0; start < pixels; start += stretch) {
    float part[16] = {};
    for (std::int64_t first = start; first < start + stretch && first < pixels; first += tile) {
      __syncthreads(); // the tile before has been read
      for (int i = thread; i < tile * side; i += threads) {
        const int pixel = i % tile, index = i / tile;
        reinterpret_cast<float *>(row_tile)[pixel * padded + index] =
            product(rows, row_fields, pixels, first_row + index, first + pixel);
        reinterpret_cast<float *>(column_tile)[pixel * padded + index] =
            product(columns, column_fields, pixels, first_column + index, first + pixel);
      }
      __syncthreads();
      EQFLOW_UNROLL
      for (int n = 0; n < tile / shares; ++n) {
        const int pixel = (share + n * shares) * (padded / 4);
        const float4 r = row_tile[pixel + row], c = column_tile[pixel + column];
        const float a[4] = {r.x, r.y, r.z, r.w}, b[4] = {c.x, c.y, c.z, c.w};
        EQFLOW_UNROLL
        for (int m = 0; m < 16; ++m) part[m] = fmaf(a[m / 4], b[m % 4], part[m]);
      }
    }
    EQFLOW_UNROLL
    for (int n = 0; n < 16; ++n) sums[n] += static_cast<double>(part[n]);
  }

  const double of_pixel = 1 / static_cast<double>(pixels);
  EQFLOW_UNROLL
  for (int n = 0; n < 16; ++n) {
    double sum = sums[n];
    for (int away = shares / 2; away > 0; away /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, away);
    const std::int64_t r = first_row + 4 * row + n / 4, c = first_column + 4 * column + n % 4;
    if (share == 0 && r < rows.product_count && c < columns.product_count)
      moments[(picture * rows.product_count + r) * columns.product_count + c] = sum * of_pixel;
  }
}

} // namespace

std::int64_t field_moments_cuda_workspace(const FieldMomentsParams &p, const FieldProgram &rows,
                                          const FieldProgram &columns) {
  return (rows.field_count + columns.field_count) * (p.height - 2 * p.margin) * (p.width - 2 * p.margin);
}

void field_moments_cuda(const FieldMomentsParams &p, const FieldProgram &rows, const FieldProgram &columns,
                        const float *state, const float *at, const float *units, double *moments, float *workspace,
                        std::int64_t workspace_size, CudaQueue queue) {
  const DeviceGuard guard(queue.device);
  const std::int64_t at_once = workspace_size / field_moments_cuda_workspace(p, rows, columns);
  const std::int64_t pixels = (p.height - 2 * p.margin) * (p.width - 2 * p.margin);
  const std::int64_t pixel_blocks = (pixels + threads - 1) / threads;
  const std::int64_t row_blocks = (rows.product_count + side - 1) / side;
  const std::int64_t column_blocks = (columns.product_count + side - 1) / side;
  const Stencils stencils = stencils_of(p.nine_point);
  const std::int64_t fields = rows.field_count + columns.field_count;
  for (std::int64_t first = 0; first < p.batch; first += at_once) {
    const std::int64_t pictures = p.batch - first < at_once ? p.batch - first : at_once;
    const std::int64_t offset = first * p.channels * p.height * p.width;
    const dim3 grid(blocks_along_x(pictures * pixel_blocks), static_cast<unsigned>(fields < 1024 ? fields : 1024));
    EQFLOW_LAUNCH(fields_kernel, grid, threads, 0, stream_of(queue), p, rows, columns, stencils, pixel_blocks,
                  state + offset, at + offset, units + first * p.channels, workspace);
    EQFLOW_LAUNCH(products_kernel, blocks_along_x(pictures * row_blocks * column_blocks), threads, 0, stream_of(queue),
                  p, rows, columns, row_blocks, column_blocks, workspace,
                  moments + first * rows.product_count * columns.product_count);
  }
}

} // namespace eqflow
