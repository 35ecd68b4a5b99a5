// Generators with 8-bit weights. This file is compiled with -ffp-contract=off, see `vectors.h`.

#define CHARLOOM_EXACT
#include "generator.h"

namespace charloom {

std::unique_ptr<AnyGenerator> new_exact_generator(int cell, const Weights& weights) {
  if (cell == 0) return std::make_unique<Generator<LSTM, Int8>>(weights);
  if (cell == 1) return std::make_unique<Generator<GRU, Int8>>(weights);
  if (cell == 2) return std::make_unique<Generator<Elman, Int8>>(weights);
  throw Invalid("unknown cell " + std::to_string(cell));
}

}  // namespace charloom
