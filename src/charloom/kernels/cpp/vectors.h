// Vectors of floats as wide as this CPU's registers, and the functions of vectors that cells need.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

// There are two kinds of arithmetic. The fast one fuses multiplications and additions and approximates reciprocals, as the
// processor can. The exact one uses only operations whose results IEEE 754 defines, in a fixed order, so that all processors give
// the same bits. A source file chooses it with CHARLOOM_EXACT, and is compiled with -ffp-contract=off.
#if defined(CHARLOOM_EXACT)
#define CHARLOOM_ARITHMETIC exact
#else
#define CHARLOOM_ARITHMETIC fast
#endif

namespace charloom::inline CHARLOOM_ARITHMETIC {

// kWidth: floats per register. kRegisters: vector registers. kRows: batch rows per product, so that kRows * 4 sums and their
// operands fit the registers.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kRegisters = 32, kRows = 6;
#elif defined(__AVX__)
constexpr int kWidth = 8, kRegisters = 16, kRows = 3;
#elif defined(__aarch64__)
constexpr int kWidth = 4, kRegisters = 32, kRows = 6;
#else
constexpr int kWidth = 4, kRegisters = 16, kRows = 3;
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

// Loads a vector whose first `count` floats are in memory; the others are zero.
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

// Copies up to eight floats, a group's columns.
static_assert(kRows <= 8);
inline void copy_few(const float* from, int count, float* to) {
  if (count < 4) {
    for (int i = 0; i < count; ++i) to[i] = from[i];
  } else {  // two copies of four floats, which may overlap
    float first[4], last[4];
    std::memcpy(first, from, sizeof first), std::memcpy(last, from + count - 4, sizeof last);
    std::memcpy(to, first, sizeof first), std::memcpy(to + count - 4, last, sizeof last);
  }
}

// Transposes a square of vectors: element j of vector i becomes element i of vector j.
inline void transpose(Vector (&square)[kWidth]) {
  // Each turn transposes squares twice as large: in each pair of vectors, two opposite halves are exchanged.
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

// The minimum and the maximum of a number and a bound. A NaN stays a NaN.
inline Vector at_most(float bound, Vector x) {
#if defined(__AVX512F__)
  return _mm512_min_ps(all(bound), x);  // if either operand is NaN, the instruction returns the second one
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

// 1 / x for x from 1 to 2^126, to about the last bit. For larger x, the first estimate would be denormal.
inline Vector reciprocal(Vector x) {
#if defined(__AVX512F__) && !defined(CHARLOOM_EXACT)
  const Vector estimate = _mm512_rcp14_ps(x);  // a division would take as long as a dozen products
  return estimate + estimate * (1.0f - x * estimate);
#else
  return 1.0f / x;
#endif
}

constexpr float kRounds = 12582912.0f;  // 1.5 * 2^23: adding it to a number rounds the number to an integer

inline Vector rounded(Vector x) {
#if defined(__AVX512F__) && !defined(CHARLOOM_EXACT)
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  return (x + kRounds) - kRounds;
#endif
}

// x * 2^n for an integer n from -126 to 127.
inline Vector scaled(Vector x, Vector n) {
#if defined(__AVX512F__) && !defined(CHARLOOM_EXACT)
  return _mm512_scalef_ps(x, n);
#else
  const Integers exponent = ((Integers)(n + kRounds) - (Integers)all(kRounds) + 127) << 23;
  return x * (Vector)exponent;
#endif
}

// The factors of 2^t, for t clipped to [-126, 126]: t = n + r with an integer n and |r| <= 0.5, so that 2^t = 2^n 2^r.
// Then 2^n and its inverse are normal numbers. A NaN gives NaNs. Rounding t = x / log 2 gives the power of a large x a
// relative error of 6e-8 |x|.
struct Power {
  Vector n;
  Vector r;

  explicit Power(Vector t) {
    t = at_most(126.0f, at_least(-126.0f, t));
    n = rounded(t);
    r = t - n;
  }

  // 2^r - 1, by a polynomial with a relative error of at most 2e-8.
  Vector of_r_less_one() const {
    Vector p = r * 1.54035123e-4f + 1.33908498e-3f;
    p = p * r + 9.61823793e-3f;
    p = p * r + 5.55035723e-2f;
    p = p * r + 2.40226498e-1f;
    p = p * r + 6.93147188e-1f;
    return p * r;
  }
};

constexpr float kLog2E = 1.44269504f;

inline Vector sigmoid(Vector x) {
  const Power power(x * -kLog2E);
  return reciprocal(scaled(power.of_r_less_one() + 1.0f, power.n) + 1.0f);
}

// tanh x from exp(2x) - 1, in a form that is also accurate to the last bits near zero.
inline Vector tanh(Vector x) {
  const Power power(x * (2 * kLog2E));
  const Vector scale = scaled(all(1.0f), power.n);
  const Vector less_one = scale * power.of_r_less_one() + (scale - 1.0f);
  return less_one * reciprocal(less_one + 2.0f);
}

// clip(0.2 x + 0.5, 0, 1), as in Keras before 2.3.
inline Vector hard_sigmoid(Vector x) { return at_most(1.0f, at_least(0.0f, x * 0.2f + 0.5f)); }

inline Vector relu(Vector x) { return at_least(0.0f, x); }

}  // namespace charloom
