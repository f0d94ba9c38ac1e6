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
constexpr int64_t tile_height = 4, tile_width = 128, most_pixels = tile_height * tile_width;
constexpr int64_t most_reach = 2, edge = 8; // edge: columns beside a tile, so that its rows begin on a cache line
constexpr int64_t pitch = tile_width + 2 * edge;
constexpr int64_t halo_size = (tile_height + 2 * most_reach) * pitch; // of a tile and what its stencils reach
constexpr int64_t origin = most_reach * pitch + edge;                 // where pixel (0, 0) of a tile lies

struct Tile {
  int64_t top, left, height, width; // of its pixels in the picture
  int64_t pixels() const { return height * width; }
  int64_t padded() const { return (pixels() + Lanes::lanes - 1) / Lanes::lanes * Lanes::lanes; }
};

// The memory of one thread. A monomial that no stencil reads keeps one row only, the others the whole tile. Fields of a
// tile are packed: `width` pixels, then the next row.
struct Scratch {
  double *channels, *monomials, *laplacians; // [..][halo_size]
  float *row_fields, *column_fields;         // [fields][most_pixels]
  float *row_products, *column_products;     // [tile_rows][stretch], [columns][stretch]
  const float **columns;                     // where each product of a column lies
  float *zeros;                              // [stretch]
  int32_t *row_reach, *column_reach;         // [monomials]: how far around a pixel each is needed
  double *sums;                              // [rows][columns], both filled up to whole tiles
};

int64_t up_to_whole(int64_t count, int64_t of) { return (count + of - 1) / of * of; }

bool reads_stencil(FieldOperator operation) { return operation != FieldOperator::value; }

// How far each monomial is needed, by its own fields and by the monomials made of it; gives the largest.
int32_t find_reach(const FieldProgram &program, int32_t *reach) {
  for (int64_t m = 0; m < program.monomial_count; ++m) reach[m] = 0;
  for (int64_t f = 0; f < program.field_count; ++f) {
    const auto operation = static_cast<FieldOperator>(program.fields[2 * f + 1]);
    const int32_t own = operation == FieldOperator::bilaplacian ? 2 : reads_stencil(operation) ? 1 : 0;
    int32_t &known = reach[program.fields[2 * f]];
    known = own > known ? own : known;
  }
  int32_t largest = 0;
  for (int64_t m = program.monomial_count - 1; m > 0; --m) { // a monomial comes after the one that it is made of
    const int64_t lower = program.monomials[2 * m];
    if (lower > 0 && reach[m] > reach[lower]) reach[lower] = reach[m];
    largest = reach[m] > largest ? reach[m] : largest;
  }
  return largest;
}

// The channels of a tile and its surroundings as float64, in their units. Pixel (0, 0) of the tile lands at origin.
void load(const FieldMomentsParams &p, const float *picture, const float *units, const Tile &tile, int64_t reach,
          double *channels) {
  const auto wrapped = [](int64_t i, int64_t size) { return ((i % size) + size) % size; };
  for (int64_t c = 0; c < p.channels; ++c) {
    const double unit = static_cast<double>(units[c]);
    for (int64_t i = -reach; i < tile.height + reach; ++i) {
      const float *from = picture + (c * p.height + wrapped(tile.top + i, p.height)) * p.width;
      double *to = channels + c * halo_size + origin + i * pitch;
      for (int64_t j = 0; j < tile.width; ++j) to[j] = unit * static_cast<double>(from[tile.left + j]);
      for (int64_t j = 1; j <= reach; ++j) {
        to[-j] = unit * static_cast<double>(from[wrapped(tile.left - j, p.width)]);
        to[tile.width - 1 + j] = unit * static_cast<double>(from[wrapped(tile.left + tile.width - 1 + j, p.width)]);
      }
    }
  }
}

// Row `i` of a monomial, from pixel 0 of the tile on.
double *row_of(const Scratch &s, const int32_t *reach, int64_t m, int64_t i) {
  return s.monomials + m * halo_size + origin + (reach[m] ? i * pitch : 0);
}

// Every monomial from the one that it is made of, and the fields that are monomials: row by row, so that a row is still
// in the nearest cache when it is read.
void multiply_up(const FieldProgram &program, const Tile &tile, int32_t most, const int32_t *reach, Scratch &s,
                 float *fields) {
  constexpr int64_t whole = 4; // columns beyond the reach do no harm, and aligned rows are faster
  for (int64_t i = -most; i < tile.height + most; ++i) {
    for (int64_t m = 0; m < program.monomial_count; ++m) {
      if (i < -reach[m] || i >= tile.height + reach[m]) continue;
      const int64_t around = reach[m] ? whole : 0, width = tile.width + 2 * around;
      double *__restrict to = row_of(s, reach, m, i) - around;
      if (m == 0) {
        for (int64_t j = 0; j < width; ++j) to[j] = 1;
        continue;
      }
      const int32_t lower = program.monomials[2 * m], channel = program.monomials[2 * m + 1];
      const double *__restrict a = row_of(s, reach, lower, i) - around;
      const double *__restrict b = s.channels + channel * halo_size + origin + i * pitch - around;
      if (lower == 0)
        for (int64_t j = 0; j < width; ++j) to[j] = b[j];
      else
        for (int64_t j = 0; j < width; ++j) to[j] = a[j] * b[j];
    }
    if (i < 0 || i >= tile.height) continue;
    for (int64_t f = 0; f < program.field_count; ++f) {
      if (reads_stencil(static_cast<FieldOperator>(program.fields[2 * f + 1]))) continue;
      const double *__restrict from = row_of(s, reach, program.fields[2 * f], i);
      float *__restrict to = fields + f * most_pixels + i * tile.width;
      for (int64_t j = 0; j < tile.width; ++j) to[j] = static_cast<float>(from[j]);
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

// A field that reads a stencil, packed.
void operate(const FieldMomentsParams &p, FieldOperator operation, const double *monomial, const Tile &tile,
             double *laplacians, float *to) {
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
    default: // y_derivative
      for (int64_t j = 0; j < tile.width; ++j) out[j] = static_cast<float>(0.5 * (below[j] - above[j]));
    }
  }
}

// All fields of one side on a tile, zero from its last pixel up to whole vectors.
void evaluate(const FieldMomentsParams &p, const FieldProgram &program, const float *picture, const float *units,
              const Tile &tile, int32_t *reach, Scratch &s, float *fields) {
  const int32_t most = find_reach(program, reach);
  load(p, picture, units, tile, most, s.channels);
  multiply_up(program, tile, most, reach, s, fields);
  for (int64_t f = 0; f < program.field_count; ++f) {
    float *field = fields + f * most_pixels;
    const auto operation = static_cast<FieldOperator>(program.fields[2 * f + 1]);
    if (reads_stencil(operation))
      operate(p, operation, s.monomials + program.fields[2 * f] * halo_size, tile, s.laplacians, field);
    for (int64_t i = tile.pixels(); i < tile.padded(); ++i) field[i] = 0;
  }
}

// Some pixels of a product: where its only field lies, or in `memory`; zeros beyond the last product.
const float *product(const FieldProgram &program, int64_t index, const float *fields, int64_t pixels,
                     float *__restrict memory, const float *zeros) {
  if (index >= program.product_count) return zeros;
  const float *__restrict a = fields + program.products[2 * index] * most_pixels;
  if (program.products[2 * index + 1] < 0) return a;
  const float *__restrict b = fields + program.products[2 * index + 1] * most_pixels;
  for (int64_t i = 0; i < pixels; i += Lanes::lanes) Lanes::store(memory + i, Lanes::load(a + i) * Lanes::load(b + i));
  return memory;
}

// sums += rows times columns over some pixels, for one tile of the matrix product.
void multiply(const float *const (&rows)[tile_rows], const float *const *columns, int64_t pixels, double *sums,
              int64_t sums_pitch) {
  V sum[tile_rows][tile_columns];
  for (auto &row : sum)
    for (V &v : row) v = Lanes::set(0);
  for (int64_t i = 0; i < pixels; i += Lanes::lanes) {
    V row[tile_rows];
    for (int r = 0; r < tile_rows; ++r) row[r] = Lanes::load(rows[r] + i);
    for (int k = 0; k < tile_columns; ++k) {
      const V column = Lanes::load(columns[k] + i);
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
              const float *at, const float *units, const Tile &tile, Scratch &s) {
  evaluate(p, rows, at, units, tile, s.row_reach, s, s.row_fields);
  evaluate(p, columns, state, units, tile, s.column_reach, s, s.column_fields);
  const int64_t column_count = up_to_whole(columns.product_count, tile_columns);
  for (int64_t first = 0; first < tile.padded(); first += stretch) {
    const int64_t pixels = tile.padded() - first < stretch ? tile.padded() - first : stretch;
    for (int64_t k = 0; k < column_count; ++k)
      s.columns[k] = product(columns, k, s.column_fields + first, pixels, s.column_products + k * stretch, s.zeros);
    for (int64_t r = 0; r < rows.product_count; r += tile_rows) {
      const float *at_rows[tile_rows];
      for (int n = 0; n < tile_rows; ++n)
        at_rows[n] = product(rows, r + n, s.row_fields + first, pixels, s.row_products + n * stretch, s.zeros);
      for (int64_t k = 0; k < column_count; k += tile_columns)
        multiply(at_rows, s.columns + k, pixels, s.sums + r * column_count + k, column_count);
    }
  }
}

void meet_picture(const FieldMomentsParams &p, const FieldProgram &rows, const FieldProgram &columns,
                  const float *state, const float *at, const float *units, double *moments, Scratch &s) {
  const int64_t height = p.height - 2 * p.margin, width = p.width - 2 * p.margin;
  const int64_t across = (width + tile_width - 1) / tile_width; // tiles, as equal as can be
  const int64_t column_count = up_to_whole(columns.product_count, tile_columns);
  for (int64_t i = 0; i < up_to_whole(rows.product_count, tile_rows) * column_count; ++i) s.sums[i] = 0;
  for (int64_t top = 0; top < height; top += tile_height)
    for (int64_t n = 0; n < across; ++n) {
      const int64_t left = n * width / across, right = (n + 1) * width / across;
      const int64_t rest = height - top;
      add_tile(p, rows, columns, state, at, units,
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
  const int64_t column_count = up_to_whole(columns.product_count, tile_columns);
  take(s.channels, p.channels * halo_size);
  take(s.monomials, more * halo_size);
  take(s.laplacians, halo_size);
  take(s.row_fields, rows.field_count * most_pixels);
  take(s.column_fields, columns.field_count * most_pixels);
  take(s.row_products, tile_rows * stretch);
  take(s.column_products, column_count * stretch);
  take(s.columns, column_count);
  take(s.zeros, stretch);
  take(s.row_reach, rows.monomial_count);
  take(s.column_reach, columns.monomial_count);
  take(s.sums, up_to_whole(rows.product_count, tile_rows) * column_count);
  if (!memory) return used;
  for (int64_t i = 0; i < stretch; ++i) s.zeros[i] = 0;
  for (int64_t i = 0; i < p.channels * halo_size; ++i) s.channels[i] = 0; // not all of the edges are ever loaded
  return used;
}

} // namespace

bool field_moments_cpu(const FieldMomentsParams &p, const FieldProgram &rows, const FieldProgram &columns,
                       const float *state, const float *at, const float *units, double *moments, int threads) {
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
        meet_picture(p, rows, columns, state + n * size, at + n * size, units + n * p.channels,
                     moments + n * rows.product_count * columns.product_count, s);
    std::free(memory);
  }
  return enough;
}

} // namespace eqflow::EQFLOW_ISA
