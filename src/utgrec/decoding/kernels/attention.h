// Attention: over a whole history, over what is remembered of one, and over a few tokens.

#pragma once

#include "products.h"

namespace {

// A count of positions whose values are read, up to what is multiplied at once.
template <class T> long filled(long length) { return padded(length, 16 * kGroup<T>); }

template <class T> long head_size(long length, long width) {
  return padded(length, kPanel) * width + filled<T>(length) * padded(width, kPanel);
}

// Keys and values of one head, as panels: (S' / P, A / G, P, G) and (A' / P, S" / G, P, G), where S'
// and A' are S and A up to a multiple of P, and S" is S up to one of 16 G.
template <class T>
void pack_head(const T* keys, const T* values, long length, long stride, long width, T* out) {
  constexpr long g = kGroup<T>;
  pack_rows(keys, length, stride, width, out);
  out += padded(length, kPanel) * width;
  for (long first = 0; first < width; first += kPanel)
    for (long place = 0; place < filled<T>(length); place += g, out += kPanel * g) {
      const T* row = place < length ? values + place * stride + first : nullptr;
      const T* next = place + 1 < length ? row + stride : nullptr;
      for (long i = 0; i < kPanel; i += 16) {
        const bool there = row && first + i < width;
        join(there ? row + i : nullptr, there && next ? next + i : nullptr, out + i * g);
      }
    }
}

// Numbers that are added to scores, and the steps between them; positions are neighbours.
struct Bias {
  const float* numbers;  // may be null
  long by_user, by_head, by_query;
};

// Attention of X queries per user over S positions, without a scale. The memory is packed, or, with
// steps between its rows, keys and values (B, S, 2HA) that are packed on the way. A mask (B, S) may be
// null. Of the queries, `there` rows may be read.
template <class T>
void attend_rows(const T* query, long query_stride, long there, const T* memory, long memory_stride,
                 Bias bias, const float* mask, long users, long heads, long queries, long length,
                 long width, T* out) {
  const Tiles<T> tiles;
  const long across = padded(length, kPanel), down = filled<T>(length);
  float* scores = scratch<float>(0, kAsked<T> * down);
  T* shares = scratch<T>(1, kAsked<T> * down);
  T* packed = scratch<T>(2, memory_stride ? head_size<T>(length, width) : 0);
  for (long user = 0; user < users; ++user)
    for (long head = 0; head < heads; ++head) {
      const T* kept = memory + (user * heads + head) * head_size<T>(length, width);
      if (memory_stride) {
        const T* keys = memory + user * length * memory_stride + head * width;
        pack_head(keys, keys + heads * width, length, memory_stride, width, packed);
        kept = packed;
      }
      for (long first = 0; first < queries; first += kAsked<T>) {
        const long rows = std::min(kAsked<T>, queries - first);
        const long at = user * queries + first;
        const T* from = query + at * query_stride + head * width;
        const long before = user * bias.by_user + head * bias.by_head + first * bias.by_query;
        multiply_rows(from, rows, there - at, query_stride, kept, width, down,
                      [&](long r, long i, Lanes sum) {
                        const long left = length - i;
                        const float* more = bias.numbers + before + r * bias.by_query + i;
                        if (bias.numbers) sum = plus(sum, load_some(more, left));
                        if (mask) sum = plus(sum, load_some(mask + user * length + i, left));
                        if (left < 16) sum = pick(ones(left), sum, spread(kNone));
                        store(scores + r * down + i, sum);
                      });
        for (long r = 0; r < rows; ++r) {
          float* own = scores + r * down;
          const Lanes scale = spread(1.0f / softmax(own, down).sum);
          for (long i = 0; i < down; i += 16)
            store(shares + r * down + i, times(load(own + i), scale));
        }
        product(shares, rows, kAsked<T>, down, kept + across * width, down, width,
                out + at * heads * width + head * width, heads * width,
                [](Lanes sum) { return sum; });
      }
    }
}

template <class T>
void attend(const T* query, long query_stride, const T* pairs, long stride, const float* bias,
            long by_user, long by_head, long by_query, const float* mask, long users, long heads,
            long queries, long length, long width, T* out) {
  attend_rows(query, query_stride, users * queries, pairs, stride, {bias, by_user, by_head, by_query},
              mask, users, heads, queries, length, width, out);
}

// How many users of some rows each pass through an attention together, and the rows that they take.
struct Together {
  long users, rows;
  explicit Together(long each)
      : users(std::max(1L, kTogether / std::max(1L, each))), rows(padded(users * each, 16)) {}
};

// hidden += output · (attention of every position over all of its user). Queries, keys and values
// (B, S, 3HA) are given, or, if that is null, made of the hidden state.
template <class T>
void read(float* hidden, const T* mixed, long users, long length, long width, float epsilon,
          const T* attention, const T* output, const float* bias, long by_head, long by_query,
          const float* mask, long heads, long head_width) {
  const long inner = heads * head_width;
  const Together some(length);
  T* made = scratch<T>(3, some.rows * 3 * inner);
  T* found = scratch<T>(4, some.rows * inner);
  for (long user = 0; user < users; user += some.users) {
    const long count = std::min(some.users, users - user), rows = count * length;
    float* part = hidden + user * length * width;
    const T* from = mixed ? mixed + user * length * 3 * inner : made;
    if (!mixed) project(part, rows, width, epsilon, attention, 3 * inner, made);
    attend_rows(from, 3 * inner, mixed ? (users - user) * length : some.rows, from + inner, 3 * inner,
                {bias, 0, by_head, by_query}, mask ? mask + user * length : nullptr, count, heads,
                length, length, head_width, found);
    add_rows(found, rows, some.rows, inner, output, width, part);
  }
}

// hidden += output · (attention of every beam over what its user's memory holds, packed).
template <class T>
void ask(float* hidden, long users, long beams, long width, float epsilon, const T* query,
         const T* memory, long length, const float* mask, long heads, long head_width,
         const T* output) {
  const long inner = heads * head_width;
  const Together some(beams);
  T* asked = scratch<T>(3, some.rows * inner);
  T* found = scratch<T>(4, some.rows * inner);
  for (long user = 0; user < users; user += some.users) {
    const long count = std::min(some.users, users - user), rows = count * beams;
    float* part = hidden + user * beams * width;
    project(part, rows, width, epsilon, query, inner, asked);
    attend_rows(asked, inner, some.rows, memory + user * heads * head_size<T>(length, head_width), 0,
                {}, mask ? mask + user * length : nullptr, count, heads, beams, length, head_width,
                found);
    add_rows(found, rows, some.rows, inner, output, width, part);
  }
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
        for (long first = 0; first < all; first += 16) {
          Lanes found = spread(kNone);  // stored as a whole: single numbers would be waited for
          for (long t = first; t < std::min(all, first + 16); ++t) {
            const float more = bias ? bias[t * heads + head] : 0.0f;
            const float score = dot(asked, pairs[t] + head * width, width) + more;
            found = pick(1u << (t - first), spread(score), found);
          }
          store(scores + first, found);
        }
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

// Keys and values of every layer's memory, (layers × 2HA, M) times the hidden state, packed: one
// output for each layer.
template <class T>
void remember(const float* hidden, long users, long length, long width, float epsilon,
              const T* matrix, long layers, long heads, long head_width, T* const* out) {
  const long inner = heads * head_width, all = layers * 2 * inner;
  const long size = head_size<T>(length, head_width);
  T* made = scratch<T>(3, length * all);
  for (long user = 0; user < users; ++user) {
    project(hidden + user * length * width, length, width, epsilon, matrix, all, made);
    for (long layer = 0; layer < layers; ++layer)
      for (long head = 0; head < heads; ++head) {
        const T* keys = made + layer * 2 * inner + head * head_width;
        pack_head(keys, keys + inner, length, all, head_width,
                  out[layer] + (user * heads + head) * size);
      }
  }
}

}  // namespace
