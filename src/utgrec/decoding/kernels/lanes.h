// Sixteen numbers at a time: what AVX-512 does to them, for float and for bfloat16.

#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

using bf16 = uint16_t;
using Lanes = __m512;

template <class T> constexpr long kGroup = sizeof(T) == 4 ? 1 : 2;

Lanes load(const float* p) { return _mm512_loadu_ps(p); }
void store(float* p, Lanes x) { _mm512_storeu_ps(p, x); }

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
Lanes multiply(Lanes sum, const bf16* x, const bf16* panel) {
  int pair;
  std::memcpy(&pair, x, 4);
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(pair),
                          (__m512bh)_mm512_loadu_si512(panel));
}
#endif

// e to the power of x ≤ 0, to about 1e-7 of itself: 2^n times a polynomial on ±ln 2 / 2.
Lanes exponential(Lanes x) {
  x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x);  // in this order NaN stays NaN
  const Lanes n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  Lanes r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);  // ln 2 in two parts
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  Lanes sum = _mm512_set1_ps(1.0f / 5040);
  for (const float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    sum = _mm512_fmadd_ps(sum, r, _mm512_set1_ps(factor));
  return _mm512_scalef_ps(sum, n);
}

struct Softmax {
  float largest, sum;
};

// Largest of some numbers, a multiple of 16, and the sum of e^(number - largest), which is kept.
Softmax softmax(float* x, long count) {
  Lanes most = load(x);
  for (long i = 16; i < count; i += 16) most = _mm512_max_ps(most, load(x + i));
  const float largest = _mm512_reduce_max_ps(most);
  Lanes sum = _mm512_setzero_ps();
  for (long i = 0; i < count; i += 16) {
    const Lanes e = exponential(_mm512_sub_ps(load(x + i), _mm512_set1_ps(largest)));
    store(x + i, e);
    sum = _mm512_add_ps(sum, e);
  }
  return {largest, _mm512_reduce_add_ps(sum)};
}

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

// 16 numbers of neighbouring positions: of two, if two share a word of a panel.
__m512i join(const float* row, const float*) { return _mm512_castps_si512(load(row)); }
__m512i join(const bf16* row, const bf16* next) {
  const auto half = [](const bf16* p) {
    return p ? _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))
             : _mm512_setzero_si512();
  };
  return _mm512_or_si512(half(row), _mm512_slli_epi32(half(next), 16));
}

}  // namespace
