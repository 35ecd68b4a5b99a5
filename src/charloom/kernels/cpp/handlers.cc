// What XLA calls: the sequence kernels as custom calls of `jax.ffi`. Shapes are told in the kernels' own files.

#include <atomic>
#include <exception>

#include "generator.h"
#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
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

// A call with the sizes and the arguments that every cell has.
template <class Call>
Call call_on(const Bools& resets, const Floats& start, const Floats& kernel, int32_t hard_gates, int32_t relu) {
  Call call{};
  call.with = {hard_gates != 0, relu != 0};
  call.time = static_cast<int>(resets.dimensions()[0]);
  call.lanes = static_cast<int>(resets.dimensions()[1]);
  call.hidden = static_cast<int>(start.dimensions()[1]);
  call.resets = resets.typed_data();
  call.start = start.typed_data();
  call.kernel = kernel.typed_data();
  return call;
}

ffi::Error lstm_forward(int32_t hard_gates, int32_t relu, Floats projected, Floats kernel, Floats start, Floats start_cell, Bools resets, Result outputs,
                        Result cells, Result gates) {
  return guarded([&] {
    auto call = call_on<charloom::Forward>(resets, start, kernel, hard_gates, relu);
    call.projected = projected.typed_data();
    call.start_cell = start_cell.typed_data();
    call.outputs = outputs->typed_data();
    call.cells = cells->typed_data();
    call.gates = gates->element_count() ? gates->typed_data() : nullptr;
    charloom::run_forward<charloom::LSTM>(call, threads);
  });
}

ffi::Error lstm_backward(int32_t hard_gates, int32_t relu, Floats kernel, Floats start, Floats start_cell, Bools resets, Floats outputs, Floats cells,
                         Floats gates, Floats d_outputs, Floats d_last, Floats d_last_cell, Result d_projected,
                         Result d_kernel, Result d_start, Result d_start_cell) {
  return guarded([&] {
    auto call = call_on<charloom::Backward>(resets, start, kernel, hard_gates, relu);
    call.start_cell = start_cell.typed_data();
    call.outputs = outputs.typed_data();
    call.cells = cells.typed_data();
    call.gates = gates.typed_data();
    call.d_outputs = d_outputs.typed_data();
    call.d_last = d_last.typed_data();
    call.d_last_cell = d_last_cell.typed_data();
    call.d_projected = call.d_product = d_projected->typed_data();
    call.d_kernel = d_kernel->typed_data();
    call.d_start = d_start->typed_data();
    call.d_start_cell = d_start_cell->typed_data();
    charloom::run_backward<charloom::LSTM>(call, threads);
  });
}

ffi::Error gru_forward(int32_t hard_gates, int32_t relu, Floats projected, Floats kernel, Floats recurrent_bias, Floats start, Bools resets,
                       Result outputs, Result gates) {
  return guarded([&] {
    auto call = call_on<charloom::Forward>(resets, start, kernel, hard_gates, relu);
    call.projected = projected.typed_data();
    call.recurrent_bias = recurrent_bias.typed_data();
    call.outputs = outputs->typed_data();
    call.gates = gates->element_count() ? gates->typed_data() : nullptr;
    charloom::run_forward<charloom::GRU>(call, threads);
  });
}

ffi::Error gru_backward(int32_t hard_gates, int32_t relu, Floats kernel, Floats start, Bools resets, Floats outputs, Floats gates, Floats d_outputs,
                        Floats d_last, Result d_projected, Result d_product, Result d_kernel, Result d_start) {
  return guarded([&] {
    auto call = call_on<charloom::Backward>(resets, start, kernel, hard_gates, relu);
    call.outputs = outputs.typed_data();
    call.gates = gates.typed_data();
    call.d_outputs = d_outputs.typed_data();
    call.d_last = d_last.typed_data();
    call.d_projected = d_projected->typed_data();
    call.d_product = d_product->typed_data();
    call.d_kernel = d_kernel->typed_data();
    call.d_start = d_start->typed_data();
    charloom::run_backward<charloom::GRU>(call, threads);
  });
}

ffi::Error elman_forward(int32_t hard_gates, int32_t relu, Floats projected, Floats kernel, Floats start, Bools resets, Result outputs) {
  return guarded([&] {
    auto call = call_on<charloom::Forward>(resets, start, kernel, hard_gates, relu);
    call.projected = projected.typed_data();
    call.outputs = outputs->typed_data();
    charloom::run_forward<charloom::Elman>(call, threads);
  });
}

ffi::Error elman_backward(int32_t hard_gates, int32_t relu, Floats kernel, Floats start, Bools resets, Floats outputs, Floats d_outputs, Floats d_last,
                          Result d_projected, Result d_kernel, Result d_start) {
  return guarded([&] {
    auto call = call_on<charloom::Backward>(resets, start, kernel, hard_gates, relu);
    call.outputs = outputs.typed_data();
    call.d_outputs = d_outputs.typed_data();
    call.d_last = d_last.typed_data();
    call.d_projected = call.d_product = d_projected->typed_data();
    call.d_kernel = d_kernel->typed_data();
    call.d_start = d_start->typed_data();
    charloom::run_backward<charloom::Elman>(call, threads);
  });
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_lstm_forward, lstm_forward,
                              ffi::Ffi::Bind().Attr<int32_t>("hard_gates").Attr<int32_t>("relu").Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Bools>()
                                  .Ret<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_lstm_backward, lstm_backward,
                              ffi::Ffi::Bind().Attr<int32_t>("hard_gates").Attr<int32_t>("relu").Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Bools>().Arg<Floats>()
                                  .Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
                                  .Ret<Floats>().Ret<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_gru_forward, gru_forward,
                              ffi::Ffi::Bind().Attr<int32_t>("hard_gates").Attr<int32_t>("relu").Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Bools>()
                                  .Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_gru_backward, gru_backward,
                              ffi::Ffi::Bind().Attr<int32_t>("hard_gates").Attr<int32_t>("relu").Arg<Floats>().Arg<Floats>().Arg<Bools>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Floats>().Arg<Floats>()
                                  .Ret<Floats>().Ret<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_elman_forward, elman_forward,
                              ffi::Ffi::Bind().Attr<int32_t>("hard_gates").Attr<int32_t>("relu").Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Bools>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_elman_backward, elman_backward,
                              ffi::Ffi::Bind().Attr<int32_t>("hard_gates").Attr<int32_t>("relu").Arg<Floats>().Arg<Floats>().Arg<Bools>().Arg<Floats>().Arg<Floats>()
                                  .Arg<Floats>().Ret<Floats>().Ret<Floats>().Ret<Floats>());
