// What the operator's two halves share, see clip_weights.h.
#pragma once

#include <c10/core/ScalarType.h>
#include <cuda_runtime_api.h>

#include <vector>

#include "../rmsprop_settings.h"
#include "multi_tensor.h"

namespace wgan_fast {

// A learning rate in device memory; without a pointer it is the settings' number.
struct LearningRateOnDevice {
  const void* data = nullptr;
  bool is_double = false;
};

// What is updated, all of type `dtype`: each span leads to a parameter, its gradient, its square
// average and, as far as they are there, its gradient average and momentum buffer.
struct RMSpropSpans {
  std::vector<multi_tensor::Span<5>> spans;
  bool centered;
  bool momentum;
};

// Updates the parameters and their state on the current device.
void launch_rmsprop(const RMSpropSpans& spans, c10::ScalarType dtype,
                    const RMSpropSettings& settings, LearningRateOnDevice learning_rate,
                    cudaStream_t stream);

}  // namespace wgan_fast
