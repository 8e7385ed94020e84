// wgan_fast::clip_weights_(Tensor(a!)[] parameters, float clip_value) -> () on CUDA.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <map>
#include <utility>
#include <vector>

#include "clip_weights.h"

namespace wgan_fast {
namespace {

void clip_weights_(at::TensorList parameters, double clip_value) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  TORCH_CHECK(clip_value > 0, "clip_weights_: clip_value must be positive, got ", clip_value);
  // A launch has one device and one type of numbers.
  std::map<std::pair<c10::DeviceIndex, at::ScalarType>, std::vector<multi_tensor::Span<1>>> groups;
  for (const at::Tensor& parameter : parameters) {
    TORCH_CHECK(at::isFloatingType(parameter.scalar_type()),
                "clip_weights_: parameters must be floating point, got ", parameter.scalar_type());
    if (parameter.is_cuda() && parameter.is_non_overlapping_and_dense()) {
      groups[{parameter.get_device(), parameter.scalar_type()}].push_back(
          {{parameter.mutable_data_ptr()}, parameter.numel()});
    } else {
      parameter.clamp_(-clip_value, clip_value);  // strided, or elsewhere
    }
  }
  for (const auto& [device_and_dtype, spans] : groups) {
    const auto& [device, dtype] = device_and_dtype;
    const c10::cuda::CUDAGuard guard(device);
    launch_clip_weights(spans, dtype, clip_value, c10::cuda::getCurrentCUDAStream());
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CUDA, m) { m.impl("clip_weights_", TORCH_FN(clip_weights_)); }

}  // namespace wgan_fast
