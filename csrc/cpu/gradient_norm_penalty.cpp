// wgan_fast::gradient_norm_penalty(Tensor gradient, float target, bool one_sided)
//     -> (Tensor norm, Tensor penalty, Tensor direction)
//
// norm_i = ||g_i||, penalty_i = phi(norm_i), direction_i = phi'(norm_i) g_i / (norm_i B): each
// sample's gradient is read from memory once where it fits a core's cache.

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
#include <torch/library.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "checks.h"
#include "chunks.h"
#include "dot.h"
#include "penalty.h"
#include "rows.h"
#include "transform.h"

namespace wgan_fast {
namespace {

template <typename scalar_t>
void penalise_rows(const at::Tensor& gradient, const Penalty& phi, const at::Tensor& norm,
                   const at::Tensor& penalty, const at::Tensor& direction) {
  using accumulate_t = at::opmath_type<scalar_t>;
  using Vector = at::vec::Vectorized<accumulate_t>;
  const scalar_t* gradient_data = gradient.const_data_ptr<scalar_t>();
  accumulate_t* norm_data = norm.data_ptr<accumulate_t>();
  accumulate_t* penalty_data = penalty.data_ptr<accumulate_t>();
  scalar_t* direction_data = direction.data_ptr<scalar_t>();
  const RowChunks work{gradient.size(0), columns_of(gradient)};
  std::vector<accumulate_t> scales(work.rows);

  const auto sum_of_squares = [&](int64_t row, int64_t chunk) {
    const scalar_t* run = gradient_data + row * work.columns + work.begin(chunk);
    return dot(run, run, work.length(chunk));
  };
  const auto finish = [&](int64_t row, double squares) {
    norm_data[row] = static_cast<accumulate_t>(std::sqrt(squares));
    const double n = norm_data[row];
    penalty_data[row] = static_cast<accumulate_t>(phi.value(n));
    scales[row] =
        n == 0 ? accumulate_t(0) : static_cast<accumulate_t>(phi.slope(n) / (n * work.rows));
  };
  const auto write_direction = [&](int64_t row, int64_t chunk) {
    const int64_t begin = row * work.columns + work.begin(chunk);
    const Vector scale(scales[row]);
    transform(
        work.length(chunk), direction_data + begin, [=](Vector g) { return scale * g; },
        gradient_data + begin);
  };
  reduce_then_write(work, sum_of_squares, finish, write_direction);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> gradient_norm_penalty(const at::Tensor& gradient,
                                                                     double target,
                                                                     bool one_sided) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  check_batch("gradient_norm_penalty", "gradient", gradient);
  RowsOutput direction(gradient);
  const at::Tensor gradient_rows = direction.operand(gradient);
  const auto per_sample = gradient.options().dtype(at::toOpMathType(gradient.scalar_type()));
  const at::Tensor norm = at::empty({gradient.size(0)}, per_sample);
  const at::Tensor penalty = at::empty({gradient.size(0)}, per_sample);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, gradient.scalar_type(), "wgan_fast::gradient_norm_penalty", [&] {
        penalise_rows<scalar_t>(gradient_rows, Penalty{target, one_sided}, norm, penalty,
                                direction.rows());
      });
  return {norm, penalty, direction.take()};
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) {
  m.impl("gradient_norm_penalty", TORCH_FN(gradient_norm_penalty));
}

}  // namespace wgan_fast
