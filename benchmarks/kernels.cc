// Measures the LSTM's native kernels without XLA and the rest of an optimizer step.
// Arguments: hidden size, batch size, sequence length, features, threads, seconds. Prints the median GFLOP/s of calls, forward
// and backward.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "sequence.h"

namespace {

constexpr int kTableRows = 57, kGateCount = 4, kLine = 64;  // bytes that XLA aligns its buffers to

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

float* floats(size_t count) {
  const size_t bytes = (count * sizeof(float) + kLine) / kLine * kLine;
  float* made = static_cast<float*>(std::aligned_alloc(kLine, bytes));
  static std::mt19937 random;
  std::uniform_real_distribution<float> draw(-0.1f, 0.1f);
  std::generate_n(made, bytes / sizeof(float), [&] { return draw(random); });
  return made;
}

double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace

int main(int count, char** arguments) {
  const bool is_bfloat16 = count > 7;
  const auto number = [&](int at) { return static_cast<size_t>(std::atoi(arguments[at])); };
  const size_t hidden = number(1), batch_size = number(2), time = number(3), features = number(4);
  const int threads = static_cast<int>(number(5));
  const double seconds = std::atof(arguments[6]);
  const size_t gates = kGateCount * hidden, rows = time * batch_size;
  const size_t tiled = charloom::vectors_of(static_cast<int>(hidden)) * charloom::kWidth * rows;

  charloom::Forward forward{};
  forward.time = static_cast<int>(time), forward.batch_size = static_cast<int>(batch_size);
  forward.hidden_size = static_cast<int>(hidden), forward.features = static_cast<int>(features);
  std::vector<int32_t> ids(rows);
  for (size_t row = 0; row < rows; ++row) ids[row] = features ? 0 : static_cast<int32_t>(row * 7 % kTableRows);
  forward.rows = ids.data();
  forward.inputs = floats(rows * features), forward.kernel = floats(features * gates);
  forward.recurrent_kernel = floats(hidden * gates), forward.start = floats(batch_size * hidden);
  forward.start_cell = floats(batch_size * hidden), forward.table = floats(kTableRows * gates);
  forward.resets = static_cast<bool*>(std::calloc(rows, sizeof(bool)));
  forward.outputs = floats(rows * hidden), forward.last_cell = floats(batch_size * hidden);
  forward.gates = floats(tiled * kGateCount), forward.cells = floats(tiled);

  charloom::Backward backward{};
  static_cast<charloom::Layer&>(backward) = forward;
  backward.table_rows = features ? 1 : kTableRows;
  backward.outputs = forward.outputs, backward.gates = forward.gates, backward.cells = forward.cells;
  backward.d_outputs = floats(rows * hidden), backward.d_last = floats(batch_size * hidden);
  backward.d_last_cell = floats(batch_size * hidden), backward.d_table = floats(kTableRows * gates);
  backward.d_inputs = floats(rows * features), backward.d_kernel = floats(features * gates);
  backward.d_recurrent_kernel = floats(hidden * gates);
  backward.d_start = floats(batch_size * hidden), backward.d_start_cell = floats(batch_size * hidden);

  std::vector<double> forwards, backwards;
  for (const double begin = now(); now() - begin < seconds;) {
    const double started = now();
    is_bfloat16 ? charloom::run_forward<charloom::LSTM, charloom::BFloat16>(forward, threads)
                : charloom::run_forward<charloom::LSTM>(forward, threads);
    const double between = now();
    is_bfloat16 ? charloom::run_backward<charloom::LSTM, charloom::BFloat16>(backward, threads)
                : charloom::run_backward<charloom::LSTM>(backward, threads);
    forwards.push_back(between - started), backwards.push_back(now() - between);
  }
  const double operations = 2e-9 * gates * (hidden + features) * rows;
  std::printf("%.1f %.1f\n", operations / median(forwards), 2 * operations / median(backwards));
  charloom::Team::of_process().stop_threads();
}
