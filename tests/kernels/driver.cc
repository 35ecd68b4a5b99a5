// Compares the native kernels with slow loops in double precision, without XLA. The sanitizers also run this program.
//
// Generated texts are compared for several numbers of threads and next to other texts. Tests in Python compare their tokens
// with the reference.
//
// Prints a line for each failed check, and at the end the number of checks.

#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>

#include "dense.h"
#include "generator.h"
#include "sequence.h"

namespace {

// How many allocations succeed before one fails, in any thread; negative if none fails.
std::atomic<int64_t> allocations_left{-1};

void* allocated(size_t size, size_t alignment) {
  if (allocations_left.load() >= 0 && allocations_left.fetch_sub(1) == 0) throw std::bad_alloc();
  void* memory = std::aligned_alloc(alignment, (std::max(size, size_t{1}) + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t size) { return allocated(size, alignof(std::max_align_t)); }
void* operator new(size_t size, std::align_val_t alignment) { return allocated(size, static_cast<size_t>(alignment)); }
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }

namespace {

using namespace charloom;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

int wrong = 0;
int checked = 0;
int failure_interval = 1;  // every how many allocations one is made to fail

void check(bool holds, const std::string& what) {
  ++checked;
  if (holds) return;
  ++wrong;
  std::printf("wrong: %s\n", what.c_str());
}

struct Problem {
  int cell, gate_count, kept, hidden_size, batch_size, time, features;
  bool bfloat16 = false;
  Activations activations{};
  Floats table, inputs, kernel, recurrent_kernel, bias, start, start_cell, d_outputs, d_last, d_last_cell;
  std::vector<int32_t> rows;
  std::unique_ptr<bool[]> resets;

  std::string name() const {
    static const char* const cells[] = {"lstm", "gru", "elman"};
    return std::string(cells[cell]) + " hidden " + std::to_string(hidden_size) + " batch " + std::to_string(batch_size) +
           " sequence " + std::to_string(time) + " features " + std::to_string(features) + (activations.hard_gates ? " hard gates" : "") + (activations.relu ? " relu" : "") + (bfloat16 ? " bfloat16" : "");
  }
};

constexpr int kTableRows = 5;

Problem make(int cell, int hidden, int batch_size, int time, int features, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto draw = [&](size_t count, double scale) {
    Floats values(count);
    for (float& value : values) value = static_cast<float>(scale * normal(random));
    return values;
  };
  Problem p{};
  p.cell = cell, p.hidden_size = hidden, p.batch_size = batch_size, p.time = time, p.features = features;
  p.gate_count = cell == 0 ? 4 : cell == 1 ? 3 : 1;
  p.kept = cell == 2 ? 0 : 4;
  const size_t state = static_cast<size_t>(batch_size) * hidden;
  p.table = draw(static_cast<size_t>(kTableRows) * hidden * p.gate_count, 1);
  for (int i = 0; i < time * batch_size; ++i) p.rows.push_back(static_cast<int32_t>(random() % (kTableRows - 1)));  // the last row is not used
  p.inputs = draw(static_cast<size_t>(time) * batch_size * features, 1);
  p.kernel = draw(static_cast<size_t>(features) * hidden * p.gate_count, 0.7 / std::sqrt(features + 1));
  p.recurrent_kernel = draw(static_cast<size_t>(hidden) * hidden * p.gate_count, 0.7 / std::sqrt(hidden));
  p.bias = draw(static_cast<size_t>(hidden) * p.gate_count, 0.3);
  p.start = draw(state, 0.5), p.start_cell = draw(state, 0.5);
  p.d_outputs = draw(time * state, 1), p.d_last = draw(state, 1), p.d_last_cell = draw(state, 1);
  p.resets.reset(new bool[static_cast<size_t>(time) * batch_size]);
  for (int i = 0; i < time * batch_size; ++i) p.resets[i] = random() % 5 == 0;
  return p;
}

// All results of a problem. The scales are the sums of the absolute values of a gradient's summands.
template <class Number>
struct Answer {
  using Numbers = std::vector<Number>;
  Numbers outputs, last_cell, d_table, d_inputs, d_kernel, d_recurrent_kernel, d_recurrent_bias, d_start, d_start_cell;
  Numbers table_scale, kernel_scale, recurrent_scale, bias_scale;
  Numbers outputs_only;  // without a backward pass
  // The gradients of the gates, [time, batch rows, gates]: of the input product and of the recurrent product.
  Numbers d_projected, d_products;

  explicit Answer(const Problem& p) {
    const size_t state = static_cast<size_t>(p.batch_size) * p.hidden_size;
    outputs.resize(p.time * state), last_cell.resize(p.cell == 0 ? state : 0);
    d_table.resize(p.table.size()), d_inputs.resize(p.inputs.size()), d_kernel.resize(p.kernel.size());
    d_recurrent_kernel.resize(p.recurrent_kernel.size()), d_recurrent_bias.resize(p.cell == 1 ? p.bias.size() : 0);
    d_start.resize(state), d_start_cell.resize(p.cell == 0 ? state : 0);
    table_scale.resize(d_table.size()), kernel_scale.resize(d_kernel.size());
    recurrent_scale.resize(d_recurrent_kernel.size()), bias_scale.resize(d_recurrent_bias.size());
    d_projected.resize(p.time * state * p.gate_count), d_products.resize(d_projected.size());
  }
};

template <class Cell, class Precision>
Answer<float> run(const Problem& p, int threads) {
  Answer<float> a(p);
  Forward f{};
  f.time = p.time, f.batch_size = p.batch_size, f.hidden_size = p.hidden_size, f.features = p.features, f.activations = p.activations;
  f.rows = p.rows.data(), f.inputs = p.inputs.data(), f.kernel = p.kernel.data();
  f.recurrent_kernel = p.recurrent_kernel.data(), f.start = p.start.data(), f.start_cell = p.start_cell.data();
  f.resets = p.resets.get(), f.table = p.table.data(), f.recurrent_bias = p.bias.data();
  f.outputs = a.outputs.data(), f.last_cell = a.last_cell.data();
  const size_t kept = static_cast<size_t>(p.time) * p.batch_size * vectors_of(p.hidden_size) * kWidth;
  Floats gates(kept * Cell::kept), cells(p.cell == 0 ? kept : 0);
  run_forward<Cell, Precision>(f, threads);
  a.outputs_only = a.outputs;
  f.gates = p.kept ? gates.data() : nullptr, f.cells = cells.empty() ? nullptr : cells.data();
  run_forward<Cell, Precision>(f, threads);
  f.gates = gates.data();  // the Elman network has room for them here, so that their gradients can be compared
  Backward b{};
  static_cast<Layer&>(b) = f;
  b.table_rows = kTableRows, b.outputs = a.outputs.data(), b.gates = f.gates, b.cells = f.cells;
  b.d_outputs = p.d_outputs.data(), b.d_last = p.d_last.data(), b.d_last_cell = p.d_last_cell.data();
  b.d_table = a.d_table.data(), b.d_inputs = a.d_inputs.data(), b.d_kernel = a.d_kernel.data();
  b.d_recurrent_kernel = a.d_recurrent_kernel.data(), b.d_recurrent_bias = a.d_recurrent_bias.data();
  b.d_start = a.d_start.data(), b.d_start_cell = a.d_start_cell.data();
  run_backward<Cell, Precision>(b, threads);
  const GateTiles<Cell> tiles(f);
  for (int row = 0; row < p.time * p.batch_size; ++row)
    for (int j = 0; j < p.hidden_size; ++j)
      for (int part = 0; part < Cell::gate_count; ++part) {
        const float* tile = tiles.at(gates.data(), row, j / kWidth) + j % kWidth;
        const size_t at = static_cast<size_t>(row) * Cell::gate_count * p.hidden_size + j;
        a.d_products[at + part * p.hidden_size] = tile[(Cell::recurrent_at + part) * kWidth];
        a.d_projected[at + Cell::input_gates[part] * p.hidden_size] = tile[part * kWidth];
      }
  return a;
}

template <class Cell>
Answer<float> run(const Problem& p, int threads) {
  return p.bfloat16 ? run<Cell, BFloat16>(p, threads) : run<Cell, Float32>(p, threads);
}

Answer<float> run(const Problem& p, int threads) {
  return p.cell == 0 ? run<LSTM>(p, threads) : p.cell == 1 ? run<GRU>(p, threads) : run<Elman>(p, threads);
}

// Returns the nearest bfloat16 number, with ties to even.
float nearest_half(float x) {
  if (!std::isfinite(x)) return x;
  const float ulp = std::ldexp(1.0f, std::max(std::ilogb(x), -126) - 7);
  return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : std::nearbyint(x / ulp) * ulp;
}

// The same, directly from the equations, one unit at a time.
//
// In bfloat16, a tiny difference may round a factor to another number. Factors are therefore the rounded results of the kernels,
// and each result is compared by itself.
struct Slow {
  const Problem& p;
  const Answer<float>& got;

  // Returns the factor of a product for a number from the problem, or for one that the kernels computed as `theirs`.
  double factor(float given) const { return p.bfloat16 ? nearest_half(given) : given; }
  double factor(double own, float theirs) const { return p.bfloat16 ? nearest_half(theirs) : own; }

  double gate(double x) const { return p.activations.hard_gates ? std::fmin(std::fmax(0.2 * x + 0.5, 0), 1) : 1 / (1 + std::exp(-x)); }
  double d_gate(double y) const { return p.activations.hard_gates ? (y > 0 && y < 1 ? 0.2 : 0) : y * (1 - y); }
  double activation(double x) const { return p.activations.relu ? std::fmax(x, 0) : std::tanh(x); }
  double d_activation(double y) const { return p.activations.relu ? (y > 0 ? 1 : 0) : 1 - y * y; }

  Answer<double> run() const {
    Answer<double> a(p);
    for (int batch_row = 0; batch_row < p.batch_size; ++batch_row) run(a, batch_row);
    return a;
  }

  void run(Answer<double>& a, int batch_row) const {
    const int H = p.hidden_size, G = p.gate_count * H;
    const auto row = [&](int t) { return static_cast<size_t>(t) * p.batch_size + batch_row; };
    std::vector<Doubles> h(p.time + 1, Doubles(H)), c(p.time + 1, Doubles(H));
    std::vector<Doubles> h_before(p.time), c_before(p.time), gates(p.time, Doubles(4 * H));
    for (int j = 0; j < H; ++j) h[0][j] = p.start[batch_row * H + j], c[0][j] = p.start_cell[batch_row * H + j];
    for (int t = 0; t < p.time; ++t) {
      const bool reset = p.resets[row(t)];
      h_before[t] = reset ? Doubles(H) : h[t], c_before[t] = reset ? Doubles(H) : c[t];
      Doubles sums(G);
      for (int k = 0; k < H; ++k) {
        const double before = factor_before(h_before[t][k], t, batch_row, k);
        for (int g = 0; g < G; ++g) sums[g] += before * factor(p.recurrent_kernel[static_cast<size_t>(k) * G + g]);
      }
      const float* chosen = p.table.data() + static_cast<size_t>(p.rows[row(t)]) * G;
      Doubles x(chosen, chosen + G);
      for (int k = 0; k < p.features; ++k)
        for (int g = 0; g < G; ++g)
          x[g] += factor(p.inputs[row(t) * p.features + k]) * factor(p.kernel[static_cast<size_t>(k) * G + g]);
      double* kept = gates[t].data();
      for (int j = 0; j < H; ++j) {
        if (p.cell == 0) {
          const double i = gate(x[j] + sums[j]), f = gate(x[H + j] + sums[H + j]);
          const double g = activation(x[2 * H + j] + sums[2 * H + j]), o = gate(x[3 * H + j] + sums[3 * H + j]);
          c[t + 1][j] = f * c_before[t][j] + i * g;
          h[t + 1][j] = o * activation(c[t + 1][j]);
          kept[j] = i, kept[H + j] = f, kept[2 * H + j] = g, kept[3 * H + j] = o;
        } else if (p.cell == 1) {
          const double z = gate(x[j] + sums[j] + p.bias[j]), r = gate(x[H + j] + sums[H + j] + p.bias[H + j]);
          const double m = sums[2 * H + j] + p.bias[2 * H + j], n = activation(x[2 * H + j] + r * m);
          h[t + 1][j] = z * h_before[t][j] + (1 - z) * n;
          kept[j] = z, kept[H + j] = r, kept[2 * H + j] = n, kept[3 * H + j] = m;
        } else {
          h[t + 1][j] = activation(x[j] + sums[j]);
        }
        a.outputs[row(t) * H + j] = h[t + 1][j];
      }
    }
    for (size_t j = 0; j < (p.cell == 0 ? c[p.time].size() : 0); ++j) a.last_cell[batch_row * H + j] = c[p.time][j];
    Doubles d_h(H), d_c(H);
    for (int j = 0; j < H; ++j) d_h[j] = p.d_last[batch_row * H + j], d_c[j] = p.d_last_cell[batch_row * H + j];
    for (int t = p.time - 1; t >= 0; --t) {
      const double* kept = gates[t].data();
      Doubles past(H), d_x(G), d_sums(G);
      for (int j = 0; j < H; ++j) {
        const double d = d_h[j] + p.d_outputs[row(t) * H + j];
        if (p.cell == 0) {
          const double i = kept[j], f = kept[H + j], g = kept[2 * H + j], o = kept[3 * H + j], s = activation(c[t + 1][j]);
          const double dc = d_c[j] + d * o * d_activation(s);
          d_x[j] = dc * g * d_gate(i), d_x[H + j] = dc * c_before[t][j] * d_gate(f);
          d_x[2 * H + j] = dc * i * d_activation(g), d_x[3 * H + j] = d * s * d_gate(o);
          d_c[j] = dc * f;
        } else if (p.cell == 1) {
          const double z = kept[j], r = kept[H + j], n = kept[2 * H + j], m = kept[3 * H + j];
          const double dn = d * (1 - z) * d_activation(n);
          d_x[j] = d * (h_before[t][j] - n) * d_gate(z), d_x[H + j] = dn * m * d_gate(r), d_x[2 * H + j] = dn;
          past[j] = d * z;
        } else {
          d_x[j] = d * d_activation(h[t + 1][j]);
        }
        for (int part = 0; part < p.gate_count; ++part) d_sums[part * H + j] = d_x[part * H + j];
        if (p.cell == 1) d_sums[2 * H + j] *= kept[H + j];
      }
      Doubles d_product(G), d_input(G);  // factors
      for (int g = 0; g < G; ++g) {
        a.d_projected[row(t) * G + g] = d_x[g], a.d_products[row(t) * G + g] = d_sums[g];
        d_product[g] = factor(d_sums[g], got.d_products[row(t) * G + g]);
        d_input[g] = factor(d_x[g], got.d_projected[row(t) * G + g]);
      }
      const bool reset = p.resets[row(t)];
      for (int k = 0; k < H; ++k) {
        double d = past[k];
        const double before = factor_before(h_before[t][k], t, batch_row, k);
        for (int g = 0; g < G; ++g) {
          const size_t at = static_cast<size_t>(k) * G + g;
          d += d_product[g] * factor(p.recurrent_kernel[at]);
          a.d_recurrent_kernel[at] += before * d_product[g];
          a.recurrent_scale[at] += std::fabs(before * d_product[g]);
        }
        d_h[k] = reset ? 0 : d;
        if (reset) d_c[k] = 0;
      }
      for (int g = 0; g < G; ++g) {
        const size_t at = static_cast<size_t>(p.rows[row(t)]) * G + g;
        a.d_table[at] += d_x[g], a.table_scale[at] += std::fabs(d_x[g]);
        if (p.cell == 1) a.d_recurrent_bias[g] += d_sums[g], a.bias_scale[g] += std::fabs(d_sums[g]);
      }
      for (int k = 0; k < p.features; ++k) {
        const double input = factor(p.inputs[row(t) * p.features + k]);
        for (int g = 0; g < G; ++g) {
          const size_t at = static_cast<size_t>(k) * G + g;
          a.d_inputs[row(t) * p.features + k] += d_input[g] * factor(p.kernel[at]);
          a.d_kernel[at] += input * d_input[g], a.kernel_scale[at] += std::fabs(input * d_input[g]);
        }
      }
    }
    for (int j = 0; j < H; ++j) a.d_start[batch_row * H + j] = d_h[j];
    for (int j = 0; j < (p.cell == 0 ? H : 0); ++j) a.d_start_cell[batch_row * H + j] = d_c[j];
  }

  // Returns the factor for unit k of h before step t.
  double factor_before(double own, int t, int batch_row, int k) const {
    if (!p.bfloat16 || p.resets[t * p.batch_size + batch_row]) return own;
    if (t == 0) return factor(p.start[batch_row * p.hidden_size + k]);
    return factor(got.outputs[(static_cast<size_t>(t - 1) * p.batch_size + batch_row) * p.hidden_size + k]);
  }
};

double largest(const Doubles& values) {
  double most = 0;
  for (double value : values) most = std::fmax(most, std::fabs(value));
  return most;
}

void compare(const Floats& got, const Doubles& wanted, double scale, const std::string& what) {
  double apart = 0;
  for (size_t i = 0; i < got.size(); ++i) apart = std::fmax(apart, std::isfinite(got[i]) ? std::fabs(got[i] - wanted[i]) : 1e30);
  check(apart <= 1e-5 * scale, what + " is " + std::to_string(apart / scale) + " off");
}

bool same(const Floats& a, const Floats& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

bool same(const Answer<float>& a, const Answer<float>& b) {
  return same(a.outputs, b.outputs) && same(a.last_cell, b.last_cell) && same(a.d_table, b.d_table) &&
         same(a.d_inputs, b.d_inputs) && same(a.d_kernel, b.d_kernel) && same(a.d_recurrent_kernel, b.d_recurrent_kernel) &&
         same(a.d_recurrent_bias, b.d_recurrent_bias) && same(a.d_start, b.d_start) && same(a.d_start_cell, b.d_start_cell);
}

void check_problem(const Problem& p) {
  const Answer<float> got = run(p, 1);
  const Answer<double> wanted = Slow{p, got}.run();
  // A small sum is compared with an absolute tolerance.
  const auto at_least_one = [](const Doubles& values) { return std::fmax(largest(values), 1); };
  compare(got.outputs, wanted.outputs, largest(wanted.outputs), p.name() + ": outputs");
  check(same(got.outputs, got.outputs_only), p.name() + ": outputs depend on whether there is a backward pass");
  compare(got.last_cell, wanted.last_cell, at_least_one(wanted.last_cell), p.name() + ": the last c");
  compare(got.d_projected, wanted.d_projected, at_least_one(wanted.d_projected), p.name() + ": d_projected");
  compare(got.d_products, wanted.d_products, at_least_one(wanted.d_products), p.name() + ": d_products");
  compare(got.d_table, wanted.d_table, largest(wanted.table_scale), p.name() + ": d_table");
  compare(got.d_inputs, wanted.d_inputs, at_least_one(wanted.d_inputs), p.name() + ": d_inputs");
  compare(got.d_kernel, wanted.d_kernel, at_least_one(wanted.kernel_scale), p.name() + ": d_kernel");
  compare(got.d_recurrent_kernel, wanted.d_recurrent_kernel, largest(wanted.recurrent_scale), p.name() + ": d_recurrent_kernel");
  compare(got.d_recurrent_bias, wanted.d_recurrent_bias, at_least_one(wanted.bias_scale), p.name() + ": d_recurrent_bias");
  compare(got.d_start, wanted.d_start, at_least_one(wanted.d_start), p.name() + ": d_start");
  compare(got.d_start_cell, wanted.d_start_cell, at_least_one(wanted.d_start_cell), p.name() + ": d_start_cell");
  for (int threads : {2, 4}) check(same(got, run(p, threads)), p.name() + ": different results with " + std::to_string(threads) + " threads");
}

// The results of a batch row are independent of the other rows.
void check_independent_rows(int cell, bool bfloat16) {
  Problem p = make(cell, 33, 7, 9, 20, 5);
  Problem single = make(cell, 33, 1, 9, 20, 5);
  p.bfloat16 = single.bfloat16 = bfloat16;
  const auto first_batch_row = [&](const Floats& from, int width, int steps) {
    Floats of_batch_row;
    for (int t = 0; t < steps; ++t) of_batch_row.insert(of_batch_row.end(), from.begin() + t * 7 * width, from.begin() + t * 7 * width + width);
    return of_batch_row;
  };
  single.table = p.table, single.kernel = p.kernel, single.recurrent_kernel = p.recurrent_kernel, single.bias = p.bias;
  single.inputs = first_batch_row(p.inputs, 20, 9), single.d_outputs = first_batch_row(p.d_outputs, 33, 9);
  single.start = first_batch_row(p.start, 33, 1), single.start_cell = first_batch_row(p.start_cell, 33, 1);
  single.d_last = first_batch_row(p.d_last, 33, 1), single.d_last_cell = first_batch_row(p.d_last_cell, 33, 1);
  for (int t = 0; t < 9; ++t) single.resets[t] = p.resets[t * 7], single.rows[t] = p.rows[t * 7];
  const Answer<float> many = run(p, 2), one = run(single, 2);
  check(same(first_batch_row(many.outputs, 33, 9), one.outputs), p.name() + ": a batch row's outputs depend on the other rows");
  check(same(first_batch_row(many.d_inputs, 20, 9), one.d_inputs), p.name() + ": a batch row's gradients depend on the other rows");
}

// A NaN or an infinity stays in its batch row until a reset.
void check_not_a_number(int cell, bool bfloat16, float poison) {
  Problem p = make(cell, 20, 3, 4, 0, 6);
  p.bfloat16 = bfloat16;
  std::fill_n(p.resets.get(), 12, false);
  p.resets[2 * 3 + 1] = true;
  p.start[20] = poison;  // of the second batch row
  const Answer<float> a = run(p, 2);
  bool before = true, after = true, others = true;
  for (int t = 0; t < 4; ++t)
    for (int batch_row = 0; batch_row < 3; ++batch_row)
      for (int j = 0; j < 20; ++j) {
        const bool number = std::isfinite(a.outputs[(t * 3 + batch_row) * 20 + j]);
        if (batch_row != 1) others = others && number;
        else if (t >= 2) after = after && number;
        else if (std::isnan(poison)) before = before && !number;
      }
  check(before, p.name() + ": a NaN disappeared");
  check(after, p.name() + ": a reset does not clear the state");
  check(others, p.name() + ": a NaN reached another batch row");
}

// Every kind of float is rounded to the nearest bfloat16 number.
void check_halves() {
  int different = 0;
  for (uint64_t start = 0; start < 1ull << 32; start += 65521 * kWidth) {
    float numbers[kWidth], others[kWidth];
    for (int i = 0; i < kWidth; ++i) {
      const uint32_t bits = static_cast<uint32_t>(start + i * 65521ull), more = bits * 2654435761u;
      numbers[i] = std::bit_cast<float>(bits), others[i] = std::bit_cast<float>(more);
    }
    alignas(64) Half halves[kWidth], pairs[2 * kWidth];
    store_halves(halves, load(numbers));
    store_pairs(pairs, paired(load(numbers), load(others)));
    for (int i = 0; i < kWidth; ++i)
      for (const auto& [half, number] : {std::pair{halves[i], numbers[i]}, {pairs[2 * i], numbers[i]}, {pairs[2 * i + 1], others[i]}}) {
        // Rounding up may overflow to infinity.
        const float wanted = nearest_half(number);
        if (std::isnan(number)) different += (half & 0x7f80) != 0x7f80 || (half & 0x7f) == 0;
        else different += half != std::bit_cast<uint32_t>(wanted) >> 16;
      }
  }
  check(different == 0, std::to_string(different) + " floats are not rounded to the nearest bfloat16 number");
}

// It is not inlined, because GCC 12 drops summands when it vectorizes the loop that calls it.
[[gnu::noinline]] float plus_product(float sum, Half left, Half right) {
  const auto number = [](Half half) { return std::bit_cast<float>(static_cast<uint32_t>(half) << 16); };
  return sum + number(left) * number(right);
}

// Sums are the same bits as those of the documented order, for every number of rows and vectors.
void check_pair_products() {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const int depth : {32, 96, 512})
    for (int rows = 1; rows <= kPairRows; ++rows)
      for (int vectors = 1; vectors <= kPanel; ++vectors) {
        const int stride = half_stride(depth);
        std::vector<Half> left(static_cast<size_t>(rows) * stride), panel(static_cast<size_t>(depth) * vectors * kWidth);
        for (std::vector<Half>* halves : {&left, &panel})
          for (Half& half : *halves) {
            half = static_cast<Half>(std::bit_cast<uint32_t>(static_cast<float>(normal(random))) >> 16);
          }
        [[maybe_unused]] const TileScope scope;
        const PairProduct products[] = {{left.data(), stride, panel.data(), depth / 2, panel.data()},
                                        {left.data(), stride, panel.data(), depth / 2, panel.data()}};
        Vector sums[kPairRows * kPanel];
        multiply(products, 2, rows, vectors, sums);
        int different = 0;
        for (int r = 0; r < rows; ++r)
          for (int v = 0; v < vectors; ++v)
            for (int lane = 0; lane < kWidth; ++lane) {
              float sum = 0;
              for (int product = 0; product < 2; ++product)
                for (int block = 0; block < depth / 2; block += kPairs) {
                  [[maybe_unused]] float firsts = 0, seconds = 0;
                  for (int k = block; k < block + kPairs; ++k) {
                    const Half* row = left.data() + r * stride + 2 * k;
                    const Half* column = panel.data() + ((static_cast<size_t>(k) * vectors + v) * kWidth + lane) * 2;
#if defined(CHARLOOM_AMX)
                    if (may_use_tiles()) {
                      firsts = plus_product(firsts, row[0], column[0]), seconds = plus_product(seconds, row[1], column[1]);
                      continue;
                    }
#endif
                    sum = plus_product(plus_product(sum, row[1], column[1]), row[0], column[0]);
                  }
#if defined(CHARLOOM_AMX)
                  if (may_use_tiles()) sum += firsts + seconds;
#endif
                }
              different += sum != sums[r * vectors + v][lane];
            }
        check(different == 0, std::to_string(different) + " sums of " + std::to_string(rows) + " rows and " + std::to_string(vectors) + " vectors");
      }
}

struct Head {
  int rows, inputs, outputs;
  bool bfloat16;
  Floats values, kernel, bias, d_results;

  Head(int rows, int inputs, int outputs, bool bfloat16) : rows(rows), inputs(inputs), outputs(outputs), bfloat16(bfloat16) {
    std::mt19937 random(9);
    std::normal_distribution<float> normal;
    for (Floats* numbers : {&values, &kernel, &bias, &d_results}) {
      const int size = numbers == &values ? rows * inputs : numbers == &kernel ? inputs * outputs : numbers == &bias ? outputs : rows * outputs;
      for (int i = 0; i < size; ++i) numbers->push_back(normal(random));
    }
  }
  std::string name() const {
    return "head of " + std::to_string(rows) + " rows, " + std::to_string(inputs) + " to " + std::to_string(outputs) + (bfloat16 ? " bfloat16" : "");
  }
  double factor(float given) const { return bfloat16 ? nearest_half(given) : given; }
};

struct HeadAnswer {
  Floats results, d_values, d_kernel, d_bias;
};

template <class Precision>
HeadAnswer run(const Head& head, int threads) {
  HeadAnswer a;
  a.results.resize(head.d_results.size()), a.d_values.resize(head.values.size());
  a.d_kernel.resize(head.kernel.size()), a.d_bias.resize(head.bias.size());
  const Dense dense{head.rows, head.inputs, head.outputs, head.values.data(), head.kernel.data()};
  run_dense_forward<Precision>({dense, head.bias.data(), a.results.data()}, threads);
  run_dense_backward<Precision>({dense, head.d_results.data(), a.d_values.data(), a.d_kernel.data(), a.d_bias.data()}, threads);
  return a;
}

HeadAnswer run(const Head& head, int threads) { return head.bfloat16 ? run<BFloat16>(head, threads) : run<Float32>(head, threads); }

void check_head(int rows, int inputs, int outputs, bool bfloat16) {
  const Head head(rows, inputs, outputs, bfloat16);
  Doubles results, d_values(head.values.size()), d_kernel(head.kernel.size()), d_bias(head.bias.size());
  for (int row = 0; row < rows; ++row)
    for (int output = 0; output < outputs; ++output) {
      double sum = head.bias[output];
      const double gradient = head.factor(head.d_results[row * outputs + output]);
      for (int input = 0; input < inputs; ++input) {
        const double value = head.factor(head.values[row * inputs + input]);
        const double weight = head.factor(head.kernel[input * outputs + output]);
        sum += value * weight;
        d_values[row * inputs + input] += gradient * weight, d_kernel[input * outputs + output] += gradient * value;
      }
      results.push_back(sum), d_bias[output] += head.d_results[row * outputs + output];
    }
  const HeadAnswer got = run(head, 1);
  compare(got.results, results, largest(results), head.name() + ": results");
  compare(got.d_values, d_values, largest(d_values), head.name() + ": d_values");
  compare(got.d_kernel, d_kernel, largest(d_kernel), head.name() + ": d_kernel");
  compare(got.d_bias, d_bias, std::fmax(largest(d_bias), std::sqrt(rows)), head.name() + ": d_bias");
  for (int threads : {2, 4}) {
    const HeadAnswer other = run(head, threads);
    check(same(got.results, other.results) && same(got.d_values, other.d_values) && same(got.d_kernel, other.d_kernel) &&
              same(got.d_bias, other.d_bias), head.name() + ": different results with " + std::to_string(threads) + " threads");
  }
  Head single(1, inputs, outputs, bfloat16);
  single.kernel = head.kernel, single.bias = head.bias;
  single.values.assign(head.values.end() - inputs, head.values.end());
  single.d_results.assign(head.d_results.end() - outputs, head.d_results.end());
  const HeadAnswer one = run(single, 1);
  check(same(one.results, Floats(got.results.end() - outputs, got.results.end())) &&
            same(one.d_values, Floats(got.d_values.end() - inputs, got.d_values.end())),
        head.name() + ": a row's numbers depend on the other rows");
}

// Results below the smallest normal number are zero in every thread.
void check_denormals() {
  Problem p = make(0, 128, 50, 3, 0, 4);
  for (Floats* gradients : {&p.d_outputs, &p.d_last, &p.d_last_cell})
    for (float& value : *gradients) value *= 1e-38f;
  const Answer<float> one = run(p, 1);
  check(same(one, run(p, 3)), "tiny gradients depend on the number of threads");
  int tiny = 0;
  for (const Floats& numbers : {one.d_start, one.d_start_cell, one.d_recurrent_kernel})
    for (float value : numbers) tiny += value != 0 && std::fabs(value) < std::numeric_limits<float>::min();
  check(tiny == 0, std::to_string(tiny) + " gradients are denormal");
}

void check_concurrent_calls(int times) {
  const Problem p = make(0, 128, 16, 8, 40, 7);
  const Answer<float> wanted = run(p, 1);
  std::atomic<int> different{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int time = 0; time < times; ++time) different += !same(wanted, run(p, 3));
    });
  for (std::thread& caller : callers) caller.join();
  check(different == 0, "concurrent calls give different results");
}

// Two threads wait for each other again and again after random delays, and neither may sleep forever. With few CHARLOOM_SPINS
// the threads sleep more often.
void check_barrier() {
  constexpr int kWaits = 8'000'000;
  Barrier barrier;
  std::atomic<int> finished{0};
  std::vector<std::thread> threads;
  for (uint32_t index = 0; index < 2; ++index)
    threads.emplace_back([&, index] {
      uint32_t random = index + 1;
      for (int wait = 0; wait < kWaits; ++wait) {
        random = random * 1664525 + 1013904223;
        for (uint32_t left = (random >> 28) * 3; left > 0; --left) charloom::pause();
        barrier.wait(2);
        if (index == 0) finished.store(wait + 1);
      }
    });
  for (int before = -1; finished.load() < kWaits && finished.load() != before;) {
    before = finished.load();
    for (int wait = 0; wait < 100 && finished.load() < kWaits; ++wait) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  check(finished.load() == kWaits, "two threads at a barrier wait for each other forever");
  if (wrong != 0) std::_Exit(1);
  for (std::thread& thread : threads) thread.join();
}

void check_fork() {
  const Problem p = make(1, 128, 16, 8, 40, 8);
  const Answer<float> wanted = run(p, 2);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a child that waits for its parent's threads would never end
    _exit(same(wanted, run(p, 2)) ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a forked child does not give its parent's results");
}

// A team that sleeps too long is bypassed for a while and then used again.
void check_team_policy() {
  constexpr int64_t kMilli = 1'000'000, kLook = TeamPolicy::kWindow, kLate = 1000 * kMilli;
  TeamPolicy policy;
  check(!policy.bypasses_team(0), "a new team is not used");
  policy.record_call(2, 0, kLook - 1, kLook);
  check(!policy.bypasses_team(kLook), "a short sleep bypasses the team");
  policy.record_call(2, kLook, kLook + 1, 0);
  check(!policy.bypasses_team(kLook + 2), "a team that sleeps for half of its time is bypassed");
  policy.record_call(3, 0, 2 * kLook, 4 * kLook + 1);
  check(policy.bypasses_team(2 * kLook + 1), "a team that is slower than its caller is still used");
  const int64_t again = 2 * kLook + TeamPolicy::kBackoff * 2 * kLook;
  check(policy.bypasses_team(again - 1) && !policy.bypasses_team(again), "a team is not bypassed for kBackoff times the measured time");
  policy.record_call(2, 0, kLate, 2 * kLate);
  check(!policy.bypasses_team(kLate + TeamPolicy::kBackoff * TeamPolicy::kMaxTime), "a long pause bypasses the team for too long");
}

// Whichever member fails at whichever point, the caller gets one exception, and the next call succeeds.
void check_failures() {
  Team& team = Team::of_process();
  const auto run_team = [&](int failing, int at) {
    std::atomic<int> sum{0};
    team.run(3, 64, [&](Member member, Scratch) {
      for (int wait = 0; wait < 4; ++wait) {
        if (member.index % member.members == failing && wait == at) throw std::runtime_error("expected");
        sum += wait;
        member.wait();
      }
    });
    return sum.load();
  };
  for (int round = 0; round < 200; ++round)
    for (int failing : {0, 1, 2})
      for (int at : {0, 1, 3}) {
        std::string message;
        try {
          run_team(failing, at);
        } catch (const std::runtime_error& error) {
          message = error.what();
        }
        check(message == "expected", "a member's exception is lost");
        check(run_team(-1, 0) == 18, "after a member's exception the team does not work");
      }
}

// Every allocation of a call fails once, in whichever thread it happens.
template <class Call, class Answer>
void check_without_memory(const std::string& name, const Answer& wanted, const Call& call) {
  int failures = 0;
  for (bool failed = true; failed; failures += failure_interval) {
    Team::of_process().stop_threads();  // so that threads are also started again
    failed = false;
    allocations_left = failures;
    try {
      call();
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    const bool was_reached = allocations_left.exchange(-1) < 0;
    if (!failed && was_reached) failed = true;  // the call succeeded with fewer threads or less memory for sorting
    if (failures > 10'000) break;
    check(call() == wanted, name + ": different results after a failed allocation");
  }
  check(failures > 1 && failures < 10'000, name + ": " + std::to_string(failures) + " allocations");
}

// The generator of a cell with weights of a precision.
enum class WeightsIn { kFloat32, kBFloat16, kInt8 };

std::unique_ptr<AnyGenerator> new_generator(int cell, WeightsIn precision, const Weights& weights) {
  const auto made = [&]<class Precision>(Precision) -> std::unique_ptr<AnyGenerator> {
    if (cell == 0) return std::make_unique<Generator<LSTM, Precision>>(weights);
    if (cell == 1) return std::make_unique<Generator<GRU, Precision>>(weights);
    return std::make_unique<Generator<Elman, Precision>>(weights);
  };
  if (precision == WeightsIn::kInt8) return new_exact_generator(cell, weights);
  return precision == WeightsIn::kBFloat16 ? made(BFloat16{}) : made(Float32{});
}

// A network with random weights. They are multiples of a power of two, so that they are the same on all processors.
struct Net {
  int cell, layers, hidden, vocab;
  bool with_head;
  size_t gates;
  Floats table, head, head_bias;
  std::vector<Floats> kernels, biases;
  std::vector<const float*> input, recurrent, bias, recurrent_bias;
  std::vector<ActivationChoice> activations;

  Net(int cell, int layers, int hidden, int vocab, bool with_head)
      : cell(cell), layers(layers), hidden(hidden), vocab(vocab), with_head(with_head),
        gates(static_cast<size_t>(cell == 0 ? 4 : cell == 1 ? 3 : 1) * hidden), activations(layers) {
    std::mt19937 random(11);
    const auto draw = [&](size_t count, double deviation) {
      Floats values(count);
      const float scale = std::exp2(std::round(static_cast<float>(std::log2(deviation * std::sqrt(3.0)))));
      for (float& value : values) value = scale * (static_cast<float>(static_cast<int>(random() >> 8) - (1 << 23)) * 0x1p-23f);
      return values;
    };
    table = draw(vocab * gates, 1), head = draw(static_cast<size_t>(hidden) * vocab, 0.3), head_bias = draw(vocab, 1);
    for (int i = 0; i < 2 * layers; ++i) kernels.push_back(draw(hidden * gates, 1 / std::sqrt(hidden))), biases.push_back(draw(gates, 1));
    for (int i = 0; i < layers; ++i) {
      input.push_back(kernels[2 * i].data()), recurrent.push_back(kernels[2 * i + 1].data());
      bias.push_back(biases[2 * i].data()), recurrent_bias.push_back(biases[2 * i + 1].data());
    }
  }

  Weights weights() const {
    return {layers, hidden, vocab, vocab, table.data(), input.data(), bias.data(), recurrent.data(), recurrent_bias.data(),
            activations.data(), with_head ? head.data() : nullptr, with_head ? head_bias.data() : nullptr};
  }
};

// The columns of a kernel as 8-bit integers, as they are packed.
struct Bytes {
  std::vector<int> weights;
  Doubles scales;

  Bytes(const float* kernel, int depth, size_t columns) : weights(depth * columns), scales(columns) {
    for (size_t column = 0; column < columns; ++column) {
      float largest = 0;
      for (int k = 0; k < depth; ++k) largest = std::fmax(largest, std::fabs(kernel[k * columns + column]));
      scales[column] = largest / 127;
      for (int k = 0; k < depth; ++k) weights[k * columns + column] = static_cast<int>(std::nearbyint(kernel[k * columns + column] / (largest / 127)));
    }
  }

  // The product with a state of bytes, of which 127 stand for one.
  Doubles times(const float* state, int depth) const {
    Doubles sums(scales.size());
    for (size_t column = 0; column < sums.size(); ++column) {
      int sum = 0;
      for (int k = 0; k < depth; ++k) sum += static_cast<int>(std::nearbyint(state[k] * 127)) * weights[k * scales.size() + column];
      sums[column] = sum * scales[column] / 127;
    }
    return sums;
  }
};

// A character's step with 8-bit weights equals that of the equations in double precision.
void check_bytes(int cell, int hidden, int texts) {
  const Net net(cell, 2, hidden, 30, true);
  const auto generator = new_generator(cell, WeightsIn::kInt8, net.weights());
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const size_t state_size = static_cast<size_t>(texts) * hidden;
  Floats state(2 * state_size), cells(2 * state_size), logits(texts * 30);
  for (Floats* numbers : {&state, &cells})
    for (float& number : *numbers) number = uniform(random);
  const Floats before = state, cells_before = cells;
  std::vector<int32_t> rows(texts);
  for (int text = 0; text < texts; ++text) rows[text] = text * 7 % 30;
  generator->run({texts, texts, state.data(), cells.data(), logits.data()}, Task{1, rows.data(), nullptr, nullptr}, 2);
  const int gates = net.gates;
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  double apart = 0;
  const Bytes head(net.head.data(), hidden, 30);
  const std::string name = "8-bit weights, cell " + std::to_string(cell) + ", hidden " + std::to_string(hidden);
  for (int layer = 0; layer < 2; ++layer) {
    const Bytes recurrent(net.recurrent[layer], hidden, gates), input(net.input[layer], hidden, gates);
    for (int text = 0; text < texts; ++text) {
      const size_t at = layer * state_size + static_cast<size_t>(text) * hidden;
      const Doubles sums = recurrent.times(before.data() + at, hidden);
      Doubles x = layer ? input.times(state.data() + at - state_size, hidden) : Doubles(gates);  // the layer below is given
      for (int g = 0; g < gates; ++g) x[g] += layer ? net.bias[layer][g] : net.table[static_cast<size_t>(rows[text]) * gates + g];
      for (int j = 0; j < hidden; ++j) {
        double h, c = 0;
        if (cell == 0) {
          const auto a = [&](int gate) { return x[gate * hidden + j] + sums[gate * hidden + j]; };
          c = sigmoid(a(1)) * cells_before[at + j] + sigmoid(a(0)) * std::tanh(a(2));
          h = sigmoid(a(3)) * std::tanh(c);
          apart = std::fmax(apart, std::fabs(c - cells[at + j]));
        } else if (cell == 1) {
          const auto u = [&](int gate) { return sums[gate * hidden + j] + net.recurrent_bias[layer][gate * hidden + j]; };
          const double z = sigmoid(x[j] + u(0)), r = sigmoid(x[hidden + j] + u(1));
          h = z * before[at + j] + (1 - z) * std::tanh(x[2 * hidden + j] + r * u(2));
        } else {
          h = std::tanh(x[j] + sums[j]);
        }
        apart = std::fmax(apart, std::fabs(h - state[at + j]));
      }
      if (layer == 0) continue;
      const Doubles wanted = head.times(state.data() + at, hidden);
      for (int v = 0; v < 30; ++v) apart = std::fmax(apart, std::fabs(wanted[v] + net.head_bias[v] - logits[text * 30 + v]));
    }
  }
  check(apart <= 1e-5, name + ": a step is " + std::to_string(apart) + " off");
}

// Returns a digest of 10,000 characters with 8-bit weights. It must be the same on all processors.
uint64_t digest_of_texts() {
  std::vector<uint32_t> powers(2048);
  for (int i = 0; i < 2048; ++i) powers[i] = 0x80000000u - static_cast<uint32_t>(i) * (1u << 19);
  const SamplingRule rule{0.8f, 0, 0, 6051101.6f, powers.data(), powers.data()};
  constexpr int kTexts = 5, kSteps = 500;
  uint64_t digest = 14695981039346656037u;  // FNV-1a
  for (int cell = 0; cell < 3; ++cell)
    for (const int hidden : {70, 128}) {
      const Net net(cell, 2, hidden, 60, true);
      const auto generator = new_generator(cell, WeightsIn::kInt8, net.weights());
      Floats state(2 * kTexts * hidden), cells(state.size()), logits(kTexts * 60);
      std::vector<int32_t> tokens(kTexts * kSteps, -1);
      std::vector<Sampler> samplers;
      for (uint32_t text = 0; text < kTexts; ++text) tokens[text * kSteps] = 0, samplers.push_back({{1, 2}, text, 0, rule});
      generator->run({kTexts, kTexts, state.data(), cells.data(), logits.data()}, Task{kSteps, tokens.data(), samplers.data(), nullptr}, 2);
      for (const int32_t token : tokens) digest = (digest ^ static_cast<uint64_t>(token)) * 1099511628211u;
    }
  return digest;
}

void check_generator(int cell, WeightsIn precision, int layers, int hidden, int vocab, bool with_head, SamplingRule rule) {
  const Net net(cell, layers, hidden, vocab, with_head);
  const auto made = new_generator(cell, precision, net.weights());
  const AnyGenerator& generator = *made;
  // Any tables will do here.
  std::vector<uint32_t> coarse(2048), fine(2048);
  for (int i = 0; i < 2048; ++i) {
    coarse[i] = static_cast<uint32_t>(std::exp2(31 - i / 2048.0));
    fine[i] = static_cast<uint32_t>(std::exp2(31 - i / 4194304.0));
  }
  rule.steps_per_nat = 6051101.6f, rule.coarse = coarse.data(), rule.fine = fine.data();

  constexpr int kRead = 3, kSteps = 23;
  const auto samplers_of = [&](const std::vector<uint32_t>& indexes) {
    std::vector<Sampler> samplers;
    for (const uint32_t index : indexes) samplers.push_back(Sampler{{1, 2}, index, 5 + index, rule});
    return samplers;
  };
  // Each text first reads and then samples, in two calls.
  const auto generate = [&](const std::vector<uint32_t>& indexes, int threads) {
    const int count = static_cast<int>(indexes.size()), room = count + 2;
    Floats state(static_cast<size_t>(layers) * room * hidden), cells(state.size()), logits(static_cast<size_t>(room) * vocab);
    std::vector<int32_t> rows(kRead * count), tokens(static_cast<size_t>(kSteps) * count, -1);
    for (int i = 0; i < kRead * count; ++i) rows[i] = i % kRead % vocab;
    const GeneratorState generator_state{count, room, state.data(), cells.data(), logits.data()};
    const std::vector<Sampler> samplers = samplers_of(indexes);
    generator.run(generator_state, Task{kRead, rows.data(), nullptr, nullptr}, threads);
    generator.run(generator_state, Task{kSteps, tokens.data(), samplers.data(), nullptr}, threads);
    return tokens;
  };
  // The same in one call.
  const auto mixed = [&](const std::vector<uint32_t>& indexes, int threads) {
    const int count = static_cast<int>(indexes.size()), steps = kRead + kSteps;
    Floats state(static_cast<size_t>(layers) * count * hidden), cells(state.size()), logits(static_cast<size_t>(count) * vocab);
    std::vector<int32_t> rows(static_cast<size_t>(steps) * count, -1), tokens;
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < kRead; ++k) rows[i * steps + k] = k % vocab;
    const std::vector<Sampler> samplers = samplers_of(indexes);
    generator.run(GeneratorState{count, count, state.data(), cells.data(), logits.data()}, Task{steps, rows.data(), samplers.data(), nullptr}, threads);
    for (int i = 0; i < count; ++i)
      tokens.insert(tokens.end(), rows.begin() + i * steps + kRead, rows.begin() + (i + 1) * steps);
    return tokens;
  };
  const std::string name = "a generator of " + std::to_string(layers) + " layers of " + std::to_string(hidden) + " units in precision " +
                           std::to_string(static_cast<int>(precision));
  const std::vector<uint32_t> indexes = {7, 0, 3, 9, 4, 1, 8};
  const std::vector<int32_t> all = generate(indexes, 1);
  for (int threads : {2, 3}) check(all == generate(indexes, threads), name + " gives another text with more threads");
  for (int threads : {1, 2}) check(all == mixed(indexes, threads), name + " gives another text if it reads in the same call");
  for (size_t i = 0; i < indexes.size(); ++i) {
    const std::vector<int32_t> single = generate({indexes[i]}, 2);
    check(std::equal(single.begin(), single.end(), all.begin() + i * single.size()), name + " gives another text next to other texts");
    for (int32_t token : single) check(token >= 0 && token < vocab, name + " gives an invalid token");
  }
  if (rule.top_k && precision == WeightsIn::kFloat32) check_without_memory(name, all, [&] { return generate(indexes, 3); });
}

template <class Call>
void check_refused(const Call& call, const std::string& what) {
  std::string message;
  try {
    call();
  } catch (const Invalid& error) {
    message = error.what();
  }
  check(!message.empty(), what + " is accepted");
}

// Reads and writes out of bounds are refused.
void check_bounds() {
  const std::vector<int32_t> good = {0, 4, 2}, high = {0, 5, 2}, low = {0, -1, 2};
  require_rows(good.data(), 3, 5);
  require_rows(low.data(), 3, 5, true);
  check_refused([&] { require_rows(high.data(), 3, 5); }, "a row beyond the table");
  check_refused([&] { require_rows(high.data(), 3, 5, true); }, "a row beyond the table");
  check_refused([&] { require_rows(low.data(), 3, 5); }, "a row before the table");

  constexpr int kHidden = 4, kVocab = 3;
  const Floats zeros(16 * kHidden * kHidden);
  const std::vector<const float*> kernels(2, zeros.data());
  const std::vector<ActivationChoice> activations(2);
  const Weights right{2, kHidden, kVocab, kVocab, zeros.data(), kernels.data(), kernels.data(), kernels.data(), kernels.data(), activations.data(),
                      zeros.data(), zeros.data()};
  const auto refused = [&](const std::string& what, const auto& change) {
    Weights weights = right;
    change(weights);
    check_refused([&] { Generator<GRU>{weights}; }, what);
  };
  refused("a network without layers", [](Weights& weights) { weights.layers = 0; });
  refused("a network without units", [](Weights& weights) { weights.hidden_size = 0; });
  refused("a vocabulary larger than the table", [](Weights& weights) { weights.rows = kVocab - 1; });
  refused("a network without a table", [](Weights& weights) { weights.table = nullptr; });
  refused("a network without recurrent biases", [](Weights& weights) { weights.recurrent_biases = nullptr; });
  refused("a head without a bias", [](Weights& weights) { weights.head_bias = nullptr; });
  refused("a network without a head whose outputs do not match the vocabulary", [](Weights& weights) { weights.head_kernel = weights.head_bias = nullptr; });

  const Generator<GRU> generator(right);
  Floats state(2 * kHidden), logits(kVocab);
  const std::vector<uint32_t> powers(2048);
  int32_t rows[] = {0, -1};
  const Sampler right_sampler{{0, 0}, 0, 0, SamplingRule{1, 0, 0, 1, powers.data(), powers.data()}};
  const auto run = [&](const auto& change) {
    GeneratorState states{1, 1, state.data(), nullptr, logits.data()};
    Sampler sampler = right_sampler;
    rows[0] = 0, rows[1] = -1;
    Task task{2, rows, &sampler, nullptr};
    change(states, sampler, task);
    generator.run(states, task, 2);
  };
  run([](GeneratorState&, Sampler&, Task&) {});
  const auto refused_run = [&](const std::string& what, const auto& change) { check_refused([&] { run(change); }, what); };
  refused_run("a row of a larger vocabulary", [&](GeneratorState&, Sampler&, Task&) { rows[0] = kVocab; });
  refused_run("a negative number of texts", [](GeneratorState& states, Sampler&, Task&) { states.count = -1; });
  refused_run("more texts than there is room for", [](GeneratorState& states, Sampler&, Task&) { states.count = 2; });
  refused_run("a missing state", [](GeneratorState& states, Sampler&, Task&) { states.hidden = nullptr; });
  refused_run("a missing sampler", [](GeneratorState&, Sampler&, Task& task) { task.samplers = nullptr; });
  refused_run("a negative top_k", [](GeneratorState&, Sampler& sampler, Task&) { sampler.rule.top_k = -1; });
  refused_run("a temperature that is not a number",
              [](GeneratorState&, Sampler& sampler, Task&) { sampler.rule.temperature = std::numeric_limits<float>::quiet_NaN(); });
  refused_run("a missing table of powers", [](GeneratorState&, Sampler& sampler, Task&) { sampler.rule.fine = nullptr; });
}

}  // namespace

int main(int count, char** arguments) {
  // For slow tools: every shape, cell and branch, but fewer steps for large problems and fewer repetitions.
  const bool brief = count > 1 && std::string(arguments[1]) == "brief";
  if (count > 1 && std::string(arguments[1]) == "barrier") {
    check_barrier();
    std::printf("%d of %d checks passed\n", checked - wrong, checked);
    return wrong != 0;
  }
  if (brief) failure_interval = 29;
  Team::of_process().always_use_team();  // even on a busy machine and under sanitizers
  const bool may_fork = !(count > 2 && std::string(arguments[2]) == "nofork");
  const int hiddens[] = {1, 7, 33, 62, 128, 512, 513, 1024}, batch_sizes[] = {1, 2, 3, 16, 64, 100}, times[] = {1, 2, 8, 65};
  for (int cell = 0; cell < 3; ++cell) {
    for (int i = 0; i < 8; ++i)
      for (int j = 0; j < 6; ++j) {
        int time = times[(i + j + cell) % 4];
        const double work = 1.0 * hiddens[i] * hiddens[i] * batch_sizes[j];
        if (work * time > (brief ? 2e5 : 1e7)) time = 2;
        if (work * time > (brief ? 2e6 : 4e7)) continue;
        // The first layer has no features, later ones have as many as units. Any other number is also valid.
        const int features[] = {0, hiddens[i], hiddens[(i + 3) % 4]};
        Problem p = make(cell, hiddens[i], batch_sizes[j], time, features[(i + j) % 3], 100 * i + j);
        check_problem(p);
        p.bfloat16 = true;
        check_problem(p);
      }
    for (int hard = 0; hard < 2; ++hard)
      for (int relu = 0; relu < 2; ++relu) {
        Problem p = make(cell, 33, 5, 6, 18, 3);
        p.activations = {hard == 1, relu == 1};
        check_problem(p);
        p.bfloat16 = true;
        check_problem(p);
      }
    for (const bool bfloat16 : {false, true}) {
      check_independent_rows(cell, bfloat16);
      check_not_a_number(cell, bfloat16, std::numeric_limits<float>::quiet_NaN());
      check_not_a_number(cell, bfloat16, std::numeric_limits<float>::infinity());
    }
  }
  check_halves();
  check_pair_products();
  for (int rows : {1, 7, 100, brief ? 130 : 2500})
    for (int inputs : {16, 64, 128, 144})
      for (int outputs : {1, 5, 57, 64, 65, 200})
        for (const bool bfloat16 : {false, true}) check_head(rows, inputs, outputs, bfloat16);
  for (const SamplingRule& rule : {SamplingRule{0.8f, 0, 0, 0, nullptr, nullptr}, SamplingRule{-1, 0, 0, 0, nullptr, nullptr},
                                   SamplingRule{1.5f, 3, 0, 0, nullptr, nullptr},
                                   SamplingRule{1.5f, 0, 3000000000u, 0, nullptr, nullptr}}) {
    for (const WeightsIn precision : {WeightsIn::kFloat32, WeightsIn::kBFloat16, WeightsIn::kInt8}) {
      check_generator(0, precision, 2, brief ? 130 : 200, 19, true, rule);
      check_generator(1, precision, 3, 33, 130, true, rule);
      check_generator(2, precision, 1, 300, 300, false, rule);
    }
  }
  for (int cell = 0; cell < 3; ++cell)
    for (const int hidden : {1, 33, 128, 200})
      for (const int texts : {1, 2, 3, 17, 40}) check_bytes(cell, hidden, texts);
  std::printf("digest %016llx\n", static_cast<unsigned long long>(digest_of_texts()));
  check_denormals();
  check_concurrent_calls(brief ? 3 : 20);
  check_team_policy();
  check_failures();
  check_bounds();
  for (int cell = 0; cell < 3; ++cell) {
    const Problem p = make(cell, 128, 16, 3, 40, 7);
    check_without_memory(p.name(), run(p, 1).d_recurrent_kernel, [&] { return run(p, 3).d_recurrent_kernel; });
  }
  if (may_fork) check_fork();
  Team::of_process().stop_threads();
  std::printf("%d of %d checks passed\n", checked - wrong, checked);
  return wrong != 0;
}
