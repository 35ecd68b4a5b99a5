// The arguments of a generator. They are the same for every kind of arithmetic.
#pragma once

#include <cstdint>
#include <memory>

#include "activation_choice.h"
#include "sampling.h"

namespace charloom {

// The weights of a network. All layers have the same size. All except the first have an input kernel and a bias.
struct Weights {
  int layers, hidden_size, vocab, rows;
  const float* table;                    // [rows, gate_count * hidden_size]: the first layer's projected inputs
  const float* const* input_kernels;     // [hidden_size, gate_count * hidden_size] of each layer; the first is ignored
  const float* const* biases;            // [gate_count * hidden_size]
  const float* const* recurrent_kernels;
  const float* const* recurrent_biases;  // only for the GRU
  const ActivationChoice* activations;   // of each layer
  const float* head_kernel;              // [hidden_size, vocab]; null if the last layer's outputs are the logits
  const float* head_bias;
};

// The state of `count` texts between two characters, in arrays with room for `room` texts.
struct GeneratorState {
  int count, room;
  float* hidden;  // [layers, room, hidden]
  float* cells;   // the same, only for the LSTM
  float* logits;  // [room, vocab], of the next token
};

// Everything that determines a text's tokens except its logits.
struct Sampler {
  uint32_t seed[2];
  uint32_t stream;    // the index of the text's stream of random numbers
  uint32_t position;  // of the next sampled token
  SamplingRule rule;
};

// Texts that begin in the places of texts that end within a call. A text ends before it samples `end_token`, which is then not a
// part of it, and after `length` tokens. If no text waits any more, the ended text continues.
struct Refill {
  int end_token;  // negative if no token ends a text
  int length;
  int waiting;
  const uint32_t* streams;  // [waiting], of the texts that wait, in their order; seed and rule are those of the place
  const float* hidden;      // [layers, hidden]: the state in which they begin
  const float* cells;       // the same, only for the LSTM
  const float* logits;      // [vocab]
  int32_t* places;          // [waiting], for the results: the place of each text that has begun,
  int32_t* steps;           // and the step of its first token
  int begun;                // for the result: how many have begun
};

// One call: each text reads rows of the table, and samples tokens that it then reads.
struct Task {
  int steps;
  int32_t* rows;            // [count, steps]; a negative number is replaced by a sampled token
  const Sampler* samplers;  // [count]; null if no token is sampled
  Refill* refill;           // null if no texts wait
};

class AnyGenerator {
 public:
  virtual ~AnyGenerator() = default;
  virtual void run(const GeneratorState& state, const Task& task, int threads) const = 0;
};

// Returns a generator with 8-bit weights, whose texts are the same on all processors.
std::unique_ptr<AnyGenerator> new_exact_generator(int cell, const Weights& weights);

}  // namespace charloom
