// The moments of still pictures: see eqflow/ops/field_moments.py for the contract, eqflow/ops/_moment_plan.py for the
// programs.
//
// A picture is met in tiles that stay in the nearest caches. Monomials and stencils of a tile are float64, so that the
// small differences of large monomials keep their digits; then every factor is rounded to float32. The products of all
// rows and columns are a matrix product over the pixels, held in registers: lanes are pixels. Sums are float32 over 32
// vectors of pixels and float64 beyond.
#include "kernels.h"
#include "simd.h"

#include <cstdlib>
#include <type_traits>

namespace eqflow::EQFLOW_ISA {
namespace {

using std::int32_t;
using std::int64_t;

#if defined(__AVX512F__)
using Lanes = Float16;
constexpr int tile_rows = 6; // of the matrix product: with tile_columns, what the registers hold
#elif defined(__AVX2__)
using Lanes = Float8;
constexpr int tile_rows = 3;
#else
using Lanes = Float4;
constexpr int tile_rows = 3;
#endif
using V = Lanes::V;

constexpr int tile_columns = 4;
constexpr int stretch = 32 * Lanes::lanes; // pixels whose sums are float32
constexpr int64_t tile_height = 8, tile_width = 64, most_pixels = tile_height * tile_width;
constexpr int64_t most_reach = 2, pitch = tile_width + 2 * most_reach;
constexpr int64_t halo_size = (tile_height + 2 * most_reach) * pitch; // of a tile and what its stencils reach

struct Tile {
  int64_t top, left, height, width; // of its pixels in the picture
  int64_t pixels() const { return height * width; }
  int64_t padded() const { return (pixels() + Lanes::lanes - 1) / Lanes::lanes * Lanes::lanes; }
};

// The memory of one thread. Fields and products of a tile are packed: `width` pixels, then the next row.
struct Scratch {
  double *channels, *monomials, *laplacians; // [..][halo_size]
  float *row_fields, *column_fields;         // [fields][most_pixels]
  float *row_products, *column_products;     // [products][most_pixels]
  const float **rows, **columns;             // where each product of a tile lies, then zeros to fill the last tile
  float *zeros;                              // [most_pixels]
  double *sums;                              // [rows][columns], both filled up to whole tiles
};

int64_t up_to_whole(int64_t count, int64_t of) { return (count + of - 1) / of * of; }

int64_t reach_of(const FieldProgram &program) {
  int64_t reach = 0;
  for (int64_t f = 0; f < program.field_count; ++f) {
    const auto operation = static_cast<FieldOperator>(program.fields[2 * f + 1]);
    const int64_t one = operation == FieldOperator::value ? 0 : operation == FieldOperator::bilaplacian ? 2 : 1;
    reach = one > reach ? one : reach;
  }
  return reach;
}

// The channels of a tile and its surroundings as float64. Pixel (0, 0) of the tile lands at origin.
void load(const FieldMomentsParams &p, const float *picture, const Tile &tile, int64_t reach, double *channels) {
  const auto wrapped = [](int64_t i, int64_t size) { return ((i % size) + size) % size; };
  for (int64_t c = 0; c < p.channels; ++c)
    for (int64_t i = -reach; i < tile.height + reach; ++i) {
      const float *from = picture + (c * p.height + wrapped(tile.top + i, p.height)) * p.width;
      double *to = channels + c * halo_size + (i + most_reach) * pitch + most_reach;
      for (int64_t j = 0; j < tile.width; ++j) to[j] = static_cast<double>(from[tile.left + j]);
      for (int64_t j = 1; j <= reach; ++j) {
        to[-j] = static_cast<double>(from[wrapped(tile.left - j, p.width)]);
        to[tile.width - 1 + j] = static_cast<double>(from[wrapped(tile.left + tile.width - 1 + j, p.width)]);
      }
    }
}

// Every monomial from the one below it.
void multiply_up(const FieldProgram &program, const Tile &tile, int64_t reach, Scratch &s) {
  const int64_t first = (most_reach - reach) * pitch + most_reach - reach, width = tile.width + 2 * reach;
  for (int64_t m = 0; m < program.monomial_count; ++m) {
    double *row = s.monomials + m * halo_size + first;
    const double *lower = s.monomials + program.monomials[2 * m] * halo_size + first;
    const double *channel = s.channels + program.monomials[2 * m + 1] * halo_size + first;
    for (int64_t i = 0; i < tile.height + 2 * reach; ++i, row += pitch, lower += pitch, channel += pitch) {
      double *__restrict to = row;
      const double *__restrict a = lower, *__restrict b = channel;
      if (m == 0)
        for (int64_t j = 0; j < width; ++j) to[j] = 1;
      else
        for (int64_t j = 0; j < width; ++j) to[j] = a[j] * b[j];
    }
  }
}

template <class Number>
void laplacian(bool nine_point, const double *from, Number *to, int64_t height, int64_t width, int64_t to_pitch) {
  for (int64_t i = 0; i < height; ++i) {
    const double *__restrict at = from + i * pitch;
    const double *__restrict above = at - pitch, *__restrict below = at + pitch;
    Number *__restrict out = to + i * to_pitch;
    if (nine_point)
      for (int64_t j = 0; j < width; ++j) {
        const double edges = (above[j] + below[j]) + (at[j - 1] + at[j + 1]);
        const double corners = (above[j - 1] + below[j - 1]) + (above[j + 1] + below[j + 1]);
        out[j] = static_cast<Number>((4 * (edges - 5 * at[j]) + corners) * (1.0 / 6));
      }
    else
      for (int64_t j = 0; j < width; ++j)
        out[j] = static_cast<Number>((above[j] + below[j]) + (at[j - 1] + at[j + 1]) - 4 * at[j]);
  }
}

// One field of a tile, packed.
void operate(const FieldMomentsParams &p, FieldOperator operation, const double *monomial, const Tile &tile,
             double *laplacians, float *to) {
  const int64_t origin = most_reach * pitch + most_reach;
  if (operation == FieldOperator::laplacian)
    return laplacian(p.nine_point, monomial + origin, to, tile.height, tile.width, tile.width);
  if (operation == FieldOperator::bilaplacian) {
    laplacian(p.nine_point, monomial + origin - pitch - 1, laplacians + origin - pitch - 1, tile.height + 2,
              tile.width + 2, pitch);
    return laplacian(p.nine_point, laplacians + origin, to, tile.height, tile.width, tile.width);
  }
  for (int64_t i = 0; i < tile.height; ++i, to += tile.width) {
    const double *__restrict at = monomial + origin + i * pitch;
    const double *__restrict above = at - pitch, *__restrict below = at + pitch;
    float *__restrict out = to;
    switch (operation) {
    case FieldOperator::squared_gradient:
      for (int64_t j = 0; j < tile.width; ++j) {
        const double along = at[j + 1] - at[j - 1], across = below[j] - above[j];
        out[j] = static_cast<float>(0.25 * (along * along + across * across));
      }
      break;
    case FieldOperator::x_derivative:
      for (int64_t j = 0; j < tile.width; ++j) out[j] = static_cast<float>(0.5 * (at[j + 1] - at[j - 1]));
      break;
    case FieldOperator::y_derivative:
      for (int64_t j = 0; j < tile.width; ++j) out[j] = static_cast<float>(0.5 * (below[j] - above[j]));
      break;
    default:
      for (int64_t j = 0; j < tile.width; ++j) out[j] = static_cast<float>(at[j]);
    }
  }
}

// All products of one side on a tile; `where` is told their places.
void evaluate(const FieldMomentsParams &p, const FieldProgram &program, const float *picture, const Tile &tile,
              Scratch &s, float *fields, float *products, const float **where) {
  const int64_t reach = reach_of(program), pixels = tile.pixels(), padded = tile.padded();
  load(p, picture, tile, reach, s.channels);
  multiply_up(program, tile, reach, s);
  for (int64_t f = 0; f < program.field_count; ++f) {
    float *field = fields + f * most_pixels;
    operate(p, static_cast<FieldOperator>(program.fields[2 * f + 1]), s.monomials + program.fields[2 * f] * halo_size,
            tile, s.laplacians, field);
    for (int64_t i = pixels; i < padded; ++i) field[i] = 0;
  }
  for (int64_t r = 0; r < program.product_count; ++r) {
    const float *__restrict a = fields + program.products[2 * r] * most_pixels;
    where[r] = a;
    if (program.products[2 * r + 1] < 0) continue;
    const float *__restrict b = fields + program.products[2 * r + 1] * most_pixels;
    float *__restrict product = products + r * most_pixels;
    for (int64_t i = 0; i < padded; ++i) product[i] = a[i] * b[i];
    where[r] = product;
  }
}

// sums += rows times columns over some pixels, for one tile of the matrix product.
void multiply(const float *const *rows, const float *const *columns, int64_t first, int64_t last, double *sums,
              int64_t sums_pitch) {
  V sum[tile_rows][tile_columns];
  for (auto &row : sum)
    for (V &v : row) v = Lanes::set(0);
  const float *row_at[tile_rows], *column_at[tile_columns];
  for (int r = 0; r < tile_rows; ++r) row_at[r] = rows[r];
  for (int k = 0; k < tile_columns; ++k) column_at[k] = columns[k];
  for (int64_t i = first; i < last; i += Lanes::lanes) {
    V row[tile_rows];
    for (int r = 0; r < tile_rows; ++r) row[r] = Lanes::load(row_at[r] + i);
    for (int k = 0; k < tile_columns; ++k) {
      const V column = Lanes::load(column_at[k] + i);
      for (int r = 0; r < tile_rows; ++r) sum[r][k] = Lanes::fused(row[r], column, sum[r][k]);
    }
  }
  for (int r = 0; r < tile_rows; ++r, sums += sums_pitch) {
    alignas(16) float total[4];
    Float4::store(total, Lanes::sums(sum[r][0], sum[r][1], sum[r][2], sum[r][3]));
    for (int k = 0; k < tile_columns; ++k) sums[k] += static_cast<double>(total[k]);
  }
}

void add_tile(const FieldMomentsParams &p, const FieldProgram &rows, const FieldProgram &columns, const float *state,
              const float *at, const Tile &tile, Scratch &s) {
  evaluate(p, rows, at, tile, s, s.row_fields, s.row_products, s.rows);
  evaluate(p, columns, state, tile, s, s.column_fields, s.column_products, s.columns);
  const int64_t row_count = up_to_whole(rows.product_count, tile_rows);
  const int64_t column_count = up_to_whole(columns.product_count, tile_columns);
  for (int64_t first = 0; first < tile.padded(); first += stretch) {
    const int64_t last = tile.padded() - first < stretch ? tile.padded() : first + stretch;
    for (int64_t r = 0; r < row_count; r += tile_rows)
      for (int64_t k = 0; k < column_count; k += tile_columns)
        multiply(s.rows + r, s.columns + k, first, last, s.sums + r * column_count + k, column_count);
  }
}

void meet_picture(const FieldMomentsParams &p, const FieldProgram &rows, const FieldProgram &columns,
                  const float *state, const float *at, double *moments, Scratch &s) {
  const int64_t height = p.height - 2 * p.margin, width = p.width - 2 * p.margin;
  const int64_t across = (width + tile_width - 1) / tile_width; // tiles, as equal as can be
  const int64_t column_count = up_to_whole(columns.product_count, tile_columns);
  for (int64_t i = 0; i < up_to_whole(rows.product_count, tile_rows) * column_count; ++i) s.sums[i] = 0;
  for (int64_t top = 0; top < height; top += tile_height)
    for (int64_t n = 0; n < across; ++n) {
      const int64_t left = n * width / across, right = (n + 1) * width / across;
      const int64_t rest = height - top;
      add_tile(p, rows, columns, state, at,
               {p.margin + top, p.margin + left, rest < tile_height ? rest : tile_height, right - left}, s);
    }
  const double pixels = static_cast<double>(height * width);
  for (int64_t r = 0; r < rows.product_count; ++r)
    for (int64_t k = 0; k < columns.product_count; ++k)
      moments[r * columns.product_count + k] = s.sums[r * column_count + k] / pixels;
}

// Cuts the parts of a Scratch out of `memory`, each aligned; gives the bytes that they take. Null: only counts.
int64_t lay_out(const FieldMomentsParams &p, const FieldProgram &rows, const FieldProgram &columns, char *memory,
                Scratch &s) {
  int64_t used = 0;
  const auto take = [&](auto *&part, int64_t count) {
    if (memory) part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(memory + used);
    used += up_to_whole(count * static_cast<int64_t>(sizeof(*part)), 64);
  };
  const int64_t more = rows.monomial_count > columns.monomial_count ? rows.monomial_count : columns.monomial_count;
  const int64_t row_count = up_to_whole(rows.product_count, tile_rows);
  const int64_t column_count = up_to_whole(columns.product_count, tile_columns);
  take(s.channels, p.channels * halo_size);
  take(s.monomials, more * halo_size);
  take(s.laplacians, halo_size);
  take(s.row_fields, rows.field_count * most_pixels);
  take(s.column_fields, columns.field_count * most_pixels);
  take(s.row_products, rows.product_count * most_pixels);
  take(s.column_products, columns.product_count * most_pixels);
  take(s.rows, row_count);
  take(s.columns, column_count);
  take(s.zeros, most_pixels);
  take(s.sums, row_count * column_count);
  if (!memory) return used;
  for (int64_t i = 0; i < most_pixels; ++i) s.zeros[i] = 0;
  for (int64_t r = rows.product_count; r < row_count; ++r) s.rows[r] = s.zeros;
  for (int64_t k = columns.product_count; k < column_count; ++k) s.columns[k] = s.zeros;
  return used;
}

} // namespace

bool field_moments_cpu(const FieldMomentsParams &p, const FieldProgram &rows, const FieldProgram &columns,
                       const float *state, const float *at, double *moments, int threads) {
  const int64_t size = p.channels * p.height * p.width;
  bool enough = true;
#pragma omp parallel num_threads(threads) reduction(&& : enough) if (threads > 1 && p.batch > 1)
  {
    const FlushSubnormals flushed;
    Scratch s{};
    const int64_t bytes = lay_out(p, rows, columns, nullptr, s);
    char *memory = static_cast<char *>(std::aligned_alloc(64, static_cast<std::size_t>(bytes)));
    enough = memory != nullptr;
    if (memory) lay_out(p, rows, columns, memory, s);
#pragma omp for schedule(dynamic)
    for (int64_t n = 0; n < p.batch; ++n)
      if (memory)
        meet_picture(p, rows, columns, state + n * size, at + n * size,
                     moments + n * rows.product_count * columns.product_count, s);
    std::free(memory);
  }
  return enough;
}

} // namespace eqflow::EQFLOW_ISA
