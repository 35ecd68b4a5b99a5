// Measures the peak of fused multiply-adds: every thread makes them in registers and waits for nothing.
// Prints the GFLOP/s of all threads. Arguments: threads, seconds.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "vectors.h"

using charloom::Vector;

namespace {

constexpr int kChains = charloom::kWidth == 16 ? 24 : 10;  // parallel sums, enough to hide the latency of each
constexpr int kBatch = 10000;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Returns how many batches one thread makes until `end`.
long batches_until(double end, float seed) {
  Vector sums[kChains];
  for (Vector& sum : sums) sum = charloom::all(seed);
  Vector factor = charloom::all(0.999f), addend = charloom::all(1e-3f);
  long batches = 0;
  for (; now() < end; ++batches) {
    for (int i = 0; i < kBatch; ++i) {
#pragma GCC unroll 24
      for (int chain = 0; chain < kChains; ++chain) sums[chain] = sums[chain] * factor + addend;
    }
    asm volatile("" : "+m"(sums) : : "memory");  // keeps the compiler from dropping the sums
  }
  return batches;
}

}  // namespace

int main(int, char** arguments) {
  const int threads = std::atoi(arguments[1]);
  const double begin = now(), seconds = std::atof(arguments[2]);
  std::atomic<long> batches{0};
  std::vector<std::thread> team;
  for (int index = 0; index < threads; ++index)
    team.emplace_back([&, index] { batches += batches_until(begin + seconds, 1.0f + index); });
  for (std::thread& thread : team) thread.join();
  std::printf("%.1f\n", 2.0 * kChains * charloom::kWidth * kBatch * batches / (now() - begin) / 1e9);
}
