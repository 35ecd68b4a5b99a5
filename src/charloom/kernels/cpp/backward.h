// The backward pass of a layer over a whole sequence. It first computes the gradients of the products step by step. Then it
// computes the gradient of each weight matrix as one product over all steps and batch rows.
#pragma once

#include "kernel_gradient.h"
#include "layer.h"

namespace charloom {

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

// The depth of a product with the gates' gradients of all units: [vector][part][unit of the vector].
template <class Cell>
int gradients_depth(int hidden) {
  return vectors_of(hidden) * Cell::gate_count * kWidth;
}

// Packs a transposed kernel of `count` rows into panels like those of `pack_forward`, from row `first` on:
// panel[v][part][u][r] = kernel[first + r, parts_at[part] * hidden + v * kWidth + u], where u are pairs for bfloat16.
template <class Cell, class Precision = Float32>
inline void pack_backward(const float* kernel, int count, int hidden, const int* parts_at, int first, int vectors,
                          typename Precision::Element* panel) {
  constexpr int kStep = Precision::kStep;
  const int columns = vectors * kWidth, gates = Cell::gate_count * hidden, depth = gradients_depth<Cell>(hidden);
  for (int r = 0; r < columns; r += kWidth) {
    for (int part = 0; part < Cell::gate_count; ++part)  // a part's rows are read from end to end
      for (int v = 0; v < vectors_of(hidden); ++v) {
        auto* to = panel + r * kStep + static_cast<size_t>(v * Cell::gate_count + part) * kWidth * columns;
        const float* from = kernel + static_cast<size_t>(first + r) * gates + parts_at[part] * hidden + v * kWidth;
        Vector square[kWidth];
        for (int i = 0; i < kWidth; ++i, from += gates)
          square[i] = first + r + i < count ? load(from, valid(v * kWidth, hidden)) : Vector{};
        transpose(square);
        for (int u = 0; u < kWidth; u += kStep, to += kStep * columns) {
          Vector depths[kStep];
          std::copy_n(square + u, kStep, depths);
          Precision::store_packed(to, depths);
        }
      }
    for (int k = depth; k < Precision::depth_of(depth); k += kStep)
      Precision::store_packed(panel + r * kStep + static_cast<size_t>(k) * columns, {});
  }
}

// The sizes of the parts of the backward pass's working memory, in floats.
template <class Cell, class Precision>
struct BackwardMemory {
  size_t packed, packed_inputs, carried, step, previous, inputs, table, panel, gates;

  BackwardMemory(const Backward& call, int threads) {
    const int rows = call.time * call.batch_size, depth = gradients_depth<Cell>(call.hidden_size);
    const size_t vectors = vectors_of(call.hidden_size), padded = Precision::depth_of(depth);
    packed = Precision::floats(vectors * kWidth * padded);
    packed_inputs = Precision::floats(vectors_of(call.features) * kWidth * padded);
    carried = static_cast<size_t>(call.batch_size) * row_stride(call.hidden_size);
    step = Precision::floats(static_cast<size_t>(call.batch_size) * Precision::stride_of(depth));
    previous = KernelGradient<Precision>::transposed_floats(call.hidden_size, rows);
    inputs = KernelGradient<Precision>::transposed_floats(call.features, rows);
    table = threads * static_cast<size_t>(call.table_rows) * kPanel * kWidth;
    panel = static_cast<size_t>(threads) * Scratch::rounded(KernelGradient<Precision>::panel_floats());
    gates = call.gates ? 0 : rows * vectors * Cell::kept * kWidth;
  }

  size_t floats() const {
    size_t all = 0;
    for (size_t part : {packed, packed_inputs, carried, step, step, step, step, previous, inputs, table, panel, gates})
      all += Scratch::rounded(part);
    return all;
  }
};

// Computes the gradients of the two kernels for the units of one panel, whose gates' gradients begin at `panel`.
// `previous` are the transposed states before each step, and `inputs` the transposed features.
template <class Cell, class Precision>
void kernel_gradients(const Backward& call, const typename Precision::Element* previous, const typename Precision::Element* inputs,
                      int vector, int vectors, const float* panel, ptrdiff_t panel_stride, typename Precision::Element* packed) {
  using Gradient = KernelGradient<Precision>;
  static constexpr int recurrent_parts[] = {0, 1, 2, 3};
  const int hidden = call.hidden_size, depth = call.time * call.batch_size, width = vectors * Cell::gate_count;
  for (int first = 0; first < depth; first += Gradient::kChunk) {
    const int chunk = std::min(Gradient::kChunk, depth - first);
    const auto* gradients = Gradient::packed_panel(panel + first * panel_stride + Cell::recurrent_at * kWidth, panel_stride,
                                                   width * kWidth, chunk, packed);
    const auto add_to = [&](float* gradient, const int* parts_at) {
      return [=](int column, int count, const Vector* sums) {
        for (int c = 0; c < count; ++c)
          for (int u = 0; u < vectors; ++u)
            for (int part = 0; part < Cell::gate_count; ++part) {
              const int unit = (vector + u) * kWidth, valid = charloom::valid(unit, hidden);
              float* at = gradient + (static_cast<size_t>(column + c) * Cell::gate_count + parts_at[part]) * hidden + unit;
              const Vector sum = sums[c * width + u * Cell::gate_count + part];
              store(at, first == 0 ? sum : load(at, valid) + sum, valid);
            }
      };
    };
    Gradient::multiply_chunk(previous, hidden, depth, first, chunk, gradients, panel_stride, width,
                             add_to(call.d_recurrent_kernel, recurrent_parts));
    if (call.features == 0) continue;
    if (Cell::recurrent_at != 0)
      gradients = Gradient::packed_panel(panel + first * panel_stride, panel_stride, width * kWidth, chunk, packed);
    Gradient::multiply_chunk(inputs, call.features, depth, first, chunk, gradients, panel_stride, width,
                             add_to(call.d_kernel, Cell::input_gates));
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
template <class Cell, class Precision>
void backward(const Backward call, Member member, Scratch scratch) {
  using Element = typename Precision::Element;
  [[maybe_unused]] const TileScope tiles_in_use;
  static constexpr int recurrent_parts[] = {0, 1, 2, 3};
  // Whether the gradients of the two products differ, so that both are stored.
  constexpr bool separate = Cell::recurrent_at != 0;
  const int hidden = call.hidden_size, batch_size = call.batch_size, features = call.features, depth = call.time * batch_size;
  const int vectors_of_units = vectors_of(hidden), gradients = gradients_depth<Cell>(hidden);
  const int stride = row_stride(hidden), step_stride = Precision::stride_of(gradients);
  const BackwardMemory<Cell, Precision> memory(call, member.members);
  Element* packed = scratch.take<Element>(memory.packed);
  Element* packed_inputs = scratch.take<Element>(memory.packed_inputs);
  float* carried = scratch.take(memory.carried);
  Element* d_products[2];  // the gradients of the recurrent product of this step and of the next one
  Element* d_projected[2];
  for (Element*& of_step : d_products) of_step = scratch.take<Element>(memory.step);
  for (Element*& of_step : d_projected) of_step = scratch.take<Element>(memory.step);
  Element* previous = scratch.take<Element>(memory.previous);
  Element* inputs = scratch.take<Element>(memory.inputs);
  float* table = scratch.take(memory.table) + static_cast<size_t>(member.index) * call.table_rows * kPanel * kWidth;
  Element* panels = scratch.take<Element>(memory.panel);
  panels += memory.panel / member.members * member.index * sizeof(float) / sizeof(Element);
  float* gates = call.gates ? call.gates : scratch.take(memory.gates);
  const GateTiles<Cell> tiles(call);
  const CellTiles cell_tiles(call);
  const Steps steps(call, memory.packed + memory.packed_inputs, member, 1);

  const size_t column = static_cast<size_t>(Precision::depth_of(gradients)) * kWidth;  // size of a panel, per vector of columns
  // A member that reads all units reads whole panels.
  const int panel_vectors = steps.by_batch_rows ? kPanel : 1;
  const auto pack = [&](int width, const float* kernel, int count, const int* parts_at, Element* to) {
    const Share share(member, width, panel_vectors);
    for_each_panel(share.first, share.last, kPanel, false, [&](int vector, int vectors) {
      pack_backward<Cell, Precision>(kernel, count, hidden, parts_at, vector * kWidth, vectors, to + vector * column);
    });
  };
  pack(vectors_of_units, call.recurrent_kernel, hidden, recurrent_parts, packed);
  pack(vectors_of(features), call.kernel, features, Cell::input_gates, packed_inputs);
  if (Precision::depth_of(gradients) != gradients)  // the padding must be zero
    for (int batch_row = member.first(batch_size); batch_row < member.last(batch_size); ++batch_row)
      for (Element* of_step : {d_products[0], d_products[1], d_projected[0], d_projected[1]})
        std::fill_n(of_step + static_cast<size_t>(batch_row) * step_stride + gradients, Precision::depth_of(gradients) - gradients, 0);
  member.wait();

  // Step -1 is the state before the first step.
  for (int step = call.time - 1; step >= -1; --step) {
    const bool is_last = step + 1 == call.time;
    const size_t later = static_cast<size_t>(step + 1) * batch_size;
    const bool backwards = step % 2 != 0;
    // Calls body(first_batch_row, rows, vector, vectors, sums) with the products of the next step's gradients.
    const auto multiplied = [&](const Share& share, const Element* kernel, const Element* of_later, const auto& body) CHARLOOM_INLINE {
      for_each_panel(share.first, share.last, kPanel, backwards, [&](int vector, int vectors) CHARLOOM_INLINE {
        const Element* panel = kernel + vector * column;
        const Element* next_panel = backwards ? panel - kPanel * column : panel + vectors * column;
        for_each_group<Precision::kRows>(steps.first_batch_row, steps.last_batch_row, [&](int first_batch_row, int rows) CHARLOOM_INLINE {
          Vector sums[Precision::kRows * kPanel];
          const auto product = Precision::product(of_later + static_cast<size_t>(first_batch_row) * step_stride, step_stride, panel,
                                                  vectors, gradients, next_panel,
                                                  steps.template group_of<Precision::kRows>(first_batch_row));
          if (!is_last) multiply(&product, 1, rows, vectors, sums);
          for_each_group(0, rows, [&](int first, int count) CHARLOOM_INLINE {
            body(first_batch_row + first, count, vector, vectors, sums + first * vectors);
          });
        });
      });
    };
    Element* d_product = d_products[step & 1];
    Element* d_input = separate ? d_projected[step & 1] : d_product;
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
        Element* to_product = d_product + static_cast<size_t>(first_batch_row) * step_stride + (vector + u) * Cell::gate_count * kWidth;
        Element* to_input = d_input + (to_product - d_product);
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
            Precision::store(to_product + r * step_stride + part.value * kWidth, of_gates[Cell::recurrent_at + part.value]);
            if (separate && features) Precision::store(to_input + r * step_stride + part.value * kWidth, of_gates[part.value]);
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

  KernelGradient<Precision>::transpose(hidden, depth, member, [&](int row) -> const float* {
    return call.resets[row] ? nullptr
           : row < batch_size    ? call.start + static_cast<size_t>(row) * hidden
                            : call.outputs + static_cast<size_t>(row - batch_size) * hidden;
  }, previous);
  KernelGradient<Precision>::transpose(
      features, depth, member, [&](int row) { return call.inputs + static_cast<size_t>(row) * features; }, inputs);
  member.wait();
  const Share share(member, vectors_of_units, Cell::units);
  for_each_panel(share.first, share.last, Cell::units, false, [&](int vector, int vectors) {
    const float* panel = tiles.at(gates, 0, vector);
    const ptrdiff_t stride = tiles.stride(vector);
    kernel_gradients<Cell, Precision>(call, previous, inputs, vector, vectors, panel, stride, panels);
    row_gradients<Cell>(call, vector, vectors, panel, stride, table);
  });
}

}  // namespace charloom
