// Products of 8-bit integers. Sums are exact, so their order does not matter, and all processors give the same ones.
//
// A weight is an integer from -127 to 127 times its column's scale, which is the largest magnitude in the column over 127. A state
// is an integer times 1/127: outputs of cells with tanh are between -1 and 1.
//
// Four numbers that follow each other along the depth of a product form a quad, which an instruction multiplies at once. Depths are
// padded with zeros to whole tiles. A panel begins with the scales of its columns.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "amx.h"
#include "checks.h"
#include "layer.h"

namespace charloom::inline CHARLOOM_ARITHMETIC {

constexpr int kQuads = 16;  // a depth is padded to multiples of so many quads
constexpr float kLargestByte = 127.0f;

struct QuadProduct {
  const int8_t* rows;
  ptrdiff_t row_stride;
  const int8_t* panel;
  int depth;  // in quads
};

// Adds the products of one quad of a row, in each lane, and the quads of a column.
inline Integers add_quads(Integers sum, Integers row, Integers column) {
#if defined(__AVX512VNNI__)
  // The first factor is unsigned: 128 more than the row's numbers. `multiply` subtracts 128 times the columns' sums.
  return (Integers)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)row, (__m512i)column);
#elif defined(__AVX512BW__)
  const auto evens = [](Integers quads) { return _mm512_srai_epi16(_mm512_slli_epi16((__m512i)quads, 8), 8); };
  const auto odds = [](Integers quads) { return _mm512_srai_epi16((__m512i)quads, 8); };  // sign-extended to 16 bits
  return sum + (Integers)_mm512_madd_epi16(evens(row), evens(column)) + (Integers)_mm512_madd_epi16(odds(row), odds(column));
#elif defined(__AVX2__) && !defined(__AVX512F__)
  const auto evens = [](Integers quads) { return _mm256_srai_epi16(_mm256_slli_epi16((__m256i)quads, 8), 8); };
  const auto odds = [](Integers quads) { return _mm256_srai_epi16((__m256i)quads, 8); };
  return sum + (Integers)_mm256_madd_epi16(evens(row), evens(column)) + (Integers)_mm256_madd_epi16(odds(row), odds(column));
#else
  for (int shift : {24, 16, 8, 0}) sum += (row << shift >> 24) * (column << shift >> 24);
  return sum;
#endif
}

// Whether `add_quads` reads the numbers of a row as unsigned ones, 128 more than they are.
#if defined(__AVX512VNNI__)
constexpr bool kUnsignedRows = true;
#else
constexpr bool kUnsignedRows = false;
#endif

// The layout of a panel: [scales][128 times the columns' sums][quads], where the first two have a number per column.
constexpr int kHeadBytes = 2 * sizeof(float);  // per column

inline const float* scales_of(const int8_t* panel) { return reinterpret_cast<const float*>(panel); }
inline const int32_t* offsets_of(const int8_t* panel, int vectors) {
  return reinterpret_cast<const int32_t*>(panel + vectors * sizeof(Vector));
}
inline const int8_t* quads_of(const int8_t* panel, int vectors) { return panel + static_cast<ptrdiff_t>(vectors) * kHeadBytes * kWidth; }

template <int Rows, int Vectors>
void multiply_quads(const QuadProduct& product, Integers* result) {
  Integers sums[Rows][Vectors];
  unrolled<Rows * Vectors>([&](auto i) CHARLOOM_INLINE {
    constexpr int v = i.value % Vectors;
    if constexpr (kUnsignedRows)
      std::memcpy(&sums[i.value / Vectors][v], offsets_of(product.panel, Vectors) + v * kWidth, sizeof(Integers));
    else
      sums[i.value / Vectors][v] = Integers{};
  });
  const int8_t* rows = product.rows;
  const int8_t* panel = quads_of(product.panel, Vectors);
  for (int k = product.depth; k > 0; --k) {
    Integers columns[Vectors];
    unrolled<Vectors>([&](auto v) CHARLOOM_INLINE {
      std::memcpy(&columns[v.value], panel + v.value * 4 * kWidth, sizeof(Integers));
    });
    unrolled<Rows>([&](auto r) CHARLOOM_INLINE {
      uint32_t quad;
      std::memcpy(&quad, rows + r.value * product.row_stride, sizeof quad);
      const Integers factor = static_cast<int32_t>(kUnsignedRows ? quad ^ 0x80808080u : quad) - Integers{};
      unrolled<Vectors>([&](auto v) CHARLOOM_INLINE {
        sums[r.value][v.value] = add_quads(sums[r.value][v.value], factor, columns[v.value]);
      });
    });
    panel += Vectors * 4 * kWidth;
    rows += 4;
  }
  unrolled<Rows * Vectors>([&](auto i) CHARLOOM_INLINE { result[i.value] = sums[i.value / Vectors][i.value % Vectors]; });
}

#if defined(CHARLOOM_AMX)

// As `multiply_tiles`, for one block of rows.
template <int Vectors>
void multiply_byte_tiles(const QuadProduct& product, int rows, Integers* result) {
  asm volatile("" : : : "memory");  // the compiler does not know that tiles are read from memory
  configure_tiles(rows);
  unrolled<Vectors>([&](auto v) CHARLOOM_INLINE { zero_tile<v.value>(); });
  const int8_t* row = product.rows;
  const int8_t* panel = quads_of(product.panel, Vectors);
  for (int k = product.depth; k > 0; k -= kQuads) {
    load_tile<6>(row, product.row_stride);
    unrolled<Vectors>([&](auto v) CHARLOOM_INLINE {
      load_tile<7>(panel + v.value * 4 * kWidth, Vectors * sizeof(Vector));
      multiply_byte_tile<v.value, 6, 7>();
    });
    row += 4 * kQuads;
    panel += kQuads * Vectors * 4 * kWidth;
  }
  unrolled<Vectors>([&](auto v) CHARLOOM_INLINE { store_tile<v.value>(result + v.value, Vectors * sizeof(Vector)); });
}

constexpr int kQuadRows = kTileRows;
#else
constexpr int kQuadRows = kRows;
#endif

// Computes the exact sums of a product of up to kQuadRows rows and kPanel vectors.
inline void multiply_exactly(const QuadProduct& product, int rows, int vectors, Integers* result) {
#if defined(CHARLOOM_AMX)
  // A tile takes as long for one row as for several.
  if (rows > 2 && may_use_tiles()) {
    static constexpr auto kinds = std::array{&multiply_byte_tiles<1>, &multiply_byte_tiles<2>, &multiply_byte_tiles<3>, &multiply_byte_tiles<4>};
    return kinds[vectors - 1](product, rows, result);
  }
#endif
  static constexpr auto kinds = []<int... Kind>(std::integer_sequence<int, Kind...>) {
    return std::array{&multiply_quads<Kind / kPanel + 1, Kind % kPanel + 1>...};
  }(std::make_integer_sequence<int, kRows * kPanel>{});
  for_each_group(0, rows, [&](int first, int group) {
    QuadProduct of_group = product;
    of_group.rows += first * product.row_stride;
    kinds[(group - 1) * kPanel + vectors - 1](of_group, result + first * vectors);
  });
}

// Computes the scaled sums of `count` products in their order.
inline void multiply(const QuadProduct* products, int count, int rows, int vectors, Vector* result) {
  for (int i = 0; i < rows * vectors; ++i) result[i] = Vector{};
  for (const QuadProduct* product = products; product != products + count; ++product) {
    if (product->depth == 0) continue;
    Integers sums[kQuadRows * kPanel];
    multiply_exactly(*product, rows, vectors, sums);
    for (int v = 0; v < vectors; ++v) {
      const Vector scale = load(scales_of(product->panel) + v * kWidth);
      for (int r = 0; r < rows; ++r) {
        Vector& at = result[r * vectors + v];
        at = at + __builtin_convertvector(sums[r * vectors + v], Vector) * scale;
      }
    }
  }
}

// The weights and states of a generator in 8 bits.
struct Int8 {
  using Element = int8_t;
  using Factors = QuadProduct;
  static constexpr int kRows = kQuadRows;

  static constexpr size_t floats(size_t elements) { return (elements + sizeof(float) - 1) / sizeof(float); }
  static constexpr int padded(int depth) { return (depth + 4 * kQuads - 1) / (4 * kQuads) * (4 * kQuads); }
  static constexpr int depth_of(int depth) { return padded(depth) + kHeadBytes; }
  static constexpr int stride_of(int depth) { return padded(depth) + kLine * 4; }
  static QuadProduct product(const int8_t* rows, ptrdiff_t row_stride, const int8_t* panel, int /*vectors*/, int depth, const int8_t*, int) {
    return {rows, row_stride, panel, padded(depth) / 4};
  }

  // Stores a vector of states between -1 and 1.
  static void store(int8_t* to, Vector x) {
    const Integers nearest = __builtin_convertvector(rounded(x * kLargestByte), Integers);
    for (int i = 0; i < kWidth; ++i) to[i] = static_cast<int8_t>(nearest[i]);
  }

  // Packs a kernel into panels of `Cell`'s units, see `pack_forward`.
  template <class Cell>
  static void pack(const float* kernel, int depth, int hidden, int8_t* packed) {
    const int padded_depth = padded(depth);
    for_each_panel(0, vectors_of(hidden), Cell::units, false, [&](int vector, int vectors) {
      const int columns = vectors * Cell::gate_count * kWidth;
      int8_t* panel = packed + static_cast<size_t>(vector) * Cell::gate_count * kWidth * depth_of(depth);
      float* scales = reinterpret_cast<float*>(panel);
      int32_t* offsets = reinterpret_cast<int32_t*>(panel + columns * sizeof(float));
      int8_t* quads = panel + static_cast<size_t>(columns) * kHeadBytes;
      std::fill_n(quads, static_cast<size_t>(columns) * padded_depth, 0);
      for (int column = 0; column < columns; ++column) {
        const int u = column / (Cell::gate_count * kWidth), part = column / kWidth % Cell::gate_count;
        const int unit = (vector + u) * kWidth + column % kWidth;
        scales[column] = 0, offsets[column] = 0;
        if (unit >= hidden) continue;
        const float* from = kernel + static_cast<size_t>(part) * hidden + unit;
        const size_t stride = static_cast<size_t>(Cell::gate_count) * hidden;
        float largest = 0;
        for (int k = 0; k < depth; ++k) {
          require(std::isfinite(from[k * stride]), "a weight is not finite");
          largest = std::max(largest, std::fabs(from[k * stride]));
        }
        const float scale = largest / kLargestByte;
        if (scale < std::numeric_limits<float>::min()) continue;  // such a column is zero
        for (int k = 0; k < depth; ++k) {
          const int weight = static_cast<int>(std::nearbyint(from[k * stride] / scale));
          quads[(static_cast<size_t>(k / 4) * columns + column) * 4 + k % 4] = static_cast<int8_t>(weight);
          offsets[column] -= 128 * weight;
        }
        scales[column] = scale / kLargestByte;
      }
    });
  }
};

}  // namespace charloom
