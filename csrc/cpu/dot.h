// The inner product of two short runs of numbers, vectorised, accumulated in the accumulation type.
#pragma once

#include <ATen/OpMathType.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <array>
#include <cstdint>

namespace wgan_fast {

// sum over k of left[k] * right[k]. Call it on chunks (chunks.h): each of its 4 accumulators' lanes
// then adds few enough numbers that float32 loses nothing that matters.
template <typename scalar_t>
double dot(const scalar_t* left, const scalar_t* right, int64_t count) {
  using accumulate_t = at::opmath_type<scalar_t>;
  using Input = at::vec::Vectorized<scalar_t>;
  using Accumulator = at::vec::Vectorized<accumulate_t>;
  // Four chains of additions hide the latency of one; a 16-bit vector widens to two of them.
  constexpr int kChains = 4;
  constexpr int kWidened = Input::size() / Accumulator::size();
  constexpr int kInputs = kChains / kWidened;
  static_assert(kWidened == 1 || kWidened == 2);

  std::array<Accumulator, kChains> sums;
  sums.fill(Accumulator(0));
  const auto add = [&sums](int chain, const Input& x, const Input& y) {
    if constexpr (kWidened == 1) {
      sums[chain] = at::vec::fmadd(x, y, sums[chain]);
    } else {
      const auto [x_low, x_high] = at::vec::convert_to_float<scalar_t>(x);
      const auto [y_low, y_high] = at::vec::convert_to_float<scalar_t>(y);
      sums[2 * chain] = at::vec::fmadd(x_low, y_low, sums[2 * chain]);
      sums[2 * chain + 1] = at::vec::fmadd(x_high, y_high, sums[2 * chain + 1]);
    }
  };

  int64_t k = 0;
  for (; k + kInputs * Input::size() <= count; k += kInputs * Input::size()) {
    for (int input = 0; input < kInputs; ++input) {
      const int64_t at = k + input * Input::size();
      add(input, Input::loadu(left + at), Input::loadu(right + at));
    }
  }
  for (; k + Input::size() <= count; k += Input::size()) {
    add(0, Input::loadu(left + k), Input::loadu(right + k));
  }
  accumulate_t rest = 0;
  for (; k < count; ++k) {
    rest += static_cast<accumulate_t>(left[k]) * static_cast<accumulate_t>(right[k]);
  }

  std::array<accumulate_t, Accumulator::size()> lanes;
  ((sums[0] + sums[1]) + (sums[2] + sums[3])).store(lanes.data());
  double total = rest;
  for (const accumulate_t lane : lanes) total += lane;
  return total;
}

}  // namespace wgan_fast
