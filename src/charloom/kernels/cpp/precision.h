// The two precisions of a layer's products: float32, and bfloat16 factors with float32 sums.
//
// A precision says how its factors are stored:
// - `Element`: one number; arrays of them are measured in floats by `floats`.
// - `depth_of(depth)`: the depth of a product in memory, where surplus elements are zero.
// - `stride_of(depth)`: the distance between two rows of a factor in working memory.
// - `product(rows, row_stride, panel, vectors, depth, next_panel, group)`: a product of `depth` elements. The group with this index
//   prefetches its part of the next panel.
// - `kRows`: the maximum number of rows of a product.
// - `store(to, vector)`: stores a vector of a row.
// - `store_packed(to, depths)`: stores vectors of a panel for kStep depths, which are packed together.
// - `factors(rows, ...)`: rows of floats as factors. They are converted in memory for `converted_floats`, unless they can be read
//   where they are.
#pragma once

#include <algorithm>

#include "bfloat16.h"

namespace charloom::inline CHARLOOM_ARITHMETIC {

template <class Element>
struct Rows {
  const Element* first;
  ptrdiff_t stride;
  const Element* row(size_t index) const { return first + static_cast<ptrdiff_t>(index) * stride; }
};

// Copies a row of `count` floats as a factor, with zeros up to its depth. A null pointer stands for a row of zeros.
template <class Precision>
void copy_row(const float* from, int count, typename Precision::Element* to) {
  const int padded = std::max(Precision::depth_of(count), vectors_of(count) * kWidth);
  for (int at = 0; at < padded; at += kWidth)
    Precision::store(to + at, from && at < count ? load(from + at, valid(at, count)) : Vector{});
}

struct Float32 {
  using Element = float;
  using Factors = Product;
  static constexpr int kRows = charloom::kRows;
  static constexpr int kStep = 1;  // how many depths are packed together

  static constexpr size_t floats(size_t elements) { return elements; }
  static constexpr int depth_of(int depth) { return depth; }
  static constexpr int stride_of(int depth) { return vectors_of(depth) * kWidth + kLine; }
  static Product product(const float* rows, ptrdiff_t row_stride, const float* panel, int vectors, int depth, const float* next_panel,
                         int group) {
    return {rows, row_stride, 1, panel, vectors * kWidth, depth, next_panel + static_cast<ptrdiff_t>(group) * depth * kLine};
  }
  static constexpr size_t converted_floats(size_t, int) { return 0; }
  static Rows<float> factors(const float* rows, int, int, int depth, float*) { return {rows, depth}; }
  static void store(float* to, Vector x) { charloom::store(to, x); }
  static void store_packed(float* to, const Vector (&depths)[1]) { charloom::store(to, depths[0]); }
};

struct BFloat16 {
  using Element = Half;
  using Factors = PairProduct;
  static constexpr int kRows = kPairRows;
  static constexpr int kStep = 2;

  static constexpr size_t floats(size_t elements) { return floats_of_halves(elements); }
  static constexpr int depth_of(int depth) { return padded_depth(depth); }
  static constexpr int stride_of(int depth) { return half_stride(depth); }
  static PairProduct product(const Half* rows, ptrdiff_t row_stride, const Half* panel, int /*vectors*/, int depth,
                             const Half* next_panel, int group) {
    const int pairs = padded_depth(depth) / 2;
    return {rows, row_stride, panel, pairs, next_panel + static_cast<ptrdiff_t>(group) * pairs * 2 * kLine};
  }
  static constexpr size_t converted_floats(size_t rows, int depth) { return depth ? floats(rows * stride_of(depth)) : 0; }
  // Converts the rows from `begin` to `end`.
  static Rows<Half> factors(const float* rows, int begin, int end, int depth, Half* converted) {
    const ptrdiff_t stride = stride_of(depth);
    for (int row = begin; depth && row < end; ++row)
      copy_row<BFloat16>(rows + static_cast<size_t>(row) * depth, depth, converted + row * stride);
    return {converted, stride};
  }
  static void store(Half* to, Vector x) { store_halves(to, x); }
  static void store_packed(Half* to, const Vector (&depths)[2]) { store_pairs(to, paired(depths[0], depths[1])); }
};

}  // namespace charloom
