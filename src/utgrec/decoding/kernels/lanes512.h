// Sixteen numbers at a time in one AVX-512 register.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

using bf16 = uint16_t;
using Lanes = __m512;

constexpr long kPanel = 64;  // outputs of a panel: four registers; 6 rows of sums fit the 32 there are

Lanes spread(float x) { return _mm512_set1_ps(x); }
Lanes plus(Lanes x, Lanes y) { return _mm512_add_ps(x, y); }
Lanes minus(Lanes x, Lanes y) { return _mm512_sub_ps(x, y); }
Lanes times(Lanes x, Lanes y) { return _mm512_mul_ps(x, y); }
Lanes fused(Lanes x, Lanes y, Lanes z) { return _mm512_fmadd_ps(x, y, z); }  // x · y + z
Lanes larger(Lanes x, Lanes y) { return _mm512_max_ps(x, y); }  // y if one is NaN
Lanes rounded(Lanes x) { return _mm512_roundscale_ps(x, 0); }
Lanes doubled(Lanes x, Lanes n) { return _mm512_scalef_ps(x, n); }  // x · 2^n
float total(Lanes x) { return _mm512_reduce_add_ps(x); }
float largest_of(Lanes x) { return _mm512_reduce_max_ps(x); }
// As many bits as there are numbers, at most 16.
unsigned ones(long count) { return (1u << std::clamp(count, 0L, 16L)) - 1; }
// x where a bit is set, else y.
Lanes pick(unsigned bits, Lanes x, Lanes y) { return _mm512_mask_mov_ps(y, __mmask16(bits), x); }

Lanes load(const float* p) { return _mm512_loadu_ps(p); }
void store(float* p, Lanes x) { _mm512_storeu_ps(p, x); }
// The first numbers, and zeros.
Lanes load_some(const float* p, long count) {
  return _mm512_maskz_loadu_ps(__mmask16(ones(count)), p);
}

Lanes multiply(Lanes sum, const float* x, const float* panel) {
  return _mm512_fmadd_ps(_mm512_set1_ps(*x), _mm512_loadu_ps(panel), sum);
}

#ifdef __AVX512BF16__
Lanes load(const bf16* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
void store(bf16* p, Lanes x) {
  const __m256bh half = _mm512_cvtneps_pbh(x);  // to the nearest, ties to even, as torch does
  std::memcpy(p, &half, 32);
}
// Sixteen sums more of two products each.
Lanes fused_pairs(const bf16* x, const bf16* y, Lanes sum) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(x), (__m512bh)_mm512_loadu_si512(y));
}
Lanes multiply(Lanes sum, const bf16* x, const bf16* panel) {
  int pair;
  std::memcpy(&pair, x, 4);
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(pair),
                          (__m512bh)_mm512_loadu_si512(panel));
}
#endif

// Four bytes of 16 rows each, turned: out[k] is word k of all rows. Rows or words beyond the given
// ones are zero.
void turn(const void* from, long stride, long rows, long words, void* to, long out_stride) {
  const auto part = __mmask16((1u << words) - 1);
  __m512i in[16], mid[16];
  for (long r = 0; r < 16; ++r)
    in[r] = r < rows ? _mm512_maskz_loadu_epi32(part, static_cast<const char*>(from) + r * stride)
                     : _mm512_setzero_si512();
  for (long r = 0; r < 16; r += 2) {
    mid[r] = _mm512_unpacklo_epi32(in[r], in[r + 1]);
    mid[r + 1] = _mm512_unpackhi_epi32(in[r], in[r + 1]);
  }
  for (long r = 0; r < 16; r += 4) {  // in[r + i]: word i of each quarter, of rows r to r + 3
    in[r] = _mm512_unpacklo_epi64(mid[r], mid[r + 2]);
    in[r + 1] = _mm512_unpackhi_epi64(mid[r], mid[r + 2]);
    in[r + 2] = _mm512_unpacklo_epi64(mid[r + 1], mid[r + 3]);
    in[r + 3] = _mm512_unpackhi_epi64(mid[r + 1], mid[r + 3]);
  }
  for (long i = 0; i < 4; ++i) {
    const __m512i low = _mm512_shuffle_i32x4(in[i], in[4 + i], 0x88);
    const __m512i low_odd = _mm512_shuffle_i32x4(in[i], in[4 + i], 0xdd);
    const __m512i high = _mm512_shuffle_i32x4(in[8 + i], in[12 + i], 0x88);
    const __m512i high_odd = _mm512_shuffle_i32x4(in[8 + i], in[12 + i], 0xdd);
    mid[i] = _mm512_shuffle_i32x4(low, high, 0x88);
    mid[8 + i] = _mm512_shuffle_i32x4(low, high, 0xdd);
    mid[4 + i] = _mm512_shuffle_i32x4(low_odd, high_odd, 0x88);
    mid[12 + i] = _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd);
  }
  for (long k = 0; k < words; ++k)
    _mm512_storeu_si512(static_cast<char*>(to) + k * out_stride, mid[k]);
}

// 16 numbers of neighbouring positions: of two, if two share a word of a panel. Null for zeros.
void join(const float* row, const float*, float* to) {
  _mm512_storeu_ps(to, row ? load(row) : _mm512_setzero_ps());
}
void join(const bf16* row, const bf16* next, bf16* to) {
  const auto half = [](const bf16* p) {
    return p ? _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))
             : _mm512_setzero_si512();
  };
  _mm512_storeu_si512(to, _mm512_or_si512(half(row), _mm512_slli_epi32(half(next), 16)));
}

}  // namespace
