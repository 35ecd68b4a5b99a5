// Intel's matrix instructions: tiles of up to 16 rows of 64 bytes.
//
// A process must ask Linux for the permission to use them. Without it, or without the instructions, CHARLOOM_AMX code is not run.
#pragma once

#if defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__AVX512BF16__) && defined(__linux__)
#define CHARLOOM_AMX 1

#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

namespace charloom {

constexpr int kTileRows = 16;

// Returns whether this process may use tiles, which is asked once.
inline bool may_use_tiles() {
  static const bool granted = [] {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // of the system call arch_prctl
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return granted;
}

// The number of rows that this thread's tiles are configured for; 0 if they are not.
inline thread_local int configured_tile_rows = 0;

inline void configure_tiles(int rows) {
  if (configured_tile_rows == rows) return;
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } layout;
  constexpr int kTiles = 8, kPanelTile = 7;  // a square of the panel always has all rows
  for (int tile = 0; tile < kTiles; ++tile) {
    layout.row_bytes[tile] = 64;
    layout.rows[tile] = static_cast<uint8_t>(tile == kPanelTile ? kTileRows : rows);
  }
  asm volatile("ldtilecfg %0" : : "m"(layout));
  configured_tile_rows = rows;
}

// Releases this thread's tiles at the end of a call, so that the system does not save them when it switches threads.
struct TileScope {
  ~TileScope() {
    if (configured_tile_rows == 0) return;
    asm volatile("tilerelease");
    configured_tile_rows = 0;
  }
};

template <int Tile>
inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
}

template <int Tile>
inline void load_tile(const void* from, ptrdiff_t row_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(row_bytes), "i"(Tile));
}

template <int Tile>
inline void store_tile(void* to, ptrdiff_t row_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(row_bytes), "i"(Tile) : "memory");
}

// Adds the products of quads of signed bytes.
template <int Sums, int Rows, int Panel>
inline void multiply_byte_tile() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sums), "i"(Rows), "i"(Panel));
}

// Adds the products of bfloat16 pairs.
template <int Sums, int Rows, int Panel>
inline void multiply_tile() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sums), "i"(Rows), "i"(Panel));
}

}  // namespace charloom

#else

namespace charloom {

struct TileScope {};

}  // namespace charloom

#endif
