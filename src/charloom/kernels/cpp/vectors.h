// Vectors of floats as wide as this CPU's registers, and the functions of them that cells need.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace charloom {

// kWidth: floats a register. kRows: lanes that one product holds sums of, so that kRows * 4 sums and what they are
// made of fit the registers.
#if defined(__AVX512F__)
constexpr int kWidth = 16;
constexpr int kRows = 6;
#elif defined(__AVX__)
constexpr int kWidth = 8;
constexpr int kRows = 3;
#elif defined(__aarch64__)
constexpr int kWidth = 4;
constexpr int kRows = 6;
#else
constexpr int kWidth = 4;
constexpr int kRows = 3;
#endif

typedef float Vector __attribute__((vector_size(4 * kWidth)));
typedef int32_t Integers __attribute__((vector_size(4 * kWidth)));

inline Vector all(float value) { return value - Vector{}; }

inline Vector load(const float* from) {
  Vector values;
  std::memcpy(&values, from, sizeof values);
  return values;
}

inline void store(float* to, Vector values) { std::memcpy(to, &values, sizeof values); }

// A vector of which only the first `count` floats are in memory; the others are zero.
inline Vector load(const float* from, int count) {
  if (count >= kWidth) return load(from);
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
#else
  Vector values{};
  std::memcpy(&values, from, count * sizeof(float));
  return values;
#endif
}

inline void store(float* to, Vector values, int count) {
  if (count >= kWidth) return store(to, values);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), values);
#else
  std::memcpy(to, &values, count * sizeof(float));
#endif
}

// Turns a square of vectors: what was element j of vector i becomes element i of vector j.
inline void transpose(Vector (&square)[kWidth]) {
  // Squares twice as large at each turn: of each pair of vectors, the halves that stand across change places.
  [&]<int... Log>(std::integer_sequence<int, Log...>) {
    const auto turn = [&]<int Half, int... Lane>(std::integer_sequence<int, Half>, std::integer_sequence<int, Lane...>) {
      for (int i = 0; i < kWidth; ++i)
        if (!(i & Half)) {
          const Vector a = square[i], b = square[i + Half];
          square[i] = __builtin_shufflevector(a, b, (Lane & Half ? kWidth + Lane - Half : Lane)...);
          square[i + Half] = __builtin_shufflevector(a, b, (Lane & Half ? kWidth + Lane : Lane + Half)...);
        }
    };
    (turn(std::integer_sequence<int, (1 << Log)>{}, std::make_integer_sequence<int, kWidth>{}), ...);
  }(std::make_integer_sequence<int, std::countr_zero(static_cast<unsigned>(kWidth))>{});
}

// 1 / x for x from 1 to 2^127, to about the last bit.
inline Vector reciprocal(Vector x) {
#if defined(__AVX512F__)
  const Vector guess = _mm512_rcp14_ps(x);  // a division would take as long as a dozen products
  return guess + guess * (1.0f - x * guess);
#else
  return 1.0f / x;
#endif
}

// exp(x) - 1 = scale * part + (scale - 1), to the last bits also near zero.
// x = n log 2 + r with a whole n: scale is 2^n, part the Taylor series of exp(r) - 1 up to r^7; |r| <= 0.35.
// `x` is clamped so that 2^n is a normal number. A NaN comes out as NaN.
struct Exponential {
  Vector scale;
  Vector part;

  explicit Exponential(Vector x) {
    x = x < -87.0f ? all(-87.0f) : x;
    x = x > 88.0f ? all(88.0f) : x;
    constexpr float kRounds = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
    const Vector shifted = x * 1.44269504f + kRounds;
    const Vector n = shifted - kRounds;
    const Vector r = x - n * 0.693359375f + n * 2.12194440e-4f;  // log 2 in two parts, the first of few bits
    Vector p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    part = p * r;
    const Integers exponent = ((Integers)shifted - (Integers)all(kRounds) + 127) << 23;
    scale = (Vector)exponent;
  }
};

inline Vector sigmoid(Vector x) {
  const Exponential e(-x);
  return reciprocal(e.scale * e.part + (e.scale + 1.0f));
}

inline Vector tanh(Vector x) {
  x = x < -10.0f ? all(-10.0f) : x;  // from there on it is 1 in float32
  x = x > 10.0f ? all(10.0f) : x;
  const Exponential e(x + x);
  const Vector less_one = e.scale * e.part + (e.scale - 1.0f);
  return less_one * reciprocal(less_one + 2.0f);
}

// clip(0.2 x + 0.5, 0, 1), as in Keras before 2.3.
inline Vector hard_sigmoid(Vector x) {
  x = x * 0.2f + 0.5f;
  x = x < 0.0f ? Vector{} : x;
  return x > 1.0f ? all(1.0f) : x;
}

inline Vector relu(Vector x) { return x < 0.0f ? Vector{} : x; }

}  // namespace charloom
