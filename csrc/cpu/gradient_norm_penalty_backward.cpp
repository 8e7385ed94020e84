// wgan_fast::gradient_norm_penalty_backward(Tensor grad_norm, Tensor grad_penalty,
//     Tensor? grad_direction, Tensor gradient, Tensor norm, float target, bool one_sided,
//     float power, float p, Tensor? weights, Tensor? mask) -> Tensor
//
// With n the norm of m g, u its derivative in m g, s the weight over B and d the gradient of the
// direction, for each sample
//     m ([grad_norm + grad_penalty phi'(n) + s (phi''(n) - t) <u, m d>] u + s t m d),
// t = phi'(n) / n where p = 2, whose u turns with g, and 0 elsewhere. Zero where n is zero, where
// the norm has no derivative; but 2 s m^2 d of a squared norm, whose direction is linear in g.

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
#include "gradient_norm.h"
#include "penalty_family.h"
#include "rows.h"
#include "transform.h"

namespace wgan_fast {
namespace {

// One row's result is of_unit times the slope's numbers, plus of_direction times d.
template <typename accumulate_t>
struct Coefficients {
  bool is_zero;
  accumulate_t of_unit;
  accumulate_t of_direction;
};

struct Incoming {
  at::Tensor grad_norm;
  at::Tensor grad_penalty;
  std::optional<at::Tensor> grad_direction;
};

// What a row must know before it is written: <slope, m d>, and how many numbers are the largest.
struct PartOfInner {
  double inner = 0;
  int64_t at_largest = 0;
};

template <typename scalar_t>
PartOfInner part_of_inner(Exponent p, const scalar_t* gradient, const scalar_t* incoming,
                          at::opmath_type<scalar_t> norm, int64_t count) {
  using accumulate_t = at::opmath_type<scalar_t>;
  PartOfInner part;
  if (p == Exponent::kTwo) {
    if (incoming != nullptr) part.inner = dot(gradient, incoming, count);
    return part;
  }
  for (int64_t k = 0; k < count; ++k) {
    const accumulate_t x = gradient[k];
    const bool counts = p == Exponent::kOne || std::abs(x) == norm;
    part.at_largest += counts;
    if (counts && incoming != nullptr) {
      part.inner +=
          static_cast<accumulate_t>(incoming[k]) * static_cast<accumulate_t>((x > 0) - (x < 0));
    }
  }
  return part;
}

template <typename scalar_t>
void backward_rows(const Incoming& incoming, const at::Tensor& gradient, const at::Tensor& norm,
                   const Member& member, const at::Tensor& out) {
  using accumulate_t = at::opmath_type<scalar_t>;
  using Vector = at::vec::Vectorized<accumulate_t>;
  const accumulate_t* grad_norm_data = incoming.grad_norm.const_data_ptr<accumulate_t>();
  const accumulate_t* grad_penalty_data = incoming.grad_penalty.const_data_ptr<accumulate_t>();
  const accumulate_t* norm_data = norm.const_data_ptr<accumulate_t>();
  const scalar_t* gradient_data = gradient.const_data_ptr<scalar_t>();
  const scalar_t* mask_data = member.mask_data<scalar_t>();
  const accumulate_t* weight_data = member.weight_data<accumulate_t>();
  const scalar_t* direction_data =
      incoming.grad_direction ? incoming.grad_direction->const_data_ptr<scalar_t>() : nullptr;
  scalar_t* out_data = out.data_ptr<scalar_t>();
  const RowChunks work{gradient.size(0), columns_of(gradient)};
  const Exponent p = member.p;
  std::vector<Coefficients<accumulate_t>> coefficients(work.rows);

  const auto part = [&](int64_t row, int64_t chunk) {
    const int64_t begin = row * work.columns + work.begin(chunk);
    const int64_t count = work.length(chunk);
    const scalar_t* d = direction_data == nullptr ? nullptr : direction_data + begin;
    if (mask_data == nullptr) {
      return part_of_inner(p, gradient_data + begin, d, norm_data[row], count);
    }
    WideChunk<scalar_t> masked{}, masked_d{};
    multiply(gradient_data + begin, mask_data + begin, count, masked.data());
    if (d != nullptr) multiply(d, mask_data + begin, count, masked_d.data());
    return part_of_inner<accumulate_t>(p, masked.data(), d == nullptr ? nullptr : masked_d.data(),
                                       norm_data[row], count);
  };
  const auto join_parts = [](PartOfInner& whole, const PartOfInner& more) {
    whole.inner += more.inner;
    whole.at_largest += more.at_largest;
  };
  const auto finish = [&](int64_t row, const PartOfInner& whole) {
    const double n = norm_data[row];
    const double share = (weight_data == nullptr ? 1 : weight_data[row]) / double(work.rows);
    if (n == 0) {
      const bool is_linear =
          direction_data != nullptr && p == Exponent::kTwo && member.phi.is_square();
      coefficients[row] = {!is_linear, 0, static_cast<accumulate_t>(is_linear ? 2 * share : 0)};
      return;
    }
    const double slope = member.phi.slope(n);
    const double factor = shared_factor(p, n, whole.at_largest);
    double of_unit = grad_norm_data[row] + grad_penalty_data[row] * slope;
    double of_direction = 0;
    if (direction_data != nullptr) {
      const double turning = p == Exponent::kTwo ? slope / n : 0;
      of_unit += share * (member.phi.curvature(n) - turning) * factor * whole.inner;
      of_direction = share * turning;
    }
    coefficients[row] = {false, static_cast<accumulate_t>(of_unit * factor),
                         static_cast<accumulate_t>(of_direction)};
  };
  const auto write = [&](int64_t row, int64_t chunk) {
    const int64_t begin = row * work.columns + work.begin(chunk);
    const int64_t count = work.length(chunk);
    const Vector of_unit(coefficients[row].of_unit);
    const Vector of_direction(coefficients[row].of_direction);
    const Slope<accumulate_t> slope{p, Vector(norm_data[row])};
    const auto scaled = [=](Vector g) { return of_unit * slope(g); };
    const auto sum = [=](Vector g, Vector d) { return of_unit * slope(g) + of_direction * d; };
    const scalar_t* d = direction_data == nullptr ? nullptr : direction_data + begin;
    if (coefficients[row].is_zero) {
      // Not a product with zero: an infinite d must not become NaN.
      std::fill_n(out_data + begin, count, scalar_t(0));
    } else if (mask_data == nullptr && d == nullptr) {
      transform(count, out_data + begin, scaled, gradient_data + begin);
    } else if (mask_data == nullptr) {
      transform(count, out_data + begin, sum, gradient_data + begin, d);
    } else {
      WideChunk<scalar_t> masked{}, masked_d{}, result{};
      multiply(gradient_data + begin, mask_data + begin, count, masked.data());
      if (d == nullptr) {
        transform<accumulate_t>(count, result.data(), scaled, masked.data());
      } else {
        multiply(d, mask_data + begin, count, masked_d.data());
        transform<accumulate_t>(count, result.data(), sum, masked.data(), masked_d.data());
      }
      write_masked(result.data(), mask_data + begin, count, out_data + begin);
    }
  };

  if (direction_data != nullptr || p == Exponent::kInfinity) {
    reduce_then_write(work, part, join_parts, finish, write);
  } else {
    for (int64_t row = 0; row < work.rows; ++row) finish(row, {});
    work.for_each(write);
  }
}

at::Tensor gradient_norm_penalty_backward(const at::Tensor& grad_norm,
                                          const at::Tensor& grad_penalty,
                                          const std::optional<at::Tensor>& grad_direction,
                                          const at::Tensor& gradient, const at::Tensor& norm,
                                          double target, bool one_sided, double power, double p,
                                          const std::optional<at::Tensor>& weights,
                                          const std::optional<at::Tensor>& mask) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  constexpr const char* kOp = "gradient_norm_penalty_backward";
  check_batch(kOp, "gradient", gradient);
  check_per_sample(kOp, "grad_norm", grad_norm, "gradient", gradient);
  check_per_sample(kOp, "grad_penalty", grad_penalty, "gradient", gradient);
  check_per_sample(kOp, "norm", norm, "gradient", gradient);
  if (grad_direction) check_like(kOp, "grad_direction", *grad_direction, "gradient", gradient);
  RowsOutput out(gradient);
  const at::Tensor gradient_rows = out.operand(gradient);
  Incoming incoming{grad_norm.contiguous(), grad_penalty.contiguous(), std::nullopt};
  if (grad_direction) incoming.grad_direction = out.operand(*grad_direction);
  const at::Tensor norms = norm.contiguous();
  const Member member(kOp, gradient, out, Penalty{target, one_sided, power}, p, weights, mask);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, gradient.scalar_type(), "wgan_fast::gradient_norm_penalty_backward",
      [&] { backward_rows<scalar_t>(incoming, gradient_rows, norms, member, out.rows()); });
  return out.take();
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) {
  m.impl("gradient_norm_penalty_backward", TORCH_FN(gradient_norm_penalty_backward));
}

}  // namespace wgan_fast
