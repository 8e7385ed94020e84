// Many tensors, few kernel launches: a table of tensors small enough to travel as a kernel argument
// (4 KB at most), so that a launch needs no device memory, no copy and no synchronisation and can
// be captured in a CUDA graph. Plain C++, for host and device; knows neither torch nor the
// operator.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define WGAN_FAST_HOST_DEVICE __host__ __device__
#else
#define WGAN_FAST_HOST_DEVICE
#endif

namespace wgan_fast::multi_tensor {

constexpr int kTensorsPerTable = 200;
constexpr int kThreadsPerBlock = 256;
constexpr int kBytesPerVector = 16;   // the widest access of a thread
constexpr int kVectorsPerThread = 4;  // independent loads in flight, to cover memory latency
constexpr int kBytesPerBlock = kThreadsPerBlock * kVectorsPerThread * kBytesPerVector;

// A tensor's numbers, as they lie in memory.
struct Span {
  void* data;
  int64_t count;
};

// The tensors of one launch. Each owns as many consecutive blocks as its numbers fill.
struct Table {
  Span spans[kTensorsPerTable];
  int32_t first_block[kTensorsPerTable];
  int32_t tensors;
  int32_t blocks;

  // The last tensor whose first block is not after `block`.
  WGAN_FAST_HOST_DEVICE int tensor_of(int block) const {
    int low = 0;
    int high = tensors - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (first_block[middle] <= block) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }
};
static_assert(sizeof(Table) + 64 <= 4096, "with its scalars, a kernel's arguments have 4 KB");

// Fills tables with `spans`, leaving out empty ones, and calls launch(table) for each when it is
// full and for the last. `Spans` is any range of Span.
template <typename Spans, typename Launch>
void for_each_table(const Spans& spans, std::size_t element_size, const Launch& launch) {
  const int64_t per_block = kBytesPerBlock / static_cast<int64_t>(element_size);
  Table table;
  table.tensors = table.blocks = 0;
  for (const Span& span : spans) {
    if (span.count == 0) continue;
    table.spans[table.tensors] = span;
    table.first_block[table.tensors] = table.blocks;
    table.blocks += static_cast<int32_t>((span.count + per_block - 1) / per_block);
    if (++table.tensors == kTensorsPerTable) {
      launch(table);
      table.tensors = table.blocks = 0;
    }
  }
  if (table.tensors > 0) launch(table);
}

}  // namespace wgan_fast::multi_tensor
