// Launches the kernel of wgan_fast::rmsprop_: once for as many tensors as a table holds, without
// allocation or synchronisation, so that a CUDA graph can capture it.

#include <c10/cuda/CUDAException.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#include <algorithm>

#include "rmsprop.cuh"
#include "rmsprop.h"

namespace wgan_fast {
namespace {

template <typename Math>
RMSpropFactors<Math> factors_of(const RMSpropSettings& settings,
                                LearningRateOnDevice learning_rate) {
  return {static_cast<Math>(settings.alpha),
          static_cast<Math>(1 - settings.alpha),
          static_cast<Math>(settings.eps),
          static_cast<Math>(settings.weight_decay),
          static_cast<Math>(settings.momentum),
          static_cast<Math>(settings.clip_value),
          settings.learning_rate,
          learning_rate.data,
          learning_rate.is_double,
          settings.maximize};
}

template <typename Element, typename Math, bool kCentered, bool kMomentum>
void launch_as(const RMSpropSpans& given, const RMSpropFactors<Math>& factors,
               cudaStream_t stream) {
  constexpr int kPointers = RMSpropPlaces<kCentered, kMomentum>::kPointers;
  std::vector<multi_tensor::Span<kPointers>> spans;
  spans.reserve(given.spans.size());
  for (const multi_tensor::Span<5>& all : given.spans) {
    multi_tensor::Span<kPointers>& span = spans.emplace_back();
    std::copy_n(all.data, kPointers, span.data);
    span.count = all.count;
  }
  const auto launch = [&](const multi_tensor::Table<kPointers>& table) {
    rmsprop_kernel<Element, Math, kCentered, kMomentum>
        <<<table.blocks, multi_tensor::kThreadsPerBlock, 0, stream>>>(table, factors);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  };
  multi_tensor::for_each_table<kPointers>(spans, sizeof(Element), launch);
}

template <typename Element, typename Math>
void launch(const RMSpropSpans& spans, const RMSpropFactors<Math>& factors, cudaStream_t stream) {
  if (spans.centered) {
    if (spans.momentum) return launch_as<Element, Math, true, true>(spans, factors, stream);
    return launch_as<Element, Math, true, false>(spans, factors, stream);
  }
  if (spans.momentum) return launch_as<Element, Math, false, true>(spans, factors, stream);
  return launch_as<Element, Math, false, false>(spans, factors, stream);
}

}  // namespace

void launch_rmsprop(const RMSpropSpans& spans, c10::ScalarType dtype,
                    const RMSpropSettings& settings, LearningRateOnDevice learning_rate,
                    cudaStream_t stream) {
  if (dtype == c10::ScalarType::Double) {
    return launch<double>(spans, factors_of<double>(settings, learning_rate), stream);
  }
  const auto factors = factors_of<float>(settings, learning_rate);
  switch (dtype) {
    case c10::ScalarType::Float:
      return launch<float>(spans, factors, stream);
    case c10::ScalarType::Half:
      return launch<c10::Half>(spans, factors, stream);
    case c10::ScalarType::BFloat16:
      return launch<c10::BFloat16>(spans, factors, stream);
    default:
      TORCH_CHECK(false, "rmsprop_: not implemented for ", dtype);
  }
}

}  // namespace wgan_fast
