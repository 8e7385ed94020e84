// Which member of the penalty family an operator computes, and the tensors that it takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "checks.h"
#include "gradient_norm.h"
#include "penalty.h"
#include "rows.h"

namespace wgan_fast {

struct Member {
  Penalty phi;
  Exponent p;
  std::optional<at::Tensor> weights;
  std::optional<at::Tensor> mask;  // in the rows' layout

  Member(const char* op, const at::Tensor& gradient, const RowsOutput& out, const Penalty& penalty,
         double exponent, const std::optional<at::Tensor>& given_weights,
         const std::optional<at::Tensor>& given_mask)
      : phi(penalty), p(exponent_of(op, exponent)) {
    TORCH_CHECK(penalty.power >= 1, op, ": power must be at least 1, got ", penalty.power);
    if (given_weights) {
      check_per_sample(op, "weights", *given_weights, "gradient", gradient);
      weights = given_weights->contiguous();
    }
    if (given_mask) {
      check_like(op, "mask", *given_mask, "gradient", gradient);
      mask = out.operand(*given_mask);
    }
  }

  template <typename scalar_t>
  const scalar_t* mask_data() const {
    return mask ? mask->const_data_ptr<scalar_t>() : nullptr;
  }

  template <typename accumulate_t>
  const accumulate_t* weight_data() const {
    return weights ? weights->const_data_ptr<accumulate_t>() : nullptr;
  }
};

}  // namespace wgan_fast
