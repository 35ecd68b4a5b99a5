// The functions that XLA calls: the kernels as custom calls of `jax.ffi`. The kernels' own files give the shapes, and each call
// checks them before it reads anything.

#include <exception>

#include "checks.h"
#include "dense.h"
#include "sequence.h"
#include "xla/ffi/api/ffi.h"

namespace charloom {

// These are compiled in `sequence.cc` and `sequence_bfloat16.cc`, on another core.
#define CHARLOOM_EXTERN(Cell, Precision)                              \
  extern template void run_forward<Cell, Precision>(const Forward&, int); \
  extern template void run_backward<Cell, Precision>(const Backward&, int);
CHARLOOM_EXTERN(LSTM, Float32)
CHARLOOM_EXTERN(LSTM, BFloat16)
CHARLOOM_EXTERN(GRU, Float32)
CHARLOOM_EXTERN(GRU, BFloat16)
CHARLOOM_EXTERN(Elman, Float32)
CHARLOOM_EXTERN(Elman, BFloat16)
#undef CHARLOOM_EXTERN

}  // namespace charloom

namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;
using Bools = ffi::Buffer<ffi::PRED>;
using Result = ffi::ResultBuffer<ffi::F32>;
using Arguments = ffi::RemainingArgs;
using Results = ffi::RemainingRets;
using Attributes = ffi::Dictionary;

// Runs the body of a handler. XLA reports its exceptions: wrong arguments and lack of memory.
template <class Body>
ffi::Error guarded(const char* operation, const Body& body) {
  const auto failed = [&](ffi::ErrorCode code, const char* what) {
    return ffi::Error(code, std::string("charloom's ") + operation + ": " + what);
  };
  try {
    body();
    return ffi::Error::Success();
  } catch (const charloom::Invalid& error) {
    return failed(ffi::ErrorCode::kInvalidArgument, error.what());
  } catch (const std::exception& error) {
    return failed(ffi::ErrorCode::kResourceExhausted, error.what());
  } catch (...) {
    return failed(ffi::ErrorCode::kInternal, "failed");
  }
}

// Calls `body` with the type of a precision.
template <class Body>
void in_precision(bool bfloat16, const Body& body) {
  if (bfloat16)
    body(charloom::BFloat16{});
  else
    body(charloom::Float32{});
}

// The arguments that every layer's call begins with, in this order.
struct LayerArgs {
  int32_t bfloat16, hard_gates, relu;
  Ints rows;
  Floats inputs, kernel, recurrent_kernel, start;
  Bools resets;

  // Fills in `call`. `table` is the table or its gradient.
  template <class Cell, class Table>
  void fill(charloom::Layer& call, const Table& table) const {
    require_shapes<Cell>(table.dimensions());
    call.activations = {hard_gates != 0, relu != 0};
    call.time = static_cast<int>(resets.dimensions()[0]);
    call.batch_size = static_cast<int>(resets.dimensions()[1]);
    call.hidden_size = static_cast<int>(start.dimensions()[1]);
    call.features = static_cast<int>(kernel.dimensions()[0]);
    call.rows = rows.typed_data();
    call.inputs = inputs.typed_data();
    call.kernel = kernel.typed_data();
    call.recurrent_kernel = recurrent_kernel.typed_data();
    call.start = start.typed_data();
    call.resets = resets.typed_data();
    charloom::require_rows(call.rows, rows.element_count(), static_cast<int>(table.dimensions()[0]));
  }

  // Checks of the shape of an argument or a result.
  template <class Array>
  void outputs(const char* name, const Array& array) const {
    const auto steps = resets.dimensions();
    charloom::require_shape(name, array.dimensions(), {steps[0], steps[1], start.dimensions()[1]});
  }
  template <class Array>
  void state(const char* name, const Array& array) const {
    charloom::require_shape(name, array.dimensions(), {resets.dimensions()[1], start.dimensions()[1]});
  }
  template <class Array>
  void bias(const char* name, const Array& array) const {
    charloom::require_shape(name, array.dimensions(), {recurrent_kernel.dimensions()[1]});
  }
  template <class Array>
  void like(const char* name, const Array& array, const Floats& other) const {
    const auto wanted = other.dimensions();
    if (!std::equal(wanted.begin(), wanted.end(), array.dimensions().begin(), array.dimensions().end()))
      throw charloom::Invalid(std::string(name) + " has shape " + charloom::shape_text(array.dimensions()) +
                              " instead of " + charloom::shape_text(wanted));
  }
  // Checks the room for what a forward pass keeps: `each` numbers per unit, in whole vectors.
  template <class Array>
  void kept(const char* name, const Array& array, int64_t each) const {
    const int64_t units = static_cast<int64_t>(charloom::vectors_of(static_cast<int>(start.dimensions()[1]))) * charloom::kWidth;
    charloom::require_room(name, array.element_count(), resets.element_count() * units * each);
  }

 private:
  template <class Cell, class Dimensions>
  void require_shapes(const Dimensions& table) const {
    using charloom::require, charloom::require_shape, charloom::size_of;
    require(resets.dimensions().size() == 2 && start.dimensions().size() == 2 && kernel.dimensions().size() == 2 && table.size() == 2,
            "an argument has too few or too many axes");
    const int64_t time = size_of("time", resets.dimensions()[0]), batch_size = size_of("batch_size", resets.dimensions()[1]);
    const int64_t hidden = size_of("hidden", start.dimensions()[1]), features = size_of("features", kernel.dimensions()[0], 0);
    const int64_t gates = size_of("gates", hidden * Cell::gate_count), table_rows = size_of("the table", table[0]);
    size_of("steps and batch_size", time * batch_size);
    require_shape("rows", rows.dimensions(), {time, batch_size});
    require_shape("inputs", inputs.dimensions(), {time, batch_size, features});
    require_shape("kernel", kernel.dimensions(), {features, gates});
    require_shape("recurrent_kernel", recurrent_kernel.dimensions(), {hidden, gates});
    require_shape("start", start.dimensions(), {batch_size, hidden});
    require_shape("table", table, {table_rows, gates});
  }
};

template <class Cell>
void run(const LayerArgs& args, const charloom::Forward& call) {
  in_precision(args.bfloat16, [&](auto precision) {
    charloom::run_forward<Cell, decltype(precision)>(call, charloom::allowed_threads);
  });
}

template <class Cell>
void run(const LayerArgs& args, const charloom::Backward& call) {
  in_precision(args.bfloat16, [&](auto precision) {
    charloom::run_backward<Cell, decltype(precision)>(call, charloom::allowed_threads);
  });
}

// Reads the arguments and results of a call one after the other.
class Operands {
 public:
  Operands(const Arguments& arguments, const Results& results) : arguments_(arguments), results_(results) {}

  Floats floats() { return of<Floats>(); }
  Result result() { return value_of(results_.get<Floats>(result_++)); }

  // Whether factors are bfloat16 numbers.
  static int32_t bfloat16(const Attributes& attributes) { return value_of(attributes.get<int32_t>("bfloat16")); }

  // The attributes and the first arguments of every layer's call.
  LayerArgs layer(const Attributes& attributes) {
    return {bfloat16(attributes), value_of(attributes.get<int32_t>("hard_gates")), value_of(attributes.get<int32_t>("relu")),
            of<Ints>(), floats(), floats(), floats(), floats(), of<Bools>()};
  }

  void require_all_read() const {
    charloom::require(argument_ == arguments_.size() && result_ == results_.size(), "there are too many arguments or results");
  }

 private:
  template <class Buffer>
  Buffer of() {
    return value_of(arguments_.get<Buffer>(argument_++));
  }

  template <class Value>
  static Value value_of(const ffi::ErrorOr<Value>& value) {
    if (!value.has_value()) throw charloom::Invalid(value.error().message());
    return value.value();
  }

  const Arguments& arguments_;
  const Results& results_;
  size_t argument_ = 0, result_ = 0;
};

float* data_or_null(Result& result) { return result->element_count() ? result->typed_data() : nullptr; }

// The gradients that every layer has.
void gradients(const LayerArgs& args, charloom::Backward& call, Result& d_table, Result& d_inputs, Result& d_kernel,
               Result& d_recurrent_kernel, Result& d_start) {
  args.like("d_inputs", *d_inputs, args.inputs);
  args.like("d_kernel", *d_kernel, args.kernel);
  args.like("d_recurrent_kernel", *d_recurrent_kernel, args.recurrent_kernel);
  args.state("d_start", *d_start);
  call.table_rows = static_cast<int>(d_table->dimensions()[0]);
  call.d_table = d_table->typed_data();
  call.d_inputs = d_inputs->typed_data();
  call.d_kernel = d_kernel->typed_data();
  call.d_recurrent_kernel = d_recurrent_kernel->typed_data();
  call.d_start = d_start->typed_data();
}

// The arguments of every layer's backward pass that follow those of the layer.
void cotangents(const LayerArgs& args, charloom::Backward& call, const Floats& outputs, const Floats& d_outputs, const Floats& d_last) {
  args.outputs("outputs", outputs);
  args.outputs("d_outputs", d_outputs);
  args.state("d_last", d_last);
  call.outputs = outputs.typed_data();
  call.d_outputs = d_outputs.typed_data();
  call.d_last = d_last.typed_data();
}

ffi::Error lstm_forward(Arguments arguments, Results results, Attributes attributes) {
  return guarded("lstm_forward", [&] {
    Operands in(arguments, results);
    const LayerArgs args = in.layer(attributes);
    const Floats start_cell = in.floats(), table = in.floats();
    Result outputs = in.result(), last_cell = in.result(), gates = in.result(), cells = in.result();
    in.require_all_read();
    charloom::Forward call{};
    args.fill<charloom::LSTM>(call, table);
    args.state("start_cell", start_cell);
    args.outputs("outputs", *outputs);
    args.state("last_cell", *last_cell);
    if (gates->element_count()) args.kept("gates", *gates, charloom::LSTM::kept);
    if (cells->element_count()) args.kept("cells", *cells, 1);
    call.start_cell = start_cell.typed_data();
    call.table = table.typed_data();
    call.outputs = outputs->typed_data();
    call.last_cell = last_cell->typed_data();
    call.gates = data_or_null(gates);
    call.cells = data_or_null(cells);
    run<charloom::LSTM>(args, call);
  });
}

ffi::Error lstm_backward(Arguments arguments, Results results, Attributes attributes) {
  return guarded("lstm_backward", [&] {
    Operands in(arguments, results);
    const LayerArgs args = in.layer(attributes);
    const Floats start_cell = in.floats(), outputs = in.floats(), cells = in.floats();
    in.floats();  // which is not read
    const Floats d_outputs = in.floats(), d_last = in.floats(), d_last_cell = in.floats();
    Result gates = in.result(), d_table = in.result(), d_inputs = in.result(), d_kernel = in.result();
    Result d_recurrent_kernel = in.result(), d_start = in.result(), d_start_cell = in.result();
    in.require_all_read();
    charloom::Backward call{};
    args.fill<charloom::LSTM>(call, *d_table);
    cotangents(args, call, outputs, d_outputs, d_last);
    gradients(args, call, d_table, d_inputs, d_kernel, d_recurrent_kernel, d_start);
    args.state("start_cell", start_cell);
    args.state("d_last_cell", d_last_cell);
    args.state("d_start_cell", *d_start_cell);
    args.kept("gates", *gates, charloom::LSTM::kept);
    args.kept("cells", cells, 1);
    call.start_cell = start_cell.typed_data();
    call.cells = cells.typed_data();
    call.d_last_cell = d_last_cell.typed_data();
    call.gates = gates->typed_data();  // in the memory of the argument
    call.d_start_cell = d_start_cell->typed_data();
    run<charloom::LSTM>(args, call);
  });
}

ffi::Error gru_forward(Arguments arguments, Results results, Attributes attributes) {
  return guarded("gru_forward", [&] {
    Operands in(arguments, results);
    const LayerArgs args = in.layer(attributes);
    const Floats recurrent_bias = in.floats(), table = in.floats();
    Result outputs = in.result(), gates = in.result();
    in.require_all_read();
    charloom::Forward call{};
    args.fill<charloom::GRU>(call, table);
    args.bias("recurrent_bias", recurrent_bias);
    args.outputs("outputs", *outputs);
    if (gates->element_count()) args.kept("gates", *gates, charloom::GRU::kept);
    call.recurrent_bias = recurrent_bias.typed_data();
    call.table = table.typed_data();
    call.outputs = outputs->typed_data();
    call.gates = data_or_null(gates);
    run<charloom::GRU>(args, call);
  });
}

ffi::Error gru_backward(Arguments arguments, Results results, Attributes attributes) {
  return guarded("gru_backward", [&] {
    Operands in(arguments, results);
    const LayerArgs args = in.layer(attributes);
    const Floats outputs = in.floats();
    in.floats();  // which is not read
    const Floats d_outputs = in.floats(), d_last = in.floats();
    Result gates = in.result(), d_table = in.result(), d_inputs = in.result(), d_kernel = in.result();
    Result d_recurrent_kernel = in.result(), d_recurrent_bias = in.result(), d_start = in.result();
    in.require_all_read();
    charloom::Backward call{};
    args.fill<charloom::GRU>(call, *d_table);
    cotangents(args, call, outputs, d_outputs, d_last);
    gradients(args, call, d_table, d_inputs, d_kernel, d_recurrent_kernel, d_start);
    args.kept("gates", *gates, charloom::GRU::kept);
    args.bias("d_recurrent_bias", *d_recurrent_bias);
    call.gates = gates->typed_data();  // in the memory of the argument
    call.d_recurrent_bias = d_recurrent_bias->typed_data();
    run<charloom::GRU>(args, call);
  });
}

ffi::Error elman_forward(Arguments arguments, Results results, Attributes attributes) {
  return guarded("elman_forward", [&] {
    Operands in(arguments, results);
    const LayerArgs args = in.layer(attributes);
    const Floats table = in.floats();
    Result outputs = in.result();
    in.require_all_read();
    charloom::Forward call{};
    args.fill<charloom::Elman>(call, table);
    args.outputs("outputs", *outputs);
    call.table = table.typed_data();
    call.outputs = outputs->typed_data();
    run<charloom::Elman>(args, call);
  });
}

ffi::Error elman_backward(Arguments arguments, Results results, Attributes attributes) {
  return guarded("elman_backward", [&] {
    Operands in(arguments, results);
    const LayerArgs args = in.layer(attributes);
    const Floats outputs = in.floats(), d_outputs = in.floats(), d_last = in.floats();
    Result d_table = in.result(), d_inputs = in.result(), d_kernel = in.result();
    Result d_recurrent_kernel = in.result(), d_start = in.result();
    in.require_all_read();
    charloom::Backward call{};
    args.fill<charloom::Elman>(call, *d_table);
    cotangents(args, call, outputs, d_outputs, d_last);
    gradients(args, call, d_table, d_inputs, d_kernel, d_recurrent_kernel, d_start);
    run<charloom::Elman>(args, call);
  });
}

// Checks the shapes of a head's arrays. In the backward pass, `bias` and `results` are the gradients.
template <class Bias, class Outputs>
charloom::Dense dense(const Floats& values, const Floats& kernel, const Bias& bias, const Outputs& results) {
  using charloom::require_shape, charloom::size_of;
  charloom::require(values.dimensions().size() == 2 && kernel.dimensions().size() == 2, "an argument has too few or too many axes");
  const int rows = size_of("rows", values.dimensions()[0]), inputs = size_of("inputs", kernel.dimensions()[0]);
  const int outputs = size_of("outputs", kernel.dimensions()[1]);
  charloom::require(inputs % charloom::kWidth == 0, "inputs are not whole vectors");
  require_shape("values", values.dimensions(), {rows, inputs});
  require_shape("bias", bias.dimensions(), {outputs});
  require_shape("results", results.dimensions(), {rows, outputs});
  return {rows, inputs, outputs, values.typed_data(), kernel.typed_data()};
}

ffi::Error dense_forward(Arguments arguments, Results results, Attributes attributes) {
  return guarded("dense_forward", [&] {
    Operands in(arguments, results);
    const Floats values = in.floats(), kernel = in.floats(), bias = in.floats();
    Result outputs = in.result();
    in.require_all_read();
    charloom::DenseForward call{};
    static_cast<charloom::Dense&>(call) = dense(values, kernel, bias, *outputs);
    call.bias = bias.typed_data();
    call.results = outputs->typed_data();
    in_precision(in.bfloat16(attributes), [&](auto precision) {
      charloom::run_dense_forward<decltype(precision)>(call, charloom::allowed_threads);
    });
  });
}

ffi::Error dense_backward(Arguments arguments, Results results, Attributes attributes) {
  return guarded("dense_backward", [&] {
    Operands in(arguments, results);
    const Floats values = in.floats(), kernel = in.floats(), d_results = in.floats();
    Result d_values = in.result(), d_kernel = in.result(), d_bias = in.result();
    in.require_all_read();
    charloom::DenseBackward call{};
    static_cast<charloom::Dense&>(call) = dense(values, kernel, *d_bias, d_results);
    charloom::require_shape("d_values", d_values->dimensions(), {call.rows, call.inputs});
    charloom::require_shape("d_kernel", d_kernel->dimensions(), {call.inputs, call.outputs});
    call.d_results = d_results.typed_data();
    call.d_values = d_values->typed_data();
    call.d_kernel = d_kernel->typed_data();
    call.d_bias = d_bias->typed_data();
    in_precision(in.bfloat16(attributes), [&](auto precision) {
      charloom::run_dense_backward<decltype(precision)>(call, charloom::allowed_threads);
    });
  });
}

// One binding for all handlers, which read their arguments by position. A separate binding for each would take long to compile.
auto binding() { return ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attrs(); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_lstm_forward, lstm_forward, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_lstm_backward, lstm_backward, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_gru_forward, gru_forward, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_gru_backward, gru_backward, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_elman_forward, elman_forward, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_elman_backward, elman_backward, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_dense_forward, dense_forward, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(charloom_dense_backward, dense_backward, binding());
