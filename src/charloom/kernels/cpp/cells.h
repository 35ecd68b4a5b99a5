// The equations of each cell, for some batch rows and one vector of units, forward and backward.
//
// A function of a vector is a chain of operations, each of which waits for the one before. Each function is therefore applied to
// all batch rows before the next one, so that the processor can work on several chains in parallel.
//
// The equations and the order of the gates are those of the reference: ../lstm.py, ../gru.py and ../elman.py.
//
// The constants of a cell:
// - `gate_count`: how many pre-activations a unit has.
// - `kept`: how many vectors the forward pass keeps per vector of units. The backward pass overwrites them with gradients.
// - `recurrent_at`: the index of the first of these gradients that belongs to the recurrent product. Those of the input product
//   begin at 0.
// - `input_gates`: the gates that the gradients of the input product belong to.
// - `units`: how many vectors of units a panel has.
//
// forward(activations, batch rows, gates, states, outputs): `gates[batch row][kept]` are pre-activations and are overwritten with
// what is kept. `states` are c before the step and are overwritten with c after it; for cells without c, they are h before the
// step. `outputs` are h.
//
// backward(activations, gates, step, gradients) computes one batch row, because it applies no activation function: the caller has
// already applied the cell activation to the LSTM's c after the step. It returns the part of the gradient of the state before the
// step that does not pass through the product.
#pragma once

#include <algorithm>

#include "activation_choice.h"
#include "vectors.h"

namespace charloom::inline CHARLOOM_ARITHMETIC {

// The activations of a layer. Gradients are computed from the outputs.
struct Activations : ActivationChoice {
  // Applies the gate activation in place to `batch_size` vectors that are `stride` vectors stride.
  void gate(Vector* x, int batch_size, int stride) const {
    if (hard_gates)
      for (int batch_row = 0; batch_row < batch_size; ++batch_row) x[batch_row * stride] = hard_sigmoid(x[batch_row * stride]);
    else
      for (int batch_row = 0; batch_row < batch_size; ++batch_row) x[batch_row * stride] = sigmoid(x[batch_row * stride]);
  }
  void cell(Vector* x, int batch_size, int stride) const {
    if (relu)
      for (int batch_row = 0; batch_row < batch_size; ++batch_row) x[batch_row * stride] = charloom::relu(x[batch_row * stride]);
    else
      for (int batch_row = 0; batch_row < batch_size; ++batch_row) x[batch_row * stride] = tanh(x[batch_row * stride]);
  }

  Vector gate_backward(Vector output, Vector cotangent) const {
    if (hard_gates) return (output > 0.0f) & (output < 1.0f) ? 0.2f * cotangent : Vector{};
    return cotangent * output * (1.0f - output);
  }

  Vector cell_backward(Vector output, Vector cotangent) const {
    if (relu) return output > 0.0f ? cotangent : Vector{};
    return cotangent * (1.0f - output * output);
  }
};

// What the backward pass of a cell reads of one step, in addition to what was kept.
struct Step {
  Vector before;  // c before the step for the LSTM, otherwise h
  Vector after;   // for the LSTM, the cell activation of c after the step; otherwise h after the step
  Vector d_hidden;
  Vector d_carried;  // the part of the gradient from the next step that does not pass through the product
};

struct LSTM {
  static constexpr int gate_count = 4, kept = 4, recurrent_at = 0, input_gates[] = {0, 1, 2, 3}, units = 1;
  static constexpr bool has_cell = true;            // a second state, c
  static constexpr bool has_recurrent_bias = false;
  static constexpr bool carries_hidden = false;  // whether a part of h's gradient does not pass through the product

  static void forward(const Activations& activations, int batch_size, Vector* gates, Vector* states, Vector* outputs) {
    for (int gate : {0, 1, 3}) activations.gate(gates + gate, batch_size, kept);
    activations.cell(gates + 2, batch_size, kept);
    for (int batch_row = 0; batch_row < batch_size; ++batch_row) {
      const Vector* of_batch_row = gates + batch_row * kept;
      outputs[batch_row] = states[batch_row] = of_batch_row[1] * states[batch_row] + of_batch_row[0] * of_batch_row[2];
    }
    activations.cell(outputs, batch_size, 1);
    for (int batch_row = 0; batch_row < batch_size; ++batch_row) outputs[batch_row] *= gates[batch_row * kept + 3];
  }

  static Vector backward(const Activations& activations, const Vector* gates, const Step& step, Vector* gradients) {
    const Vector input = gates[0], forget = gates[1], candidate = gates[2], output = gates[3];
    const Vector d_cell = step.d_carried + activations.cell_backward(step.after, step.d_hidden * output);
    gradients[0] = activations.gate_backward(input, d_cell * candidate);
    gradients[1] = activations.gate_backward(forget, d_cell * step.before);
    gradients[2] = activations.cell_backward(candidate, d_cell * input);
    gradients[3] = activations.gate_backward(output, step.d_hidden * step.after);
    return d_cell * forget;
  }
};

struct GRU {
  static constexpr int gate_count = 3, kept = 4, recurrent_at = 1, input_gates[] = {2, 0, 1}, units = 1;
  static constexpr bool has_cell = false;
  static constexpr bool has_recurrent_bias = true;
  static constexpr bool carries_hidden = true;

  // The candidate's two products are separate, because the reset gate scales only the recurrent one.
  static void forward(const Activations& activations, int batch_size, Vector* gates, Vector* states, Vector* outputs) {
    for (int gate : {0, 1}) activations.gate(gates + gate, batch_size, kept);
    for (int batch_row = 0; batch_row < batch_size; ++batch_row) {
      Vector* of_batch_row = gates + batch_row * kept;
      of_batch_row[2] += of_batch_row[1] * of_batch_row[3];
    }
    activations.cell(gates + 2, batch_size, kept);
    for (int batch_row = 0; batch_row < batch_size; ++batch_row) {
      const Vector* of_batch_row = gates + batch_row * kept;
      outputs[batch_row] = of_batch_row[0] * states[batch_row] + (1.0f - of_batch_row[0]) * of_batch_row[2];
    }
  }

  static Vector backward(const Activations& activations, const Vector* gates, const Step& step, Vector* gradients) {
    const Vector update = gates[0], reset = gates[1], candidate = gates[2], recurrent = gates[3];
    const Vector d_candidate = activations.cell_backward(candidate, step.d_hidden * (1.0f - update));
    gradients[0] = d_candidate;
    gradients[1] = activations.gate_backward(update, step.d_hidden * (step.before - candidate));
    gradients[2] = activations.gate_backward(reset, d_candidate * recurrent);
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
    activations.cell(gates, batch_size, 1);
    std::copy_n(gates, batch_size, outputs);
  }

  static Vector backward(const Activations& activations, const Vector*, const Step& step, Vector* gradients) {
    gradients[0] = activations.cell_backward(step.after, step.d_hidden);
    return Vector{};
  }
};

}  // namespace charloom
