// wgan_fast::gradient_norm_penalty_backward(Tensor grad_norm, Tensor grad_penalty,
//     Tensor? grad_direction, Tensor gradient, Tensor norm, float target, bool one_sided) -> Tensor
//
// With n the norm, h(n) = phi'(n) / (n B) and w the gradient of the direction, for each sample
//     [grad_norm / n + grad_penalty phi'(n) / n + h'(n) <g, w> / n] g + h(n) w,
// and zero where n is zero, where the norm has no derivative.

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "checks.h"
#include "chunks.h"
#include "dot.h"
#include "penalty.h"
#include "rows.h"
#include "transform.h"

namespace wgan_fast {
namespace {

// One row's result is of_gradient * g + of_direction * w.
template <typename accumulate_t>
struct Coefficients {
  bool is_zero;
  accumulate_t of_gradient;
  accumulate_t of_direction;
};

template <typename scalar_t>
void backward_rows(const at::Tensor& grad_norm, const at::Tensor& grad_penalty,
                   const std::optional<at::Tensor>& grad_direction, const at::Tensor& gradient,
                   const at::Tensor& norm, const Penalty& phi, const at::Tensor& out) {
  using accumulate_t = at::opmath_type<scalar_t>;
  using Vector = at::vec::Vectorized<accumulate_t>;
  const accumulate_t* grad_norm_data = grad_norm.const_data_ptr<accumulate_t>();
  const accumulate_t* grad_penalty_data = grad_penalty.const_data_ptr<accumulate_t>();
  const accumulate_t* norm_data = norm.const_data_ptr<accumulate_t>();
  const scalar_t* gradient_data = gradient.const_data_ptr<scalar_t>();
  const scalar_t* grad_direction_data =
      grad_direction ? grad_direction->const_data_ptr<scalar_t>() : nullptr;
  scalar_t* out_data = out.data_ptr<scalar_t>();
  const RowChunks work{gradient.size(0), columns_of(gradient)};
  std::vector<Coefficients<accumulate_t>> coefficients(work.rows);

  const auto inner_product = [&](int64_t row, int64_t chunk) {
    const int64_t begin = row * work.columns + work.begin(chunk);
    return dot(gradient_data + begin, grad_direction_data + begin, work.length(chunk));
  };
  const auto finish = [&](int64_t row, double inner) {
    const double n = norm_data[row];
    if (n == 0) {
      coefficients[row] = {true, 0, 0};
      return;
    }
    double of_gradient = (grad_norm_data[row] + grad_penalty_data[row] * phi.slope(n)) / n;
    double of_direction = 0;
    if (grad_direction_data != nullptr) {
      of_gradient += phi.slope_ratio_derivative(n) * inner / (n * work.rows);
      of_direction = phi.slope(n) / (n * work.rows);
    }
    coefficients[row] = {false, static_cast<accumulate_t>(of_gradient),
                         static_cast<accumulate_t>(of_direction)};
  };
  const auto write = [&](int64_t row, int64_t chunk) {
    const int64_t begin = row * work.columns + work.begin(chunk);
    const int64_t length = work.length(chunk);
    const Vector of_gradient(coefficients[row].of_gradient);
    const Vector of_direction(coefficients[row].of_direction);
    if (coefficients[row].is_zero) {
      // Not a product with zero: an infinite w must not become NaN.
      std::fill_n(out_data + begin, length, scalar_t(0));
    } else if (grad_direction_data == nullptr) {
      const auto scaled = [=](Vector g) { return of_gradient * g; };
      transform(length, out_data + begin, scaled, gradient_data + begin);
    } else {
      const auto sum = [=](Vector g, Vector w) { return of_gradient * g + of_direction * w; };
      transform(length, out_data + begin, sum, gradient_data + begin, grad_direction_data + begin);
    }
  };

  if (grad_direction_data != nullptr) {
    reduce_then_write(work, inner_product, finish, write);
  } else {
    for (int64_t row = 0; row < work.rows; ++row) finish(row, 0);
    work.for_each(write);
  }
}

at::Tensor gradient_norm_penalty_backward(const at::Tensor& grad_norm,
                                          const at::Tensor& grad_penalty,
                                          const std::optional<at::Tensor>& grad_direction,
                                          const at::Tensor& gradient, const at::Tensor& norm,
                                          double target, bool one_sided) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  constexpr const char* kOp = "gradient_norm_penalty_backward";
  check_batch(kOp, "gradient", gradient);
  check_per_sample(kOp, "grad_norm", grad_norm, "gradient", gradient);
  check_per_sample(kOp, "grad_penalty", grad_penalty, "gradient", gradient);
  check_per_sample(kOp, "norm", norm, "gradient", gradient);
  if (grad_direction) check_like(kOp, "grad_direction", *grad_direction, "gradient", gradient);
  RowsOutput out(gradient);
  const at::Tensor gradient_rows = out.operand(gradient);
  std::optional<at::Tensor> direction_rows;
  if (grad_direction) direction_rows = out.operand(*grad_direction);
  const at::Tensor grad_norms = grad_norm.contiguous();
  const at::Tensor grad_penalties = grad_penalty.contiguous();
  const at::Tensor norms = norm.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, gradient.scalar_type(),
                                  "wgan_fast::gradient_norm_penalty_backward", [&] {
                                    backward_rows<scalar_t>(grad_norms, grad_penalties,
                                                            direction_rows, gradient_rows, norms,
                                                            Penalty{target, one_sided}, out.rows());
                                  });
  return out.take();
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) {
  m.impl("gradient_norm_penalty_backward", TORCH_FN(gradient_norm_penalty_backward));
}

}  // namespace wgan_fast
