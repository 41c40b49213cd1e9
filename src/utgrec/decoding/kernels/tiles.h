// Products of bfloat16 in AMX: eight registers of 16 rows of 64 bytes, multiplied as a whole.
//
// A tile of x is 16 rows of 32 numbers. A tile of a panel is 16 pairs of its inputs for 16 of its
// outputs, as they lie there. Sums of 32 rows and 32 outputs take four registers, what is multiplied
// the other four.

#pragma once

#if defined(UTGREC_WIDE) && defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__linux__)
#define UTGREC_TILES

#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr long kSide = 16;   // rows, and outputs, of a tile
constexpr long kInputs = 32; // inputs that a tile holds

// Whether this process may use the registers, which Linux wants to be asked for.
bool has_tiles() {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return granted;
}

// While one lives, this thread may multiply tiles. Nothing of it is left behind: torch sets its own.
template <class T> struct Tiles {};
template <> struct Tiles<bf16> {
  Tiles() {
    if (!has_tiles()) return;
    alignas(64) uint8_t shapes[64] = {1};  // the palette
    for (int tile = 0; tile < 8; ++tile) {
      shapes[16 + 2 * tile] = 64;  // bytes of a row, 16 bits
      shapes[48 + tile] = kSide;
    }
    _tile_loadconfig(shapes);
  }
  ~Tiles() {
    if (has_tiles()) _tile_release();
  }
  Tiles(const Tiles&) = delete;
};

// R · 16 rows of x times a panel, of which `rows` are wanted.
template <int R, class Finish>
inline void tile_block(const bf16* x, long rows, long stride, const bf16* panel, long depth,
                       Finish finish) {
  alignas(64) float sums[R * kSide][2 * kSide];
  for (long column = 0; column < kPanel; column += 2 * kSide) {
    const bf16* right = panel + 2 * column;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long k = 0; k < depth; k += kInputs, right += kInputs * kPanel) {
      _tile_loadd(6, right, kPanel * 4);
      _tile_loadd(7, right + 2 * kSide, kPanel * 4);
      _tile_loadd(4, x + k, stride * 2);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      if (R == 2) {
        _tile_loadd(5, x + kSide * stride + k, stride * 2);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, &sums[0][0], sizeof sums[0]);
    _tile_stored(1, &sums[0][kSide], sizeof sums[0]);
    if (R == 2) {
      _tile_stored(2, &sums[kSide * (R - 1)][0], sizeof sums[0]);
      _tile_stored(3, &sums[kSide * (R - 1)][kSide], sizeof sums[0]);
    }
    for (long row = 0; row < rows; ++row) {
      finish(row, column, load(sums[row]));
      finish(row, column + kSide, load(sums[row] + kSide));
    }
  }
}

// As many rows as tiles can take, of `there` that may be read: how many that were.
template <class Finish>
inline long rows_by_tiles(const bf16* x, long rows, long there, long stride, const bf16* panel,
                          long depth, Finish finish) {
  if (depth % kInputs || !has_tiles()) return 0;
  long row = 0;
  for (; row < rows && row + kSide <= there; ) {
    const bf16* from = x + row * stride;
    const auto below = [&](long r, long column, Lanes sum) { finish(row + r, column, sum); };
    const bool two = rows - row > kSide && row + 2 * kSide <= there;
    const long taken = std::min(rows - row, two ? 2 * kSide : kSide);
    if (two) tile_block<2>(from, taken, stride, panel, depth, below);
    else tile_block<1>(from, taken, stride, panel, depth, below);
    row += taken;
  }
  return row;
}

}  // namespace

#else

namespace {
template <class T> struct Tiles {};
}  // namespace

#endif
