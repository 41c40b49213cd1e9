// Products of rows and matrices, and the layers that are little else.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "lanes.h"
#include "tiles.h"

namespace {

constexpr long kParts = kPanel / 16;
constexpr long kBlock = 6;   // rows multiplied at once
constexpr long kDepth = 256; // inputs taken at once where sums go to memory; 32 or 64 KB of a panel
// Rows that pass through a function together.
template <class T> constexpr long kTile = sizeof(T) == 2 ? 64 : 48;
constexpr long kTogether = 192;  // rows of users who pass through an attention together
// Queries that `attend` takes together.
template <class T> constexpr long kAsked = sizeof(T) == 2 ? 32 : kBlock;
constexpr float kNone = -3e38f;  // score of a place that is not there

long padded(long count, long to) { return (count + to - 1) / to * to; }

// Memory of this thread that a function uses while it runs, one piece per `slot`.
template <class T> T* scratch(int slot, long count) {
  thread_local std::vector<char> kept[5];
  auto& bytes = kept[slot];
  if (long(bytes.size()) < count * long(sizeof(T)) + 64) bytes.resize(count * sizeof(T) + 64);
  return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(bytes.data()) + 63) & ~uintptr_t(63));
}

// R rows of x times one panel; `finish(row, column, lanes)` gets 16 sums at a time.
template <int R, class T, class Finish>
inline void block(const T* x, long stride, const T* panel, long depth, Finish finish) {
  Lanes sums[R][kParts];
  for (auto& row : sums)
    for (auto& sum : row) sum = spread(0);
  for (long k = 0; k < depth; k += kGroup<T>, panel += kPanel * kGroup<T>) {
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part)
        sums[r][part] = multiply(sums[r][part], x + r * stride + k, panel + part * 16 * kGroup<T>);
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) finish(r, part * 16, sums[r][part]);
}

// Any number of rows times one panel. Of x, `there` rows may be read.
template <class T, class Finish>
inline void rows_by_panel(const T* x, long rows, long there, long stride, const T* panel, long depth,
                          Finish finish) {
  long row = 0;
#ifdef UTGREC_TILES
  if constexpr (sizeof(T) == 2) row = rows_by_tiles(x, rows, there, stride, panel, depth, finish);
#endif
  for (; row < rows; row += kBlock) {
    const T* from = x + row * stride;
    const auto below = [&](long r, long column, Lanes sum) { finish(row + r, column, sum); };
    switch (std::min(kBlock, rows - row)) {
      case 1: block<1>(from, stride, panel, depth, below); break;
      case 2: block<2>(from, stride, panel, depth, below); break;
      case 3: block<3>(from, stride, panel, depth, below); break;
      case 4: block<4>(from, stride, panel, depth, below); break;
      case 5: block<5>(from, stride, panel, depth, below); break;
      default: block<6>(from, stride, panel, depth, below);
    }
  }
}

// x · matrixᵀ, through `finish(row, column, lanes)`. Outputs are a multiple of 16.
template <class T, class Finish>
void multiply_rows(const T* x, long rows, long there, long stride, const T* matrix, long depth,
                   long outputs, Finish finish) {
  for (long first = 0; first < outputs; first += kPanel, matrix += kPanel * depth)
    rows_by_panel(x, rows, there, stride, matrix, depth, [&](long row, long column, Lanes sum) {
      if (first + column < outputs) finish(row, first + column, sum);
    });
}

// out = x · matrixᵀ, through `finish(lanes)`.
template <class T, class Out, class Finish>
void product(const T* x, long rows, long there, long stride, const T* matrix, long depth,
             long outputs, Out* out, long out_stride, Finish finish) {
  multiply_rows(x, rows, there, stride, matrix, depth, outputs,
                [&](long row, long column, Lanes sum) {
                  store(out + row * out_stride + column, finish(sum));
                });
}

// hidden += x · matrixᵀ.
template <class T>
void add_product(const T* x, long rows, long there, long stride, const T* matrix, long depth,
                 long outputs, float* hidden) {
  for (long first = 0; first < outputs; first += kPanel, matrix += kPanel * depth)
    for (long begin = 0; begin < depth; begin += kDepth)
      rows_by_panel(x + begin, rows, there, stride, matrix + begin * kPanel,
                    std::min(kDepth, depth - begin), [&](long row, long column, Lanes sum) {
                      float* at = hidden + row * outputs + first + column;
                      if (first + column < outputs) store(at, plus(load(at), sum));
                    });
}

// Rows divided by their root mean square.
template <class T>
void normalise(const float* hidden, long rows, long width, float epsilon, T* out) {
  for (long row = 0; row < rows; ++row, hidden += width, out += width) {
    Lanes squares = spread(0);
    for (long i = 0; i < width; i += 16) {
      const Lanes x = load(hidden + i);
      squares = fused(x, x, squares);
    }
    const float mean = total(squares) / float(width);
    const Lanes scale = spread(1.0f / std::sqrt(mean + epsilon));
    for (long i = 0; i < width; i += 16) store(out + i, times(load(hidden + i), scale));
  }
}

template <class T>
void project(const float* hidden, long rows, long width, float epsilon, const T* matrix,
             long outputs, T* out) {
  const Tiles<T> tiles;
  T* normed = scratch<T>(0, kTile<T> * width);
  for (long row = 0; row < rows; row += kTile<T>) {
    const long count = std::min(kTile<T>, rows - row);
    normalise(hidden + row * width, count, width, epsilon, normed);
    product(normed, count, kTile<T>, width, matrix, width, outputs, out + row * outputs, outputs,
            [](Lanes sum) { return sum; });
  }
}

template <class T>
void add_rows(const T* x, long rows, long there, long depth, const T* matrix, long width,
              float* hidden) {
  const Tiles<T> tiles;
  for (long row = 0; row < rows; row += kTile<T>)
    add_product(x + row * depth, std::min(kTile<T>, rows - row), there - row, depth, matrix, depth,
                width, hidden + row * width);
}

template <class T>
void add(const T* x, long rows, long depth, const T* matrix, long width, float* hidden) {
  add_rows(x, rows, rows, depth, matrix, width, hidden);
}

template <class T>
void feed_forward(float* hidden, long rows, long width, float epsilon, const T* widen,
                  const T* narrow, long inner) {
  const Tiles<T> tiles;
  T* normed = scratch<T>(0, kTile<T> * width);
  T* middle = scratch<T>(1, kTile<T> * inner);
  for (long row = 0; row < rows; row += kTile<T>) {
    const long count = std::min(kTile<T>, rows - row);
    float* part = hidden + row * width;
    normalise(part, count, width, epsilon, normed);
    product(normed, count, kTile<T>, width, widen, width, inner, middle, inner,
            [](Lanes sum) { return larger(spread(0), sum); });
    add_product(middle, count, kTile<T>, inner, narrow, inner, width, part);
  }
}

// Log-softmax over all V tokens, of which `count` from `first` on are written.
template <class T>
void log_probs(const float* hidden, long rows, long width, float epsilon, const T* matrix,
               long tokens, long first, long count, float* out) {
  const long room = padded(tokens, 16);
  const Tiles<T> tiles;
  T* normed = scratch<T>(0, kTile<T> * width);
  float* logits = scratch<float>(1, kTile<T> * room);
  float* powers = scratch<float>(2, room);
  for (long row = 0; row < rows; row += kTile<T>) {
    const long some = std::min(kTile<T>, rows - row);
    normalise(hidden + row * width, some, width, epsilon, normed);
    product(normed, some, kTile<T>, width, matrix, width, room, logits, room,
            [](Lanes sum) { return sum; });
    for (long r = 0; r < some; ++r) {
      float* own = logits + r * room;
      std::fill(own + tokens, own + room, kNone);
      std::memcpy(powers, own, room * sizeof(float));
      const Softmax found = softmax(powers, room);
      const float all = found.largest + std::log(found.sum);
      for (long i = 0; i < count; ++i) out[(row + r) * count + i] = own[first + i] - all;
    }
  }
}

// Rows as panels, (rows' / P, width / G, P, G), where rows' is a multiple of P.
template <class T>
void pack_rows(const T* rows, long count, long stride, long width, T* out) {
  constexpr long g = kGroup<T>;
  for (long first = 0; first < count; first += kPanel, out += kPanel * width)
    for (long row = 0; row < kPanel; row += 16)
      for (long k = 0; k < width; k += 16 * g)
        turn(rows + (first + row) * stride + k, stride * long(sizeof(T)),
             std::clamp(count - first - row, 0L, 16L), std::min(16L, (width - k) / g),
             out + k * kPanel + row * g, kPanel * 4);
}

template <class T> float dot(const T* left, const T* right, long width) {
  Lanes sum = spread(0);
  long i = 0;
#ifdef __AVX512BF16__
  if constexpr (sizeof(T) == 2)
    for (; i + 32 <= width; i += 32) sum = fused_pairs(left + i, right + i, sum);
#endif
  for (; i < width; i += 16) sum = fused(load(left + i), load(right + i), sum);
  return total(sum);
}

}  // namespace
