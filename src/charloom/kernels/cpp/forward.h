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

template <class Cell>
size_t forward_floats(const Forward& call) {
  return Scratch::rounded(packed_floats<Cell>(call.hidden_size, call.hidden_size)) +
         Scratch::rounded(packed_floats<Cell>(call.features, call.hidden_size)) +
         2 * Scratch::rounded(static_cast<size_t>(call.batch_size) * row_stride(call.hidden_size));
}

// `call` is a copy, so the compiler knows that no store changes it, and reads its fields only once.
template <class Cell>
void forward(const Forward call, Member member, Scratch scratch) {
  const int hidden = call.hidden_size, batch_size = call.batch_size, features = call.features, stride = row_stride(hidden);
  float* packed = scratch.take(packed_floats<Cell>(hidden, hidden));
  float* packed_inputs = scratch.take(packed_floats<Cell>(features, hidden));
  float* states[2];
  for (float*& state : states) state = scratch.take(static_cast<size_t>(batch_size) * stride);
  const Share share(member, vectors_of(hidden), Cell::units);
  const Steps steps(call, packed_floats<Cell>(hidden + features, hidden), member, Cell::units);
  const GateTiles<Cell> tiles(call);
  const CellTiles cell_tiles(call);

  const size_t column = static_cast<size_t>(Cell::gate_count) * kWidth;  // size of a row of a panel, per vector of units
  const size_t gates_width = static_cast<size_t>(Cell::gate_count) * hidden;
  pack_forward<Cell>(call.recurrent_kernel, hidden, hidden, share.first, share.last, packed);
  pack_forward<Cell>(call.kernel, features, hidden, share.first, share.last, packed_inputs);
  for (int batch_row = member.first(batch_size); batch_row < member.last(batch_size); ++batch_row) {
    float* state = states[0] + static_cast<size_t>(batch_row) * stride;
    if (call.resets[batch_row])
      std::fill_n(state, hidden, 0.0f);
    else
      std::copy_n(call.start + static_cast<size_t>(batch_row) * hidden, hidden, state);
  }
  member.wait();

  for (int step = 0; step < call.time; ++step) {
    const float* state = states[step % 2];
    float* next = states[(step + 1) % 2];
    const size_t first_row = static_cast<size_t>(step) * batch_size;
    const bool* resets = call.resets + first_row;
    const bool* next_resets = step + 1 < call.time ? resets + batch_size : nullptr;
    const float* cells_before = step == 0 ? call.start_cell : call.last_cell;
    const bool backwards = step % 2 == 1;
    for_each_panel(steps.units.first, steps.units.last, Cell::units, backwards, [&](int vector, int vectors) CHARLOOM_INLINE {
      const int columns = vectors * Cell::gate_count;
      const ptrdiff_t tile_stride = tiles.stride(vector);
      const float* panel = packed + vector * column * hidden;
      const float* next_panel = backwards ? panel - Cell::units * column * hidden : panel + vectors * column * hidden;
      for_each_group(steps.first_batch_row, steps.last_batch_row, [&](int first_batch_row, int rows) CHARLOOM_INLINE {
        const float* input_panel = packed_inputs + vector * column * features;
        const int width = columns * kWidth, group = steps.group_of(first_batch_row);
        const Product products[] = {{call.inputs + (first_row + first_batch_row) * features, features, 1, input_panel, width, features,
                                     input_panel + static_cast<ptrdiff_t>(width) * features},
                                    {state + static_cast<size_t>(first_batch_row) * stride, stride, 1, panel, width, hidden,
                                     next_panel + static_cast<size_t>(group) * hidden * kLine}};
        Vector sums[kRows * kPanel], projected[kRows * kPanel];
        multiply_layer<Cell>(products, rows, columns, projected, sums);
        for (int u = 0; u < vectors; ++u) {
          const int unit = (vector + u) * kWidth, count = valid(unit, hidden);
          const size_t row = first_row + first_batch_row, at = static_cast<size_t>(first_batch_row) * hidden + unit;
          const ptrdiff_t in_state = static_cast<ptrdiff_t>(first_batch_row) * stride + unit;
          Vector gates[kRows * Cell::kept], memory[kRows], outputs[kRows];
          for (int r = 0; r < rows; ++r) {
            const int from = r * columns + u * Cell::gate_count;
            preactivations<Cell>(call.table + static_cast<size_t>(call.rows[row + r]) * gates_width, call.recurrent_bias,
                                 projected + from, sums + from, unit, hidden, gates + r * Cell::kept);
            if constexpr (Cell::has_cell)
              memory[r] = resets[first_batch_row + r] ? Vector{} : load(cells_before + at + r * hidden, count);
            else
              memory[r] = load(state + in_state + r * stride);
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
            if (next_resets) store(next + in_state + r * stride, next_resets[first_batch_row + r] ? Vector{} : outputs[r]);
          }
        }
      });
    });
    steps.team.wait();
  }
}

}  // namespace charloom
