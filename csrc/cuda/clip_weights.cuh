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

template <typename Element>
struct alignas(multi_tensor::kBytesPerVector) ElementVector {
  static constexpr int kSize = multi_tensor::kBytesPerVector / sizeof(Element);
  Element elements[kSize];
};

// One block owns kBytesPerBlock consecutive bytes of one tensor: as whole vectors between the first
// and the last 16-byte border inside, as single elements outside of them (fewer than a vector's).
// Each number is read once and written once, whether it changes or not: a store that depends on the
// value would split the warp.
template <typename Element, typename Math>
__global__ void __launch_bounds__(multi_tensor::kThreadsPerBlock)
    clip_weights_kernel(const __grid_constant__ multi_tensor::Table table, Math clip_value) {
  using Vector = ElementVector<Element>;
  using multi_tensor::kThreadsPerBlock;
  using multi_tensor::kVectorsPerThread;
  constexpr int64_t kPerBlock = multi_tensor::kBytesPerBlock / sizeof(Element);

  const int block = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  const int tensor = table.tensor_of(block);
  const int64_t begin = (block - table.first_block[tensor]) * kPerBlock;
  const int64_t left = table.spans[tensor].count - begin;
  const int count = static_cast<int>(left < kPerBlock ? left : kPerBlock);
  Element* data = static_cast<Element*>(table.spans[tensor].data) + begin;

  const auto past_border =
      static_cast<int>(reinterpret_cast<uintptr_t>(data) % sizeof(Vector) / sizeof(Element));
  const int to_border = past_border == 0 ? 0 : Vector::kSize - past_border;
  const int head = to_border < count ? to_border : count;
  const int vectors = (count - head) / Vector::kSize;
  const int tail_begin = head + vectors * Vector::kSize;

  Vector* const vector_data = reinterpret_cast<Vector*>(data + head);
  Vector loaded[kVectorsPerThread];
#pragma unroll
  for (int k = 0; k < kVectorsPerThread; ++k) {
    const int index = k * kThreadsPerBlock + thread;
    if (index < vectors) loaded[k] = vector_data[index];
  }
#pragma unroll
  for (int k = 0; k < kVectorsPerThread; ++k) {
    const int index = k * kThreadsPerBlock + thread;
    if (index >= vectors) continue;
#pragma unroll
    for (int lane = 0; lane < Vector::kSize; ++lane) {
      loaded[k].elements[lane] = clipped(loaded[k].elements[lane], clip_value);
    }
    vector_data[index] = loaded[k];
  }

  if (thread < head) data[thread] = clipped(data[thread], clip_value);
  const int tail = tail_begin + thread;
  if (tail < count) data[tail] = clipped(data[tail], clip_value);
}

}  // namespace wgan_fast
