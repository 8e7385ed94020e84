// Instances of the kernel for a look at what the CUDA compiler makes of it; never run.

#include <cuda_bf16.h>

#include "rmsprop.cuh"

#define WGAN_FAST_INSTANCE(Element, Math, kCentered, kMomentum)                            \
  template __global__ void wgan_fast::rmsprop_kernel<Element, Math, kCentered, kMomentum>( \
      const __grid_constant__ wgan_fast::multi_tensor::Table<                              \
          wgan_fast::RMSpropPlaces<kCentered, kMomentum>::kPointers>,                      \
      const __grid_constant__ wgan_fast::RMSpropFactors<Math>);

WGAN_FAST_INSTANCE(float, float, false, false)
WGAN_FAST_INSTANCE(float, float, true, true)
WGAN_FAST_INSTANCE(double, double, true, true)
WGAN_FAST_INSTANCE(__nv_bfloat16, float, true, true)
