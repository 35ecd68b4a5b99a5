// The gradient of a kernel: one product over the rows of a call, which are steps times batch rows.
//
// The kernel's inputs are transposed, so that the rows of the product are inputs, and its depth are the rows of the call.
// Its panel are gradients of some gates. The depth is processed in chunks that stay in the cache.
#pragma once

#include <algorithm>

#include "precision.h"
#include "threads.h"

namespace charloom {

template <class Precision>
struct KernelGradient;

// Inputs are stored in groups of columns, to[group][row][column], which `multiply` reads when it sums over rows.
// There is a cache line between groups, so that they are not all mapped to the same cache set.
template <>
struct KernelGradient<Float32> {
  static constexpr int kChunk = 1024;

  static size_t transposed_floats(int columns, int depth) {
    return static_cast<size_t>(columns) * depth + static_cast<size_t>(columns / kRows + 1) * kLine;
  }

  // Gradients are read where they are.
  static size_t panel_floats() { return 0; }

  // Transposes this member's share of `depth` rows. `row_of` returns a pointer to a row, or null for a row of zeros.
  template <class RowOf>
  static void transpose(int columns, int depth, Member member, const RowOf& row_of, float* to) {
    constexpr int kMaxGroups = 32;  // groups that are written at the same time, so that each row is read in long runs
    struct Group {
      int first, count;
      float* to;
    } groups[kMaxGroups];
    int group_count = 0, index = 0;
    const auto copy = [&] {
      if (group_count == 0) return;
      for (int row = member.first(depth); row < member.last(depth); ++row) {
        const float* from = row_of(row);
        for (int g = 0; g < group_count; ++g) {
          const auto [first, count, begin] = groups[g];
          float* group = begin + static_cast<size_t>(row) * count;
          if (from)
            copy_few(from + first, count, group);
          else
            std::fill_n(group, count, 0.0f);
        }
      }
      group_count = 0;
    };
    for_each_group(0, columns, [&](int first, int count) {
      groups[group_count++] = {first, count, to + group_at(first, index++, depth)};
      if (group_count == kMaxGroups) copy();
    });
    copy();
  }

  static const float* packed_panel(const float* panel, ptrdiff_t, int, int, float*) { return panel; }

  // Calls body(column, count, sums) with the sums of groups of columns, over the rows from `first` to `first + chunk`.
  template <class Body>
  static void multiply_chunk(const float* transposed, int columns, int depth, int first, int chunk, const float* panel,
                             ptrdiff_t panel_stride, int vectors, const Body& body) {
    int index = 0;
    for_each_group(0, columns, [&](int column, int count) {
      Vector sums[kRows * kPanel];
      const float* rows = transposed + group_at(column, index++, depth) + static_cast<size_t>(first) * count;
      const Product product{rows, 1, count, panel, panel_stride, chunk, panel};
      multiply(&product, 1, count, vectors, sums);
      body(column, count, sums);
    });
  }

 private:
  // The offset of the group with index `index`, whose first column is `column`.
  static size_t group_at(int column, int index, int depth) {
    return static_cast<size_t>(column) * depth + static_cast<size_t>(index) * kLine;
  }
};

// Inputs are stored as to[column][row], and gradients are packed chunk by chunk.
template <>
struct KernelGradient<BFloat16> {
  static constexpr int kChunk = 1024;

  static size_t transposed_floats(int columns, int depth) {
    return floats_of_halves(static_cast<size_t>(columns) * half_stride(depth));
  }

  static size_t panel_floats() { return floats_of_halves(static_cast<size_t>(kChunk) * kPanel * kWidth); }

  template <class RowOf>
  static void transpose(int columns, int depth, Member member, const RowOf& row_of, Half* to) {
    constexpr int kBlock = 2 * kWidth;  // rows that are transposed together, in pairs
    const ptrdiff_t stride = half_stride(depth);
    const int blocks = padded_depth(depth) / kBlock;
    for (int block = member.first(blocks); block < member.last(blocks); ++block) {
      const float* rows[kBlock];
      for (int i = 0; i < kBlock; ++i) rows[i] = block * kBlock + i < depth ? row_of(block * kBlock + i) : nullptr;
      for (int column = 0; column < columns; column += kWidth) {
        const int count = valid(column, columns);
        const auto part = [&](int i) { return rows[i] ? load(rows[i] + column, count) : Vector{}; };
        Vector square[kWidth];
        for (int i = 0; i < kWidth; ++i) square[i] = (Vector)paired(part(2 * i), part(2 * i + 1));
        charloom::transpose(square);
        Half* at = to + column * stride + block * kBlock;
        for (int i = 0; i < count; ++i, at += stride) store_pairs(at, (Integers)square[i]);
      }
    }
  }

  // Packs `chunk` rows of `floats` floats, and returns them.
  static const Half* packed_panel(const float* panel, ptrdiff_t stride, int floats, int chunk, Half* packed) {
    Half* to = packed;
    for (int row = 0; row < padded_depth(chunk); row += 2, panel += 2 * stride)
      for (int at = 0; at < floats; at += kWidth, to += 2 * kWidth) {
        const auto part = [&](int i) { return row + i < chunk ? load(panel + i * stride + at, valid(at, floats)) : Vector{}; };
        store_pairs(to, paired(part(0), part(1)));
      }
    return packed;
  }

  template <class Body>
  static void multiply_chunk(const Half* transposed, int columns, int depth, int first, int chunk, const Half* panel, ptrdiff_t,
                             int vectors, const Body& body) {
    const ptrdiff_t stride = half_stride(depth);
    for_each_group<kPairRows>(0, columns, [&](int column, int count) {
      Vector sums[kPairRows * kPanel];
      const PairProduct product{transposed + column * stride + first, stride, panel, padded_depth(chunk) / 2, panel};
      multiply(&product, 1, count, vectors, sums);
      body(column, count, sums);
    });
  }
};

}  // namespace charloom
