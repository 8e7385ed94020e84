// wgan_fast::rmsprop_ on CUDA; its schema is in wgan_fast/ops/rmsprop.py.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <map>
#include <optional>

#include "../rmsprop_tensors.h"
#include "rmsprop.h"

namespace wgan_fast {
namespace {

// In float32 or float64, as the kernel reads it; another type is converted on the device.
at::Tensor readable(const std::optional<at::Tensor>& learning_rate, c10::Device device) {
  if (!learning_rate) return {};
  TORCH_CHECK(learning_rate->device() == device && learning_rate->numel() == 1,
              "rmsprop_: lr_tensor must be one number on ", device, ", got ",
              learning_rate->sizes(), " on ", learning_rate->device());
  const at::ScalarType dtype = learning_rate->scalar_type();
  if (dtype == at::kFloat || dtype == at::kDouble) return *learning_rate;
  return learning_rate->to(at::kFloat);
}

void rmsprop_(at::TensorList parameters, at::TensorList gradients, at::TensorList square_averages,
              at::TensorList gradient_averages, at::TensorList momentum_buffers, double lr,
              double alpha, double eps, double weight_decay, double momentum, bool maximize,
              std::optional<double> clip_value, const std::optional<at::Tensor>& lr_tensor) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  if (parameters.empty()) return;
  const c10::Device device = parameters[0].device();
  TORCH_CHECK(device.is_cuda(), "rmsprop_: parameters must be on one device");
  const RMSpropSettings settings{
      lr, alpha, eps, weight_decay, momentum, maximize, checked_bound(clip_value)};
  const c10::cuda::CUDAGuard guard(device);
  const at::Tensor rate = readable(lr_tensor, device);
  const auto tensors =
      rmsprop_tensors(parameters, gradients, square_averages, gradient_averages, momentum_buffers);

  const bool centered = !gradient_averages.empty();
  const bool has_momentum = !momentum_buffers.empty();
  std::map<at::ScalarType, RMSpropSpans> groups;  // a launch has one type of numbers
  for (const RMSpropTensors& each : tensors) {
    RMSpropSpans& group = groups[each.dtype()];
    group.centered = centered;
    group.momentum = has_momentum;
    multi_tensor::Span<5> span{{each.parameter(), each.gradient(), each.square_average()},
                               each.count()};
    int next = 3;
    if (centered) span.data[next++] = each.gradient_average();
    if (has_momentum) span.data[next] = each.momentum_buffer();
    group.spans.push_back(span);
  }
  const LearningRateOnDevice learning_rate{rate.defined() ? rate.const_data_ptr() : nullptr,
                                           rate.defined() && rate.scalar_type() == at::kDouble};
  for (const auto& [dtype, spans] : groups) {
    launch_rmsprop(spans, dtype, settings, learning_rate, c10::cuda::getCurrentCUDAStream());
  }
  for (const RMSpropTensors& each : tensors) each.copy_back();
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CUDA, m) { m.impl("rmsprop_", TORCH_FN(rmsprop_)); }

}  // namespace wgan_fast
