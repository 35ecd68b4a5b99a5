// The functions that Python calls without XLA: the generator, and the number of threads.

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>

#include "checks.h"
#include "generator.h"

namespace {

constexpr int kMaxThreads = 4096;

// The return values of the generator's functions.
enum Status : int { kDone, kNoMemory, kWrongArgument, kFailed };

// Runs `body` and returns a status. An error message is copied into `problem`, which has `room` bytes.
template <class Body>
int with_status(char* problem, size_t room, const Body& body) {
  const auto report = [&](Status status, const char* what) {
    if (problem && room) std::strncpy(problem, what, room - 1), problem[room - 1] = 0;
    return status;
  };
  try {
    body();
    return kDone;
  } catch (const charloom::Invalid& error) {
    return report(kWrongArgument, error.what());
  } catch (const std::bad_alloc& error) {
    return report(kNoMemory, error.what());
  } catch (const std::exception& error) {
    return report(kFailed, error.what());
  } catch (...) {
    return report(kFailed, "");
  }
}

template <class Precision>
std::unique_ptr<charloom::AnyGenerator> new_generator(int cell, const charloom::Weights& weights) {
  if (cell == 0) return std::make_unique<charloom::Generator<charloom::LSTM, Precision>>(weights);
  if (cell == 1) return std::make_unique<charloom::Generator<charloom::GRU, Precision>>(weights);
  if (cell == 2) return std::make_unique<charloom::Generator<charloom::Elman, Precision>>(weights);
  throw charloom::Invalid("unknown cell " + std::to_string(cell));
}

std::unique_ptr<charloom::AnyGenerator> new_generator(int cell, int precision, const charloom::Weights& weights) {
  if (precision == 0) return new_generator<charloom::Float32>(cell, weights);
  if (precision == 1) return new_generator<charloom::BFloat16>(cell, weights);
  if (precision == 2) return charloom::new_exact_generator(cell, weights);
  throw charloom::Invalid("unknown precision " + std::to_string(precision));
}

}  // namespace

// The caller must free the generator with charloom_delete_generator.
extern "C" [[gnu::visibility("default")]] int charloom_new_generator(int cell, int precision, const charloom::Weights* weights,
                                                                     void** made, char* problem, size_t room) {
  return with_status(problem, room, [&] {
    charloom::require(weights && made, "an argument is null");
    *made = new_generator(cell, precision, *weights).release();
  });
}

extern "C" [[gnu::visibility("default")]] void charloom_delete_generator(void* generator) {
  delete static_cast<charloom::AnyGenerator*>(generator);
}

extern "C" [[gnu::visibility("default")]] int charloom_run_generator(const void* generator, const charloom::GeneratorState* state,
                                                                     const charloom::Task* task, char* problem, size_t room) {
  return with_status(problem, room, [&] {
    charloom::require(generator && state && task, "an argument is null");
    static_cast<const charloom::AnyGenerator*>(generator)->run(*state, *task, charloom::allowed_threads);
  });
}

// Returns the size of a structure that Python also describes, in bytes; 0 for an unknown name. See `structures.py`.
extern "C" [[gnu::visibility("default")]] size_t charloom_size_of(const char* name) {
  const std::string_view structure = name ? name : "";
  if (structure == "Weights") return sizeof(charloom::Weights);
  if (structure == "Activations") return sizeof(charloom::Activations);
  if (structure == "GeneratorState") return sizeof(charloom::GeneratorState);
  if (structure == "Refill") return sizeof(charloom::Refill);
  if (structure == "Task") return sizeof(charloom::Task);
  if (structure == "Sampler") return sizeof(charloom::Sampler);
  return 0;
}

// Results do not depend on the count.
extern "C" [[gnu::visibility("default")]] void charloom_use_threads(int count) {
  charloom::allowed_threads = std::clamp(count, 1, kMaxThreads);
}

// Returns which instructions multiply bfloat16 numbers faster than floats: 0 for none, 1 for AVX512_BF16, 2 for AMX.
extern "C" [[gnu::visibility("default")]] int charloom_bfloat16_instructions() {
#if defined(CHARLOOM_AMX)
  if (charloom::may_use_tiles()) return 2;
#endif
#if defined(__AVX512BF16__)
  // Intel's processors take twice as long for a vector of pairs as for a vector of floats.
  __builtin_cpu_init();
  return __builtin_cpu_is("amd") ? 1 : 0;
#else
  return 0;
#endif
}
