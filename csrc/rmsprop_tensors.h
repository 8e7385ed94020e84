// What the implementations of wgan_fast::rmsprop_ share: the checks of its arguments, and their
// memory's order.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

namespace wgan_fast {

inline double checked_bound(std::optional<double> clip_value) {
  TORCH_CHECK(!clip_value || *clip_value > 0, "rmsprop_: clip_value must be positive, got ",
              clip_value.value_or(0));
  return clip_value.value_or(std::numeric_limits<double>::infinity());
}

// One parameter and what belongs to it, all non-overlapping and dense with the same strides, so
// that number k of each is the k-th in memory. What came in another order is a copy.
class RMSpropTensors {
 public:
  // Of the lists that may be empty, one that is gives an undefined tensor.
  RMSpropTensors(at::TensorList parameters, at::TensorList gradients,
                 at::TensorList square_averages, at::TensorList gradient_averages,
                 at::TensorList momentum_buffers, std::size_t index)
      : given_{parameters[index], at_or_none(gradient_averages, index),
               at_or_none(momentum_buffers, index), square_averages[index]} {
    check(gradients[index], "gradients");
    check(square_averages[index], "square_averages");
    if (!gradient_averages.empty()) check(gradient_averages[index], "gradient_averages");
    if (!momentum_buffers.empty()) check(momentum_buffers[index], "momentum_buffers");
    const at::Tensor& given = given_.parameter;
    own_.parameter = given.is_non_overlapping_and_dense() ? given : given.contiguous();
    own_.square_average = in_order(given_.square_average);
    if (!gradient_averages.empty()) own_.gradient_average = in_order(given_.gradient_average);
    if (!momentum_buffers.empty()) own_.momentum_buffer = in_order(given_.momentum_buffer);
    gradient_ = in_order(gradients[index]);
  }

  int64_t count() const { return own_.parameter.numel(); }
  at::ScalarType dtype() const { return own_.parameter.scalar_type(); }
  c10::Device device() const { return own_.parameter.device(); }

  void* parameter() const { return own_.parameter.mutable_data_ptr(); }
  void* gradient() const { return const_cast<void*>(gradient_.const_data_ptr()); }
  void* square_average() const { return own_.square_average.mutable_data_ptr(); }
  void* gradient_average() const { return own_.gradient_average.mutable_data_ptr(); }
  void* momentum_buffer() const { return own_.momentum_buffer.mutable_data_ptr(); }

  // After the update: what was computed in a copy goes where it belongs.
  void copy_back() const {
    copy_back(own_.parameter, given_.parameter);
    copy_back(own_.square_average, given_.square_average);
    copy_back(own_.gradient_average, given_.gradient_average);
    copy_back(own_.momentum_buffer, given_.momentum_buffer);
  }

 private:
  struct Written {
    at::Tensor parameter;
    at::Tensor gradient_average;
    at::Tensor momentum_buffer;
    at::Tensor square_average;
  };

  static at::Tensor at_or_none(at::TensorList tensors, std::size_t index) {
    return tensors.empty() ? at::Tensor() : tensors[index];
  }

  static void copy_back(const at::Tensor& own, const at::Tensor& given) {
    if (own.defined() && !own.is_same(given)) given.copy_(own);
  }

  void check(const at::Tensor& tensor, const char* name) const {
    const at::Tensor& parameter = given_.parameter;
    TORCH_CHECK(tensor.layout() == at::kStrided && tensor.sizes() == parameter.sizes() &&
                    tensor.scalar_type() == parameter.scalar_type() &&
                    tensor.device() == parameter.device(),
                "rmsprop_: ", name, " must have their parameter's shape, dtype and device, got ",
                tensor.sizes(), " ", tensor.scalar_type(), " on ", tensor.device(), " beside ",
                parameter.sizes(), " ", parameter.scalar_type(), " on ", parameter.device());
  }

  at::Tensor in_order(const at::Tensor& tensor) const {
    for (int64_t axis = 0; axis < tensor.dim(); ++axis) {
      if (tensor.size(axis) > 1 && tensor.stride(axis) != own_.parameter.stride(axis)) {
        return at::empty_like(own_.parameter).copy_(tensor);
      }
    }
    return tensor;
  }

  Written given_;
  Written own_;
  at::Tensor gradient_;
};

// The arguments' tensors, parameter by parameter.
inline std::vector<RMSpropTensors> rmsprop_tensors(at::TensorList parameters,
                                                   at::TensorList gradients,
                                                   at::TensorList square_averages,
                                                   at::TensorList gradient_averages,
                                                   at::TensorList momentum_buffers) {
  const std::size_t count = parameters.size();
  TORCH_CHECK(gradients.size() == count && square_averages.size() == count,
              "rmsprop_: expected a gradient and a square average for each parameter, got ", count,
              " parameters, ", gradients.size(), " gradients, ", square_averages.size(),
              " square averages");
  TORCH_CHECK((gradient_averages.empty() || gradient_averages.size() == count) &&
                  (momentum_buffers.empty() || momentum_buffers.size() == count),
              "rmsprop_: expected gradient_averages and momentum_buffers for all ", count,
              " parameters or for none, got ", gradient_averages.size(), " and ",
              momentum_buffers.size());
  std::vector<RMSpropTensors> tensors;
  tensors.reserve(count);
  for (std::size_t index = 0; index < count; ++index) {
    const at::Tensor& parameter = parameters[index];
    TORCH_CHECK(
        at::isFloatingType(parameter.scalar_type()) && parameter.device() == parameters[0].device(),
        "rmsprop_: parameters must be floating point and on one device, got ",
        parameter.scalar_type(), " on ", parameter.device());
    tensors.emplace_back(parameters, gradients, square_averages, gradient_averages,
                         momentum_buffers, index);
  }
  return tensors;
}

}  // namespace wgan_fast
