// The pieces of a Transformer's forward pass that decoding spends its time in, for AVX-512 and AVX2.
//
// Every function works on rows in cache-sized tiles, and what follows a matrix product (residual,
// ReLU, softmax) happens while its result is in registers or in the first caches. Compiled on the
// machine that runs it (build.py); without either it compiles to nothing and torch does the work.
//
// Numbers of type T are float, or bfloat16 held in uint16_t; sums are float everywhere. A matrix
// (N, K) is packed in panels of P outputs (64, with AVX2 16): (N / P, K / G, P, G), where G is how many
// numbers of one row a single instruction multiplies (1 float, 2 bfloat16). Missing outputs are zero.

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define UTGREC_WIDE
#endif

#if defined(UTGREC_WIDE) || (defined(__AVX2__) && defined(__FMA__))

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "lanes.h"

namespace {

constexpr long kParts = kPanel / 16;
constexpr long kBlock = 6;   // rows multiplied at once
constexpr long kTile = 48;   // rows that pass through a function together
constexpr long kDepth = 128; // inputs taken at once where sums go to memory; 16 KB of a panel
constexpr long kItems = 64;  // items that `rank` gives one answer for
constexpr long kFew = 4;     // users for whom `rank` takes items one by one
constexpr float kNone = -3e38f;  // score of a place that is not there

long padded(long count, long to) { return (count + to - 1) / to * to; }

// Memory of this thread that a function uses while it runs, one piece per `slot`.
template <class T> T* scratch(int slot, long count) {
  thread_local std::vector<char> kept[4];
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

// Any number of rows times one panel.
template <class T, class Finish>
inline void rows_by_panel(const T* x, long rows, long stride, const T* panel, long depth,
                          Finish finish) {
  for (long row = 0; row < rows; row += kBlock) {
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

// out = x · matrixᵀ, through `finish(lanes)`. Outputs are a multiple of 16.
template <class T, class Out, class Finish>
void product(const T* x, long rows, long stride, const T* matrix, long depth, long outputs,
             Out* out, long out_stride, Finish finish) {
  for (long first = 0; first < outputs; first += kPanel, matrix += kPanel * depth)
    rows_by_panel(x, rows, stride, matrix, depth, [&](long row, long column, Lanes sum) {
      if (first + column < outputs) store(out + row * out_stride + first + column, finish(sum));
    });
}

// hidden += x · matrixᵀ.
template <class T>
void add_product(const T* x, long rows, long stride, const T* matrix, long depth, long outputs,
                 float* hidden) {
  for (long first = 0; first < outputs; first += kPanel, matrix += kPanel * depth)
    for (long begin = 0; begin < depth; begin += kDepth)
      rows_by_panel(x + begin, rows, stride, matrix + begin * kPanel,
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
  T* normed = scratch<T>(0, kTile * width);
  for (long row = 0; row < rows; row += kTile) {
    const long count = std::min(kTile, rows - row);
    normalise(hidden + row * width, count, width, epsilon, normed);
    product(normed, count, width, matrix, width, outputs, out + row * outputs, outputs,
            [](Lanes sum) { return sum; });
  }
}

template <class T>
void add(const T* x, long rows, long depth, const T* matrix, long width, float* hidden) {
  for (long row = 0; row < rows; row += kTile)
    add_product(x + row * depth, std::min(kTile, rows - row), depth, matrix, depth, width,
                hidden + row * width);
}

template <class T>
void feed_forward(float* hidden, long rows, long width, float epsilon, const T* widen,
                  const T* narrow, long inner) {
  T* normed = scratch<T>(0, kTile * width);
  T* middle = scratch<T>(1, kTile * inner);
  for (long row = 0; row < rows; row += kTile) {
    const long count = std::min(kTile, rows - row);
    float* part = hidden + row * width;
    normalise(part, count, width, epsilon, normed);
    product(normed, count, width, widen, width, inner, middle, inner,
            [](Lanes sum) { return larger(spread(0), sum); });
    add_product(middle, count, inner, narrow, inner, width, part);
  }
}

// Log-softmax over all V tokens, of which `count` from `first` on are written.
template <class T>
void log_probs(const float* hidden, long rows, long width, float epsilon, const T* matrix,
               long tokens, long first, long count, float* out) {
  const long room = padded(tokens, 16);
  T* normed = scratch<T>(0, kTile * width);
  float* logits = scratch<float>(1, kTile * room);
  float* powers = scratch<float>(2, room);
  for (long row = 0; row < rows; row += kTile) {
    const long some = std::min(kTile, rows - row);
    normalise(hidden + row * width, some, width, epsilon, normed);
    product(normed, some, width, matrix, width, room, logits, room, [](Lanes sum) { return sum; });
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

long head_size(long length, long width) {
  return padded(length, kPanel) * width + padded(length, 16) * padded(width, kPanel);
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

// Keys and values of one head, as panels: (S' / P, A / G, P, G) and (A' / P, S" / G, P, G), where S'
// and A' are S and A up to a multiple of P, and S" is S up to one of 16.
template <class T>
void pack_head(const T* keys, const T* values, long length, long stride, long width, T* out) {
  constexpr long g = kGroup<T>;
  pack_rows(keys, length, stride, width, out);
  out += padded(length, kPanel) * width;
  for (long first = 0; first < width; first += kPanel)
    for (long place = 0; place < padded(length, 16); place += g, out += kPanel * g) {
      const T* row = place < length ? values + place * stride + first : nullptr;
      const T* next = place + 1 < length ? row + stride : nullptr;
      for (long i = 0; i < kPanel; i += 16) {
        const bool there = row && first + i < width;
        join(there ? row + i : nullptr, there && next ? next + i : nullptr, out + i * g);
      }
    }
}

// Attention of X queries per user over S positions, without a scale. The memory is packed, or, with
// steps between its rows, keys and values (B, S, 2HA) that are packed on the way. A bias may be null;
// its steps are given, its positions are neighbours. A mask (B, S) may be null, too.
template <class T>
void attend(const T* query, long query_stride, const T* memory, long memory_stride,
            const float* bias, long by_user, long by_head, long by_query, const float* mask, long users, long heads, long queries,
            long length, long width, T* out) {
  const long across = padded(length, kPanel), down = padded(length, 16);
  float* scores = scratch<float>(0, kBlock * across);
  T* shares = scratch<T>(1, kBlock * down);
  T* packed = scratch<T>(2, memory_stride ? head_size(length, width) : 0);
  for (long user = 0; user < users; ++user)
    for (long head = 0; head < heads; ++head) {
      const T* kept = memory + (user * heads + head) * head_size(length, width);
      if (memory_stride) {
        const T* keys = memory + user * length * memory_stride + head * width;
        pack_head(keys, keys + heads * width, length, memory_stride, width, packed);
        kept = packed;
      }
      for (long first = 0; first < queries; first += kBlock) {
        const long rows = std::min(kBlock, queries - first);
        const long at = user * queries + first;
        const T* from = query + at * query_stride + head * width;
        product(from, rows, query_stride, kept, width, across, scores, across,
                [](Lanes sum) { return sum; });
        for (long r = 0; r < rows; ++r) {
          float* own = scores + r * across;
          if (bias) {
            const float* more = bias + user * by_user + head * by_head + (first + r) * by_query;
            for (long i = 0; i < length; ++i) own[i] += more[i];
          }
          if (mask)
            for (long i = 0; i < length; ++i) own[i] += mask[user * length + i];
          std::fill(own + length, own + down, kNone);
          const Lanes scale = spread(1.0f / softmax(own, down).sum);
          for (long i = 0; i < down; i += 16)
            store(shares + r * down + i, times(load(own + i), scale));
        }
        product(shares, rows, down, kept + across * width, down, width,
                out + at * heads * width + head * width, heads * width,
                [](Lanes sum) { return sum; });
      }
    }
}

template <class T> float dot(const T* left, const T* right, long width) {
  Lanes sum = spread(0);
  for (long i = 0; i < width; i += 16) sum = fused(load(left + i), load(right + i), sum);
  return total(sum);
}

// Keys and values of the tokens that one step of all beams read, (B, W', 2HA).
template <class T> struct Token {
  const T* pairs;
  const int64_t* rows;  // (B, W), which of the W' a beam continues; null for its own
  long beams, stride;   // W'; numbers from one pair to the next
};

// Attention of every beam over the few tokens before it and itself.
template <class T>
void attend_few(const T* query, long query_stride, const Token<T>* tokens, long count,
                const T* shared, long alike, const float* bias, long users, long beams, long heads,
                long width, T* out) {
  const long inner = heads * width, all = alike + count;
  float* scores = scratch<float>(0, padded(all, 16));
  const T** pairs = scratch<const T*>(1, all);
  for (long user = 0; user < users; ++user)
    for (long beam = 0; beam < beams; ++beam) {
      const long at = user * beams + beam;
      for (long t = 0; t < alike; ++t) pairs[t] = shared + (user * alike + t) * 2 * inner;
      for (long t = 0; t < count; ++t) {
        const long row = tokens[t].rows ? tokens[t].rows[at] : beam;
        pairs[alike + t] = tokens[t].pairs + (user * tokens[t].beams + row) * tokens[t].stride;
      }
      for (long head = 0; head < heads; ++head) {
        const T* asked = query + at * query_stride + head * width;
        std::fill(scores, scores + padded(all, 16), kNone);
        for (long t = 0; t < all; ++t)
          scores[t] = dot(asked, pairs[t] + head * width, width) +
                      (bias ? bias[t * heads + head] : 0.0f);
        const float scale = 1.0f / softmax(scores, padded(all, 16)).sum;
        for (long i = 0; i < width; i += 16) {
          Lanes sum = spread(0);
          for (long t = 0; t < all; ++t)
            sum = fused(spread(scores[t] * scale), load(pairs[t] + inner + head * width + i), sum);
          store(out + at * inner + head * width + i, sum);
        }
      }
    }
}

template <class T>
void pack(const T* pairs, long users, long length, long stride, long heads, long width, T* out) {
  for (long user = 0; user < users; ++user)
    for (long head = 0; head < heads; ++head, out += head_size(length, width)) {
      const T* keys = pairs + user * length * stride + head * width;
      pack_head(keys, keys + heads * width, length, stride, width, out);
    }
}

// Of each 64 items, and each user: the largest product of what is asked and an item's vector, and the
// sum of e^(product - largest). Items whose bit is not set do not count. For many users vectors are
// packed on the way; for few that would take longer than to multiply them one by one.
template <class T>
void rank(const T* asked, long users, long width, const T* vectors, long items,
          const uint64_t* usable, long first, long end, long groups, float* largest, float* sums) {
  T* packed = scratch<T>(0, kItems * width);
  float* products = scratch<float>(1, kTile * kItems);
  const Lanes none = spread(kNone);
  for (long group = first; group < end; ++group) {
    const long count = std::min(kItems, items - group * kItems);
    const uint64_t bits =
        (usable ? usable[group] : ~uint64_t(0)) & (~uint64_t(0) >> (kItems - count));
    const T* from = vectors + group * kItems * width;
    if (bits && users > kFew) pack_rows(from, count, width, width, packed);
    for (long user = 0; user < users; user += kTile) {
      const long some = std::min(kTile, users - user);
      if (bits && users > kFew)
        for (long at = 0; at < count; at += kPanel)
          rows_by_panel(
              asked + user * width, some, width, packed + at * width, width,
              [&](long row, long column, Lanes sum) { store(products + row * kItems + at + column, sum); });
      else if (bits)
        for (long row = 0; row < some; ++row)
          for (long i = 0; i < count; ++i)
            products[row * kItems + i] = dot(asked + (user + row) * width, from + i * width, width);
      for (long row = 0; row < some; ++row) {
        float* own = products + row * kItems;
        for (long i = 0; bits && i < kItems; i += 16)
          store(own + i, pick(unsigned(bits >> i & 0xffff), load(own + i), none));
        const Softmax found = bits ? softmax(own, kItems) : Softmax{kNone, 0.0f};
        largest[(user + row) * groups + group] = found.largest;
        sums[(user + row) * groups + group] = found.sum;
      }
    }
  }
}

// Products of single users and items.
template <class T>
void rank_pairs(const T* asked, long width, const T* vectors, const int64_t* users,
                const int64_t* items, long pairs, float* out) {
  for (long i = 0; i < pairs; ++i)
    out[i] = dot(asked + users[i] * width, vectors + items[i] * width, width);
}

// How many bits are set between neighbouring positions, which ascend: counts + 1 of them.
void count_bits(const uint8_t* bits, long bytes, const int32_t* positions, long counts, int32_t* out) {
  const long words = padded(bytes, 8) / 8;
  uint64_t* word = scratch<uint64_t>(0, words + 1);
  int32_t* before = scratch<int32_t>(1, words + 1);  // bits before each word
  word[words] = 0;
  word[std::max(words - 1, 0L)] = 0;
  std::memcpy(word, bits, bytes);
  before[0] = 0;
  for (long i = 0; i < words; ++i) before[i + 1] = before[i] + __builtin_popcountll(word[i]);
  const auto below = [&](int32_t position) {
    const uint64_t lower = (uint64_t(1) << (position & 63)) - 1;
    return before[position >> 6] + __builtin_popcountll(word[position >> 6] & lower);
  };
  int32_t last = below(positions[0]);
  for (long i = 0; i < counts; ++i) {
    const int32_t next = below(positions[i + 1]);
    out[i] = next - last;
    last = next;
  }
}

// In the order of `KERNELS` in native.py.
template <class T>
void* const kernels[] = {
    reinterpret_cast<void*>(project<T>),      reinterpret_cast<void*>(add<T>),
    reinterpret_cast<void*>(feed_forward<T>), reinterpret_cast<void*>(log_probs<T>),
    reinterpret_cast<void*>(pack<T>),         reinterpret_cast<void*>(attend<T>),
    reinterpret_cast<void*>(attend_few<T>),   reinterpret_cast<void*>(rank<T>),
    reinterpret_cast<void*>(rank_pairs<T>),   reinterpret_cast<void*>(count_bits),
};

}  // namespace

extern "C" long panel_width() { return kPanel; }

// A function by its number; null where this processor computes it no faster than torch.
extern "C" void* find_kernel(int bytes, int number) {
#ifdef __AVX512BF16__
  if (bytes == 2) return kernels<bf16>[number];
#endif
  return bytes == 4 ? kernels<float>[number] : nullptr;
}

#else
extern "C" long panel_width() { return 0; }
extern "C" void* find_kernel(int, int) { return nullptr; }
#endif
