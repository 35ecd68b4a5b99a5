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

// The lesser and the greater of a number and a bound; a NaN stays one.
inline Vector at_most(float bound, Vector x) {
#if defined(__AVX512F__)
  return _mm512_min_ps(all(bound), x);  // where either is no number, the second
#else
  return x > bound ? all(bound) : x;
#endif
}

inline Vector at_least(float bound, Vector x) {
#if defined(__AVX512F__)
  return _mm512_max_ps(all(bound), x);
#else
  return x < bound ? all(bound) : x;
#endif
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

constexpr float kRounds = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to a whole number

inline Vector rounded(Vector x) {
#if defined(__AVX512F__)
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  return (x + kRounds) - kRounds;
#endif
}

// x * 2^n for a whole n from -126 to 127.
inline Vector scaled(Vector x, Vector n) {
#if defined(__AVX512F__)
  return _mm512_scalef_ps(x, n);
#else
  const Integers exponent = ((Integers)(n + kRounds) - (Integers)all(kRounds) + 127) << 23;
  return x * (Vector)exponent;
#endif
}

// What exp(x) is made of, for x from -87 to 88: x = n log 2 + r with a whole n and |r| <= 0.35, so that
// exp(x) = 2^n exp(r) and 2^n is a normal number. Of a NaN, NaNs.
struct Exponent {
  Vector n;
  Vector r;

  explicit Exponent(Vector x) {
    n = rounded(x * 1.44269504f);
    r = x - n * 0.693359375f + n * 2.12194440e-4f;  // log 2 in two parts, the first of few bits
  }
};

// (exp(r) - 1 - r) / r^2 for |r| <= 0.35: a polynomial fitted so that exp(r) is off by 6e-9 of itself at most.
inline Vector exponential_tail(Vector r) {
  Vector p = r * 1.3950602e-3f + 8.3689531e-3f;
  p = p * r + 4.1666206e-2f;
  p = p * r + 1.6666518e-1f;
  return p * r + 0.5f;
}

inline Vector sigmoid(Vector x) {
  const Exponent e(at_most(88.0f, at_least(-87.0f, -x)));
  const Vector power = (exponential_tail(e.r) * e.r + 1.0f) * e.r + 1.0f;
  return reciprocal(scaled(power, e.n) + 1.0f);
}

// By exp(2x) - 1, in a form that is right to the last bits also near zero.
inline Vector tanh(Vector x) {
  x = at_most(10.0f, at_least(-10.0f, x));  // from there on it is 1 in float32
  const Exponent e(x + x);
  const Vector scale = scaled(all(1.0f), e.n), part = exponential_tail(e.r) * (e.r * e.r) + e.r;
  const Vector less_one = scale * part + (scale - 1.0f);
  return less_one * reciprocal(less_one + 2.0f);
}

// clip(0.2 x + 0.5, 0, 1), as in Keras before 2.3.
inline Vector hard_sigmoid(Vector x) { return at_most(1.0f, at_least(0.0f, x * 0.2f + 0.5f)); }

inline Vector relu(Vector x) { return at_least(0.0f, x); }

}  // namespace charloom
