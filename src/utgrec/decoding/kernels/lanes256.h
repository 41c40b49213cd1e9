// Sixteen numbers at a time in two AVX2 registers.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace {

struct Lanes {
  __m256 low, high;
};

constexpr long kPanel = 16;  // outputs of a panel: two registers; 6 rows of sums fit the 16 there are

Lanes spread(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
Lanes plus(Lanes x, Lanes y) {
  return {_mm256_add_ps(x.low, y.low), _mm256_add_ps(x.high, y.high)};
}
Lanes minus(Lanes x, Lanes y) {
  return {_mm256_sub_ps(x.low, y.low), _mm256_sub_ps(x.high, y.high)};
}
Lanes times(Lanes x, Lanes y) {
  return {_mm256_mul_ps(x.low, y.low), _mm256_mul_ps(x.high, y.high)};
}
Lanes fused(Lanes x, Lanes y, Lanes z) {  // x · y + z
  return {_mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high)};
}
Lanes larger(Lanes x, Lanes y) {  // y if one is NaN
  return {_mm256_max_ps(x.low, y.low), _mm256_max_ps(x.high, y.high)};
}
Lanes rounded(Lanes x) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.low, nearest), _mm256_round_ps(x.high, nearest)};
}
// x · 2^n, for whole n from -126 to 127.
__m256 doubled(__m256 x, __m256 n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
Lanes doubled(Lanes x, Lanes n) { return {doubled(x.low, n.low), doubled(x.high, n.high)}; }
float total(Lanes x) {
  const __m256 eight = _mm256_add_ps(x.low, x.high);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
float largest_of(Lanes x) {
  const __m256 eight = _mm256_max_ps(x.low, x.high);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}
// x where a bit is set, else y.
__m256 pick(unsigned bits, __m256 x, __m256 y) {
  const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i set = _mm256_and_si256(_mm256_set1_epi32(int(bits)), each);
  return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, each)));
}
Lanes pick(unsigned bits, Lanes x, Lanes y) {
  return {pick(bits, x.low, y.low), pick(bits >> 8, x.high, y.high)};
}

// As many bits as there are numbers, at most 16.
unsigned ones(long count) { return (1u << std::clamp(count, 0L, 16L)) - 1; }

Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
void store(float* p, Lanes x) {
  _mm256_storeu_ps(p, x.low);
  _mm256_storeu_ps(p + 8, x.high);
}
// The first numbers, and zeros.
Lanes load_some(const float* p, long count) {
  const __m256i each = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const auto there = [&](long from) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(std::clamp(count - from, 0L, 8L))), each);
  };
  return {_mm256_maskload_ps(p, there(0)), _mm256_maskload_ps(p + 8, there(8))};
}

Lanes multiply(Lanes sum, const float* x, const float* panel) {
  return fused(spread(*x), load(panel), sum);
}

// Eight rows of eight words, turned.
void turn_eight(__m256 (&in)[8]) {
  __m256 mid[8];
  for (long r = 0; r < 8; r += 2) {
    mid[r] = _mm256_unpacklo_ps(in[r], in[r + 1]);
    mid[r + 1] = _mm256_unpackhi_ps(in[r], in[r + 1]);
  }
  for (long r = 0; r < 8; r += 4) {  // in[r + i]: word i of each half, of rows r to r + 3
    in[r] = _mm256_shuffle_ps(mid[r], mid[r + 2], 0x44);
    in[r + 1] = _mm256_shuffle_ps(mid[r], mid[r + 2], 0xee);
    in[r + 2] = _mm256_shuffle_ps(mid[r + 1], mid[r + 3], 0x44);
    in[r + 3] = _mm256_shuffle_ps(mid[r + 1], mid[r + 3], 0xee);
  }
  for (long i = 0; i < 4; ++i) {
    mid[i] = _mm256_permute2f128_ps(in[i], in[4 + i], 0x20);
    mid[4 + i] = _mm256_permute2f128_ps(in[i], in[4 + i], 0x31);
  }
  std::copy(mid, mid + 8, in);
}

// Four bytes of 16 rows each, turned: out[k] is word k of all rows. Rows or words beyond the given
// ones are zero.
void turn(const void* from, long stride, long rows, long words, void* to, long out_stride) {
  const __m256i each = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (long word = 0; word < words; word += 8)
    for (long row = 0; row < 16; row += 8) {
      const __m256i part = _mm256_cmpgt_epi32(_mm256_set1_epi32(int(words - word)), each);
      __m256 in[8];
      for (long r = 0; r < 8; ++r) {
        const char* p = static_cast<const char*>(from) + (row + r) * stride + word * 4;
        in[r] = row + r < rows ? _mm256_maskload_ps(reinterpret_cast<const float*>(p), part)
                               : _mm256_setzero_ps();
      }
      turn_eight(in);
      for (long k = 0; k < std::min(8L, words - word); ++k)
        _mm256_storeu_ps(
            reinterpret_cast<float*>(static_cast<char*>(to) + (word + k) * out_stride + row * 4),
            in[k]);
    }
}

// 16 numbers of neighbouring positions. Null for zeros.
void join(const float* row, const float*, float* to) { store(to, row ? load(row) : spread(0)); }

}  // namespace
