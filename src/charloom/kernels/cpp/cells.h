// What each cell does with its sums, for one lane and one vector of units: forward, and backward from what was kept.
//
// The equations and the order of the gates are those of the reference: ../lstm.py, ../gru.py and ../elman.py.
//
// Of a cell are told: `parts`, how many pre-activations a unit has; `kept`, how many vectors the forward pass keeps of a
// vector of units, in whose place the backward pass puts as many gradients; `recurrent_at`, from which of these on the
// recurrent product's gradients stand (the input product's stand from the first on); `input_parts`, whose gradients
// these first ones are; `units`, how many vectors of units a panel has.
#pragma once

#include "vectors.h"

namespace charloom {

// Which functions stand in the gates and in what a step computes anew. Gradients are taken from the outputs.
struct Activations {
  bool hard_gates;  // the hard sigmoid in the place of the sigmoid
  bool relu;        // the rectifier in the place of tanh

  Vector gate(Vector x) const { return hard_gates ? hard_sigmoid(x) : sigmoid(x); }
  Vector squash(Vector x) const { return relu ? charloom::relu(x) : tanh(x); }

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
  Vector after;   // the same after it
  Vector d_hidden;
  Vector d_carried;  // what the later step returned
};

struct LSTM {
  static constexpr int parts = 4, kept = 4, recurrent_at = 0, input_parts[] = {0, 1, 2, 3}, units = 1;
  static constexpr bool has_cell = true;            // a second state, c
  static constexpr bool has_recurrent_bias = false;
  static constexpr bool carries_hidden = false;  // whether the backward pass carries a part of h's gradient past the product

  // Returns h. `sums` are the whole pre-activations; `state` is c before the step, and then after it.
  static Vector forward(const Activations& with, const Vector*, const Vector* sums, Vector& state, Vector* gates) {
    gates[0] = with.gate(sums[0]);
    gates[1] = with.gate(sums[1]);
    gates[2] = with.squash(sums[2]);
    gates[3] = with.gate(sums[3]);
    state = gates[1] * state + gates[0] * gates[2];
    return gates[3] * with.squash(state);
  }

  // Returns the gradient of c before the step. `gates` and `gradients` may be one.
  static Vector backward(const Activations& with, const Vector* gates, const Step& step, Vector* gradients) {
    const Vector input = gates[0], forget = gates[1], candidate = gates[2], output = gates[3];
    const Vector squashed = with.squash(step.after);
    const Vector d_cell = step.d_carried + with.squash_backward(squashed, step.d_hidden * output);
    gradients[0] = with.gate_backward(input, d_cell * candidate);
    gradients[1] = with.gate_backward(forget, d_cell * step.before);
    gradients[2] = with.squash_backward(candidate, d_cell * input);
    gradients[3] = with.gate_backward(output, step.d_hidden * squashed);
    return d_cell * forget;
  }
};

struct GRU {
  static constexpr int parts = 3, kept = 4, recurrent_at = 1, input_parts[] = {2, 0, 1}, units = 1;
  static constexpr bool has_cell = false;
  static constexpr bool has_recurrent_bias = true;
  static constexpr bool carries_hidden = true;

  // Returns h; `state` is h before the step. `inputs` and `sums` are the two products, which the reset gate tells apart.
  static Vector forward(const Activations& with, const Vector* inputs, const Vector* sums, Vector& state, Vector* gates) {
    gates[0] = with.gate(inputs[0] + sums[0]);
    gates[1] = with.gate(inputs[1] + sums[1]);
    gates[2] = with.squash(inputs[2] + gates[1] * sums[2]);
    gates[3] = sums[2];
    return gates[0] * state + (1.0f - gates[0]) * gates[2];
  }

  // Returns what of h's gradient goes to h before the step past the product.
  static Vector backward(const Activations& with, const Vector* gates, const Step& step, Vector* gradients) {
    const Vector update = gates[0], reset = gates[1], candidate = gates[2], remembered = gates[3];
    const Vector d_candidate = with.squash_backward(candidate, step.d_hidden * (1.0f - update));
    gradients[0] = d_candidate;
    gradients[1] = with.gate_backward(update, step.d_hidden * (step.before - candidate));
    gradients[2] = with.gate_backward(reset, d_candidate * remembered);
    gradients[3] = d_candidate * reset;
    return step.d_hidden * update;
  }
};

struct Elman {
  static constexpr int parts = 1, kept = 1, recurrent_at = 0, input_parts[] = {0}, units = 4;
  static constexpr bool has_cell = false;
  static constexpr bool has_recurrent_bias = false;
  static constexpr bool carries_hidden = false;

  static Vector forward(const Activations& with, const Vector*, const Vector* sums, Vector&, Vector*) {
    return with.squash(sums[0]);
  }

  static Vector backward(const Activations& with, const Vector*, const Step& step, Vector* gradients) {
    gradients[0] = with.squash_backward(step.after, step.d_hidden);
    return Vector{};
  }
};

}  // namespace charloom
