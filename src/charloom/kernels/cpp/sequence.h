// A layer's forward and backward passes over a whole sequence, run by the team of threads.
#pragma once

#include "backward.h"
#include "forward.h"

namespace charloom {

// Returns one thread for a step of few operations, otherwise `threads`.
template <class Cell>
int threads_for(const Layer& call, int threads) {
  const double operations = 2.0 * Cell::gate_count * call.hidden_size * (call.hidden_size + call.features) * call.batch_size;
  return operations < kMinParallelOperations ? 1 : threads;
}

template <class Cell, class Precision = Float32>
void run_forward(const Forward& call, int threads) {
  Team::of_process().run(threads_for<Cell>(call, threads), forward_floats<Cell, Precision>(call),
                         [&](Member member, Scratch scratch) { forward<Cell, Precision>(call, member, scratch); });
}

template <class Cell, class Precision = Float32>
void run_backward(const Backward& call, int threads) {
  Team::of_process().run(threads_for<Cell>(call, threads), BackwardMemory<Cell, Precision>(call, threads).floats(),
                         [&](Member member, Scratch scratch) { backward<Cell, Precision>(call, member, scratch); });
}

}  // namespace charloom
