// Measures the peak of each multiplying instruction: every thread multiplies in registers and waits for nothing.
// Prints a line per instruction: precision, instruction, billions of operations per second. Arguments: threads, seconds.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "amx.h"
#include "product.h"

using charloom::Integers;
using charloom::Vector;

namespace {

constexpr int kChains = charloom::kWidth == 16 ? 24 : 10;  // parallel sums, enough to hide the latency of each
constexpr int kBatch = 10000;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Returns how many batches one thread makes until `end`. A batch is kBatch times kChains additions to sums.
template <class Sum, class Add>
long batches_until(double end, Sum first, Add add) {
  Sum sums[kChains];
  for (Sum& sum : sums) sum = first;
  long batches = 0;
  for (; now() < end; ++batches) {
    asm volatile("" : "+m"(sums));  // keeps the compiler from seeing that all sums are equal
    for (int i = 0; i < kBatch; ++i)
      charloom::unrolled<kChains>([&](auto chain) CHARLOOM_INLINE { sums[chain.value] = add(sums[chain.value]); });
    asm volatile("" : "+m"(sums));  // keeps it from dropping the sums
  }
  return batches;
}

long float32_batches(double end) {
  const Vector factor = charloom::all(0.999f), addend = charloom::all(1e-3f);
  return batches_until(end, charloom::all(1.0f), [=](Vector sum) CHARLOOM_INLINE { return sum * factor + addend; });
}

#if defined(__AVX512BF16__)
long bfloat16_batches(double end) {
  const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  return batches_until(end, charloom::all(1.0f), [=](Vector sum) CHARLOOM_INLINE {
    return (Vector)_mm512_dpbf16_ps((__m512)sum, ones, ones);
  });
}
#endif

#if defined(__AVX512VNNI__)
long int8_batches(double end) {
  const __m512i ones = _mm512_set1_epi8(1);
  return batches_until(end, Integers{}, [=](Integers sum) CHARLOOM_INLINE {
    return (Integers)_mm512_dpbusd_epi32((__m512i)sum, ones, ones);
  });
}
#endif

#if defined(CHARLOOM_AMX)
constexpr int kTileSums = 6;

// Adds the products of int8 numbers.
template <int Sums, int Rows, int Panel>
void multiply_int8_tile() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sums), "i"(Rows), "i"(Panel));
}

template <bool Floats>
long tile_batches(double end) {
  charloom::TileScope scope;
  charloom::configure_tiles(charloom::kTileRows);
  alignas(64) Integers numbers[charloom::kTileRows];
  for (Integers& row : numbers) row = Integers{} + (Floats ? 0x3f803f80 : 0x01010101);
  asm volatile("" : : "m"(numbers));
  charloom::unrolled<kTileSums>([](auto sum) CHARLOOM_INLINE { charloom::zero_tile<sum.value>(); });
  charloom::load_tile<6>(numbers, sizeof(Integers));
  charloom::load_tile<7>(numbers, sizeof(Integers));
  long batches = 0;
  for (; now() < end; ++batches)
    for (int i = 0; i < kBatch; ++i)
      charloom::unrolled<kTileSums>([](auto sum) CHARLOOM_INLINE {
        if constexpr (Floats) charloom::multiply_tile<sum.value, 6, 7>();
        else multiply_int8_tile<sum.value, 6, 7>();
      });
  return batches;
}
#endif

// Prints a line. `operations` are those of one batch.
void measure(const char* name, long (*batches_until)(double end), double operations, int threads, double seconds) {
  const double begin = now();
  std::atomic<long> batches{0};
  std::vector<std::thread> team;
  for (int index = 0; index < threads; ++index) team.emplace_back([&] { batches += batches_until(begin + seconds); });
  for (std::thread& thread : team) thread.join();
  std::printf("%s %.1f\n", name, operations * batches / (now() - begin) / 1e9);
}

}  // namespace

int main(int, char** arguments) {
  const int threads = std::atoi(arguments[1]);
  const double seconds = std::atof(arguments[2]);
  constexpr double sums = 1.0 * kBatch * kChains * charloom::kWidth;
  measure("float32 FMA", float32_batches, 2 * sums, threads, seconds);
#if defined(__AVX512BF16__)
  measure("bfloat16 AVX512_BF16", bfloat16_batches, 4 * sums, threads, seconds);
#endif
#if defined(__AVX512VNNI__)
  measure("int8 AVX512_VNNI", int8_batches, 8 * sums, threads, seconds);
#endif
#if defined(CHARLOOM_AMX)
  if (charloom::may_use_tiles()) {
    constexpr double tiles = 1.0 * kBatch * kTileSums * charloom::kTileRows * charloom::kWidth;
    measure("bfloat16 AMX", tile_batches<true>, 64 * tiles, threads, seconds);
    measure("int8 AMX", tile_batches<false>, 128 * tiles, threads, seconds);
  }
#endif
}
