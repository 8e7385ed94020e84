// Several sums over one run of numbers, vectorised, in one pass over it.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "chunks.h"

namespace wgan_fast {

// The sums over k in [0, count) of function(inputs[k]...), which takes vectors and returns kSums of
// them, each zero where the last input is zero: the last vector is filled up with zeros. Chunks are
// added in double, so that a long row in float32 loses nothing that matters.
template <int kSums, typename scalar_t, typename Function, typename... Inputs>
std::array<double, kSums> sums_over(int64_t count, const Function& function,
                                    const Inputs*... inputs) {
  using Vector = at::vec::Vectorized<scalar_t>;
  std::array<double, kSums> totals{};
  for (int64_t begin = 0; begin < count; begin += kChunkColumns) {
    const int64_t end = std::min(begin + kChunkColumns, count);
    std::array<Vector, kSums> sums;
    sums.fill(Vector(0));
    const auto add = [&sums](const std::array<Vector, kSums>& terms) {
      for (int which = 0; which < kSums; ++which) sums[which] = sums[which] + terms[which];
    };
    int64_t k = begin;
    for (; k + Vector::size() <= end; k += Vector::size()) {
      add(function(Vector::loadu(inputs + k)...));
    }
    if (k < end) add(function(Vector::loadu(inputs + k, end - k)...));
    for (int which = 0; which < kSums; ++which) {
      totals[which] += at::vec::vec_reduce_all<scalar_t>(
          [](const Vector& a, const Vector& b) { return a + b; }, sums[which]);
    }
  }
  return totals;
}

}  // namespace wgan_fast
