// A layer as its passes see it: what they are told, where their arrays lie, and who computes what.
//
// Each member of the team owns some vectors of units: it packs their weights, computes them at every step for all
// batch rows, and meets the others after each step, for the next one reads all units. Where the whole of the weights fits
// each core's cache a member owns some batch rows instead, which it follows from step to step without meeting anybody.
//
// What a layer reads is table[rows] + features · kernel: rows of a table for a first layer's tokens; features, and a
// table of one row, the bias, for the outputs of the layer below.
#pragma once

#include <algorithm>

#include "cells.h"
#include "product.h"
#include "threads.h"

namespace charloom {

constexpr double kAlone = 2e5;       // operations a step that are not worth a meeting
constexpr size_t kCached = 1 << 17;  // floats of weights that fit a core's cache with room to spare

// What both directions are told of a layer; `gate_count` is the cell's.
struct Layer {
  int time, batch_size, hidden_size, features;
  Activations activations;
  const int32_t* rows;            // [time, batch rows], of the table
  const float* inputs;            // [time, batch rows, features]
  const float* kernel;            // [features, gate_count * hidden_size]
  const float* recurrent_kernel;  // [hidden_size, gate_count * hidden_size]
  const float* start;             // [batch rows, hidden]
  const float* start_cell;        // [batch rows, hidden], of the LSTM
  const bool* resets;             // [time, batch rows]
};

// Where a batch row's vector of units finds its `Each` vectors of an array: those of a panel, which has `Units` vectors of
// units, stand together, row after row (a row is a step's batch row), so that a panel's can be read from end to end.
template <int Units, int Each>
struct Tiles {
  size_t rows;
  int vectors;  // of units

  explicit Tiles(const Layer& call)
      : rows(static_cast<size_t>(call.time) * call.batch_size), vectors(vectors_of(call.hidden_size)) {}

  float* at(float* all, size_t row, int vector) const {
    const int first = vector / Units * Units;
    return all + (first * rows + (vector - first)) * Each * kWidth + row * stride(first);
  }
  const float* at(const float* all, size_t row, int vector) const { return at(const_cast<float*>(all), row, vector); }
  // From row to row of the panel that begins there.
  ptrdiff_t stride(int first) const { return static_cast<ptrdiff_t>(std::min(Units, vectors - first)) * Each * kWidth; }
};

template <class Cell>
using GateTiles = Tiles<Cell::units, Cell::kept>;
using CellTiles = Tiles<1, 1>;

// Panels of a kernel of `depth` rows for some vectors of units, at their places in `packed`. A panel from `unit` on is
// panel[k][u][part] = kernel[k, part * hidden + unit + u].
template <class Cell>
inline void pack_forward(const float* kernel, int depth, int hidden, int first, int last, float* packed) {
  for (int k = 0; k < depth; ++k)  // so that the kernel's rows are read from end to end
    for_each_panel(first, last, Cell::units, false, [&](int vector, int vectors) CHARLOOM_INLINE {
      float* to = packed + (static_cast<size_t>(vector) * depth + static_cast<size_t>(k) * vectors) * Cell::gate_count * kWidth;
      for (int u = 0; u < vectors; ++u)
        for (int part = 0; part < Cell::gate_count; ++part, to += kWidth) {
          const int at = (vector + u) * kWidth;
          store(to, load(kernel + (static_cast<size_t>(k) * Cell::gate_count + part) * hidden + at, valid(at, hidden)));
        }
    });
}

// A state's row, in the kernels' own memory: not a power of two, whose rows would all have the same place in the cache.
inline int row_stride(int floats) { return vectors_of(floats) * kWidth + kLine; }

// The products of a layer's input, `products[0]` (whose depth may be none), and of its state, `products[1]`. A cell whose
// recurrent product has a bias of its own keeps the first apart.
template <class Cell>
inline void multiply_layer(const Product* products, int rows, int columns, Vector* projected, Vector* sums) {
  if constexpr (Cell::has_recurrent_bias) {
    multiply(products, 1, rows, columns, projected);
    multiply(products + 1, 1, rows, columns, sums);
  } else {
    multiply(products, 2, rows, columns, sums);
  }
}

// A vector of units' pre-activations: `given`, a row of a table or a bias, and the recurrent bias are added to the products.
// Where there is one the last part's two sums stay apart.
template <class Cell>
inline void preactivations(const float* given, const float* recurrent_bias, const Vector* projected, const Vector* sums,
                           int unit, int hidden, Vector* gates) {
  const int count = valid(unit, hidden);
  unrolled<Cell::gate_count>([&](auto part) CHARLOOM_INLINE {
    const ptrdiff_t at = static_cast<ptrdiff_t>(part.value) * hidden + unit;
    if constexpr (Cell::has_recurrent_bias) {
      const Vector input = projected[part.value] + load(given + at, count);
      const Vector recurrent = sums[part.value] + load(recurrent_bias + at, count);
      const bool is_last = part.value + 1 == Cell::gate_count;
      gates[part.value] = is_last ? input : input + recurrent;
      if (is_last) gates[part.value + 1] = recurrent;
    } else {
      gates[part.value] = sums[part.value] + load(given + at, count);
    }
  });
}

// A member's share of some vectors, in whole panels of `units`.
struct Share {
  int first, last;
  Share(Member member, int vectors, int units) {
    const int panels = (vectors + units - 1) / units;
    first = member.first(panels) * units;
    last = std::min(member.last(panels) * units, vectors);
  }
};

template <class Cell>
size_t packed_floats(int depth, int hidden) {
  return static_cast<size_t>(depth) * Cell::gate_count * vectors_of(hidden) * kWidth;
}

// What a member computes of each step: all batch rows of its units, or all units of its batch rows. `packed` are the floats of its
// weights; `max_panel` is how many vectors of units belong together.
struct Steps {
  bool by_batch_rows;
  Member together;  // those that a step is shared with
  Share units, features;
  int first_batch_row, last_batch_row;

  Steps(const Layer& call, size_t packed, Member member, int max_panel)
      : by_batch_rows(packed <= kCached && call.batch_size >= member.members * kRows),
        together(by_batch_rows ? Member{0, 1, nullptr} : member),
        units(together, vectors_of(call.hidden_size), max_panel),
        features(together, vectors_of(call.features), max_panel),
        first_batch_row(by_batch_rows ? member.first(call.batch_size) : 0),
        last_batch_row(by_batch_rows ? member.last(call.batch_size) : call.batch_size) {}

  // Which of the groups of batch rows begins there: they are as even as can be, so that some have fewer than kRows.
  int group_of(int batch_row) const { return (batch_row - first_batch_row + kRows - 1) / kRows; }
};

}  // namespace charloom
