// A network that generates several texts at a time. Its weights are packed once.
//
// Members own units as in `layer.h`. One member computes the logits and tokens of a text. If there are fewer texts than members,
// the columns of the head are divided among them. A text's numbers are independent of the other texts.
//
// Weights are packed in a `Precision`: Float32, BFloat16 or Int8. States between characters are floats. Within a call, each layer
// also has its states as factors of that precision.
#pragma once

#include <atomic>
#include <vector>

#include "checks.h"
#include "generator_call.h"
#include "layer.h"
#include "quantized.h"

namespace charloom::inline CHARLOOM_ARITHMETIC {

template <class Cell, class Precision = Float32>
class Generator : public AnyGenerator {
 public:
  explicit Generator(const Weights& weights) : weights_(weights) {
    require_complete(weights);
    const int hidden = weights.hidden_size, gates = Cell::gate_count * hidden;
    const size_t kernel = Scratch::rounded(packed_floats<Cell, Precision>(hidden, hidden));
    const size_t head = weights.head_kernel ? packed_floats<Elman, Precision>(hidden, weights.vocab) : 0;
    Scratch memory(packed_.reserve((2 * static_cast<size_t>(weights.layers) - 1) * kernel + head));
    for (int layer = 0; layer < weights.layers; ++layer) {
      recurrent_.push_back(memory.take<Element>(kernel));
      pack<Cell>(weights.recurrent_kernels[layer], hidden, hidden, recurrent_[layer]);
      input_.push_back(layer ? memory.take<Element>(kernel) : nullptr);
      if (layer) pack<Cell>(weights.input_kernels[layer], hidden, hidden, input_[layer]);
      activations_.push_back({weights.activations[layer]});
      require((!std::is_same_v<Precision, Int8>) || !activations_[layer].relu, "8-bit states must be between -1 and 1");
      biases_.push_back(copy(layer ? weights.biases[layer] : nullptr, gates));
      recurrent_biases_.push_back(copy(Cell::has_recurrent_bias ? weights.recurrent_biases[layer] : nullptr, gates));
    }
    table_ = copy(weights.table, static_cast<size_t>(weights.rows) * gates);
    if (weights.head_kernel) {
      head_ = memory.take<Element>(head);
      pack<Elman>(weights.head_kernel, hidden, weights.vocab, head_);
      head_bias_ = copy(weights.head_bias, weights.vocab);
    }
  }

  void run(const GeneratorState& state, const Task& task, int threads) const override {
    require_fitting(state, task);
    const size_t state_floats = Scratch::rounded(static_cast<size_t>(state.count) * weights_.hidden_size);
    const double operations = 2.0 * Cell::gate_count * weights_.hidden_size * weights_.hidden_size * state.count;
    std::atomic<int> begun = 0;
    Team::of_process().run(operations < kMinParallelOperations ? 1 : threads,
                           weights_.layers * (state_floats + 2 * factor_floats(state.count)) + Scratch::rounded(state.count),
                           [&](Member member, Scratch scratch) { run(state, task, begun, member, scratch); });
    if (task.refill) task.refill->begun = std::min(begun.load(), task.refill->waiting);
  }

 private:
  using Element = typename Precision::Element;

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

  template <class OfCell>
  static void pack(const float* kernel, int depth, int hidden, Element* to) {
    if constexpr (std::is_same_v<Precision, Int8>)
      Int8::pack<OfCell>(kernel, depth, hidden, to);
    else
      pack_forward<OfCell, Precision>(kernel, depth, hidden, 0, vectors_of(hidden), to);
  }

  // The size of a layer's states as factors.
  size_t factor_floats(int count) const {
    return Scratch::rounded(Precision::floats(static_cast<size_t>(count) * Precision::stride_of(weights_.hidden_size)));
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
    std::vector<Element*> factors(layers), next_factors(layers);
    for (int layer = 0; layer < layers; ++layer) {
      now[layer] = state.hidden + layer * static_cast<size_t>(state.room) * hidden;
      next[layer] = scratch.take(state_size);
      for (std::vector<Element*>* both : {&factors, &next_factors}) {
        (*both)[layer] = scratch.take<Element>(factor_floats(count));
        // The padding must be zero in both.
        for (int text = first_text; text < member.last(count); ++text) set_factors(*both, now, layer, text);
      }
    }
    [[maybe_unused]] const TileScope tiles_in_use;
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
          const auto refilled = [&] { return begins(*task.refill, begun, state, now, factors, text, step, counter); };
          if (task.refill && counter.position >= static_cast<uint32_t>(task.refill->length)) refilled();
          row = sampled();
          while (task.refill && row == task.refill->end_token && refilled()) row = sampled();
        }
        rows[text] = row;
      }
      member.wait();
      for (int layer = 0; layer < layers; ++layer) {
        const States of_layer{now[layer], next[layer], layer ? next_factors[layer - 1] : nullptr, factors[layer], next_factors[layer]};
        advance(layer, state, of_layer, rows, step % 2 == 1, member);
        member.wait();
      }
      std::swap(now, next), std::swap(factors, next_factors);
      if (step + 1 == task.steps || needs_logits[step + 1]) {
        if (count >= member.members) {  // each member then samples tokens for the same texts
          predict(state, now[layers - 1], factors[layers - 1], member.first(count), member.last(count), Member{0, 1, nullptr});
        } else {
          predict(state, now[layers - 1], factors[layers - 1], 0, count, member);
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

  // Starts the next waiting text in the place of `text`. Returns false if none is waiting. No other member uses this place
  // meanwhile.
  bool begins(Refill& refill, std::atomic<int>& begun, const GeneratorState& state, const std::vector<float*>& now,
              const std::vector<Element*>& factors, int text, int step, Counter& counter) const {
    if (begun.load() >= refill.waiting) return false;
    const int index = begun++;
    if (index >= refill.waiting) return false;
    const size_t hidden = weights_.hidden_size, vocab = weights_.vocab;
    for (int layer = 0; layer < weights_.layers; ++layer) {
      std::copy_n(refill.hidden + layer * hidden, hidden, now[layer] + text * hidden);
      set_factors(factors, now, layer, text);
      if constexpr (Cell::has_cell)
        std::copy_n(refill.cells + layer * hidden, hidden, state.cells + (static_cast<size_t>(layer) * state.room + text) * hidden);
    }
    std::copy_n(refill.logits, vocab, state.logits + text * vocab);
    refill.places[index] = text, refill.steps[index] = step;
    counter = {refill.streams[index], 0};
    return true;
  }

  // Converts a text's state to factors.
  void set_factors(const std::vector<Element*>& factors, const std::vector<float*>& states, int layer, int text) const {
    const int hidden = weights_.hidden_size;
    copy_row<Precision>(states[layer] + static_cast<size_t>(text) * hidden, hidden,
                        factors[layer] + static_cast<size_t>(text) * Precision::stride_of(hidden));
  }

  // The states of a layer before and after a step. `below` are factors of the layer's input, null for the first layer.
  struct States {
    const float* now;
    float* next;
    const Element* below;
    const Element* factors;
    Element* next_factors;
  };

  // Computes one layer's step for all texts and this member's units.
  void advance(int layer, const GeneratorState& state, const States& states, const int32_t* rows_of, bool backwards, Member member) const {
    const int count = state.count, hidden = weights_.hidden_size, stride = Precision::stride_of(hidden);
    const size_t gates_width = static_cast<size_t>(Cell::gate_count) * hidden;
    const size_t panel_size = static_cast<size_t>(Cell::gate_count) * kWidth * Precision::depth_of(hidden);
    const float* now = states.now;
    float* next = states.next;
    float* cells = state.cells + (Cell::has_cell ? layer * static_cast<size_t>(state.room) * hidden : 0);
    const Share share(member, vectors_of(hidden), Cell::units);
    for_each_panel(share.first, share.last, Cell::units, backwards, [&](int vector, int vectors) {
      const int columns = vectors * Cell::gate_count;
      for_each_group<Precision::kRows>(0, count, [&](int first_of_group, int group_rows) {
        const auto product = [&](const Element* factors, const Element* packed, int depth) {
          const Element* panel = packed + vector * panel_size;
          return Precision::product(factors + static_cast<size_t>(first_of_group) * stride, stride, panel, columns, depth,
                                    panel + vectors * panel_size, 0);
        };
        const typename Precision::Factors products[] = {
            layer ? product(states.below, input_[layer], hidden) : product(states.factors, recurrent_[layer], 0),
            product(states.factors, recurrent_[layer], hidden)};
        Vector group_sums[Precision::kRows * kPanel], group_projected[Precision::kRows * kPanel];
        multiply_layer<Cell>(products, group_rows, columns, group_projected, group_sums);
        for_each_group(0, group_rows, [&](int first_in_group, int rows) {
          const int first = first_of_group + first_in_group;
          const Vector* sums = group_sums + first_in_group * columns;
          const Vector* projected = group_projected + first_in_group * columns;
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
              Precision::store(states.next_factors + static_cast<size_t>(first + r) * stride + unit, outputs[r]);
              if constexpr (Cell::has_cell) store(cells + at + r * hidden, memory[r], valid);
            }
          }
        });
      });
    });
  }

  // Computes the logits of the texts from `begin` to `end` in this member's columns.
  void predict(const GeneratorState& state, const float* outputs, const Element* factors, int begin, int end, Member member) const {
    const int hidden = weights_.hidden_size, vocab = weights_.vocab;
    if (!head_) {
      const int first = member.first(vocab), last = member.last(vocab);
      for (size_t at = static_cast<size_t>(begin) * vocab; at < static_cast<size_t>(end) * vocab; at += vocab)
        std::copy(outputs + at + first, outputs + at + last, state.logits + at + first);
      return;
    }
    const Share share(member, vectors_of(vocab), kPanel);
    for_each_panel(share.first, share.last, kPanel, false, [&](int vector, int vectors) {
      const Element* panel = head_ + static_cast<size_t>(vector) * kWidth * Precision::depth_of(hidden);
      for_each_group<Precision::kRows>(begin, end, [&](int first_batch_row, int rows) {
        const ptrdiff_t stride = Precision::stride_of(hidden);
        const auto product = Precision::product(factors + first_batch_row * stride, stride, panel, vectors, hidden, panel, 0);
        Vector sums[Precision::kRows * kPanel];
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
  std::vector<Element*> recurrent_, input_;
  Element* head_ = nullptr;
  std::vector<Activations> activations_;
  std::vector<std::vector<float>> biases_, recurrent_biases_;
  std::vector<float> table_, head_bias_;
};

}  // namespace charloom
