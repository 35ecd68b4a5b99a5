// What each cell does with its sums, for one lane and one vector of units: forward, and backward from what was kept.
//
// The equations and the order of the gates are those of the reference: ../lstm.py, ../gru.py and ../elman.py.
#pragma once

#include "vectors.h"

namespace charloom {

// Where one lane's vector of units stands at one step.
struct Place {
  size_t row;  // step * lanes + lane
  int unit;    // the vector's first
  int count;   // how many of its units there are
};

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

// A layer over an unroll. `parts` below is how many pre-activations a unit has.
struct Forward {
  int time, lanes, hidden;
  Activations with;
  const float* projected;       // [time, lanes, parts * hidden]
  const float* kernel;          // [hidden, parts * hidden]
  const float* recurrent_bias;  // [parts * hidden], of the GRU
  const float* start;           // [lanes, hidden]
  const float* start_cell;      // [lanes, hidden], of the LSTM
  const bool* resets;           // [time, lanes]
  float* outputs;               // [time, lanes, hidden]
  float* cells;                 // [time, lanes, hidden], of the LSTM; without `gates` only one step, the last
  float* gates;                 // [time, lanes, kept * hidden], for the backward pass; null where there will be none
};

struct Backward {
  int time, lanes, hidden;
  Activations with;
  const float* kernel;
  const float* start;
  const float* start_cell;
  const bool* resets;
  const float* outputs;
  const float* cells;
  const float* gates;
  const float* d_outputs;    // [time, lanes, hidden]
  const float* d_last;       // [lanes, hidden]
  const float* d_last_cell;  // [lanes, hidden], of the LSTM
  float* d_projected;        // [time, lanes, parts * hidden]
  float* d_product;          // the same of the recurrent product, which is another only in the GRU
  float* d_kernel;           // [hidden, parts * hidden]
  float* d_start;            // [lanes, hidden]
  float* d_start_cell;       // [lanes, hidden], of the LSTM
};

struct LSTM {
  static constexpr int parts = 4;
  static constexpr int units = 1;  // vectors of units in a panel
  static constexpr bool has_recurrent_bias = false;
  static constexpr bool carries = true;          // the backward pass carries something beside the product's gradient,
  static constexpr bool carries_hidden = false;  // here the gradient of c

  // Returns h. `before` and `after` are the rows of c, null for zeros.
  static Vector forward(const Forward& call, Place at, const Vector* sums, const float* before, float* after) {
    const int hidden = call.hidden;
    const float* projected = call.projected + at.row * 4 * hidden + at.unit;
    const Vector input = call.with.gate(sums[0] + load(projected, at.count));
    const Vector forget = call.with.gate(sums[1] + load(projected + hidden, at.count));
    const Vector candidate = call.with.squash(sums[2] + load(projected + 2 * hidden, at.count));
    const Vector output = call.with.gate(sums[3] + load(projected + 3 * hidden, at.count));
    const Vector cell = (before ? forget * load(before + at.unit, at.count) : Vector{}) + input * candidate;
    store(after + at.unit, cell, at.count);
    if (call.gates) {
      float* gates = call.gates + at.row * 4 * hidden + at.unit;
      store(gates, input, at.count);
      store(gates + hidden, forget, at.count);
      store(gates + 2 * hidden, candidate, at.count);
      store(gates + 3 * hidden, output, at.count);
    }
    return output * call.with.squash(cell);
  }

  // Takes the gradients of h and of c after the step, and returns that of c before it.
  static Vector backward(const Backward& call, Place at, Vector d_hidden, Vector carried, const float* before) {
    const int hidden = call.hidden;
    const float* gates = call.gates + at.row * 4 * hidden + at.unit;
    const Vector input = load(gates, at.count);
    const Vector forget = load(gates + hidden, at.count);
    const Vector candidate = load(gates + 2 * hidden, at.count);
    const Vector output = load(gates + 3 * hidden, at.count);
    const Vector previous = before ? load(before + at.unit, at.count) : Vector{};
    const Vector squashed = call.with.squash(load(call.cells + at.row * hidden + at.unit, at.count));
    const Vector d_cell = carried + call.with.squash_backward(squashed, d_hidden * output);
    float* d_projected = call.d_projected + at.row * 4 * hidden + at.unit;
    store(d_projected, call.with.gate_backward(input, d_cell * candidate), at.count);
    store(d_projected + hidden, call.with.gate_backward(forget, d_cell * previous), at.count);
    store(d_projected + 2 * hidden, call.with.squash_backward(candidate, d_cell * input), at.count);
    store(d_projected + 3 * hidden, call.with.gate_backward(output, d_hidden * squashed), at.count);
    return d_cell * forget;
  }
};

struct GRU {
  static constexpr int parts = 3;
  static constexpr int units = 1;
  static constexpr bool has_recurrent_bias = true;
  static constexpr bool carries = true;
  static constexpr bool carries_hidden = true;  // the part of h that the update gate lets through

  // Returns h; `previous` is h before the step.
  static Vector forward(const Forward& call, Place at, const Vector* sums, Vector previous) {
    const int hidden = call.hidden;
    const float* projected = call.projected + at.row * 3 * hidden + at.unit;
    const Vector update = call.with.gate(sums[0] + load(projected, at.count));
    const Vector reset = call.with.gate(sums[1] + load(projected + hidden, at.count));
    const Vector remembered = sums[2];
    const Vector candidate = call.with.squash(load(projected + 2 * hidden, at.count) + reset * remembered);
    if (call.gates) {
      float* gates = call.gates + at.row * 4 * hidden + at.unit;
      store(gates, update, at.count);
      store(gates + hidden, reset, at.count);
      store(gates + 2 * hidden, candidate, at.count);
      store(gates + 3 * hidden, remembered, at.count);
    }
    return update * previous + (1.0f - update) * candidate;
  }

  // Takes the gradient of h after the step, and returns what of it goes to h before it past the product.
  static Vector backward(const Backward& call, Place at, Vector d_hidden, const float* before) {
    const int hidden = call.hidden;
    const float* gates = call.gates + at.row * 4 * hidden + at.unit;
    const Vector update = load(gates, at.count);
    const Vector reset = load(gates + hidden, at.count);
    const Vector candidate = load(gates + 2 * hidden, at.count);
    const Vector remembered = load(gates + 3 * hidden, at.count);
    const Vector previous = before ? load(before + at.unit, at.count) : Vector{};
    const Vector d_candidate = call.with.squash_backward(candidate, d_hidden * (1.0f - update));
    const Vector d_update = call.with.gate_backward(update, d_hidden * (previous - candidate));
    const Vector d_reset = call.with.gate_backward(reset, d_candidate * remembered);
    float* d_projected = call.d_projected + at.row * 3 * hidden + at.unit;
    float* d_product = call.d_product + at.row * 3 * hidden + at.unit;
    for (float* gradient : {d_projected, d_product}) {
      store(gradient, d_update, at.count);
      store(gradient + hidden, d_reset, at.count);
    }
    store(d_projected + 2 * hidden, d_candidate, at.count);
    store(d_product + 2 * hidden, d_candidate * reset, at.count);
    return d_hidden * update;
  }
};

struct Elman {
  static constexpr int parts = 1;
  static constexpr int units = 4;
  static constexpr bool has_recurrent_bias = false;
  static constexpr bool carries = false;
  static constexpr bool carries_hidden = false;

  static Vector forward(const Forward& call, Place at, const Vector* sums) {
    return call.with.squash(sums[0] + load(call.projected + at.row * call.hidden + at.unit, at.count));
  }

  static void backward(const Backward& call, Place at, Vector d_hidden) {
    const size_t offset = at.row * call.hidden + at.unit;
    const Vector output = load(call.outputs + offset, at.count);
    store(call.d_projected + offset, call.with.squash_backward(output, d_hidden), at.count);
  }
};

}  // namespace charloom
