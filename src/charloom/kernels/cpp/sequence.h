// A layer over a whole unroll: forward, and backward.
//
// Each member of the team owns some vectors of units: it packs their weights, computes them at every step for all
// lanes, and meets the others after each step, for the next one reads all units.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cells.h"
#include "product.h"
#include "threads.h"

namespace charloom {

constexpr int kChunk = 512;     // steps and lanes that the kernel's gradient takes at a time, to stay in the cache
constexpr double kAlone = 2e5;  // operations a step that are not worth a meeting

// Panels of a kernel for the units from `unit` on: panel[k][u][part] = kernel[k, part * hidden + unit + u].
template <class Cell>
inline void pack_forward(const float* kernel, int hidden, int unit, int vectors, float* panel) {
  for (int k = 0; k < hidden; ++k)
    for (int u = 0; u < vectors; ++u)
      for (int part = 0; part < Cell::parts; ++part) {
        const int at = unit + u * kWidth;
        const float* from = kernel + (static_cast<size_t>(k) * Cell::parts + part) * hidden + at;
        store(panel, load(from, valid(at, hidden)));
        panel += kWidth;
      }
}

// The same for the backward pass, which reads the kernel transposed: panel[k][u] = kernel[unit + u, k].
inline void pack_backward(const float* kernel, int depth, int hidden, int unit, int vectors, float* panel) {
  const int columns = vectors * kWidth, count = std::min(columns, hidden - unit);
  for (int first = 0; first < depth; first += kWidth) {  // some columns at a time, which stay in the cache
    const int last = std::min(first + kWidth, depth);
    for (int u = 0; u < columns; ++u)
      for (int k = first; k < last; ++k)
        panel[static_cast<size_t>(k) * columns + u] = u < count ? kernel[static_cast<size_t>(unit + u) * depth + k] : 0;
  }
}

inline size_t packed_floats(int depth, int hidden) {
  return static_cast<size_t>(depth) * vectors_of(hidden) * kWidth;
}

template <class Cell>
size_t forward_floats(const Forward& call) {
  return Scratch::rounded(packed_floats(Cell::parts * call.hidden, call.hidden)) +
         2 * Scratch::rounded(static_cast<size_t>(call.lanes) * call.hidden);
}

template <class Cell>
void forward(const Forward& call, Member member, Scratch scratch) {
  const int hidden = call.hidden, lanes = call.lanes;
  const size_t state_size = static_cast<size_t>(lanes) * hidden;
  const size_t cells_size = std::is_same_v<Cell, LSTM> ? state_size : 0;
  float* packed = scratch.take(packed_floats(Cell::parts * hidden, hidden));
  float* states[2] = {scratch.take(state_size), scratch.take(state_size)};
  const int first = member.first(vectors_of(hidden)), last = member.last(vectors_of(hidden));

  const size_t panel_size = static_cast<size_t>(Cell::parts) * hidden * kWidth;  // of one vector of units
  for_each_panel(first, last, Cell::units, false, [&](int vector, int vectors) {
    pack_forward<Cell>(call.kernel, hidden, vector * kWidth, vectors, packed + vector * panel_size);
  });
  for (int lane = member.first(lanes); lane < member.last(lanes); ++lane) {
    float* state = states[0] + static_cast<size_t>(lane) * hidden;
    if (call.resets[lane])
      std::fill_n(state, hidden, 0.0f);
    else
      std::copy_n(call.start + static_cast<size_t>(lane) * hidden, hidden, state);
  }
  member.wait();

  for (int step = 0; step < call.time; ++step) {
    const float* state = states[step % 2];
    float* next = states[(step + 1) % 2];
    const bool* resets = call.resets + static_cast<size_t>(step) * lanes;
    const bool* next_resets = step + 1 < call.time ? resets + lanes : nullptr;
    // Without gates to keep, c is written over what it was before.
    const float* cells_before = step == 0 ? call.start_cell : call.cells + (call.gates ? step - 1 : 0) * cells_size;
    float* cells_after = call.cells + (call.gates ? step : 0) * cells_size;
    const bool backwards = step % 2 == 1;
    for_each_panel(first, last, Cell::units, backwards, [&](int vector, int vectors) {
      const float* panel = packed + vector * panel_size;
      const float* next_panel = backwards ? panel - Cell::units * panel_size : panel + vectors * panel_size;
      for_each_group(lanes, [&](int first_lane, int rows) {
        Vector sums[kRows * kPanel];
        for (int u = 0; u < vectors; ++u)
          for (int part = 0; part < Cell::parts; ++part) {
            Vector from{};
            if constexpr (Cell::has_recurrent_bias) {
              const int unit = (vector + u) * kWidth;
              from = load(call.recurrent_bias + part * hidden + unit, valid(unit, hidden));
            }
            for (int r = 0; r < rows; ++r) sums[(r * vectors + u) * Cell::parts + part] = from;
          }
        const float* ahead = next_panel + static_cast<size_t>(first_lane) / kRows * hidden * kLine;
        multiply({state + static_cast<size_t>(first_lane) * hidden, hidden, 1, panel, hidden, ahead, sums}, rows,
                 vectors * Cell::parts);
        for (int r = 0; r < rows; ++r)
          for (int u = 0; u < vectors; ++u) {
            const int lane = first_lane + r, unit = (vector + u) * kWidth;
            const size_t row_of_lane = static_cast<size_t>(lane) * hidden;
            const Place at{static_cast<size_t>(step) * lanes + lane, unit, valid(unit, hidden)};
            const Vector* of_unit = sums + (r * vectors + u) * Cell::parts;
            Vector output;
            if constexpr (std::is_same_v<Cell, LSTM>)
              output = LSTM::forward(call, at, of_unit, resets[lane] ? nullptr : cells_before + row_of_lane,
                                     cells_after + row_of_lane);
            else if constexpr (std::is_same_v<Cell, GRU>)
              output = GRU::forward(call, at, of_unit, load(state + row_of_lane + unit, at.count));
            else
              output = Elman::forward(call, at, of_unit);
            store(call.outputs + at.row * hidden + unit, output, at.count);
            if (next_resets) store(next + row_of_lane + unit, next_resets[lane] ? Vector{} : output, at.count);
          }
      });
    });
    member.wait();
  }
}

template <class Cell>
size_t backward_floats(const Backward& call, int threads) {
  const size_t state_size = static_cast<size_t>(call.lanes) * call.hidden;
  return Scratch::rounded(packed_floats(Cell::parts * call.hidden, call.hidden)) + Scratch::rounded(state_size) +
         Scratch::rounded(call.time * state_size) + static_cast<size_t>(threads) * kChunk * kPanel * kWidth;
}

// The recurrent kernel's gradient: the states before the steps, transposed, times the products' gradients, one product
// over steps and lanes. `columns` is parts * hidden. `previous` is room for all the states, in groups of units as
// `multiply` reads them, `panel` for a chunk of the gradients, of which each member has its own.
inline void kernel_gradient(const Backward& call, int columns, Member member, float* previous, float* panel) {
  const int hidden = call.hidden, lanes = call.lanes, depth = call.time * lanes;
  for (int row = member.first(depth); row < member.last(depth); ++row) {
    const float* from = call.resets[row] ? nullptr
                        : row < lanes    ? call.start + static_cast<size_t>(row) * hidden
                                         : call.outputs + static_cast<size_t>(row - lanes) * hidden;
    for_each_group(hidden, [&](int unit, int units) {
      float* to = previous + static_cast<size_t>(unit) * depth + static_cast<size_t>(row) * units;
      for (int u = 0; u < units; ++u) to[u] = from ? from[unit + u] : 0.0f;
    });
  }
  member.wait();
  const int vectors = vectors_of(columns);
  for_each_panel(member.first(vectors), member.last(vectors), kPanel, false, [&](int vector, int width) {
    for (int first = 0; first < depth; first += kChunk) {
      const int chunk = std::min(kChunk, depth - first);
      for (int k = 0; k < chunk; ++k)
        for (int v = 0; v < width; ++v) {
          const int column = (vector + v) * kWidth;
          store(panel + (k * width + v) * kWidth,
                load(call.d_product + static_cast<size_t>(first + k) * columns + column, valid(column, columns)));
        }
      for_each_group(hidden, [&](int unit, int units) {
        Vector sums[kRows * kPanel];
        const auto for_each_vector = [&](const auto& body) {
          for (int u = 0; u < units; ++u)
            for (int v = 0; v < width; ++v) {
              const int column = (vector + v) * kWidth;
              body(sums[u * width + v], call.d_kernel + static_cast<size_t>(unit + u) * columns + column,
                   valid(column, columns));
            }
        };
        for_each_vector([&](Vector& sum, float* at, int count) { sum = first == 0 ? Vector{} : load(at, count); });
        const float* rows = previous + static_cast<size_t>(unit) * depth + static_cast<size_t>(first) * units;
        multiply({rows, 1, units, panel, chunk, panel, sums}, units, width);
        for_each_vector([&](Vector& sum, float* at, int count) { store(at, sum, count); });
      });
    }
  });
}

template <class Cell>
void backward(const Backward& call, Member member, Scratch scratch) {
  constexpr bool has_cell = std::is_same_v<Cell, LSTM>;
  const int hidden = call.hidden, lanes = call.lanes, depth = Cell::parts * hidden;
  const size_t state_size = static_cast<size_t>(lanes) * hidden;
  float* packed = scratch.take(packed_floats(depth, hidden));
  float* carried = scratch.take(state_size);
  float* previous = scratch.take(call.time * state_size);
  float* chunk = scratch.take(static_cast<size_t>(member.members) * kChunk * kPanel * kWidth) +
                 static_cast<size_t>(member.index) * kChunk * kPanel * kWidth;
  const int first = member.first(vectors_of(hidden)), last = member.last(vectors_of(hidden));

  const size_t panel_size = static_cast<size_t>(depth) * kWidth;  // of one vector of units
  for_each_panel(first, last, kPanel, false, [&](int vector, int vectors) {
    pack_backward(call.kernel, depth, hidden, vector * kWidth, vectors, packed + vector * panel_size);
  });

  // Step -1 stands for the state before the first step.
  for (int step = call.time - 1; step >= -1; --step) {
    const bool is_last = step + 1 == call.time;
    const size_t later = static_cast<size_t>(step + 1) * lanes;
    const bool backwards = step % 2 != 0;
    for_each_panel(first, last, kPanel, backwards, [&](int vector, int vectors) {
      const float* panel = packed + vector * panel_size;
      const float* next_panel = backwards ? panel - kPanel * panel_size : panel + vectors * panel_size;
      for_each_group(lanes, [&](int first_lane, int rows) {
        Vector sums[kRows * kPanel];
        std::fill_n(sums, rows * vectors, Vector{});
        if (!is_last) {
          const float* ahead = next_panel + static_cast<size_t>(first_lane) / kRows * depth * kLine;
          multiply({call.d_product + (later + first_lane) * depth, depth, 1, panel, depth, ahead, sums}, rows, vectors);
        }
        for (int r = 0; r < rows; ++r)
          for (int u = 0; u < vectors; ++u) {
            const int lane = first_lane + r, unit = (vector + u) * kWidth, count = valid(unit, hidden);
            const size_t offset = static_cast<size_t>(lane) * hidden + unit;
            Vector d_hidden = sums[r * vectors + u], d_carried{};
            if (is_last) {
              d_hidden = load(call.d_last + offset, count);
              if constexpr (has_cell) d_carried = load(call.d_last_cell + offset, count);
            } else if (call.resets[later + lane]) {
              d_hidden = Vector{};
            } else if constexpr (Cell::carries) {
              d_carried = load(carried + offset, count);
              if constexpr (Cell::carries_hidden) d_hidden += d_carried;
            }
            if (step < 0) {
              store(call.d_start + offset, d_hidden, count);
              if constexpr (has_cell) store(call.d_start_cell + offset, d_carried, count);
              continue;
            }
            const size_t row = static_cast<size_t>(step) * lanes + lane;
            d_hidden += load(call.d_outputs + row * hidden + unit, count);
            const auto before = [&](const float* start, const float* all_steps) -> const float* {
              if (call.resets[row]) return nullptr;
              return step == 0 ? start + static_cast<size_t>(lane) * hidden : all_steps + (row - lanes) * hidden;
            };
            const Place at{row, unit, count};
            if constexpr (has_cell)
              store(carried + offset, LSTM::backward(call, at, d_hidden, d_carried, before(call.start_cell, call.cells)),
                    count);
            else if constexpr (std::is_same_v<Cell, GRU>)
              store(carried + offset, GRU::backward(call, at, d_hidden, before(call.start, call.outputs)), count);
            else
              Elman::backward(call, at, d_hidden);
          }
      });
    });
    member.wait();
  }
  kernel_gradient(call, depth, member, previous, chunk);
}

// A step of few operations is one thread's.
template <class Cell, class Call>
int threads_for(const Call& call, int threads) {
  return 2.0 * Cell::parts * call.hidden * call.hidden * call.lanes < kAlone ? 1 : threads;
}

template <class Cell>
void run_forward(const Forward& call, int threads) {
  Team::of_process().run(threads_for<Cell>(call, threads), forward_floats<Cell>(call),
                         [&](Member member, Scratch scratch) { forward<Cell>(call, member, scratch); });
}

template <class Cell>
void run_backward(const Backward& call, int threads) {
  Team::of_process().run(threads_for<Cell>(call, threads), backward_floats<Cell>(call, threads),
                         [&](Member member, Scratch scratch) { backward<Cell>(call, member, scratch); });
}

}  // namespace charloom
