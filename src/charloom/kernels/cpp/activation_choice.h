// The activations of a layer, by name.
#pragma once

namespace charloom {

struct ActivationChoice {
  bool hard_gates;  // hard sigmoid instead of sigmoid
  bool relu;        // ReLU instead of tanh
};

}  // namespace charloom
