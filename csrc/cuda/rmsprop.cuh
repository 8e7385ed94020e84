// Device code of wgan_fast::rmsprop_. No torch header: it compiles alone in seconds, and the tests
// run it on the host.
#pragma once

#include <cmath>

#include "clip_weights.cuh"
#include "multi_tensor.h"

namespace wgan_fast {

template <typename Math>
struct RMSpropFactors {
  Math alpha;
  Math rest;  // 1 − α, rounded once
  Math eps;
  Math weight_decay;
  Math momentum;
  Math clip_value;  // infinity where nothing is clipped
  // In device memory a captured CUDA graph sees it change; else the number, and no pointer.
  double learning_rate;
  const void* learning_rate_on_device;
  bool learning_rate_is_double;
  bool maximize;

  __device__ __forceinline__ Math minus_learning_rate() const {
    if (learning_rate_on_device == nullptr) return static_cast<Math>(-learning_rate);
    return static_cast<Math>(learning_rate_is_double
                                 ? -*static_cast<const double*>(learning_rate_on_device)
                                 : -*static_cast<const float*>(learning_rate_on_device));
  }
};

// Where a span's pointers lead.
template <bool kCentered, bool kMomentum>
struct RMSpropPlaces {
  static constexpr int kParameter = 0;
  static constexpr int kGradient = 1;
  static constexpr int kSquareAverage = 2;
  static constexpr int kGradientAverage = 3;                 // if centered
  static constexpr int kMomentumBuffer = kCentered ? 4 : 3;  // if there is momentum
  static constexpr int kPointers = 3 + kCentered + kMomentum;
};

// The operations of torch.optim.RMSprop in their order, on one number of each tensor.
template <bool kCentered, bool kMomentum, typename Element, typename Math>
__device__ __forceinline__ void rmsprop_step(
    Element (&numbers)[RMSpropPlaces<kCentered, kMomentum>::kPointers],
    const RMSpropFactors<Math>& factors, Math minus_learning_rate) {
  using Places = RMSpropPlaces<kCentered, kMomentum>;
  Math parameter = static_cast<Math>(numbers[Places::kParameter]);
  Math gradient = static_cast<Math>(numbers[Places::kGradient]);
  if (factors.maximize) gradient = -gradient;
  if (factors.weight_decay != Math(0)) gradient += factors.weight_decay * parameter;

  Math average = static_cast<Math>(numbers[Places::kSquareAverage]);
  average = average * factors.alpha + factors.rest * gradient * gradient;
  numbers[Places::kSquareAverage] = static_cast<Element>(average);
  if constexpr (kCentered) {
    Math gradient_average = static_cast<Math>(numbers[Places::kGradientAverage]);
    const Math way = gradient - gradient_average;
    // lerp_'s two forms, each exact at its end.
    gradient_average = factors.rest < Math(0.5) ? gradient_average + factors.rest * way
                                                : gradient - way * factors.alpha;
    numbers[Places::kGradientAverage] = static_cast<Element>(gradient_average);
    average -= gradient_average * gradient_average;
  }
  average = std::sqrt(average) + factors.eps;
  if constexpr (kMomentum) {
    Math buffer = static_cast<Math>(numbers[Places::kMomentumBuffer]);
    buffer = buffer * factors.momentum + gradient / average;
    numbers[Places::kMomentumBuffer] = static_cast<Element>(buffer);
    parameter += minus_learning_rate * buffer;
  } else {
    parameter += minus_learning_rate * gradient / average;
  }
  numbers[Places::kParameter] = clipped(static_cast<Element>(parameter), factors.clip_value);
}

// One block owns a share of one parameter and of what belongs to it. Vectors lie between the
// parameter's 16-byte borders; a tensor whose borders lie elsewhere is read and written there
// element by element.
template <typename Element, typename Math, bool kCentered, bool kMomentum>
__global__ void __launch_bounds__(multi_tensor::kThreadsPerBlock) rmsprop_kernel(
    const __grid_constant__ multi_tensor::Table<RMSpropPlaces<kCentered, kMomentum>::kPointers>
        table,
    const __grid_constant__ RMSpropFactors<Math> factors) {
  using Places = RMSpropPlaces<kCentered, kMomentum>;
  using Vector = multi_tensor::ElementVector<Element>;
  constexpr int kPointers = Places::kPointers;
  constexpr int kVectorsPerThread = multi_tensor::Table<kPointers>::kVectorsPerThread;
  const int thread = static_cast<int>(threadIdx.x);
  const multi_tensor::Share<Element> share(table, static_cast<int>(blockIdx.x));
  const Math minus_learning_rate = factors.minus_learning_rate();

  Element* data[kPointers];
  bool aligned[kPointers];
#pragma unroll
  for (int p = 0; p < kPointers; ++p) {
    data[p] = static_cast<Element*>(table.spans[share.tensor].data[p]) + share.begin;
    aligned[p] = multi_tensor::is_aligned(data[p] + share.head);
  }

  Vector loaded[kVectorsPerThread][kPointers];
#pragma unroll
  for (int k = 0; k < kVectorsPerThread; ++k) {
    const int index = k * multi_tensor::kThreadsPerBlock + thread;
    if (index >= share.vectors) continue;
#pragma unroll
    for (int p = 0; p < kPointers; ++p) {
      loaded[k][p].load(data[p] + share.head + index * Vector::kSize, aligned[p]);
    }
  }
#pragma unroll
  for (int k = 0; k < kVectorsPerThread; ++k) {
    const int index = k * multi_tensor::kThreadsPerBlock + thread;
    if (index >= share.vectors) continue;
#pragma unroll
    for (int lane = 0; lane < Vector::kSize; ++lane) {
      Element numbers[kPointers];
#pragma unroll
      for (int p = 0; p < kPointers; ++p) numbers[p] = loaded[k][p].elements[lane];
      rmsprop_step<kCentered, kMomentum>(numbers, factors, minus_learning_rate);
#pragma unroll
      for (int p = 0; p < kPointers; ++p) loaded[k][p].elements[lane] = numbers[p];
    }
#pragma unroll
    for (int p = 0; p < kPointers; ++p) {
      if (p == Places::kGradient) continue;
      loaded[k][p].store(data[p] + share.head + index * Vector::kSize, aligned[p]);
    }
  }

  const auto step_alone = [&](int place) {
    Element numbers[kPointers];
#pragma unroll
    for (int p = 0; p < kPointers; ++p) numbers[p] = data[p][place];
    rmsprop_step<kCentered, kMomentum>(numbers, factors, minus_learning_rate);
#pragma unroll
    for (int p = 0; p < kPointers; ++p) {
      if (p != Places::kGradient) data[p][place] = numbers[p];
    }
  };
  if (thread < share.head) step_alone(thread);
  if (share.tail_begin + thread < share.count) step_alone(share.tail_begin + thread);
}

}  // namespace wgan_fast
