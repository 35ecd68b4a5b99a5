// What Python calls without XLA: the generator, and how many threads a call may use.

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>

#include "checks.h"
#include "generator.h"

namespace {

constexpr int kMaxThreads = 4096;

// What the generator's functions return.
enum Outcome : int { kDone, kNoMemory, kWrongArgument, kFailed };

// Runs what a function does. `problem` has room for some words about what is wrong.
template <class Body>
int told(char* problem, size_t room, const Body& body) {
  const auto tell = [&](Outcome outcome, const char* what) {
    if (problem && room) std::strncpy(problem, what, room - 1), problem[room - 1] = 0;
    return outcome;
  };
  try {
    body();
    return kDone;
  } catch (const charloom::Invalid& error) {
    return tell(kWrongArgument, error.what());
  } catch (const std::bad_alloc& error) {
    return tell(kNoMemory, error.what());
  } catch (const std::exception& error) {
    return tell(kFailed, error.what());
  } catch (...) {
    return tell(kFailed, "");
  }
}

charloom::AnyGenerator* new_generator(int cell, const charloom::Weights& weights) {
  if (cell == 0) return new charloom::Generator<charloom::LSTM>(weights);
  if (cell == 1) return new charloom::Generator<charloom::GRU>(weights);
  if (cell == 2) return new charloom::Generator<charloom::Elman>(weights);
  throw charloom::Invalid("there is no cell " + std::to_string(cell));
}

}  // namespace

// A generator's memory is its holder's to give back.
extern "C" [[gnu::visibility("default")]] int charloom_new_generator(int cell, const charloom::Weights* weights, void** made,
                                                                     char* problem, size_t room) {
  return told(problem, room, [&] {
    charloom::require(weights && made, "an argument is null");
    *made = new_generator(cell, *weights);
  });
}

extern "C" [[gnu::visibility("default")]] void charloom_delete_generator(void* generator) {
  delete static_cast<charloom::AnyGenerator*>(generator);
}

extern "C" [[gnu::visibility("default")]] int charloom_run_generator(const void* generator, const charloom::Streams* streams,
                                                                     const charloom::Task* task, char* problem, size_t room) {
  return told(problem, room, [&] {
    charloom::require(generator && streams && task, "an argument is null");
    static_cast<const charloom::AnyGenerator*>(generator)->run(*streams, *task, charloom::allowed_threads);
  });
}

// Results do not depend on the count.
extern "C" [[gnu::visibility("default")]] void charloom_use_threads(int count) {
  charloom::allowed_threads = std::clamp(count, 1, kMaxThreads);
}
