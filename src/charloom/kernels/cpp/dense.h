// The head: an affine map of many rows, and its gradients.
//
// In the forward pass each member owns some rows. In the backward pass it owns some rows of the values' gradient, and some inputs
// of the kernel's gradient. The backward pass reads rows without copying them, so they must be whole vectors.
#pragma once

#include <type_traits>

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

// The depth of the gradients of a row's outputs.
template <class Precision>
int outputs_depth(const Dense& call) {
  return Precision::depth_of(gradients_depth<Affine>(call.outputs));
}

template <class Precision>
size_t dense_forward_floats(const DenseForward& call) {
  return Scratch::rounded(packed_floats<Affine, Precision>(call.inputs, call.outputs)) +
         Scratch::rounded(Precision::converted_floats(call.rows, call.inputs));
}

template <class Precision>
void dense_forward(const DenseForward call, Member member, Scratch scratch) {
  using Element = typename Precision::Element;
  [[maybe_unused]] const TileScope tiles_in_use;
  const int inputs = call.inputs, outputs = call.outputs, first_row = member.first(call.rows), last_row = member.last(call.rows);
  const size_t depth = Precision::depth_of(inputs);
  Element* packed = scratch.take<Element>(packed_floats<Affine, Precision>(inputs, outputs));
  const auto values = Precision::factors(call.values, first_row, last_row, inputs,
                                         scratch.take<Element>(Precision::converted_floats(call.rows, inputs)));
  const Share share(member, vectors_of(outputs), kPanel);
  pack_forward<Affine, Precision>(call.kernel, inputs, outputs, share.first, share.last, packed);
  member.wait();
  for_each_panel(0, vectors_of(outputs), kPanel, false, [&](int vector, int vectors) {
    const Element* panel = packed + static_cast<size_t>(vector) * kWidth * depth;
    for_each_group<Precision::kRows>(first_row, last_row, [&](int first, int rows) {
      const auto product = Precision::product(values.row(first), values.stride, panel, vectors, inputs, panel, 0);
      Vector sums[Precision::kRows * kPanel];
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

// Computes the kernel's gradient for the inputs of the vectors of `share`. `transposed` is memory for their gradient,
// [outputs, inputs]: the product's columns are inputs, so that values are read where they are.
inline void dense_kernel_gradient(const DenseBackward& call, Share share, float* transposed) {
  constexpr int kChunk = KernelGradient<Float32>::kChunk;
  const int inputs = call.inputs, outputs = call.outputs;
  for_each_panel(share.first, share.last, kPanel, false, [&](int vector, int vectors) {
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
}

// The same from transposed values. `packed` is memory for a panel of gradients.
inline void dense_kernel_gradient(const DenseBackward& call, Share share, const Half* transposed, Half* packed) {
  using Gradient = KernelGradient<BFloat16>;
  const int outputs = call.outputs, first_input = share.first * kWidth, inputs = (share.last - share.first) * kWidth;
  for_each_panel(0, vectors_of(outputs), kPanel, false, [&](int vector, int vectors) {
    const int column = vector * kWidth, floats = std::min(outputs - column, vectors * kWidth);
    for (int first = 0; first < call.rows; first += Gradient::kChunk) {
      const int chunk = std::min(Gradient::kChunk, call.rows - first);
      const Half* gradients =
          Gradient::packed_panel(call.d_results + static_cast<size_t>(first) * outputs + column, outputs, floats, chunk, packed);
      Gradient::multiply_chunk(
          transposed + static_cast<size_t>(first_input) * half_stride(call.rows), inputs, call.rows, first, chunk, gradients, 0, vectors,
          [&](int input, int count, const Vector* sums) {
            for (int i = 0; i < count; ++i)
              for (int v = 0; v < vectors; ++v) {
                const int at_column = column + v * kWidth, valid = charloom::valid(at_column, outputs);
                float* at = call.d_kernel + static_cast<size_t>(first_input + input + i) * outputs + at_column;
                const Vector sum = sums[i * vectors + v];
                store(at, first == 0 ? sum : load(at, valid) + sum, valid);
              }
          });
    }
  });
}

// The sizes of the parts of the backward pass's working memory, in floats.
template <class Precision>
struct DenseBackwardMemory {
  size_t packed, gradients, transposed, panel;

  DenseBackwardMemory(const DenseBackward& call, int threads)
      : packed(Precision::floats(static_cast<size_t>(call.inputs) * outputs_depth<Precision>(call))),
        gradients(Precision::converted_floats(call.rows, gradients_depth<Affine>(call.outputs))),
        transposed(std::is_same_v<Precision, Float32> ? static_cast<size_t>(call.outputs) * call.inputs
                                                      : KernelGradient<Precision>::transposed_floats(call.inputs, call.rows)),
        panel(static_cast<size_t>(threads) * Scratch::rounded(KernelGradient<Precision>::panel_floats())) {}

  size_t floats() const {
    return Scratch::rounded(packed) + Scratch::rounded(gradients) + Scratch::rounded(transposed) + Scratch::rounded(panel);
  }
};

template <class Precision>
void dense_backward(const DenseBackward call, Member member, Scratch scratch) {
  using Element = typename Precision::Element;
  [[maybe_unused]] const TileScope tiles_in_use;
  static constexpr int parts[] = {0};
  const int inputs = call.inputs, outputs = call.outputs, first_row = member.first(call.rows), last_row = member.last(call.rows);
  const size_t depth = outputs_depth<Precision>(call);
  const DenseBackwardMemory<Precision> memory(call, member.members);
  Element* packed = scratch.take<Element>(memory.packed);
  const auto d_results = Precision::factors(call.d_results, first_row, last_row, outputs, scratch.take<Element>(memory.gradients));
  Element* transposed = scratch.take<Element>(memory.transposed);
  [[maybe_unused]] Element* panel =
      scratch.take<Element>(memory.panel) + memory.panel / member.members * member.index * sizeof(float) / sizeof(Element);
  const Share share(member, inputs / kWidth, kPanel);
  for_each_panel(share.first, share.last, kPanel, false, [&](int vector, int vectors) {
    pack_backward<Affine, Precision>(call.kernel, inputs, outputs, parts, vector * kWidth, vectors,
                                     packed + static_cast<size_t>(vector) * kWidth * depth);
  });
  if constexpr (!std::is_same_v<Precision, Float32>)
    KernelGradient<Precision>::transpose(
        inputs, call.rows, member, [&](int row) { return call.values + static_cast<size_t>(row) * inputs; }, transposed);
  member.wait();
  for_each_panel(0, inputs / kWidth, kPanel, false, [&](int vector, int vectors) {
    const Element* of_panel = packed + static_cast<size_t>(vector) * kWidth * depth;
    for_each_group<Precision::kRows>(first_row, last_row, [&](int first, int rows) {
      const auto product = Precision::product(d_results.row(first), d_results.stride, of_panel, vectors, outputs, of_panel, 0);
      Vector sums[Precision::kRows * kPanel];
      multiply(&product, 1, rows, vectors, sums);
      float* to = call.d_values + static_cast<size_t>(first) * inputs + vector * kWidth;
      for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) store(to + static_cast<ptrdiff_t>(r) * inputs + v * kWidth, sums[r * vectors + v]);
    });
  });
  if constexpr (std::is_same_v<Precision, Float32>)
    dense_kernel_gradient(call, share, transposed);
  else
    dense_kernel_gradient(call, share, transposed, panel);
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

template <class Precision = Float32>
void run_dense_forward(const DenseForward& call, int threads) {
  Team::of_process().run(threads_for(call, threads), dense_forward_floats<Precision>(call),
                         [&](Member member, Scratch scratch) { dense_forward<Precision>(call, member, scratch); });
}

template <class Precision = Float32>
void run_dense_backward(const DenseBackward& call, int threads) {
  Team::of_process().run(threads_for(call, threads), DenseBackwardMemory<Precision>(call, threads).floats(),
                         [&](Member member, Scratch scratch) { dense_backward<Precision>(call, member, scratch); });
}

}  // namespace charloom
