// What each cell does with its sums, for some batch rows and one vector of units: forward, and backward from what was kept.
//
// A function of a vector is a chain of operations, each of which waits for the one before. So each is taken of all batch rows
// before the next one: the processor then has several chains at hand.
//
// The equations and the order of the gates are those of the reference: ../lstm.py, ../gru.py and ../elman.py.
//
// Of a cell are told: `gate_count`, how many pre-activations a unit has; `kept`, how many vectors the forward pass keeps of a
// vector of units, in whose place the backward pass puts as many gradients; `recurrent_at`, from which of these on the
// recurrent product's gradients stand (the input product's stand from the first on); `input_gates`, whose gradients
// these first ones are; `units`, how many vectors of units a panel has.
//
// forward(activations, batch rows, gates, states, outputs): `gates[batch row][kept]` are pre-activations, and become what is kept;
// `states` are c before the step, and become c after it (of cells without one, h before the step); `outputs` are h.
// backward(activations, gates, step, gradients) is of one batch row, for it has no function left to take: the LSTM finds its c after
// the step squashed. It returns what of a gradient goes to the step before past the product.
#pragma once

#include <algorithm>

#include "vectors.h"

namespace charloom {

// Which functions stand in the gates and in what a step computes. Gradients are taken from the outputs.
struct Activations {
  bool hard_gates;  // the hard sigmoid in the place of the sigmoid
  bool relu;        // the rectifier in the place of tanh

  // In place, of vectors that stand `apart`.
  void gate(Vector* x, int batch_size, int apart) const {
    if (hard_gates)
      for (int batch_row = 0; batch_row < batch_size; ++batch_row) x[batch_row * apart] = hard_sigmoid(x[batch_row * apart]);
    else
      for (int batch_row = 0; batch_row < batch_size; ++batch_row) x[batch_row * apart] = sigmoid(x[batch_row * apart]);
  }
  void squash(Vector* x, int batch_size, int apart) const {
    if (relu)
      for (int batch_row = 0; batch_row < batch_size; ++batch_row) x[batch_row * apart] = charloom::relu(x[batch_row * apart]);
    else
      for (int batch_row = 0; batch_row < batch_size; ++batch_row) x[batch_row * apart] = tanh(x[batch_row * apart]);
  }

  Vector gate_backward(Vector output, Vector cotangent) const {
    if (hard_gates) return (output > 0.0f) & (output < 1.0f) ? 0.2f * cotangent : Vector{};
    return cotangent * output * (1.0f - output);
  }

  Vector squash_backward(Vector output, Vector cotangent) const {
    if (relu) return output > 0.0f ? cotangent : Vector{};
    return cotangent * (1.0f - output * output);
  }
};

// What a cell's backward step reads of one step, beside what was kept.
struct Step {
  Vector before;  // c before the step, of the LSTM; h of the others
  Vector after;   // the same after it, of the LSTM squashed
  Vector d_hidden;
  Vector d_carried;  // what of a gradient comes from the later step past the product
};

struct LSTM {
  static constexpr int gate_count = 4, kept = 4, recurrent_at = 0, input_gates[] = {0, 1, 2, 3}, units = 1;
  static constexpr bool has_cell = true;            // a second state, c
  static constexpr bool has_recurrent_bias = false;
  static constexpr bool carries_hidden = false;  // whether the backward pass carries a part of h's gradient past the product

  static void forward(const Activations& activations, int batch_size, Vector* gates, Vector* states, Vector* outputs) {
    for (int gate : {0, 1, 3}) activations.gate(gates + gate, batch_size, kept);
    activations.squash(gates + 2, batch_size, kept);
    for (int batch_row = 0; batch_row < batch_size; ++batch_row) {
      const Vector* of_batch_row = gates + batch_row * kept;
      outputs[batch_row] = states[batch_row] = of_batch_row[1] * states[batch_row] + of_batch_row[0] * of_batch_row[2];
    }
    activations.squash(outputs, batch_size, 1);
    for (int batch_row = 0; batch_row < batch_size; ++batch_row) outputs[batch_row] *= gates[batch_row * kept + 3];
  }

  static Vector backward(const Activations& activations, const Vector* gates, const Step& step, Vector* gradients) {
    const Vector input = gates[0], forget = gates[1], candidate = gates[2], output = gates[3];
    const Vector d_cell = step.d_carried + activations.squash_backward(step.after, step.d_hidden * output);
    gradients[0] = activations.gate_backward(input, d_cell * candidate);
    gradients[1] = activations.gate_backward(forget, d_cell * step.before);
    gradients[2] = activations.squash_backward(candidate, d_cell * input);
    gradients[3] = activations.gate_backward(output, step.d_hidden * step.after);
    return d_cell * forget;
  }
};

struct GRU {
  static constexpr int gate_count = 3, kept = 4, recurrent_at = 1, input_gates[] = {2, 0, 1}, units = 1;
  static constexpr bool has_cell = false;
  static constexpr bool has_recurrent_bias = true;
  static constexpr bool carries_hidden = true;

  // The candidate's two products come apart, for the reset gate stands between them.
  static void forward(const Activations& activations, int batch_size, Vector* gates, Vector* states, Vector* outputs) {
    for (int gate : {0, 1}) activations.gate(gates + gate, batch_size, kept);
    for (int batch_row = 0; batch_row < batch_size; ++batch_row) {
      Vector* of_batch_row = gates + batch_row * kept;
      of_batch_row[2] += of_batch_row[1] * of_batch_row[3];
    }
    activations.squash(gates + 2, batch_size, kept);
    for (int batch_row = 0; batch_row < batch_size; ++batch_row) {
      const Vector* of_batch_row = gates + batch_row * kept;
      outputs[batch_row] = of_batch_row[0] * states[batch_row] + (1.0f - of_batch_row[0]) * of_batch_row[2];
    }
  }

  static Vector backward(const Activations& activations, const Vector* gates, const Step& step, Vector* gradients) {
    const Vector update = gates[0], reset = gates[1], candidate = gates[2], remembered = gates[3];
    const Vector d_candidate = activations.squash_backward(candidate, step.d_hidden * (1.0f - update));
    gradients[0] = d_candidate;
    gradients[1] = activations.gate_backward(update, step.d_hidden * (step.before - candidate));
    gradients[2] = activations.gate_backward(reset, d_candidate * remembered);
    gradients[3] = d_candidate * reset;
    return step.d_hidden * update;
  }
};

struct Elman {
  static constexpr int gate_count = 1, kept = 1, recurrent_at = 0, input_gates[] = {0}, units = 4;
  static constexpr bool has_cell = false;
  static constexpr bool has_recurrent_bias = false;
  static constexpr bool carries_hidden = false;

  static void forward(const Activations& activations, int batch_size, Vector* gates, Vector*, Vector* outputs) {
    activations.squash(gates, batch_size, 1);
    std::copy_n(gates, batch_size, outputs);
  }

  static Vector backward(const Activations& activations, const Vector*, const Step& step, Vector* gradients) {
    gradients[0] = activations.squash_backward(step.after, step.d_hidden);
    return Vector{};
  }
};

}  // namespace charloom
