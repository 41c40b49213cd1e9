// Sixteen numbers at a time: what this processor does to them, for float and for bfloat16.

#pragma once

#include <cmath>

#ifdef UTGREC_WIDE
#include "lanes512.h"
#else
#include "lanes256.h"
#endif

namespace {

template <class T> constexpr long kGroup = sizeof(T) == 4 ? 1 : 2;

// e to the power of x ≤ 0, to about 1e-7 of itself: 2^n times a polynomial on ±ln 2 / 2. Below -80
// it stays what it is there, 1.8e-35, for some processors stop for each number so small that it is
// stored without an exponent, and beside 1 it is nothing.
Lanes exponential(Lanes x) {
  x = larger(spread(-80.0f), x);  // in this order NaN stays NaN
  const Lanes n = rounded(times(x, spread(1.44269504f)));
  Lanes r = fused(n, spread(-0.693359375f), x);  // ln 2 in two parts
  r = fused(n, spread(2.12194440e-4f), r);
  Lanes sum = spread(1.0f / 5040);
  for (const float factor : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    sum = fused(sum, r, spread(factor));
  return doubled(sum, n);
}

struct Softmax {
  float largest, sum;
};

// Largest of some numbers, a multiple of 16, and the sum of e^(number - largest), which is kept.
Softmax softmax(float* x, long count) {
  Lanes most = load(x);
  for (long i = 16; i < count; i += 16) most = larger(most, load(x + i));
  const float largest = largest_of(most);
  Lanes sum = spread(0);
  for (long i = 0; i < count; i += 16) {
    const Lanes e = exponential(minus(load(x + i), spread(largest)));
    store(x + i, e);
    sum = plus(sum, e);
  }
  return {largest, total(sum)};
}

}  // namespace
