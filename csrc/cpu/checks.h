// Checks of the operators' arguments. wgan_fast.functional has already told users in their own
// words what is wrong; these keep a direct call of torch.ops.wgan_fast from reading outside a
// tensor.
#pragma once

#include <ATen/OpMathType.h>
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace wgan_fast {

inline void check_batch(const char* op, const char* name, const at::Tensor& batch) {
  TORCH_CHECK(batch.dim() >= 1, op, ": ", name, " must have a batch axis, got a scalar");
  TORCH_CHECK(at::isFloatingType(batch.scalar_type()), op, ": ", name,
              " must be floating point, got ", batch.scalar_type());
}

inline void check_like(const char* op, const char* name, const at::Tensor& tensor,
                       const char* like_name, const at::Tensor& like) {
  TORCH_CHECK(tensor.device() == like.device() && tensor.scalar_type() == like.scalar_type() &&
                  tensor.sizes() == like.sizes(),
              op, ": ", name, " must have the shape, dtype and device of ", like_name, ", got ",
              tensor.sizes(), " ", tensor.scalar_type(), " on ", tensor.device(), " beside ",
              like.sizes(), " ", like.scalar_type(), " on ", like.device());
}

// One number for each sample of the batch, in the batch's accumulation dtype.
inline void check_per_sample(const char* op, const char* name, const at::Tensor& tensor,
                             const char* batch_name, const at::Tensor& batch) {
  const at::ScalarType dtype = at::toOpMathType(batch.scalar_type());
  TORCH_CHECK(tensor.device() == batch.device() && tensor.scalar_type() == dtype &&
                  tensor.dim() == 1 && tensor.size(0) == batch.size(0),
              op, ": ", name, " must be one ", dtype, " for each sample of ", batch_name, ", (",
              batch.size(0), ",) on ", batch.device(), ", got ", tensor.sizes(), " ",
              tensor.scalar_type(), " on ", tensor.device());
}

}  // namespace wgan_fast
