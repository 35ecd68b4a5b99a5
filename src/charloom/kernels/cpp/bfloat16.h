// Products of bfloat16 numbers, which are the upper halves of floats. Sums are floats.
//
// Two numbers that follow each other along the depth of a product form a pair, which an instruction multiplies at once. The
// lower half of a pair is the first number. Both operands are stored in pairs, and their depth is padded with zeros.
//
// There are two orders of sums:
// - AMX adds up 16 pairs at a time: first the products of the second numbers and those of the first numbers, each in order,
//   and then both sums to the result.
// - Otherwise, a sum is one chain of additions: for each pair, first the product of the second numbers, then that of the first.
//   AVX512_BF16 and processors without any such instructions give the same bits.
// Either way, a sum is independent of the other batch rows and of the number of threads.
#pragma once

#include <cstdint>

#include "amx.h"
#include "product.h"

namespace charloom::inline CHARLOOM_ARITHMETIC {

using Half = uint16_t;  // the bits of a bfloat16 number

constexpr int kPairs = 16;  // a depth is padded to multiples of so many pairs

// Returns the nearest bfloat16 numbers in the upper halves, with ties to even. Denormal numbers become zero.
inline Integers rounded_bits(Vector x) {
  const Integers bits = (Integers)x;
  const Integers nearest = bits + 0x7fff + (bits >> 16 & 1);
  const Integers number = x == x ? nearest : bits | 0x400000;  // a NaN stays a NaN
  const Integers exponent = bits & 0x7f800000;
  return (exponent == 0 ? bits & INT32_MIN : number) & -65536;
}

// Returns pairs of the numbers of `first` and `second`.
inline Integers paired(Vector first, Vector second) {
#if defined(__AVX512BF16__)
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(second, first);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20,
                                         4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (Integers)_mm512_permutexvar_epi16(order, halves);
#else
  return rounded_bits(second) | (rounded_bits(first) >> 16 & 0xffff);
#endif
}

inline void store_pairs(Half* to, Integers pairs) { std::memcpy(to, &pairs, sizeof pairs); }

// Stores the nearest bfloat16 numbers.
inline void store_halves(Half* to, Vector x) {
#if defined(__AVX512BF16__)
  const __m256bh halves = _mm512_cvtneps_pbh(x);
  std::memcpy(to, &halves, sizeof halves);
#else
  const Integers bits = rounded_bits(x) >> 16;
  for (int i = 0; i < kWidth; ++i) to[i] = static_cast<Half>(bits[i]);
#endif
}

constexpr int padded_depth(int depth) { return (depth + 2 * kPairs - 1) / (2 * kPairs) * (2 * kPairs); }

// The distance between two rows of an operand. It is not a power of two, because such rows would all be mapped to the same
// cache set.
constexpr int half_stride(int depth) { return padded_depth(depth) + 2 * kPairs; }

// How many floats have the size of `halves` numbers.
constexpr size_t floats_of_halves(size_t halves) { return (halves + 1) / 2; }

// One product that is added to a group's sums, as `Product`. `depth` counts pairs, in whole multiples of kPairs, and so do the
// panel's rows of `vectors` vectors of pairs.
struct PairProduct {
  const Half* rows;
  ptrdiff_t row_stride;  // in numbers
  const Half* panel;
  int depth;
  const Half* ahead;
};

inline Vector first_numbers(Integers pairs) { return (Vector)(pairs << 16); }
inline Vector second_numbers(Integers pairs) { return (Vector)(pairs & -65536); }

// Adds the products of one pair of a row, in each lane, and the pairs of a column.
inline Vector add_products(Vector sum, Integers row, Integers column) {
#if defined(__AVX512BF16__)
  return _mm512_dpbf16_ps(sum, (__m512bh)row, (__m512bh)column);
#else
  // Products of bfloat16 numbers are exact, so it does not matter whether the compiler fuses them with the additions.
  sum += second_numbers(row) * second_numbers(column);
  return sum + first_numbers(row) * first_numbers(column);
#endif
}

// Computes the sums of `count` products in their order. The sums stay in registers throughout.
template <int Rows, int Vectors>
void multiply_pairs(const PairProduct* products, int count, Vector* result) {
  Vector sums[Rows][Vectors] = {};
  for (const PairProduct* product = products; product != products + count; ++product) {
    const Half* rows = product->rows;
    const Half* panel = product->panel;
    const Half* ahead = product->ahead;
    const ptrdiff_t row_stride = product->row_stride;
    for (int k = product->depth; k > 0; --k) {
      Integers columns[Vectors];
      unrolled<Vectors>([&](auto v) CHARLOOM_INLINE {
        std::memcpy(&columns[v.value], panel + v.value * 2 * kWidth, sizeof(Integers));
      });
      unrolled<Rows>([&](auto r) CHARLOOM_INLINE {
        int32_t pair;
        std::memcpy(&pair, rows + r.value * row_stride, sizeof pair);
        const Integers factor = pair - Integers{};
        unrolled<Vectors>([&](auto v) CHARLOOM_INLINE {
          sums[r.value][v.value] = add_products(sums[r.value][v.value], factor, columns[v.value]);
        });
      });
      __builtin_prefetch(ahead, 0, 2);
      ahead += 2 * kLine;
      panel += Vectors * 2 * kWidth;
      rows += 2;
    }
  }
  unrolled<Rows * Vectors>([&](auto i) CHARLOOM_INLINE {
    result[i.value] = sums[i.value / Vectors][i.value % Vectors];
  });
}

#if defined(CHARLOOM_AMX)

// Computes the sums of `Blocks` blocks of as many rows as the tiles are configured for. Block b begins at row b * `apart`.
// Tiles 0 to 5 are sums, tile 6 is a block of rows, and tile 7 is a square of the panel.
template <int Blocks, int Vectors>
void multiply_tiles(const PairProduct* products, int count, int apart, int first_vector, int panel_vectors, Vector* result) {
  static_assert(Blocks * Vectors <= 6);
  unrolled<Blocks * Vectors>([&](auto i) CHARLOOM_INLINE { zero_tile<i.value>(); });
  for (const PairProduct* product = products; product != products + count; ++product) {
    const Half* rows = product->rows;
    const Half* panel = product->panel + first_vector * 2 * kWidth;
    const ptrdiff_t row_bytes = product->row_stride * static_cast<ptrdiff_t>(sizeof(Half));
    const ptrdiff_t panel_bytes = panel_vectors * static_cast<ptrdiff_t>(sizeof(Vector));
    for (int k = product->depth; k > 0; k -= kPairs) {
      unrolled<Vectors>([&](auto v) CHARLOOM_INLINE {
        load_tile<7>(panel + v.value * 2 * kWidth, panel_bytes);
        unrolled<Blocks>([&](auto b) CHARLOOM_INLINE {
          if (Blocks > 1 || v.value == 0) load_tile<6>(rows + b.value * apart * product->row_stride, row_bytes);
          multiply_tile<b.value * Vectors + v.value, 6, 7>();
        });
      });
      rows += 2 * kPairs;
      panel += kPairs * panel_vectors * 2 * kWidth;
    }
  }
  const ptrdiff_t result_bytes = panel_vectors * static_cast<ptrdiff_t>(sizeof(Vector));
  unrolled<Blocks * Vectors>([&](auto i) CHARLOOM_INLINE {
    constexpr int block = i.value / Vectors, vector = i.value % Vectors;
    store_tile<i.value>(result + static_cast<ptrdiff_t>(block) * apart * panel_vectors + first_vector + vector, result_bytes);
  });
}

// Two blocks of rows may overlap: the rows in both are computed twice, with the same results.
inline void multiply_with_tiles(const PairProduct* products, int count, int rows, int vectors, Vector* result) {
  asm volatile("" : : : "memory");  // the compiler does not know that tiles are read from memory
  const int height = rows > kTileRows ? (rows + 1) / 2 : rows;
  configure_tiles(height);
  if (rows <= kTileRows) {
    static constexpr auto kinds = std::array{&multiply_tiles<1, 1>, &multiply_tiles<1, 2>, &multiply_tiles<1, 3>, &multiply_tiles<1, 4>};
    return kinds[vectors - 1](products, count, 0, 0, vectors, result);
  }
  const int apart = rows - height;
  if (vectors == 3) return multiply_tiles<2, 3>(products, count, apart, 0, 3, result);
  if (vectors >= 2) multiply_tiles<2, 2>(products, count, apart, 0, vectors, result);
  if (vectors == 4) multiply_tiles<2, 2>(products, count, apart, 2, vectors, result);
  if (vectors == 1) multiply_tiles<2, 1>(products, count, apart, 0, vectors, result);
}

#endif

// Computes the sums for up to kPairRows rows and kPanel vectors.
#if defined(CHARLOOM_AMX)
constexpr int kPairRows = 2 * kTileRows;
#else
constexpr int kPairRows = kRows;
#endif

inline void multiply(const PairProduct* products, int count, int rows, int vectors, Vector* result) {
#if defined(CHARLOOM_AMX)
  if (may_use_tiles()) return multiply_with_tiles(products, count, rows, vectors, result);
#endif
  static constexpr auto kinds = []<int... Kind>(std::integer_sequence<int, Kind...>) {
    return std::array{&multiply_pairs<Kind / kPanel + 1, Kind % kPanel + 1>...};
  }(std::make_integer_sequence<int, kRows * kPanel>{});
  for_each_group(0, rows, [&](int first, int group) {
    PairProduct of_group[2];
    for (int i = 0; i < count; ++i) of_group[i] = products[i], of_group[i].rows += first * products[i].row_stride;
    kinds[(group - 1) * kPanel + vectors - 1](of_group, count, result + first * vectors);
  });
}

}  // namespace charloom
