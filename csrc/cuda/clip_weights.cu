// Launches the kernel of wgan_fast::clip_weights_: once for up to kTensorsPerTable tensors, without
// allocation or synchronisation, so that a CUDA graph can capture it.

#include <c10/cuda/CUDAException.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#include "clip_weights.cuh"
#include "clip_weights.h"

namespace wgan_fast {
namespace {

template <typename Element, typename Math>
void launch(const std::vector<multi_tensor::Span<1>>& spans, double clip_value,
            cudaStream_t stream) {
  multi_tensor::for_each_table<1>(spans, sizeof(Element), [&](const multi_tensor::Table<1>& table) {
    clip_weights_kernel<Element, Math><<<table.blocks, multi_tensor::kThreadsPerBlock, 0, stream>>>(
        table, static_cast<Math>(clip_value));
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  });
}

}  // namespace

void launch_clip_weights(const std::vector<multi_tensor::Span<1>>& spans, c10::ScalarType dtype,
                         double clip_value, cudaStream_t stream) {
  switch (dtype) {
    case c10::ScalarType::Double:
      return launch<double, double>(spans, clip_value, stream);
    case c10::ScalarType::Float:
      return launch<float, float>(spans, clip_value, stream);
    case c10::ScalarType::Half:
      return launch<c10::Half, float>(spans, clip_value, stream);
    case c10::ScalarType::BFloat16:
      return launch<c10::BFloat16, float>(spans, clip_value, stream);
    default:
      TORCH_CHECK(false, "clip_weights_: not implemented for ", dtype);
  }
}

}  // namespace wgan_fast
