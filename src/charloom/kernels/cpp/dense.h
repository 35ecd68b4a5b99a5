// The head: an affine map of many rows, and its gradients.
//
// In the forward pass each member owns some rows. In the backward pass it owns some rows of the values' gradient, and some inputs
// of the kernel's gradient. The backward pass reads rows without copying them, so they must be whole vectors.
#pragma once

#include "backward.h"

namespace charloom {

// An affine map packs its kernel like this cell: one gate, in panels of four vectors.
using Affine = Elman;

struct Dense {
  int rows, inputs, outputs;  // at least one row; inputs are a multiple of kWidth
  const float* values;        // [rows, inputs]
  const float* kernel;        // [inputs, outputs]
};

struct DenseForward : Dense {
  const float* bias;  // [outputs]
  float* results;     // [rows, outputs]
};

struct DenseBackward : Dense {
  const float* d_results;
  float* d_values;
  float* d_kernel;
  float* d_bias;
};

inline size_t dense_forward_floats(const DenseForward& call) { return packed_floats<Affine>(call.inputs, call.outputs); }

inline void dense_forward(const DenseForward call, Member member, Scratch scratch) {
  const int inputs = call.inputs, outputs = call.outputs;
  float* packed = scratch.take(packed_floats<Affine>(inputs, outputs));
  const Share share(member, vectors_of(outputs), kPanel);
  pack_forward<Affine>(call.kernel, inputs, outputs, share.first, share.last, packed);
  member.wait();
  for_each_panel(0, vectors_of(outputs), kPanel, false, [&](int vector, int vectors) {
    const float* panel = packed + static_cast<size_t>(vector) * kWidth * inputs;
    for_each_group(member.first(call.rows), member.last(call.rows), [&](int first, int rows) {
      const float* values = call.values + static_cast<size_t>(first) * inputs;
      const Product product{values, inputs, 1, panel, vectors * kWidth, inputs, panel};
      Vector sums[kRows * kPanel];
      multiply(&product, 1, rows, vectors, sums);
      for (int v = 0; v < vectors; ++v) {
        const int column = (vector + v) * kWidth, count = valid(column, outputs);
        const Vector bias = load(call.bias + column, count);
        float* to = call.results + static_cast<size_t>(first) * outputs + column;
        for (int r = 0; r < rows; ++r) store(to + static_cast<ptrdiff_t>(r) * outputs, sums[r * vectors + v] + bias, count);
      }
    });
  });
}

inline size_t dense_backward_floats(const DenseBackward& call) {
  return Scratch::rounded(static_cast<size_t>(call.inputs) * vectors_of(call.outputs) * kWidth) +
         Scratch::rounded(static_cast<size_t>(call.outputs) * call.inputs);
}

inline void dense_backward(const DenseBackward call, Member member, Scratch scratch) {
  static constexpr int parts[] = {0};
  const int inputs = call.inputs, outputs = call.outputs, padded = vectors_of(outputs) * kWidth;
  float* packed = scratch.take(static_cast<size_t>(inputs) * padded);
  float* transposed = scratch.take(static_cast<size_t>(outputs) * inputs);  // the kernel's gradient, [outputs, inputs]
  const Share share(member, inputs / kWidth, kPanel);
  for_each_panel(share.first, share.last, kPanel, false, [&](int vector, int vectors) {
    pack_backward<Affine>(call.kernel, inputs, outputs, parts, vector * kWidth, vectors,
                         packed + static_cast<size_t>(vector) * kWidth * padded);
  });
  member.wait();
  for_each_panel(0, inputs / kWidth, kPanel, false, [&](int vector, int vectors) {
    const float* panel = packed + static_cast<size_t>(vector) * kWidth * padded;
    for_each_group(member.first(call.rows), member.last(call.rows), [&](int first, int rows) {
      const float* gradients = call.d_results + static_cast<size_t>(first) * outputs;
      const Product product{gradients, outputs, 1, panel, vectors * kWidth, outputs, panel};
      Vector sums[kRows * kPanel];
      multiply(&product, 1, rows, vectors, sums);
      float* to = call.d_values + static_cast<size_t>(first) * inputs + vector * kWidth;
      for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) store(to + static_cast<ptrdiff_t>(r) * inputs + v * kWidth, sums[r * vectors + v]);
    });
  });
  for_each_panel(share.first, share.last, kPanel, false, [&](int vector, int vectors) {
    constexpr int kChunk = KernelGradient<Float32>::kChunk;
    for (int first = 0; first < call.rows; first += kChunk) {
      const int chunk = std::min(kChunk, call.rows - first);
      const float* values = call.values + static_cast<size_t>(first) * inputs + vector * kWidth;
      const float* gradients = call.d_results + static_cast<size_t>(first) * outputs;
      for_each_group(0, outputs, [&](int output, int count) {
        const Product product{gradients + output, 1, outputs, values, inputs, chunk, values};
        Vector sums[kRows * kPanel];
        multiply(&product, 1, count, vectors, sums);
        for (int o = 0; o < count; ++o)
          for (int v = 0; v < vectors; ++v) {
            float* at = transposed + static_cast<size_t>(output + o) * inputs + (vector + v) * kWidth;
            store(at, first == 0 ? sums[o * vectors + v] : load(at) + sums[o * vectors + v]);
          }
      });
    }
    for (int input = vector * kWidth; input < (vector + vectors) * kWidth; ++input)
      for (int output = 0; output < outputs; ++output)
        call.d_kernel[static_cast<size_t>(input) * outputs + output] = transposed[static_cast<size_t>(output) * inputs + input];
  });
  const Share columns(member, vectors_of(outputs), 1);
  for (int vector = columns.first; vector < columns.last; ++vector) {
    const int column = vector * kWidth, count = valid(column, outputs);
    Vector sum{};
    const float* gradients = call.d_results + column;
    for (int row = 0; row < call.rows; ++row, gradients += outputs) sum += load(gradients, count);
    store(call.d_bias + column, sum, count);
  }
}

// Returns one thread for a product of few operations, otherwise `threads`.
inline int threads_for(const Dense& call, int threads) {
  return 2.0 * call.rows * call.inputs * call.outputs < kMinParallelOperations ? 1 : threads;
}

inline void run_dense_forward(const DenseForward& call, int threads) {
  Team::of_process().run(threads_for(call, threads), dense_forward_floats(call),
                         [&](Member member, Scratch scratch) { dense_forward(call, member, scratch); });
}

inline void run_dense_backward(const DenseBackward& call, int threads) {
  Team::of_process().run(threads_for(call, threads), dense_backward_floats(call),
                         [&](Member member, Scratch scratch) { dense_backward(call, member, scratch); });
}

}  // namespace charloom
