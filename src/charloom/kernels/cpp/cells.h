// What each cell does with its sums, for some lanes and one vector of units: forward, and backward from what was kept.
//
// A function of a vector is a chain of operations, each of which waits for the one before. So each is taken of all lanes
// before the next one: the processor then has several chains at hand.
//
// The equations and the order of the gates are those of the reference: ../lstm.py, ../gru.py and ../elman.py.
//
// Of a cell are told: `parts`, how many pre-activations a unit has; `kept`, how many vectors the forward pass keeps of a
// vector of units, in whose place the backward pass puts as many gradients; `recurrent_at`, from which of these on the
// recurrent product's gradients stand (the input product's stand from the first on); `input_parts`, whose gradients
// these first ones are; `units`, how many vectors of units a panel has.
//
// forward(with, lanes, gates, states, outputs): `gates[lane][kept]` are pre-activations, and become what is kept;
// `states` are c before the step, and become c after it (of cells without one, h before the step); `outputs` are h.
// backward(with, gates, step, gradients) is of one lane, for it has no function left to take: the LSTM finds its c after
// the step squashed. It returns what of a gradient goes to the step before past the product.
#pragma once

#include <algorithm>

#include "vectors.h"

namespace charloom {

// Which functions stand in the gates and in what a step computes anew. Gradients are taken from the outputs.
struct Activations {
  bool hard_gates;  // the hard sigmoid in the place of the sigmoid
  bool relu;        // the rectifier in the place of tanh

  // In place, of vectors that stand `apart`.
  void gate(Vector* x, int lanes, int apart) const {
    if (hard_gates)
      for (int lane = 0; lane < lanes; ++lane) x[lane * apart] = hard_sigmoid(x[lane * apart]);
    else
      for (int lane = 0; lane < lanes; ++lane) x[lane * apart] = sigmoid(x[lane * apart]);
  }
  void squash(Vector* x, int lanes, int apart) const {
    if (relu)
      for (int lane = 0; lane < lanes; ++lane) x[lane * apart] = charloom::relu(x[lane * apart]);
    else
      for (int lane = 0; lane < lanes; ++lane) x[lane * apart] = tanh(x[lane * apart]);
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
  static constexpr int parts = 4, kept = 4, recurrent_at = 0, input_parts[] = {0, 1, 2, 3}, units = 1;
  static constexpr bool has_cell = true;            // a second state, c
  static constexpr bool has_recurrent_bias = false;
  static constexpr bool carries_hidden = false;  // whether the backward pass carries a part of h's gradient past the product

  static void forward(const Activations& with, int lanes, Vector* gates, Vector* states, Vector* outputs) {
    for (int gate : {0, 1, 3}) with.gate(gates + gate, lanes, kept);
    with.squash(gates + 2, lanes, kept);
    for (int lane = 0; lane < lanes; ++lane) {
      const Vector* of_lane = gates + lane * kept;
      outputs[lane] = states[lane] = of_lane[1] * states[lane] + of_lane[0] * of_lane[2];
    }
    with.squash(outputs, lanes, 1);
    for (int lane = 0; lane < lanes; ++lane) outputs[lane] *= gates[lane * kept + 3];
  }

  static Vector backward(const Activations& with, const Vector* gates, const Step& step, Vector* gradients) {
    const Vector input = gates[0], forget = gates[1], candidate = gates[2], output = gates[3];
    const Vector d_cell = step.d_carried + with.squash_backward(step.after, step.d_hidden * output);
    gradients[0] = with.gate_backward(input, d_cell * candidate);
    gradients[1] = with.gate_backward(forget, d_cell * step.before);
    gradients[2] = with.squash_backward(candidate, d_cell * input);
    gradients[3] = with.gate_backward(output, step.d_hidden * step.after);
    return d_cell * forget;
  }
};

struct GRU {
  static constexpr int parts = 3, kept = 4, recurrent_at = 1, input_parts[] = {2, 0, 1}, units = 1;
  static constexpr bool has_cell = false;
  static constexpr bool has_recurrent_bias = true;
  static constexpr bool carries_hidden = true;

  // The candidate's two products come apart, for the reset gate stands between them.
  static void forward(const Activations& with, int lanes, Vector* gates, Vector* states, Vector* outputs) {
    for (int gate : {0, 1}) with.gate(gates + gate, lanes, kept);
    for (int lane = 0; lane < lanes; ++lane) {
      Vector* of_lane = gates + lane * kept;
      of_lane[2] += of_lane[1] * of_lane[3];
    }
    with.squash(gates + 2, lanes, kept);
    for (int lane = 0; lane < lanes; ++lane) {
      const Vector* of_lane = gates + lane * kept;
      outputs[lane] = of_lane[0] * states[lane] + (1.0f - of_lane[0]) * of_lane[2];
    }
  }

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

  static void forward(const Activations& with, int lanes, Vector* gates, Vector*, Vector* outputs) {
    with.squash(gates, lanes, 1);
    std::copy_n(gates, lanes, outputs);
  }

  static Vector backward(const Activations& with, const Vector*, const Step& step, Vector* gradients) {
    gradients[0] = with.squash_backward(step.after, step.d_hidden);
    return Vector{};
  }
};

}  // namespace charloom
