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

#include "attention.h"

namespace {

constexpr long kItems = 64;  // items that `rank` gives one answer for
constexpr long kFew = 4;     // users for whom `rank` takes items one by one

// Of each 64 items, and each user: the largest product of what is asked and an item's vector, and the
// sum of e^(product - largest). Items whose bit is not set do not count. For many users vectors are
// packed on the way; for few that would take longer than to multiply them one by one.
template <class T>
void rank(const T* asked, long users, long width, const T* vectors, long items,
          const uint64_t* usable, long first, long end, long groups, float* largest, float* sums) {
  const Tiles<T> tiles;
  T* packed = scratch<T>(0, kItems * width);
  float* products = scratch<float>(1, kTile<T> * kItems);
  const Lanes none = spread(kNone);
  for (long group = first; group < end; ++group) {
    const long count = std::min(kItems, items - group * kItems);
    const uint64_t bits =
        (usable ? usable[group] : ~uint64_t(0)) & (~uint64_t(0) >> (kItems - count));
    const T* from = vectors + group * kItems * width;
    if (bits && users > kFew) pack_rows(from, count, width, width, packed);
    for (long user = 0; user < users; user += kTile<T>) {
      const long some = std::min(kTile<T>, users - user);
      if (bits && users > kFew)
        for (long at = 0; at < count; at += kPanel)
          rows_by_panel(
              asked + user * width, some, users - user, width, packed + at * width, width,
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
    reinterpret_cast<void*>(remember<T>),     reinterpret_cast<void*>(read<T>),
    reinterpret_cast<void*>(ask<T>),          reinterpret_cast<void*>(attend<T>),
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
