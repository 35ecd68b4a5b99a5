// Checks of the arguments of every native operation, before anything is read.
//
// Callers in Python also check, with better messages. This is the last line of defense: a wrong argument is an error here, and
// never a read out of bounds.
#pragma once

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace charloom {

// Thrown for a wrong argument. All other exceptions of an operation are about memory.
struct Invalid : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

inline void require(bool holds, const char* what) {
  if (!holds) throw Invalid(what);
}

// Returns the size as an int.
inline int size_of(const char* name, int64_t size, int64_t least = 1) {
  if (size < least || size > INT_MAX) throw Invalid(std::string(name) + " is " + std::to_string(size));
  return static_cast<int>(size);
}

template <class Dimensions>
std::string shape_text(const Dimensions& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "(" + text + ")";
}

// `shape` can be any range of sizes.
template <class Dimensions>
void require_shape(const char* name, const Dimensions& shape, std::initializer_list<int64_t> wanted) {
  if (std::equal(shape.begin(), shape.end(), wanted.begin(), wanted.end())) return;
  throw Invalid(std::string(name) + " has shape " + shape_text(shape) + " instead of " + shape_text(wanted));
}

inline void require_room(const char* name, int64_t floats, int64_t needed) {
  if (floats < needed)
    throw Invalid(std::string(name) + " has room for " + std::to_string(floats) + " floats, but needs " + std::to_string(needed));
}

// Requires that each of `count` rows is in the table. Negative numbers are allowed if `may_be_negative`.
inline void require_rows(const int32_t* rows, size_t count, int table_rows, bool may_be_negative = false) {
  bool in_bounds = true;
  for (size_t at = 0; at < count; ++at) in_bounds &= rows[at] < table_rows && (may_be_negative || rows[at] >= 0);
  for (size_t at = 0; !in_bounds; ++at)  // find the row for the message
    if (rows[at] >= table_rows || (rows[at] < 0 && !may_be_negative))
      throw Invalid("id " + std::to_string(rows[at]) + " is outside the table of " + std::to_string(table_rows) + " rows");
}

}  // namespace charloom
