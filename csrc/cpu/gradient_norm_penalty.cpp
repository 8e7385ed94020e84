// wgan_fast::gradient_norm_penalty(Tensor gradient, float target, bool one_sided, float power,
//     float p, Tensor? weights, Tensor? mask) -> (Tensor norm, Tensor penalty, Tensor direction)
//
// norm_i = ||m g_i||_p, penalty_i = phi(norm_i), direction_i = w_i phi'(norm_i) d norm_i / d g_i /
// B: each sample's gradient is read from memory once where it fits a core's cache.

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "checks.h"
#include "chunks.h"
#include "gradient_norm.h"
#include "penalty_family.h"
#include "rows.h"
#include "transform.h"

namespace wgan_fast {
namespace {

template <typename scalar_t>
void penalise_rows(const at::Tensor& gradient, const Member& member, const at::Tensor& norm,
                   const at::Tensor& penalty, const at::Tensor& direction) {
  using accumulate_t = at::opmath_type<scalar_t>;
  using Vector = at::vec::Vectorized<accumulate_t>;
  const scalar_t* gradient_data = gradient.const_data_ptr<scalar_t>();
  const scalar_t* mask_data = member.mask_data<scalar_t>();
  const accumulate_t* weight_data = member.weight_data<accumulate_t>();
  accumulate_t* norm_data = norm.data_ptr<accumulate_t>();
  accumulate_t* penalty_data = penalty.data_ptr<accumulate_t>();
  scalar_t* direction_data = direction.data_ptr<scalar_t>();
  const RowChunks work{gradient.size(0), columns_of(gradient)};
  const Exponent p = member.p;
  std::vector<accumulate_t> scales(work.rows);

  const auto part = [&](int64_t row, int64_t chunk) {
    const int64_t begin = row * work.columns + work.begin(chunk);
    const int64_t count = work.length(chunk);
    if (mask_data == nullptr) return part_of_norm(p, gradient_data + begin, count);
    WideChunk<scalar_t> masked{};
    multiply(gradient_data + begin, mask_data + begin, count, masked.data());
    return part_of_norm<accumulate_t>(p, masked.data(), count);
  };
  const auto join_parts = [p](PartOfNorm& whole, const PartOfNorm& more) { join(p, whole, more); };
  const auto finish = [&](int64_t row, const PartOfNorm& whole) {
    norm_data[row] = static_cast<accumulate_t>(norm_of(p, whole));
    const double n = norm_data[row];
    penalty_data[row] = static_cast<accumulate_t>(member.phi.value(n));
    const double weight = weight_data == nullptr ? 1 : weight_data[row];
    const double of_slope = n == 0 ? 0 : member.phi.slope(n) * weight / work.rows;
    scales[row] = static_cast<accumulate_t>(of_slope * shared_factor(p, n, whole.at_largest));
  };
  const auto write_direction = [&](int64_t row, int64_t chunk) {
    const int64_t begin = row * work.columns + work.begin(chunk);
    const int64_t count = work.length(chunk);
    const Slope<accumulate_t> slope{p, Vector(norm_data[row])};
    const Vector scale(scales[row]);
    const auto scaled = [=](Vector g) { return scale * slope(g); };
    if (mask_data == nullptr) {
      transform(count, direction_data + begin, scaled, gradient_data + begin);
      return;
    }
    WideChunk<scalar_t> masked{}, result{};
    multiply(gradient_data + begin, mask_data + begin, count, masked.data());
    transform<accumulate_t>(count, result.data(), scaled, masked.data());
    write_masked(result.data(), mask_data + begin, count, direction_data + begin);
  };
  reduce_then_write(work, part, join_parts, finish, write_direction);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> gradient_norm_penalty(
    const at::Tensor& gradient, double target, bool one_sided, double power, double p,
    const std::optional<at::Tensor>& weights, const std::optional<at::Tensor>& mask) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  constexpr const char* kOp = "gradient_norm_penalty";
  check_batch(kOp, "gradient", gradient);
  RowsOutput direction(gradient);
  const at::Tensor gradient_rows = direction.operand(gradient);
  const Member member(kOp, gradient, direction, Penalty{target, one_sided, power}, p, weights,
                      mask);
  const auto per_sample = gradient.options().dtype(at::toOpMathType(gradient.scalar_type()));
  const at::Tensor norm = at::empty({gradient.size(0)}, per_sample);
  const at::Tensor penalty = at::empty({gradient.size(0)}, per_sample);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, gradient.scalar_type(), "wgan_fast::gradient_norm_penalty",
      [&] { penalise_rows<scalar_t>(gradient_rows, member, norm, penalty, direction.rows()); });
  return {norm, penalty, direction.take()};
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) {
  m.impl("gradient_norm_penalty", TORCH_FN(gradient_norm_penalty));
}

}  // namespace wgan_fast
