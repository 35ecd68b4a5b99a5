// Sampling a token with the same integer arithmetic and tables as `charloom/inference/sampling.py`.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace charloom {

struct SamplingRule {
  float temperature;       // negative: the most likely token
  int top_k;               // 0: all tokens
  uint32_t top_p;          // a probability in units of 2^-32; 0: all tokens
  float steps_per_nat;
  const uint32_t* coarse;  // both tables have 2^11 powers of two, times 2^31
  const uint32_t* fine;
};

inline uint32_t high_product(uint32_t a, uint32_t b) { return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32); }

// Returns the first word of Threefry-2x32. Source: Salmon, Moraes, Dror and Shaw, 2011.
inline uint32_t threefry(const uint32_t seed[2], uint32_t stream, uint32_t position) {
  constexpr int kRotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  const uint32_t keys[3] = {seed[0], seed[1], 0x1BD11BDA ^ seed[0] ^ seed[1]};
  uint32_t x = stream + keys[0], y = position + keys[1];
  for (uint32_t group = 0; group < 5; ++group) {
    for (const int rotation : kRotations[group % 2]) {
      x += y;
      y = std::rotl(y, rotation) ^ x;
    }
    x += keys[(group + 1) % 3];
    y += keys[(group + 2) % 3] + group + 1;
  }
  return x;
}

// Buffers for sampling a token, reused from token to token.
struct Choice {
  std::vector<uint32_t> weights;
  std::vector<int> order;
};

inline int most_likely(const float* logits, int vocab) {
  int best = 0;
  for (int token = 0; token < vocab; ++token) {
    if (std::isnan(logits[token])) return token;
    if (logits[token] > logits[best]) best = token;
  }
  return best;
}

inline int choose(const float* logits, int vocab, uint32_t draw, const SamplingRule& rule, Choice& room) {
  if (rule.temperature < 0) return most_likely(logits, vocab);
  constexpr int kStepBits = 22, kTableBits = 11;
  constexpr float kNoSteps = 31u << kStepBits;
  float largest = logits[0];
  bool is_number = true;
  for (int token = 0; token < vocab; ++token) {
    is_number = is_number && !std::isnan(logits[token]);
    largest = std::max(largest, logits[token]);
  }
  if (!is_number) return 0;  // all weights are zero then
  std::vector<uint32_t>& weights = room.weights;
  weights.resize(vocab);
  uint32_t upper_halves = static_cast<uint32_t>(vocab);
  for (int token = 0; token < vocab; ++token) {
    const float distance = (largest - logits[token]) / rule.temperature * rule.steps_per_nat;
    const uint32_t steps = static_cast<uint32_t>(distance < kNoSteps ? distance : kNoSteps);
    constexpr uint32_t mask = (1u << kTableBits) - 1;
    weights[token] = high_product(rule.coarse[steps >> kTableBits & mask], rule.fine[steps & mask]) >> (steps >> kStepBits);
    upper_halves += weights[token] >> 16;
  }
  const int halvings = std::max(0, static_cast<int>(std::bit_width(upper_halves)) - 16);
  for (uint32_t& weight : weights) weight >>= halvings;

  if (rule.top_k || rule.top_p) {
    std::vector<int>& order = room.order;
    order.resize(vocab);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
    if (rule.top_k)
      for (int rank = rule.top_k; rank < vocab; ++rank) weights[order[rank]] = 0;
    if (rule.top_p) {
      const uint32_t share = high_product(std::accumulate(weights.begin(), weights.end(), uint32_t{0}), rule.top_p);
      uint32_t before = 0;
      for (int rank = 0; rank < vocab; ++rank) {
        const uint32_t weight = weights[order[rank]];
        if (rank > 0 && before >= share) weights[order[rank]] = 0;
        before += weight;
      }
    }
  }
  const uint32_t total = std::accumulate(weights.begin(), weights.end(), uint32_t{0});
  const uint32_t point = high_product(total, draw >> 8 << 8);
  uint32_t cumulative = 0;
  for (int token = 0; token < vocab; ++token)
    if ((cumulative += weights[token]) > point) return token;
  return 0;
}

}  // namespace charloom
