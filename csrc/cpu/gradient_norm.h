// The norms of a sample's gradient and their derivatives, run by run.
#pragma once

#include <ATen/OpMathType.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "chunks.h"
#include "dot.h"

namespace wgan_fast {

enum class Exponent { kOne, kTwo, kInfinity };

inline Exponent exponent_of(const char* op, double p) {
  TORCH_CHECK(p == 1 || p == 2 || p == std::numeric_limits<double>::infinity(), op,
              ": p must be 1, 2 or infinity, got ", p);
  if (p == 1) return Exponent::kOne;
  return p == 2 ? Exponent::kTwo : Exponent::kInfinity;
}

// What is known of a norm after some of a row's numbers: a sum, or a maximum and how many have it.
struct PartOfNorm {
  double total = 0;
  int64_t at_largest = 0;
};

// The parts of two runs together.
inline void join(Exponent p, PartOfNorm& whole, const PartOfNorm& part) {
  if (p != Exponent::kInfinity) {
    whole.total += part.total;
  } else if (part.total > whole.total || std::isnan(part.total)) {
    whole = part;
  } else if (part.total == whole.total) {
    whole.at_largest += part.at_largest;
  }
}

template <typename scalar_t>
PartOfNorm part_of_norm(Exponent p, const scalar_t* run, int64_t count) {
  using accumulate_t = at::opmath_type<scalar_t>;
  const auto size = [run](int64_t k) { return std::abs(static_cast<accumulate_t>(run[k])); };
  PartOfNorm part;
  if (p == Exponent::kTwo) {
    part.total = dot(run, run, count);
  } else if (p == Exponent::kOne) {
    // Some chains of additions, which the compiler makes a vector of.
    std::array<accumulate_t, 16> sums{};
    int64_t k = 0;
    for (; k + 16 <= count; k += 16) {
      for (int lane = 0; lane < 16; ++lane) sums[lane] += size(k + lane);
    }
    for (; k < count; ++k) part.total += size(k);
    for (const accumulate_t sum : sums) part.total += sum;
  } else {
    accumulate_t largest = 0;
    bool has_nan = false;
    for (int64_t k = 0; k < count; ++k) {
      largest = std::max(largest, size(k));
      has_nan |= std::isnan(size(k));
    }
    for (int64_t k = 0; k < count; ++k) part.at_largest += size(k) == largest;
    part.total = has_nan ? std::numeric_limits<double>::quiet_NaN() : largest;
  }
  return part;
}

inline double norm_of(Exponent p, const PartOfNorm& whole) {
  return p == Exponent::kTwo ? std::sqrt(whole.total) : whole.total;
}

// The derivative of the norm in a number x, without the factor that all numbers of a row share:
// x itself, its sign, or its sign where |x| is the norm.
template <typename accumulate_t>
struct Slope {
  using Vector = at::vec::Vectorized<accumulate_t>;
  Exponent p;
  Vector norm;

  Vector operator()(const Vector& x) const {
    if (p == Exponent::kTwo) return x;
    const Vector zero(0);
    const Vector sign = zero.lt(x) - x.lt(zero);
    return p == Exponent::kOne ? sign : sign * x.abs().eq(norm);
  }
};

// That factor: the rest of the derivative.
inline double shared_factor(Exponent p, double norm, int64_t at_largest) {
  if (norm == 0) return 0;
  if (p == Exponent::kTwo) return 1 / norm;
  return p == Exponent::kOne ? 1 : 1 / static_cast<double>(at_largest);
}

// out = mask * run, in the accumulation type.
template <typename scalar_t>
void multiply(const scalar_t* run, const scalar_t* mask, int64_t count,
              at::opmath_type<scalar_t>* out) {
  using accumulate_t = at::opmath_type<scalar_t>;
  for (int64_t k = 0; k < count; ++k) {
    out[k] = static_cast<accumulate_t>(run[k]) * static_cast<accumulate_t>(mask[k]);
  }
}

// A chunk's numbers in the accumulation type: small enough to live in the cache.
template <typename scalar_t>
using WideChunk = std::array<at::opmath_type<scalar_t>, kChunkColumns>;

// out = mask * wide, rounded once.
template <typename scalar_t>
void write_masked(const at::opmath_type<scalar_t>* wide, const scalar_t* mask, int64_t count,
                  scalar_t* out) {
  for (int64_t k = 0; k < count; ++k) {
    out[k] = static_cast<scalar_t>(wide[k] * static_cast<at::opmath_type<scalar_t>>(mask[k]));
  }
}

}  // namespace wgan_fast
