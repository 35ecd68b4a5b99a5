// Matrix products: some batch rows times a panel of columns.
//
// Every sum is one chain of additions in the order of `depth`, in one thread. It is therefore independent of the other batch
// rows and of the number of threads.
#pragma once

#include <array>
#include <cstddef>
#include <utility>

#include "vectors.h"

namespace charloom::inline CHARLOOM_ARITHMETIC {

constexpr int kLine = 16;  // floats in a cache line
constexpr int kPanel = 4;  // the maximum number of vectors in a panel

// One product that is added to a group's sums: sums[r][v] += sum over k of
// rows[r * row_stride + k * depth_stride] * panel[k * panel_stride + v]. Meanwhile `depth` cache lines from `ahead` on
// are prefetched.
struct Product {
  const float* rows;
  ptrdiff_t row_stride;
  ptrdiff_t depth_stride;
  const float* panel;
  ptrdiff_t panel_stride;
  int depth;
  const float* ahead;
};

// Inlines a lambda into its caller, so that its captures stay in registers.
#define CHARLOOM_INLINE __attribute__((always_inline))

template <int Value>
struct Constant {
  static constexpr int value = Value;
};

// Calls body(Constant<0>) to body(Constant<Count - 1>) as an unrolled loop. Arrays with constant indices stay in registers.
template <int Count, class Body>
[[gnu::always_inline]] inline void unrolled(const Body& body) {
  if constexpr (Count > 0) {
    unrolled<Count - 1>(body);
    body(Constant<Count - 1>{});
  }
}

// Computes the sums of `count` products in their order. The sums stay in registers throughout.
template <int Rows, int Vectors>
void multiply(const Product* products, int count, Vector* result) {
  Vector sums[Rows][Vectors] = {};
  for (const Product* product = products; product != products + count; ++product) {
    const float* rows = product->rows;
    const float* panel = product->panel;
    const float* ahead = product->ahead;
    const ptrdiff_t row_stride = product->row_stride, depth_stride = product->depth_stride;
    const ptrdiff_t panel_stride = product->panel_stride;
    for (int k = product->depth; k > 0; --k) {
      Vector columns[Vectors];
      unrolled<Vectors>([&](auto v) CHARLOOM_INLINE { columns[v.value] = load(panel + v.value * kWidth); });
      unrolled<Rows>([&](auto r) CHARLOOM_INLINE {
        const Vector factor = all(rows[r.value * row_stride]);
        if constexpr (Rows * Vectors + Vectors + 1 > kRegisters) {
          // Each row loads the last column from memory, as an operand. Clang would keep it in a register and spill a sum.
          const float* again = panel;
          asm volatile("" : "+r"(again));
          columns[Vectors - 1] = load(again + (Vectors - 1) * kWidth);
        }
        unrolled<Vectors>([&](auto v) CHARLOOM_INLINE { sums[r.value][v.value] += factor * columns[v.value]; });
      });
      __builtin_prefetch(ahead, 0, 2);
      ahead += kLine;
      panel += panel_stride;
      rows += depth_stride;
    }
  }
  unrolled<Rows * Vectors>([&](auto i) CHARLOOM_INLINE {
    result[i.value] = sums[i.value / Vectors][i.value % Vectors];
  });
}

// The same for numbers of rows, from 1 to kRows, and of vectors, from 1 to kPanel, that are only known at run time.
inline void multiply(const Product* products, int count, int rows, int vectors, Vector* result) {
  static constexpr auto kinds = []<int... Kind>(std::integer_sequence<int, Kind...>) {
    return std::array{&multiply<Kind / kPanel + 1, Kind % kPanel + 1>...};
  }(std::make_integer_sequence<int, kRows * kPanel>{});
  kinds[(rows - 1) * kPanel + vectors - 1](products, count, result);
}

// Calls body(first, rows) for groups of up to `MaxRows` of the rows from `first` to `last`, as even as possible.
template <int MaxRows = kRows, class Body>
[[gnu::always_inline]] inline void for_each_group(int first, int last, const Body& body) {
  for (int groups = (last - first + MaxRows - 1) / MaxRows; groups > 0; --groups) {
    const int rows = (last - first) / groups;
    body(first, rows);
    first += rows;
  }
}

// Calls body(first, vectors) for panels of up to `max_panel` of the vectors from `first` to `last`, in either direction.
//
// If steps alternate directions, each step first reads the panels that the step before left in the cache.
template <class Body>
[[gnu::always_inline]] inline void for_each_panel(int first, int last, int max_panel, bool backwards, const Body& body) {
  const int panels = (last - first + max_panel - 1) / max_panel;
  for (int turn = 0; turn < panels; ++turn) {
    const int at = first + (backwards ? panels - 1 - turn : turn) * max_panel;
    body(at, last - at < max_panel ? last - at : max_panel);
  }
}

constexpr int vectors_of(int floats) { return (floats + kWidth - 1) / kWidth; }

// How many floats of the vector that begins at `unit` are within `units`.
inline int valid(int unit, int units) { return units - unit < kWidth ? units - unit : kWidth; }

}  // namespace charloom
