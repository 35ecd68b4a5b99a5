// One step of Adam: weights, moments and gradient are each read once, and the new ones written once.
//
// The definition is Optax's, in ../../training/update.py.
#pragma once

#include <algorithm>

#include "threads.h"
#include "vectors.h"

namespace charloom {

// The results may take the place of what they are made from.
struct AdamStep {
  size_t count;  // of weights
  const float* weights;
  const float* mean;
  const float* square;
  const float* gradient;
  float scale;  // of the gradient: below 1 where its norm is clipped
  float rate;   // the learning rate, with the correction of both moments
  float decay_mean, decay_square, epsilon;
  float* new_weights;
  float* new_mean;
  float* new_square;
};

inline void adam_step(const AdamStep& step, size_t first, size_t last) {
  for (size_t at = first; at < last; at += kWidth) {
    const int count = static_cast<int>(std::min<size_t>(kWidth, last - at));
    const Vector gradient = step.scale * load(step.gradient + at, count);
    const Vector mean = (1 - step.decay_mean) * gradient + step.decay_mean * load(step.mean + at, count);
    const Vector square =
        (1 - step.decay_square) * (gradient * gradient) + step.decay_square * load(step.square + at, count);
    const Vector weights = load(step.weights + at, count) - step.rate * mean / (square_root(square) + step.epsilon);
    store(step.new_mean + at, mean, count);
    store(step.new_square + at, square, count);
    store(step.new_weights + at, weights, count);
  }
}

inline void run_adam(const AdamStep& step, int threads) {
  constexpr size_t kBlock = 4096;  // weights that one thread takes at a time: whole pages
  const int blocks = static_cast<int>((step.count + kBlock - 1) / kBlock);
  Team::of_process().run(std::min(threads, std::max(1, blocks)), 0, [&](Member member, Scratch) {
    adam_step(step, kBlock * member.first(blocks), std::min(step.count, kBlock * member.last(blocks)));
  });
}

}  // namespace charloom
