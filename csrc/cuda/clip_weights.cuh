// Device code of wgan_fast::clip_weights_. No torch header: it compiles alone in seconds, and the
// tests run it on the host.
#pragma once

#include "multi_tensor.h"

namespace wgan_fast {

// A value in [-c, c] is kept bit by bit, and so is NaN, for which every comparison is false.
template <typename Element, typename Math>
__device__ __forceinline__ Element clipped(Element value, Math clip_value) {
  const Math number = static_cast<Math>(value);
  if (number < -clip_value) return static_cast<Element>(-clip_value);
  if (number > clip_value) return static_cast<Element>(clip_value);
  return value;
}

// One block owns a share of one tensor. Each number is read once and written once, whether it
// changes or not: a store that depends on the value would split the warp.
template <typename Element, typename Math>
__global__ void __launch_bounds__(multi_tensor::kThreadsPerBlock)
    clip_weights_kernel(const __grid_constant__ multi_tensor::Table<1> table, Math clip_value) {
  using Vector = multi_tensor::ElementVector<Element>;
  constexpr int kVectorsPerThread = multi_tensor::Table<1>::kVectorsPerThread;
  const int thread = static_cast<int>(threadIdx.x);
  const multi_tensor::Share<Element> share(table, static_cast<int>(blockIdx.x));
  Element* data = static_cast<Element*>(table.spans[share.tensor].data[0]) + share.begin;

  Vector* const vector_data = reinterpret_cast<Vector*>(data + share.head);
  Vector loaded[kVectorsPerThread];
#pragma unroll
  for (int k = 0; k < kVectorsPerThread; ++k) {
    const int index = k * multi_tensor::kThreadsPerBlock + thread;
    if (index < share.vectors) loaded[k] = vector_data[index];
  }
#pragma unroll
  for (int k = 0; k < kVectorsPerThread; ++k) {
    const int index = k * multi_tensor::kThreadsPerBlock + thread;
    if (index >= share.vectors) continue;
#pragma unroll
    for (int lane = 0; lane < Vector::kSize; ++lane) {
      loaded[k].elements[lane] = clipped(loaded[k].elements[lane], clip_value);
    }
    vector_data[index] = loaded[k];
  }

  if (thread < share.head) data[thread] = clipped(data[thread], clip_value);
  const int tail = share.tail_begin + thread;
  if (tail < share.count) data[tail] = clipped(data[tail], clip_value);
}

}  // namespace wgan_fast
