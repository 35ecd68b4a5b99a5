// A network that generates several texts at a time. Its weights are packed once.
//
// Members own units as in `layer.h`. One member computes the logits and tokens of a text. If there are fewer texts than members,
// the columns of the head are divided among them. A text's numbers are independent of the other texts.
#pragma once

#include <atomic>
#include <vector>

#include "checks.h"
#include "layer.h"
#include "sampling.h"

namespace charloom {

// The weights of a network. All layers have the same size. All except the first have an input kernel and a bias.
struct Weights {
  int layers, hidden_size, vocab, rows;
  const float* table;                    // [rows, gate_count * hidden_size]: the first layer's projected inputs
  const float* const* input_kernels;     // [hidden_size, gate_count * hidden_size] of each layer; the first is ignored
  const float* const* biases;            // [gate_count * hidden_size]
  const float* const* recurrent_kernels;
  const float* const* recurrent_biases;  // only for the GRU
  const Activations* activations;        // of each layer
  const float* head_kernel;              // [hidden_size, vocab]; null if the last layer's outputs are the logits
  const float* head_bias;
};

// The state of `count` texts between two characters, in arrays with room for `room` texts.
struct GeneratorState {
  int count, room;
  float* hidden;  // [layers, room, hidden]
  float* cells;   // the same, only for the LSTM
  float* logits;  // [room, vocab], of the next token
};

// Everything that determines a text's tokens except its logits.
struct Sampler {
  uint32_t seed[2];
  uint32_t stream;    // the index of the text's stream of random numbers
  uint32_t position;  // of the next sampled token
  SamplingRule rule;
};

// Texts that begin in the places of texts that end within a call. A text ends before it samples `end_token`, which is then not a
// part of it, and after `length` tokens. If no text waits any more, the ended text continues.
struct Refill {
  int end_token;  // negative if no token ends a text
  int length;
  int waiting;
  const uint32_t* streams;  // [waiting], of the texts that wait, in their order; seed and rule are those of the place
  const float* hidden;      // [layers, hidden]: the state in which they begin
  const float* cells;       // the same, only for the LSTM
  const float* logits;      // [vocab]
  int32_t* places;          // [waiting], for the results: the place of each text that has begun,
  int32_t* steps;           // and the step of its first token
  int begun;                // for the result: how many have begun
};

// One call: each text reads rows of the table, and samples tokens that it then reads.
struct Task {
  int steps;
  int32_t* rows;            // [count, steps]; a negative number is replaced by a sampled token
  const Sampler* samplers;  // [count]; null if no token is sampled
  Refill* refill;           // null if no texts wait
};

class AnyGenerator {
 public:
  virtual ~AnyGenerator() = default;
  virtual void run(const GeneratorState& state, const Task& task, int threads) const = 0;
};

template <class Cell>
class Generator : public AnyGenerator {
 public:
  explicit Generator(const Weights& weights) : weights_(weights) {
    require_complete(weights);
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

  void run(const GeneratorState& state, const Task& task, int threads) const override {
    require_fitting(state, task);
    const size_t state_floats = Scratch::rounded(static_cast<size_t>(state.count) * weights_.hidden_size);
    const double operations = 2.0 * Cell::gate_count * weights_.hidden_size * weights_.hidden_size * state.count;
    std::atomic<int> begun = 0;
    Team::of_process().run(operations < kMinParallelOperations ? 1 : threads,
                           weights_.layers * state_floats + Scratch::rounded(state.count),
                           [&](Member member, Scratch scratch) { run(state, task, begun, member, scratch); });
    if (task.refill) task.refill->begun = std::min(begun.load(), task.refill->waiting);
  }

 private:
  static void require_complete(const Weights& weights) {
    size_of("layers", weights.layers), size_of("hidden", weights.hidden_size), size_of("vocab", weights.vocab);
    size_of("gates", static_cast<int64_t>(Cell::gate_count) * weights.hidden_size);
    require(weights.vocab <= weights.rows, "the table has fewer rows than there are tokens");
    require(weights.table && weights.input_kernels && weights.biases && weights.recurrent_kernels &&
                weights.recurrent_biases && weights.activations,
            "weights are missing");
    for (int layer = 0; layer < weights.layers; ++layer)
      require(weights.recurrent_kernels[layer] && (!Cell::has_recurrent_bias || weights.recurrent_biases[layer]) &&
                  (layer == 0 || (weights.input_kernels[layer] && weights.biases[layer])),
              "a layer's weights are missing");
    require(!weights.head_kernel == !weights.head_bias, "a head has a kernel and a bias");
    require(weights.head_kernel || weights.vocab == weights.hidden_size, "without a head, hidden must equal vocab");
  }

  void require_fitting(const GeneratorState& state, const Task& task) const {
    size_of("texts", state.count, 0), size_of("steps", task.steps, 0);
    require(state.room >= state.count, "the state has no room for all texts");
    const size_t count = static_cast<size_t>(state.count) * task.steps;
    if (count == 0) return;
    require(state.hidden && state.logits && (state.cells || !Cell::has_cell) && task.rows, "an array is missing");
    if (const Refill* refill = task.refill) {
      size_of("length", refill->length), size_of("waiting texts", refill->waiting, 0);
      require(refill->streams && refill->hidden && refill->logits && (refill->cells || !Cell::has_cell) && refill->places &&
                  refill->steps, "an array is missing");
    }
    require_rows(task.rows, count, weights_.rows, true);
    if (std::none_of(task.rows, task.rows + count, [](int32_t row) { return row < 0; })) return;
    require(task.samplers, "samplers are missing");
    for (int text = 0; text < state.count; ++text) {
      const SamplingRule& rule = task.samplers[text].rule;
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

  void run(const GeneratorState& state, const Task& task, std::atomic<int>& begun, Member member, Scratch scratch) const {
    const int count = state.count, hidden = weights_.hidden_size, layers = weights_.layers, vocab = weights_.vocab;
    const size_t state_size = static_cast<size_t>(count) * hidden;
    const int first_text = member.first(count);
    std::vector<Counter> counters(member.last(count) - first_text);  // of each of this member's texts
    for (size_t at = 0; task.samplers && at < counters.size(); ++at)
      counters[at] = {task.samplers[first_text + at].stream, task.samplers[first_text + at].position};
    // Each layer's state is read from one buffer and written to another; then the two are exchanged.
    std::vector<float*> now(layers), next(layers);
    for (int layer = 0; layer < layers; ++layer) {
      now[layer] = state.hidden + layer * static_cast<size_t>(state.room) * hidden;
      next[layer] = scratch.take(state_size);
    }
    int32_t* rows = reinterpret_cast<int32_t*>(scratch.take(count));
    // Logits are needed if any text samples the next token. Each member checks this before any member fills in rows.
    std::vector<char> needs_logits(task.steps);
    for (int step = 0; step < task.steps; ++step)
      for (int text = 0; text < count && !needs_logits[step]; ++text)
        needs_logits[step] = task.rows[static_cast<size_t>(text) * task.steps + step] < 0;
    member.wait();
    Choice room;
    for (int step = 0; step < task.steps; ++step) {
      for (int text = first_text; text < member.last(count); ++text) {
        int32_t& row = task.rows[static_cast<size_t>(text) * task.steps + step];
        if (row < 0) {
          const Sampler& sampler = task.samplers[text];
          Counter& counter = counters[text - first_text];
          const auto sampled = [&] {
            const uint32_t draw = threefry(sampler.seed, counter.stream, counter.position++);
            return choose(state.logits + static_cast<size_t>(text) * vocab, vocab, draw, sampler.rule, room);
          };
          const auto refilled = [&] { return begins(*task.refill, begun, state, now, text, step, counter); };
          if (task.refill && counter.position >= static_cast<uint32_t>(task.refill->length)) refilled();
          row = sampled();
          while (task.refill && row == task.refill->end_token && refilled()) row = sampled();
        }
        rows[text] = row;
      }
      member.wait();
      for (int layer = 0; layer < layers; ++layer) {
        advance(layer, state, layer ? next[layer - 1] : nullptr, now[layer], next[layer], rows,
                step % 2 == 1, member);
        member.wait();
      }
      for (int layer = 0; layer < layers; ++layer) std::swap(now[layer], next[layer]);
      if (step + 1 == task.steps || needs_logits[step + 1]) {
        if (count >= member.members) {  // each member then samples tokens for the same texts
          predict(state, now[layers - 1], member.first(count), member.last(count), Member{0, 1, nullptr});
        } else {
          predict(state, now[layers - 1], 0, count, member);
          member.wait();
        }
      }
    }
    // After an odd number of steps the states are in the other buffer.
    if (task.steps % 2 == 1)
      for (int layer = 0; layer < layers; ++layer) {
        const size_t first = state_size * member.index / member.members, last = state_size * (member.index + 1) / member.members;
        std::copy(now[layer] + first, now[layer] + last, next[layer] + first);
      }
  }

  // Counts a text's random numbers.
  struct Counter {
    uint32_t stream, position;
  };

  // Begins the next text that waits in the place of `text`. Returns false if none waits. No other member uses the place now.
  bool begins(Refill& refill, std::atomic<int>& begun, const GeneratorState& state, const std::vector<float*>& now, int text,
              int step, Counter& counter) const {
    if (begun.load() >= refill.waiting) return false;
    const int index = begun++;
    if (index >= refill.waiting) return false;
    const size_t hidden = weights_.hidden_size, vocab = weights_.vocab;
    for (int layer = 0; layer < weights_.layers; ++layer) {
      std::copy_n(refill.hidden + layer * hidden, hidden, now[layer] + text * hidden);
      if constexpr (Cell::has_cell)
        std::copy_n(refill.cells + layer * hidden, hidden, state.cells + (static_cast<size_t>(layer) * state.room + text) * hidden);
    }
    std::copy_n(refill.logits, vocab, state.logits + text * vocab);
    refill.places[index] = text, refill.steps[index] = step;
    counter = {refill.streams[index], 0};
    return true;
  }

  // Computes one layer's step for all texts and this member's units. `below` is the layer's input, null for the first layer.
  void advance(int layer, const GeneratorState& state, const float* below, const float* now, float* next,
               const int32_t* rows_of, bool backwards, Member member) const {
    const int count = state.count, hidden = weights_.hidden_size;
    const size_t gates_width = static_cast<size_t>(Cell::gate_count) * hidden, panel_size = gates_width * kWidth;
    float* cells = state.cells + (Cell::has_cell ? layer * static_cast<size_t>(state.room) * hidden : 0);
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

  // Computes the logits of the texts from `begin` to `end` in this member's columns.
  void predict(const GeneratorState& state, const float* outputs, int begin, int end, Member member) const {
    const int hidden = weights_.hidden_size, vocab = weights_.vocab;
    if (!head_) {
      const int first = member.first(vocab), last = member.last(vocab);
      for (size_t at = static_cast<size_t>(begin) * vocab; at < static_cast<size_t>(end) * vocab; at += vocab)
        std::copy(outputs + at + first, outputs + at + last, state.logits + at + first);
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
            store(state.logits + static_cast<size_t>(first_batch_row + r) * vocab + column,
                  sums[r * vectors + v] + load(head_bias_.data() + column, valid), valid);
          }
      });
    });
  }

  Weights weights_;  // only the sizes are used later
  Arena packed_;
  std::vector<float*> recurrent_, input_;
  float* head_ = nullptr;
  std::vector<Activations> activations_;
  std::vector<std::vector<float>> biases_, recurrent_biases_;
  std::vector<float> table_, head_bias_;
};

}  // namespace charloom
