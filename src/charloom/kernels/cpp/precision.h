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
// - `pack_rows(...)`: packs one or two rows of a kernel, see `layer.h`.
#pragma once

#include "bfloat16.h"

namespace charloom {

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
  static void store(Half* to, Vector x) { store_halves(to, x); }
  static void store_packed(Half* to, const Vector (&depths)[2]) { store_pairs(to, paired(depths[0], depths[1])); }
};

}  // namespace charloom
