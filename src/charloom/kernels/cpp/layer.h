// What both passes of a layer share: their arguments, the layout of their arrays, and how the work is divided.
//
// Each member of the team owns some vectors of units. It packs their weights, computes them at every step for all batch rows,
// and waits for the others after each step, because the next step reads all units. If all weights fit each core's cache, a
// member owns some batch rows instead, and does not wait between steps.
//
// A layer's input is table[rows] + features · kernel. The first layer reads rows of a table for its tokens. Other layers read
// the features from the layer below, and a table of one row, the bias.
#pragma once

#include <algorithm>

#include "cells.h"
#include "precision.h"
#include "threads.h"

namespace charloom::inline CHARLOOM_ARITHMETIC {

constexpr double kMinParallelOperations = 2e5;  // operations per step from which several threads are faster
constexpr size_t kCachedFloats = 1 << 17;       // floats of weights that easily fit a core's cache

// The arguments that both passes have. `gate_count` is that of the cell.
struct Layer {
  int time, batch_size, hidden_size, features;
  Activations activations;
  const int32_t* rows;            // [time, batch rows], indices of the table's rows
  const float* inputs;            // [time, batch rows, features]
  const float* kernel;            // [features, gate_count * hidden_size]
  const float* recurrent_kernel;  // [hidden_size, gate_count * hidden_size]
  const float* start;             // [batch rows, hidden]
  const float* start_cell;        // [batch rows, hidden], only for the LSTM
  const bool* resets;             // [time, batch rows]
};

// The layout of an array that has `Each` vectors per vector of units. A panel has `Units` vectors of units. The vectors of one
// panel are contiguous, row after row, where a row is one batch row of one step. A panel can so be read from end to end.
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
  // The distance between two rows of the panel that begins at `first`.
  ptrdiff_t stride(int first) const { return static_cast<ptrdiff_t>(std::min(Units, vectors - first)) * Each * kWidth; }
};

template <class Cell>
using GateTiles = Tiles<Cell::units, Cell::kept>;
using CellTiles = Tiles<1, 1>;

// Packs a kernel of `depth` rows into the panels of the vectors of units from `first` to `last`, in `packed`.
// A panel that begins at `unit` is panel[k][u][part] = kernel[k, part * hidden + unit + u], where k are pairs for bfloat16.
template <class Cell, class Precision = Float32>
inline void pack_forward(const float* kernel, int depth, int hidden, int first, int last, typename Precision::Element* packed) {
  constexpr int kStep = Precision::kStep;
  const int padded = Precision::depth_of(depth);
  for (int k = 0; k < padded; k += kStep)  // the outer loop, so that the kernel's rows are read from end to end
    for_each_panel(first, last, Cell::units, false, [&](int vector, int vectors) CHARLOOM_INLINE {
      auto* to = packed + (static_cast<size_t>(vector) * padded + static_cast<size_t>(k) * vectors) * Cell::gate_count * kWidth;
      for (int u = 0; u < vectors; ++u)
        for (int part = 0; part < Cell::gate_count; ++part, to += kStep * kWidth) {
          const int at = (vector + u) * kWidth;
          Vector depths[kStep] = {};
          for (int i = 0; i < kStep; ++i)
            if (k + i < depth) depths[i] = load(kernel + (static_cast<size_t>(k + i) * Cell::gate_count + part) * hidden + at, valid(at, hidden));
          Precision::store_packed(to, depths);
        }
    });
}

// The distance between two rows of floats in working memory.
inline int row_stride(int floats) { return Float32::stride_of(floats); }

// Computes the products of a layer's input, `products[0]` (its depth may be 0), and of its state, `products[1]`. For a cell with
// a separate recurrent bias, the first product is stored separately in `projected`.
template <class Cell, class Factors>
inline void multiply_layer(const Factors* products, int rows, int columns, Vector* projected, Vector* sums) {
  if constexpr (Cell::has_recurrent_bias) {
    multiply(products, 1, rows, columns, projected);
    multiply(products + 1, 1, rows, columns, sums);
  } else {
    multiply(products, 2, rows, columns, sums);
  }
}

// Computes the pre-activations of a vector of units. It adds `given`, which is a row of a table or a bias, and the recurrent bias
// to the products. With a recurrent bias, the two sums of the last part are stored separately.
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

// The number of floats that a packed kernel takes.
template <class Cell, class Precision = Float32>
size_t packed_floats(int depth, int hidden) {
  return Precision::floats(static_cast<size_t>(Precision::depth_of(depth)) * Cell::gate_count * vectors_of(hidden) * kWidth);
}

// What a member computes in each step: all batch rows of its units, or all units of its batch rows. `packed` is the number of
// floats of the weights, and `max_panel` the number of vectors of units in a panel.
struct Steps {
  bool by_batch_rows;
  Member team;  // the members that a step is shared with
  Share units, features;
  int first_batch_row, last_batch_row;

  Steps(const Layer& call, size_t packed, Member member, int max_panel)
      : by_batch_rows(packed <= kCachedFloats && call.batch_size >= member.members * kRows),
        team(by_batch_rows ? Member{0, 1, nullptr} : member),
        units(team, vectors_of(call.hidden_size), max_panel),
        features(team, vectors_of(call.features), max_panel),
        first_batch_row(by_batch_rows ? member.first(call.batch_size) : 0),
        last_batch_row(by_batch_rows ? member.last(call.batch_size) : call.batch_size) {}

  // The index of the group of batch rows that begins at `batch_row`. Groups are as even as possible: some have fewer than `MaxRows`.
  template <int MaxRows>
  int group_of(int batch_row) const {
    return (batch_row - first_batch_row + MaxRows - 1) / MaxRows;
  }
};

}  // namespace charloom
