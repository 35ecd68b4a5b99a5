// A network that writes: its weights packed once, and some streams of text at a time.
//
// Members own units as in `layer.h`. A stream's logits and token are one member's, and of fewer streams than members
// the columns of the head are shared out. A stream's numbers are the same alone and in company.
#pragma once

#include <vector>

#include "checks.h"
#include "layer.h"
#include "sampling.h"

namespace charloom {

// A network's weights, as they come. Layers are of one size; all but the first have an input kernel and a bias.
struct Weights {
  int layers, hidden_size, vocab, rows;
  const float* table;                    // [rows, gate_count * hidden_size]: the first layer's projected inputs
  const float* const* input_kernels;     // [hidden_size, gate_count * hidden_size] of each layer, the first of which is not looked at
  const float* const* biases;            // [gate_count * hidden_size]
  const float* const* recurrent_kernels;
  const float* const* recurrent_biases;  // of the GRU
  const Activations* activations;               // of each layer
  const float* head_kernel;              // [hidden_size, vocab]; null where the last layer's outputs are the logits
  const float* head_bias;
};

// Streams between two characters, the first of those that there is room for.
struct Streams {
  int count, room;
  float* hidden;  // [layers, room, hidden]
  float* cells;   // the same, of the LSTM
  float* logits;  // [room, vocab], of the next token
};

// All that a stream's choices depend on beside its logits.
struct Writer {
  uint32_t seed[2];
  uint32_t stream;
  uint32_t position;  // of the next token that is written
  SamplingRule rule;
};

// What is to be done: each stream reads rows of the table and writes tokens, which it then reads.
struct Task {
  int steps;
  int32_t* rows;          // [count, steps]; where below zero a token is written, and put in its place
  const Writer* writers;  // [count]; null where none is written
};

class AnyGenerator {
 public:
  virtual ~AnyGenerator() = default;
  virtual void run(const Streams& streams, const Task& task, int threads) const = 0;
};

template <class Cell>
class Generator : public AnyGenerator {
 public:
  explicit Generator(const Weights& weights) : weights_(weights) {
    require_whole(weights);
    const int hidden = weights.hidden_size, gates = Cell::gate_count * hidden;
    const size_t kernel = packed_floats<Cell>(hidden, hidden);
    const size_t head = weights.head_kernel ? static_cast<size_t>(hidden) * vectors_of(weights.vocab) * kWidth : 0;
    float* next = packed_.reserve((2 * static_cast<size_t>(weights.layers) - 1) * kernel + head);
    for (int layer = 0; layer < weights.layers; ++layer) {
      recurrent_.push_back(next), next += kernel;
      pack(weights.recurrent_kernels[layer], hidden, recurrent_[layer]);
      input_.push_back(layer ? next : nullptr);
      if (layer) pack(weights.input_kernels[layer], hidden, next), next += kernel;
      activations_.push_back(weights.activations[layer]);
      biases_.push_back(copy(layer ? weights.biases[layer] : nullptr, gates));
      recurrent_biases_.push_back(copy(Cell::has_recurrent_bias ? weights.recurrent_biases[layer] : nullptr, gates));
    }
    table_ = copy(weights.table, static_cast<size_t>(weights.rows) * gates);
    if (weights.head_kernel) {
      head_ = next;
      pack_forward<Elman>(weights.head_kernel, hidden, weights.vocab, 0, vectors_of(weights.vocab), next);
      head_bias_ = copy(weights.head_bias, weights.vocab);
    }
  }

  void run(const Streams& streams, const Task& task, int threads) const override {
    require_fitting(streams, task);
    const size_t state = Scratch::rounded(static_cast<size_t>(streams.count) * weights_.hidden_size);
    const double operations = 2.0 * Cell::gate_count * weights_.hidden_size * weights_.hidden_size * streams.count;
    Team::of_process().run(operations < kAlone ? 1 : threads, weights_.layers * state + Scratch::rounded(streams.count),
                           [&](Member member, Scratch scratch) { run(streams, task, member, scratch); });
  }

 private:
  static void require_whole(const Weights& weights) {
    size_of("layers", weights.layers), size_of("hidden", weights.hidden_size), size_of("vocab", weights.vocab);
    size_of("gates", static_cast<int64_t>(Cell::gate_count) * weights.hidden_size);
    require(weights.vocab <= weights.rows, "a token that is written has no row of the table to be read from");
    require(weights.table && weights.input_kernels && weights.biases && weights.recurrent_kernels &&
                weights.recurrent_biases && weights.activations,
            "weights are missing");
    for (int layer = 0; layer < weights.layers; ++layer)
      require(weights.recurrent_kernels[layer] && (!Cell::has_recurrent_bias || weights.recurrent_biases[layer]) &&
                  (layer == 0 || (weights.input_kernels[layer] && weights.biases[layer])),
              "a layer's weights are missing");
    require(!weights.head_kernel == !weights.head_bias, "a head has a kernel and a bias");
    require(weights.head_kernel || weights.vocab == weights.hidden_size, "outputs that are logits are as many as tokens");
  }

  void require_fitting(const Streams& streams, const Task& task) const {
    size_of("streams", streams.count, 0), size_of("steps", task.steps, 0);
    require(streams.room >= streams.count, "there is no room for all streams");
    const size_t count = static_cast<size_t>(streams.count) * task.steps;
    if (count == 0) return;
    require(streams.hidden && streams.logits && (streams.cells || !Cell::has_cell) && task.rows, "an array is missing");
    require_rows(task.rows, count, weights_.rows, true);
    if (std::none_of(task.rows, task.rows + count, [](int32_t row) { return row < 0; })) return;
    require(task.writers, "nothing says how tokens are chosen");
    for (int stream = 0; stream < streams.count; ++stream) {
      const SamplingRule& rule = task.writers[stream].rule;
      require(!std::isnan(rule.temperature) && rule.top_k >= 0, "a temperature or top_k is out of its range");
      require(rule.temperature < 0 || (rule.coarse && rule.fine && rule.steps_per_nat >= 0), "a table of powers is missing");
    }
  }

  static void pack(const float* kernel, int hidden, float* to) {
    pack_forward<Cell>(kernel, hidden, hidden, 0, vectors_of(hidden), to);
  }

  static std::vector<float> copy(const float* from, size_t count) {
    return from ? std::vector<float>(from, from + count) : std::vector<float>();
  }

  void run(const Streams& streams, const Task& task, Member member, Scratch scratch) const {
    const int count = streams.count, hidden = weights_.hidden_size, layers = weights_.layers, vocab = weights_.vocab;
    const size_t state_size = static_cast<size_t>(count) * hidden;
    const int first_stream = member.first(count);
    std::vector<uint32_t> written(member.last(count) - first_stream);  // by each of this member's streams
    // Each layer's state is read from one place and written to another, which then change their roles.
    std::vector<float*> now(layers), next(layers);
    for (int layer = 0; layer < layers; ++layer) {
      now[layer] = streams.hidden + layer * static_cast<size_t>(streams.room) * hidden;
      next[layer] = scratch.take(state_size);
    }
    int32_t* rows = reinterpret_cast<int32_t*>(scratch.take(count));
    // Logits are wanted where some stream writes next. Each member sees to it before any of them fills rows in.
    std::vector<char> writes(task.steps);
    for (int step = 0; step < task.steps; ++step)
      for (int stream = 0; stream < count && !writes[step]; ++stream)
        writes[step] = task.rows[static_cast<size_t>(stream) * task.steps + step] < 0;
    member.wait();
    Choice room;
    for (int step = 0; step < task.steps; ++step) {
      for (int stream = first_stream; stream < member.last(count); ++stream) {
        int32_t& row = task.rows[static_cast<size_t>(stream) * task.steps + step];
        if (row < 0) {
          const Writer& writer = task.writers[stream];
          const uint32_t draw = threefry(writer.seed, writer.stream, writer.position + written[stream - first_stream]++);
          row = choose(streams.logits + static_cast<size_t>(stream) * vocab, vocab, draw, writer.rule, room);
        }
        rows[stream] = row;
      }
      member.wait();
      for (int layer = 0; layer < layers; ++layer) {
        advance(layer, streams, layer ? next[layer - 1] : nullptr, now[layer], next[layer], rows,
                step % 2 == 1, member);
        member.wait();
      }
      for (int layer = 0; layer < layers; ++layer) std::swap(now[layer], next[layer]);
      if (step + 1 == task.steps || writes[step + 1]) {
        if (count >= member.members) {  // each goes on to choose for the same streams
          predict(streams, now[layers - 1], member.first(count), member.last(count), Member{0, 1, nullptr});
        } else {
          predict(streams, now[layers - 1], 0, count, member);
          member.wait();
        }
      }
    }
    // After an odd number of steps the states lie in the other place.
    if (task.steps % 2 == 1)
      for (int layer = 0; layer < layers; ++layer) {
        const size_t first = state_size * member.index / member.members, last = state_size * (member.index + 1) / member.members;
        std::copy(now[layer] + first, now[layer] + last, next[layer] + first);
      }
  }

  // One layer's step for all streams, of this member's units. `below` is the layer's input, null for the first.
  void advance(int layer, const Streams& streams, const float* below, const float* now, float* next,
               const int32_t* rows_of, bool backwards, Member member) const {
    const int count = streams.count, hidden = weights_.hidden_size;
    const size_t gates_width = static_cast<size_t>(Cell::gate_count) * hidden, panel_size = gates_width * kWidth;
    float* cells = streams.cells + (Cell::has_cell ? layer * static_cast<size_t>(streams.room) * hidden : 0);
    const Share share(member, vectors_of(hidden), Cell::units);
    for_each_panel(share.first, share.last, Cell::units, backwards, [&](int vector, int vectors) {
      const int columns = vectors * Cell::gate_count;
      for_each_group(0, count, [&](int first, int rows) {
        const auto product = [&](const float* states, const float* packed, int depth) {
          const float* panel = packed + vector * panel_size;
          return Product{states + static_cast<size_t>(first) * hidden, hidden, 1, panel, columns * kWidth, depth,
                         panel + vectors * panel_size};
        };
        const Product products[] = {layer ? product(below, input_[layer], hidden) : product(now, recurrent_[layer], 0),
                                    product(now, recurrent_[layer], hidden)};
        Vector sums[kRows * kPanel], projected[kRows * kPanel];
        multiply_layer<Cell>(products, rows, columns, projected, sums);
        for (int u = 0; u < vectors; ++u) {
          const int unit = (vector + u) * kWidth, valid = charloom::valid(unit, hidden);
          const size_t at = static_cast<size_t>(first) * hidden + unit;
          Vector gates[kRows * Cell::kept], memory[kRows], outputs[kRows];
          for (int r = 0; r < rows; ++r) {
            const float* given = layer ? biases_[layer].data() : table_.data() + rows_of[first + r] * gates_width;
            const int from = r * columns + u * Cell::gate_count;
            preactivations<Cell>(given, recurrent_biases_[layer].data(), projected + from, sums + from, unit, hidden,
                                 gates + r * Cell::kept);
            memory[r] = load((Cell::has_cell ? cells : now) + at + r * hidden, valid);
          }
          Cell::forward(activations_[layer], rows, gates, memory, outputs);
          for (int r = 0; r < rows; ++r) {
            store(next + at + r * hidden, outputs[r], valid);
            if constexpr (Cell::has_cell) store(cells + at + r * hidden, memory[r], valid);
          }
        }
      });
    });
  }

  // The logits of streams `begin` to `end`, of this member's columns.
  void predict(const Streams& streams, const float* outputs, int begin, int end, Member member) const {
    const int hidden = weights_.hidden_size, vocab = weights_.vocab;
    if (!head_) {
      const int first = member.first(vocab), last = member.last(vocab);
      for (size_t at = static_cast<size_t>(begin) * vocab; at < static_cast<size_t>(end) * vocab; at += vocab)
        std::copy(outputs + at + first, outputs + at + last, streams.logits + at + first);
      return;
    }
    const Share share(member, vectors_of(vocab), kPanel);
    for_each_panel(share.first, share.last, kPanel, false, [&](int vector, int vectors) {
      const float* panel = head_ + static_cast<size_t>(vector) * kWidth * hidden;
      for_each_group(begin, end, [&](int first_batch_row, int rows) {
        const Product product{outputs + static_cast<size_t>(first_batch_row) * hidden, hidden, 1, panel, vectors * kWidth, hidden,
                              panel};
        Vector sums[kRows * kPanel];
        multiply(&product, 1, rows, vectors, sums);
        for (int r = 0; r < rows; ++r)
          for (int v = 0; v < vectors; ++v) {
            const int column = (vector + v) * kWidth, valid = charloom::valid(column, vocab);
            store(streams.logits + static_cast<size_t>(first_batch_row + r) * vocab + column,
                  sums[r * vectors + v] + load(head_bias_.data() + column, valid), valid);
          }
      });
    });
  }

  Weights weights_;  // of which only the sizes are looked at later
  Arena packed_;
  std::vector<float*> recurrent_, input_;
  float* head_ = nullptr;
  std::vector<Activations> activations_;
  std::vector<std::vector<float>> biases_, recurrent_biases_;
  std::vector<float> table_, head_bias_;
};

}  // namespace charloom
