// The forward pass of a layer over a whole sequence. It keeps what the backward pass needs.
#pragma once

#include "layer.h"

namespace charloom {

// `gates` and `cells` are for the backward pass, in the layout of `Tiles`. They are null if there is no backward pass.
struct Forward : Layer {
  const float* table;           // [table rows, gate_count * hidden_size]
  const float* recurrent_bias;  // [gate_count * hidden_size], only for the GRU
  float* outputs;               // [time, batch rows, hidden]
  float* last_cell;             // [batch rows, hidden], only for the LSTM
  float* gates;
  float* cells;
};

template <class Cell, class Precision>
size_t forward_floats(const Forward& call) {
  const size_t rows = static_cast<size_t>(call.time) * call.batch_size;
  return Scratch::rounded(packed_floats<Cell, Precision>(call.hidden_size, call.hidden_size)) +
         Scratch::rounded(packed_floats<Cell, Precision>(call.features, call.hidden_size)) +
         2 * Scratch::rounded(Precision::floats(static_cast<size_t>(call.batch_size) * Precision::stride_of(call.hidden_size))) +
         Scratch::rounded(Precision::converted_floats(rows, call.features));
}

// `call` is a copy, so the compiler knows that no store changes it, and reads its fields only once.
template <class Cell, class Precision>
void forward(const Forward call, Member member, Scratch scratch) {
  using Element = typename Precision::Element;
  [[maybe_unused]] const TileScope tiles_in_use;
  const int hidden = call.hidden_size, batch_size = call.batch_size, features = call.features;
  const int stride = Precision::stride_of(hidden), all_rows = call.time * batch_size;
  Element* packed = scratch.take<Element>(packed_floats<Cell, Precision>(hidden, hidden));
  Element* packed_inputs = scratch.take<Element>(packed_floats<Cell, Precision>(features, hidden));
  Element* states[2];
  for (Element*& state : states) state = scratch.take<Element>(Precision::floats(static_cast<size_t>(batch_size) * stride));
  const Share share(member, vectors_of(hidden), Cell::units);
  const Steps steps(call, packed_floats<Cell, Precision>(hidden + features, hidden), member, Cell::units);
  const GateTiles<Cell> tiles(call);
  const CellTiles cell_tiles(call);

  const size_t column = static_cast<size_t>(Cell::gate_count) * kWidth;  // size of a row of a panel, per vector of units
  const size_t depth = Precision::depth_of(hidden), input_depth = Precision::depth_of(features);
  const size_t gates_width = static_cast<size_t>(Cell::gate_count) * hidden;
  pack_forward<Cell, Precision>(call.recurrent_kernel, hidden, hidden, share.first, share.last, packed);
  pack_forward<Cell, Precision>(call.kernel, features, hidden, share.first, share.last, packed_inputs);
  for (int batch_row = member.first(batch_size); batch_row < member.last(batch_size); ++batch_row) {
    const size_t at = static_cast<size_t>(batch_row) * stride;
    copy_row<Precision>(call.resets[batch_row] ? nullptr : call.start + static_cast<size_t>(batch_row) * hidden, hidden, states[0] + at);
    copy_row<Precision>(nullptr, hidden, states[1] + at);  // the padding must be zero
  }
  const auto inputs = Precision::factors(call.inputs, member.first(all_rows), member.last(all_rows), features,
                                         scratch.take<Element>(Precision::converted_floats(all_rows, features)));
  member.wait();

  for (int step = 0; step < call.time; ++step) {
    const Element* state = states[step % 2];
    Element* next = states[(step + 1) % 2];
    const size_t first_row = static_cast<size_t>(step) * batch_size;
    const bool* resets = call.resets + first_row;
    const bool* next_resets = step + 1 < call.time ? resets + batch_size : nullptr;
    const float* cells_before = step == 0 ? call.start_cell : call.last_cell;
    const float* outputs_before = step == 0 ? call.start : call.outputs + (first_row - batch_size) * hidden;
    const bool backwards = step % 2 == 1;
    for_each_panel(steps.units.first, steps.units.last, Cell::units, backwards, [&](int vector, int vectors) CHARLOOM_INLINE {
      const int columns = vectors * Cell::gate_count;
      const ptrdiff_t tile_stride = tiles.stride(vector);
      const Element* panel = packed + vector * column * depth;
      const Element* next_panel = backwards ? panel - Cell::units * column * depth : panel + vectors * column * depth;
      const Element* input_panel = packed_inputs + vector * column * input_depth;
      for_each_group<Precision::kRows>(steps.first_batch_row, steps.last_batch_row, [&](int first_of_group, int group_rows) CHARLOOM_INLINE {
        const typename Precision::Factors products[] = {
            Precision::product(inputs.row(first_row + first_of_group), inputs.stride, input_panel, columns, features,
                               input_panel + columns * kWidth * input_depth, 0),
            Precision::product(state + static_cast<size_t>(first_of_group) * stride, stride, panel, columns, hidden, next_panel,
                               steps.template group_of<Precision::kRows>(first_of_group))};
        Vector group_sums[Precision::kRows * kPanel], group_projected[Precision::kRows * kPanel];
        multiply_layer<Cell>(products, group_rows, columns, group_projected, group_sums);
        for_each_group(0, group_rows, [&](int first_in_group, int rows) CHARLOOM_INLINE {
          const int first_batch_row = first_of_group + first_in_group;
          const Vector* sums = group_sums + first_in_group * columns;
          const Vector* projected = group_projected + first_in_group * columns;
          for (int u = 0; u < vectors; ++u) {
            const int unit = (vector + u) * kWidth, count = valid(unit, hidden);
            const size_t row = first_row + first_batch_row, at = static_cast<size_t>(first_batch_row) * hidden + unit;
            const ptrdiff_t in_state = static_cast<ptrdiff_t>(first_batch_row) * stride + unit;
            Vector gates[kRows * Cell::kept], memory[kRows], outputs[kRows];
            for (int r = 0; r < rows; ++r) {
              const int from = r * columns + u * Cell::gate_count;
              preactivations<Cell>(call.table + static_cast<size_t>(call.rows[row + r]) * gates_width, call.recurrent_bias,
                                   projected + from, sums + from, unit, hidden, gates + r * Cell::kept);
              const float* before = Cell::has_cell ? cells_before : outputs_before;
              memory[r] = resets[first_batch_row + r] ? Vector{} : load(before + at + r * hidden, count);
            }
            Cell::forward(call.activations, rows, gates, memory, outputs);
            float* to_gates = call.gates ? tiles.at(call.gates, row, vector + u) : nullptr;
            float* to_cells = call.cells ? cell_tiles.at(call.cells, row, vector + u) : nullptr;
            for (int r = 0; r < rows; ++r) {
              if constexpr (Cell::has_cell) {
                store(call.last_cell + at + r * hidden, memory[r], count);
                if (to_cells) store(to_cells + r * kWidth, memory[r]);
              }
              if (to_gates)
                unrolled<Cell::kept>([&](auto gate) CHARLOOM_INLINE {
                  store(to_gates + r * tile_stride + gate.value * kWidth, gates[r * Cell::kept + gate.value]);
                });
              store(call.outputs + (row + r) * hidden + unit, outputs[r], count);
              if (next_resets)
                Precision::store(next + in_state + r * stride, next_resets[first_batch_row + r] ? Vector{} : outputs[r]);
            }
          }
        });
      });
    });
    steps.team.wait();
  }
}

}  // namespace charloom
