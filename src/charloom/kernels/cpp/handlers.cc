// What XLA calls: the kernels as custom calls of `jax.ffi`. Shapes are told in the kernels' own files.

#include <atomic>
#include <exception>
#include <utility>

#include "dense.h"
#include "generator.h"
#include "sequence.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;
using Bools = ffi::Buffer<ffi::PRED>;
using Result = ffi::ResultBuffer<ffi::F32>;

std::atomic<int> threads{1};

// Runs what a handler does; memory that is not to be had is XLA's to report.
template <class Body>
ffi::Error guarded(const Body& body) {
  try {
    body();
    return ffi::Error::Success();
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, error.what());
  }
}

// What every call is told of its layer, in this order.
struct Told {
  Ints rows;
  Floats inputs, kernel, recurrent_kernel, start;
  Bools resets;

  void of(charloom::Layer& call, int32_t hard_gates, int32_t relu) const {
    call.with = {hard_gates != 0, relu != 0};
    call.time = static_cast<int>(resets.dimensions()[0]);
    call.lanes = static_cast<int>(resets.dimensions()[1]);
    call.hidden = static_cast<int>(start.dimensions()[1]);
    call.features = static_cast<int>(kernel.dimensions()[0]);
    call.rows = rows.typed_data();
    call.inputs = inputs.typed_data();
    call.kernel = kernel.typed_data();
    call.recurrent_kernel = recurrent_kernel.typed_data();
    call.start = start.typed_data();
    call.resets = resets.typed_data();
  }
};

float* data_or_null(Result& result) { return result->element_count() ? result->typed_data() : nullptr; }

charloom::Dense dense(const Floats& values, const Floats& kernel) {
  return {static_cast<int>(values.dimensions()[0]), static_cast<int>(kernel.dimensions()[0]),
          static_cast<int>(kernel.dimensions()[1]), values.typed_data(), kernel.typed_data()};
}

ffi::Error lstm_forward(int32_t hard_gates, int32_t relu, Ints rows, Floats inputs, Floats kernel, Floats recurrent_kernel, Floats start, Bools resets,
                        Floats start_cell, Floats table, Result outputs, Result last_cell, Result gates, Result cells) {
  return guarded([&] {
    charloom::Forward call{};
    Told{rows, inputs, kernel, recurrent_kernel, start, resets}.of(call, hard_gates, relu);
    call.start_cell = start_cell.typed_data();
    call.table = table.typed_data();
    call.outputs = outputs->typed_data();
    call.last_cell = last_cell->typed_data();
    call.gates = data_or_null(gates);
    call.cells = data_or_null(cells);
    charloom::run_forward<charloom::LSTM>(call, threads);
  });
}

ffi::Error lstm_backward(int32_t hard_gates, int32_t relu, Ints rows, Floats inputs, Floats kernel, Floats recurrent_kernel, Floats start, Bools resets,
                         Floats start_cell, Floats outputs, Floats cells, Floats, Floats d_outputs, Floats d_last,
                         Floats d_last_cell, Result gates, Result d_table, Result d_inputs, Result d_kernel,
                         Result d_recurrent_kernel, Result d_start, Result d_start_cell) {
  return guarded([&] {
    charloom::Backward call{};
    Told{rows, inputs, kernel, recurrent_kernel, start, resets}.of(call, hard_gates, relu);
    call.start_cell = start_cell.typed_data();
    call.outputs = outputs.typed_data();
    call.cells = cells.typed_data();
    call.d_outputs = d_outputs.typed_data();
    call.d_last = d_last.typed_data();
    call.d_last_cell = d_last_cell.typed_data();
    call.gates = gates->typed_data();  // in the memory of the argument
    call.table_rows = static_cast<int>(d_table->dimensions()[0]);
    call.d_table = d_table->typed_data();
    call.d_inputs = d_inputs->typed_data();
    call.d_kernel = d_kernel->typed_data();
    call.d_recurrent_kernel = d_recurrent_kernel->typed_data();
    call.d_start = d_start->typed_data();
    call.d_start_cell = d_start_cell->typed_data();
    charloom::run_backward<charloom::LSTM>(call, threads);
  });
}

ffi::Error gru_forward(int32_t hard_gates, int32_t relu, Ints rows, Floats inputs, Floats kernel, Floats recurrent_kernel, Floats start, Bools resets,
                       Floats recurrent_bias, Floats table, Result outputs, Result gates) {
  return guarded([&] {
    charloom::Forward call{};
    Told{rows, inputs, kernel, recurrent_kernel, start, resets}.of(call, hard_gates, relu);
    call.recurrent_bias = recurrent_bias.typed_data();
    call.table = table.typed_data();
    call.outputs = outputs->typed_data();
    call.gates = data_or_null(gates);
    charloom::run_forward<charloom::GRU>(call, threads);
  });
}

ffi::Error gru_backward(int32_t hard_gates, int32_t relu, Ints rows, Floats inputs, Floats kernel, Floats recurrent_kernel, Floats start, Bools resets,
                        Floats outputs, Floats, Floats d_outputs, Floats d_last, Result gates, Result d_table,
                        Result d_inputs, Result d_kernel, Result d_recurrent_kernel, Result d_recurrent_bias, Result d_start) {
  return guarded([&] {
    charloom::Backward call{};
    Told{rows, inputs, kernel, recurrent_kernel, start, resets}.of(call, hard_gates, relu);
    call.outputs = outputs.typed_data();
    call.d_outputs = d_outputs.typed_data();
    call.d_last = d_last.typed_data();
    call.gates = gates->typed_data();  // in the memory of the argument
    call.table_rows = static_cast<int>(d_table->dimensions()[0]);
    call.d_table = d_table->typed_data();
    call.d_inputs = d_inputs->typed_data();
    call.d_kernel = d_kernel->typed_data();
    call.d_recurrent_kernel = d_recurrent_kernel->typed_data();
    call.d_recurrent_bias = d_recurrent_bias->typed_data();
    call.d_start = d_start->typed_data();
    charloom::run_backward<charloom::GRU>(call, threads);
  });
}

ffi::Error elman_forward(int32_t hard_gates, int32_t relu, Ints rows, Floats inputs, Floats kernel, Floats recurrent_kernel, Floats start, Bools resets,
                         Floats table, Result outputs) {
  return guarded([&] {
    charloom::Forward call{};
    Told{rows, inputs, kernel, recurrent_kernel, start, resets}.of(call, hard_gates, relu);
    call.table = table.typed_data();
    call.outputs = outputs->typed_data();
    charloom::run_forward<charloom::Elman>(call, threads);
  });
}

ffi::Error elman_backward(int32_t hard_gates, int32_t relu, Ints rows, Floats inputs, Floats kernel, Floats recurrent_kernel, Floats start, Bools resets,
                          Floats outputs, Floats d_outputs, Floats d_last, Result d_table, Result d_inputs,
                          Result d_kernel, Result d_recurrent_kernel, Result d_start) {
  return guarded([&] {
    charloom::Backward call{};
    Told{rows, inputs, kernel, recurrent_kernel, start, resets}.of(call, hard_gates, relu);
    call.outputs = outputs.typed_data();
    call.d_outputs = d_outputs.typed_data();
    call.d_last = d_last.typed_data();
    call.table_rows = static_cast<int>(d_table->dimensions()[0]);
    call.d_table = d_table->typed_data();
    call.d_inputs = d_inputs->typed_data();
    call.d_kernel = d_kernel->typed_data();
    call.d_recurrent_kernel = d_recurrent_kernel->typed_data();
    call.d_start = d_start->typed_data();
    charloom::run_backward<charloom::Elman>(call, threads);
  });
}

ffi::Error dense_forward(Floats values, Floats kernel, Floats bias, Result results) {
  return guarded([&] {
    charloom::DenseForward call{};
    static_cast<charloom::Dense&>(call) = dense(values, kernel);
    call.bias = bias.typed_data();
    call.results = results->typed_data();
    charloom::run_dense_forward(call, threads);
  });
}

ffi::Error dense_backward(Floats values, Floats kernel, Floats d_results, Result d_values, Result d_kernel, Result d_bias) {
  return guarded([&] {
    charloom::DenseBackward call{};
    static_cast<charloom::Dense&>(call) = dense(values, kernel);
    call.d_results = d_results.typed_data();
    call.d_values = d_values->typed_data();
    call.d_kernel = d_kernel->typed_data();
    call.d_bias = d_bias->typed_data();
    charloom::run_dense_backward(call, threads);
  });
}

// `binding` with some more arguments and results of floats, of which there is one at least.
template <int Arguments, int Results, class Binding>
auto with_floats(Binding binding) {  // which can be moved on, and not copied
  if constexpr (Arguments > 0)
    return with_floats<Arguments - 1, Results>(std::move(binding).template Arg<Floats>());
  else if constexpr (Results > 1)
    return with_floats<0, Results - 1>(std::move(binding).template Ret<Floats>());
  else
    return std::move(binding).template Ret<Floats>();
}

// A binding with what `Told` is made of, and what else a layer takes and gives.
template <int Arguments, int Results>
auto binding() {
  return with_floats<Arguments, Results>(ffi::Ffi::Bind()
                                             .Attr<int32_t>("hard_gates")
                                             .Attr<int32_t>("relu")
                                             .Arg<Ints>()
                                             .Arg<Floats>()
                                             .Arg<Floats>()
                                             .Arg<Floats>()
                                             .Arg<Floats>()
                                             .Arg<Bools>());
}

}  // namespace

// How many threads a call may use. Results do not depend on it.
extern "C" [[gnu::visibility("default")]] void charloom_use_threads(int count) { threads = count; }

// A generator's memory is its holder's to give back. Null where there is not enough of it.
extern "C" [[gnu::visibility("default")]] void* charloom_new_generator(int cell, const charloom::Weights* weights) {
  try {
    charloom::AnyGenerator* made = nullptr;
    if (cell == 0) made = new charloom::Generator<charloom::LSTM>(*weights);
    if (cell == 1) made = new charloom::Generator<charloom::GRU>(*weights);
    if (cell == 2) made = new charloom::Generator<charloom::Elman>(*weights);
    return made;
  } catch (const std::exception&) {
    return nullptr;
  }
}

extern "C" [[gnu::visibility("default")]] void charloom_delete_generator(void* generator) {
  delete static_cast<charloom::AnyGenerator*>(generator);
}

// Returns whether it was done; if not, there was not enough memory.
extern "C" [[gnu::visibility("default")]] bool charloom_run_generator(const void* generator,
                                                                      const charloom::Streams* streams,
                                                                      const charloom::Task* task) {
  try {
    static_cast<const charloom::AnyGenerator*>(generator)->run(*streams, *task, threads);
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_lstm_forward, lstm_forward, (binding<2, 4>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_lstm_backward, lstm_backward, (binding<7, 7>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_gru_forward, gru_forward, (binding<2, 2>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_gru_backward, gru_backward, (binding<4, 7>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_elman_forward, elman_forward, (binding<1, 1>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_elman_backward, elman_backward, (binding<3, 5>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_dense_forward, dense_forward, (with_floats<3, 1>(ffi::Ffi::Bind())));
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_dense_backward, dense_backward, (with_floats<3, 3>(ffi::Ffi::Bind())));
