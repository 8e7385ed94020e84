// What the operator's two halves share. nvcc reads every header three times, and torch's operator
// headers take it half a minute; so the kernel's launch (clip_weights.cu) knows none of them, and
// the operator around it (clip_weights_operator.cpp) is for the C++ compiler.
#pragma once

#include <c10/core/ScalarType.h>
#include <cuda_runtime_api.h>

#include <vector>

#include "multi_tensor.h"

namespace wgan_fast {

// Clamps the floating point numbers in `spans`, all of type `dtype`, on the current device.
void launch_clip_weights(const std::vector<multi_tensor::Span<1>>& spans, c10::ScalarType dtype,
                         double clip_value, cudaStream_t stream);

}  // namespace wgan_fast
