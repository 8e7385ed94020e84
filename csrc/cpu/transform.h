// Elementwise loops, vectorised, in the accumulation type.
#pragma once

#include <ATen/OpMathType.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <array>
#include <cstdint>
#include <tuple>
#include <type_traits>

namespace wgan_fast {

// `function` of vectors: a 16-bit vector is widened to two of float32, and the results narrowed.
template <typename scalar_t, typename Function, typename... Vectors>
at::vec::Vectorized<scalar_t> apply_widened(const Function& function, const Vectors&... vectors) {
  if constexpr (std::is_same_v<scalar_t, at::opmath_type<scalar_t>>) {
    return function(vectors...);
  } else {
    return at::vec::convert_from_float<scalar_t>(
        function(std::get<0>(at::vec::convert_to_float<scalar_t>(vectors))...),
        function(std::get<1>(at::vec::convert_to_float<scalar_t>(vectors))...));
  }
}

// out[k] = function(inputs[k]...) for k in [0, count), where function takes and returns vectors of
// the accumulation type. `out` may be an input if function(function(x)) is function(x): the last
// vector may overlap the one before, which is faster than a partial one.
template <typename scalar_t, typename Function, typename... Inputs>
void transform(int64_t count, scalar_t* out, const Function& function, const Inputs*... inputs) {
  using Vector = at::vec::Vectorized<scalar_t>;
  constexpr int64_t kSize = Vector::size();
  constexpr int kUnrolled = 4;
  const auto result = [&](int64_t k) {
    return apply_widened<scalar_t>(function, Vector::loadu(inputs + k)...);
  };
  int64_t k = 0;
  for (; k + kUnrolled * kSize <= count; k += kUnrolled * kSize) {
    std::array<Vector, kUnrolled> results;
    for (int step = 0; step < kUnrolled; ++step) results[step] = result(k + step * kSize);
    for (int step = 0; step < kUnrolled; ++step) results[step].store(out + k + step * kSize);
  }
  for (; k + kSize <= count; k += kSize) result(k).store(out + k);
  if (k == count) return;
  if (count >= kSize) {
    result(count - kSize).store(out + count - kSize);
  } else {
    apply_widened<scalar_t>(function, Vector::loadu(inputs, count)...).store(out, count);
  }
}

}  // namespace wgan_fast
