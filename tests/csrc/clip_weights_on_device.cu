// Instances of the kernel for a look at what the CUDA compiler makes of it; never run.

#include <cuda_bf16.h>

#include "clip_weights.cuh"

#define WGAN_FAST_INSTANCE(Element, Math)                                 \
  template __global__ void wgan_fast::clip_weights_kernel<Element, Math>( \
      const __grid_constant__ wgan_fast::multi_tensor::Table<1>, Math);

WGAN_FAST_INSTANCE(float, float)
WGAN_FAST_INSTANCE(double, double)
WGAN_FAST_INSTANCE(__nv_bfloat16, float)
