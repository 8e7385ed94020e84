// Enough of CUDA's language to run a kernel on the host: a launch is a loop over blocks and
// threads. For kernels whose threads share nothing: there is no shared memory and no __syncthreads.
#pragma once

#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __grid_constant__

struct Index3 {
  unsigned x = 0;
  unsigned y = 0;
  unsigned z = 0;
};

inline Index3 gridDim, blockDim, blockIdx, threadIdx;

// kernel<<<blocks, threads>>>(arguments...) on one-dimensional grids.
template <typename Kernel, typename... Arguments>
void launch_on_host(Kernel kernel, unsigned blocks, unsigned threads,
                    const Arguments&... arguments) {
  gridDim = {blocks, 1, 1};
  blockDim = {threads, 1, 1};
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel(arguments...);
  }
}

// A 16-bit float as the device has it: the upper half of a float32, rounded to nearest even.
struct HostBFloat16 {
  uint16_t bits;

  HostBFloat16() = default;

  explicit HostBFloat16(float value) {
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof(wide));
    bits = static_cast<uint16_t>((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
  }

  explicit operator float() const {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof(value));
    return value;
  }
};
