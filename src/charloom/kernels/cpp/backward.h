// The backward pass of a layer over a whole sequence. It first computes the gradients of the products step by step. Then it
// computes the gradient of each weight matrix as one product over all steps and batch rows.
#pragma once

#include "layer.h"

namespace charloom {

constexpr int kChunk = 1024;  // steps times batch rows of a kernel's gradient that are processed at a time, to stay in the cache

struct Backward : Layer {
  int table_rows;
  const float* outputs;
  float* gates;  // overwritten with their gradients; null for the Elman network, which keeps none
  const float* cells;
  const float* d_outputs;
  const float* d_last;
  const float* d_last_cell;
  float* d_table;
  float* d_inputs;
  float* d_kernel;
  float* d_recurrent_kernel;
  float* d_recurrent_bias;
  float* d_start;
  float* d_start_cell;
};

// Packs a transposed kernel of `count` rows into panels like those of `pack_forward`, from row `first` on:
// panel[v][part][u][r] = kernel[first + r, parts_at[part] * hidden + v * kWidth + u].
template <class Cell>
inline void pack_backward(const float* kernel, int count, int hidden, const int* parts_at, int first, int vectors,
                          float* panel) {
  const int columns = vectors * kWidth, gates = Cell::gate_count * hidden;
  for (int r = 0; r < columns; r += kWidth) {
    for (int part = 0; part < Cell::gate_count; ++part)  // a part's rows are read from end to end
      for (int v = 0; v < vectors_of(hidden); ++v) {
        float* to = panel + r + static_cast<size_t>(v * Cell::gate_count + part) * kWidth * columns;
        const float* from = kernel + static_cast<size_t>(first + r) * gates + parts_at[part] * hidden + v * kWidth;
        Vector square[kWidth];
        for (int i = 0; i < kWidth; ++i, from += gates)
          square[i] = first + r + i < count ? load(from, valid(v * kWidth, hidden)) : Vector{};
        transpose(square);
        for (const Vector& row : square) store(to, row), to += columns;
      }
  }
}

// Transposed rows are stored in groups of columns, to[group][row][column], which `multiply` reads when it sums over rows.
// There is a cache line between groups, so that they are not all mapped to the same cache set.
inline size_t transposed_floats(int columns, int depth) {
  return static_cast<size_t>(columns) * depth + static_cast<size_t>(columns / kRows + 1) * kLine;
}

// The offset of the group with index `index`, whose first column is `column`.
inline size_t group_at(int column, int index, int depth) {
  return static_cast<size_t>(column) * depth + static_cast<size_t>(index) * kLine;
}

// The sizes of the parts of the backward pass's working memory.
template <class Cell>
struct BackwardMemory {
  size_t packed, packed_inputs, carried, step, previous, inputs, table, gates;

  BackwardMemory(const Backward& call, int threads) {
    const size_t rows = static_cast<size_t>(call.time) * call.batch_size, vectors = vectors_of(call.hidden_size);
    const size_t gradients = vectors * Cell::gate_count * kWidth;
    packed = vectors_of(call.hidden_size) * kWidth * gradients;
    packed_inputs = vectors_of(call.features) * kWidth * gradients;
    carried = static_cast<size_t>(call.batch_size) * row_stride(call.hidden_size);
    step = static_cast<size_t>(call.batch_size) * row_stride(static_cast<int>(gradients));
    previous = transposed_floats(call.hidden_size, static_cast<int>(rows));
    inputs = transposed_floats(call.features, static_cast<int>(rows));
    table = threads * static_cast<size_t>(call.table_rows) * kPanel * kWidth;
    gates = call.gates ? 0 : rows * vectors * Cell::kept * kWidth;
  }

  size_t floats() const {
    size_t all = 0;
    for (size_t part : {packed, packed_inputs, carried, step, step, step, step, previous, inputs, table, gates})
      all += Scratch::rounded(part);
    return all;
  }
};

// Transposes rows. `row_of` returns a pointer to a row, or null for a row of zeros.
template <class RowOf>
void transpose(int columns, int depth, Member member, const RowOf& row_of, float* to) {
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

// Computes a kernel's gradient for the units of one panel: `transposed`, which has `columns` columns, times the gradients that
// begin at `panel`. It is one product over steps and batch rows.
template <class Cell>
void kernel_gradient(const Backward& call, const float* transposed, int columns, const int* parts_at, int vector, int vectors,
                     const float* panel, ptrdiff_t panel_stride, float* gradient) {
  const int hidden = call.hidden_size, depth = call.time * call.batch_size, width = vectors * Cell::gate_count;
  for (int first = 0; first < depth; first += kChunk) {
    const int chunk = std::min(kChunk, depth - first);
    int index = 0;
    for_each_group(0, columns, [&](int column, int count) {
      Vector sums[kRows * kPanel];
      const float* rows = transposed + group_at(column, index++, depth) + static_cast<size_t>(first) * count;
      const float* from = panel + first * panel_stride;
      const Product product{rows, 1, count, from, panel_stride, chunk, from};
      multiply(&product, 1, count, width, sums);
      for (int c = 0; c < count; ++c)
        for (int u = 0; u < vectors; ++u)
          for (int part = 0; part < Cell::gate_count; ++part) {
            const int unit = (vector + u) * kWidth, valid = charloom::valid(unit, hidden);
            float* at = gradient + (static_cast<size_t>(column + c) * Cell::gate_count + parts_at[part]) * hidden + unit;
            const Vector sum = sums[c * width + u * Cell::gate_count + part];
            store(at, first == 0 ? sum : load(at, valid) + sum, valid);
          }
    });
  }
}

// Computes the gradients that are sums of rows: those of the table and the recurrent bias. `sums` has room for a panel of the
// table.
template <class Cell>
void row_gradients(const Backward& call, int vector, int vectors, const float* panel, ptrdiff_t stride, float* sums) {
  const int hidden = call.hidden_size, depth = call.time * call.batch_size;
  const size_t width = static_cast<size_t>(vectors) * Cell::gate_count * kWidth;
  std::fill_n(sums, call.table_rows * width, 0.0f);
  Vector bias[kPanel] = {};
  for (int row = 0; row < depth; ++row) {
    const float* gradients = panel + row * stride;
    float* to = sums + call.rows[row] * width;
    for (size_t at = 0; at < width; at += kWidth) store(to + at, load(to + at) + load(gradients + at));
    if constexpr (Cell::has_recurrent_bias)
      for (int part = 0; part < Cell::gate_count; ++part) bias[part] += load(gradients + (Cell::recurrent_at + part) * kWidth);
  }
  for (int u = 0; u < vectors; ++u)
    for (int part = 0; part < Cell::gate_count; ++part) {
      const int unit = (vector + u) * kWidth, count = valid(unit, hidden);
      for (int row = 0; row < call.table_rows; ++row)
        store(call.d_table + (static_cast<size_t>(row) * Cell::gate_count + Cell::input_gates[part]) * hidden + unit,
              load(sums + row * width + (u * Cell::gate_count + part) * kWidth), count);
      if constexpr (Cell::has_recurrent_bias) store(call.d_recurrent_bias + part * hidden + unit, bias[part], count);
    }
}

// `call` is a copy, as in `forward`.
template <class Cell>
void backward(const Backward call, Member member, Scratch scratch) {
  static constexpr int recurrent_parts[] = {0, 1, 2, 3};
  // Whether the gradients of the two products differ, so that both are stored.
  constexpr bool separate = Cell::recurrent_at != 0;
  const int hidden = call.hidden_size, batch_size = call.batch_size, features = call.features, depth = call.time * batch_size;
  const int vectors_of_units = vectors_of(hidden), gradients = vectors_of_units * Cell::gate_count * kWidth;
  const int stride = row_stride(hidden), step_stride = row_stride(gradients);
  const BackwardMemory<Cell> memory(call, member.members);
  float* packed = scratch.take(memory.packed);
  float* packed_inputs = scratch.take(memory.packed_inputs);
  float* carried = scratch.take(memory.carried);
  float* d_products[2];  // the gradients of the recurrent product of this step and of the next one
  float* d_projected[2];
  for (float*& of_step : d_products) of_step = scratch.take(memory.step);
  for (float*& of_step : d_projected) of_step = scratch.take(memory.step);
  float* previous = scratch.take(memory.previous);
  float* inputs = scratch.take(memory.inputs);
  float* table = scratch.take(memory.table) + static_cast<size_t>(member.index) * call.table_rows * kPanel * kWidth;
  float* gates = call.gates ? call.gates : scratch.take(memory.gates);
  const GateTiles<Cell> tiles(call);
  const CellTiles cell_tiles(call);
  const Steps steps(call, memory.packed + memory.packed_inputs, member, 1);

  const size_t column = static_cast<size_t>(gradients) * kWidth;  // size of a row of a panel, per vector of units
  // A member that reads all units reads whole panels.
  const int panel_vectors = steps.by_batch_rows ? kPanel : 1;
  const auto pack = [&](int width, const float* kernel, int count, const int* parts_at, float* to) {
    const Share share(member, width, panel_vectors);
    for_each_panel(share.first, share.last, kPanel, false, [&](int vector, int vectors) {
      pack_backward<Cell>(kernel, count, hidden, parts_at, vector * kWidth, vectors, to + vector * column);
    });
  };
  pack(vectors_of_units, call.recurrent_kernel, hidden, recurrent_parts, packed);
  pack(vectors_of(features), call.kernel, features, Cell::input_gates, packed_inputs);
  member.wait();

  // Step -1 is the state before the first step.
  for (int step = call.time - 1; step >= -1; --step) {
    const bool is_last = step + 1 == call.time;
    const size_t later = static_cast<size_t>(step + 1) * batch_size;
    const bool backwards = step % 2 != 0;
    // Calls body(first_batch_row, rows, vector, vectors, sums) with the products of the next step's gradients.
    const auto multiplied = [&](const Share& share, const float* kernel, const float* of_later, const auto& body) CHARLOOM_INLINE {
      for_each_panel(share.first, share.last, kPanel, backwards, [&](int vector, int vectors) CHARLOOM_INLINE {
        const float* panel = kernel + vector * column;
        const float* next_panel = backwards ? panel - kPanel * column : panel + vectors * column;
        for_each_group(steps.first_batch_row, steps.last_batch_row, [&](int first_batch_row, int rows) CHARLOOM_INLINE {
          Vector sums[kRows * kPanel];
          const int group = steps.group_of(first_batch_row);
          const Product product{of_later + static_cast<size_t>(first_batch_row) * step_stride, step_stride, 1, panel,
                                vectors * kWidth, gradients, next_panel + static_cast<size_t>(group) * gradients * kLine};
          if (!is_last) multiply(&product, 1, rows, vectors, sums);
          body(first_batch_row, rows, vector, vectors, sums);
        });
      });
    };
    float* d_product = d_products[step & 1];
    float* d_input = separate ? d_projected[step & 1] : d_product;
    const auto step_back = [&](int first_batch_row, int rows, int vector, int vectors, const Vector* sums) CHARLOOM_INLINE {
      const size_t first_row = static_cast<size_t>(std::max(step, 0)) * batch_size + first_batch_row;
      for (int u = 0; u < vectors; ++u) {
        const int unit = (vector + u) * kWidth, count = valid(unit, hidden);
        const size_t of_batch_rows = static_cast<size_t>(first_batch_row) * hidden + unit;
        float* d_carried = carried + static_cast<size_t>(first_batch_row) * stride + unit;
        Step of_batch_row[kRows] = {};
        for (int r = 0; r < rows; ++r) {
          Step& of_step = of_batch_row[r];
          if (is_last) {
            of_step.d_hidden = load(call.d_last + of_batch_rows + r * hidden, count);
            if constexpr (Cell::has_cell) of_step.d_carried = load(call.d_last_cell + of_batch_rows + r * hidden, count);
          } else if (!call.resets[later + first_batch_row + r]) {
            of_step.d_hidden = sums[r * vectors + u];
            if constexpr (Cell::has_cell) of_step.d_carried = load(d_carried + r * stride);
            if constexpr (Cell::carries_hidden) of_step.d_hidden += load(d_carried + r * stride);
          }
        }
        if (step < 0) {
          for (int r = 0; r < rows; ++r) {
            store(call.d_start + of_batch_rows + r * hidden, of_batch_row[r].d_hidden, count);
            if constexpr (Cell::has_cell) store(call.d_start_cell + of_batch_rows + r * hidden, of_batch_row[r].d_carried, count);
          }
          continue;
        }
        // Vector elements beyond the last unit are zero here, and so are their gradients.
        float* tile = tiles.at(gates, first_row, vector + u);
        const ptrdiff_t tile_stride = tiles.stride((vector + u) / Cell::units * Cell::units);
        const ptrdiff_t states_stride = Cell::has_cell ? kWidth : hidden;
        const float* after = Cell::has_cell ? cell_tiles.at(call.cells, first_row, vector + u)
                                            : call.outputs + first_row * hidden + unit;
        const float* start = (Cell::has_cell ? call.start_cell : call.start) + of_batch_rows;
        const float* before = step == 0 ? start : after - batch_size * states_stride;
        const ptrdiff_t before_stride = step == 0 ? hidden : states_stride;
        Vector ends[kRows];
        for (int r = 0; r < rows; ++r) {
          of_batch_row[r].d_hidden += load(call.d_outputs + (first_row + r) * hidden + unit, count);
          ends[r] = load(after + r * states_stride, count);
          if (!call.resets[first_row + r]) of_batch_row[r].before = load(before + r * before_stride, count);
        }
        if constexpr (Cell::has_cell) call.activations.cell(ends, rows, 1);
        float* to_product = d_product + static_cast<size_t>(first_batch_row) * step_stride + (vector + u) * Cell::gate_count * kWidth;
        float* to_input = d_input + (to_product - d_product);
        for (int r = 0; r < rows; ++r) {
          Vector of_gates[Cell::kept];
          float* to = tile + r * tile_stride;
          if (call.gates)
            unrolled<Cell::kept>([&](auto gate) CHARLOOM_INLINE {
              of_gates[gate.value] = load(to + gate.value * kWidth, count);
            });
          of_batch_row[r].after = ends[r];
          const Vector d_before = Cell::backward(call.activations, of_gates, of_batch_row[r], of_gates);
          if constexpr (Cell::has_cell || Cell::carries_hidden) store(d_carried + r * stride, d_before);
          unrolled<Cell::kept>([&](auto gate) CHARLOOM_INLINE {
            store(to + gate.value * kWidth, of_gates[gate.value]);
          });
          unrolled<Cell::gate_count>([&](auto part) CHARLOOM_INLINE {
            store(to_product + r * step_stride + part.value * kWidth, of_gates[Cell::recurrent_at + part.value]);
            if (separate && features) store(to_input + r * step_stride + part.value * kWidth, of_gates[part.value]);
          });
        }
      }
    };
    multiplied(steps.units, packed, d_products[(step + 1) & 1], step_back);
    if (!is_last)
      multiplied(steps.features, packed_inputs, (separate ? d_projected : d_products)[(step + 1) & 1],
                 [&](int first_batch_row, int rows, int vector, int vectors, const Vector* sums) CHARLOOM_INLINE {
                   for (int r = 0; r < rows; ++r)
                     for (int v = 0; v < vectors; ++v) {
                       const int feature = (vector + v) * kWidth;
                       store(call.d_inputs + (later + first_batch_row + r) * features + feature, sums[r * vectors + v],
                             valid(feature, features));
                     }
                 });
    steps.team.wait();
  }

  transpose(hidden, depth, member, [&](int row) -> const float* {
    return call.resets[row] ? nullptr
           : row < batch_size    ? call.start + static_cast<size_t>(row) * hidden
                            : call.outputs + static_cast<size_t>(row - batch_size) * hidden;
  }, previous);
  transpose(features, depth, member, [&](int row) { return call.inputs + static_cast<size_t>(row) * features; }, inputs);
  member.wait();
  const Share share(member, vectors_of_units, Cell::units);
  for_each_panel(share.first, share.last, Cell::units, false, [&](int vector, int vectors) {
    const float* panel = tiles.at(gates, 0, vector);
    const ptrdiff_t stride = tiles.stride(vector);
    kernel_gradient<Cell>(call, previous, hidden, recurrent_parts, vector, vectors, panel + Cell::recurrent_at * kWidth, stride,
                          call.d_recurrent_kernel);
    kernel_gradient<Cell>(call, inputs, features, Cell::input_gates, vector, vectors, panel, stride, call.d_kernel);
    row_gradients<Cell>(call, vector, vectors, panel, stride, table);
  });
}

}  // namespace charloom
