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

constexpr int kThreadsPerBlock = 256;
constexpr int kBytesPerVector = 16;  // the widest access of a thread
constexpr int kBytesOfArguments = 4096;
constexpr int kBytesOfScalars = 88;  // left for the kernel's other arguments

// One parameter's numbers, as they lie in memory, and those of as many tensors beside it as the
// operator reads or writes with them: all have `count` numbers in the same order.
template <int kPointers>
struct Span {
  void* data[kPointers];
  int64_t count;
};

// The tensors of one launch. Each owns as many consecutive blocks as its numbers fill.
template <int kPointers>
struct Table {
  static constexpr int kTensors =
      (kBytesOfArguments - kBytesOfScalars - 2 * static_cast<int>(sizeof(int32_t))) /
      static_cast<int>(sizeof(Span<kPointers>) + sizeof(int32_t));

  // Independent loads in flight, to cover memory latency: of one tensor four, of more tensors two
  // of each, for a thread has room for few.
  static constexpr int kVectorsPerThread = kPointers == 1 ? 4 : 2;
  static constexpr int kBytesPerBlock = kThreadsPerBlock * kVectorsPerThread * kBytesPerVector;

  Span<kPointers> spans[kTensors];
  int32_t first_block[kTensors];
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

// Fills tables with `spans`, leaving out empty ones, and calls launch(table) for each when it is
// full and for the last. `Spans` is any range of Span<kPointers>.
template <int kPointers, typename Spans, typename Launch>
void for_each_table(const Spans& spans, std::size_t element_size, const Launch& launch) {
  using Table = multi_tensor::Table<kPointers>;
  static_assert(sizeof(Table) + kBytesOfScalars <= kBytesOfArguments, "a kernel's arguments");
  const int64_t per_block = Table::kBytesPerBlock / static_cast<int64_t>(element_size);
  Table table;
  table.tensors = table.blocks = 0;
  for (const Span<kPointers>& span : spans) {
    if (span.count == 0) continue;
    table.spans[table.tensors] = span;
    table.first_block[table.tensors] = table.blocks;
    table.blocks += static_cast<int32_t>((span.count + per_block - 1) / per_block);
    if (++table.tensors == Table::kTensors) {
      launch(table);
      table.tensors = table.blocks = 0;
    }
  }
  if (table.tensors > 0) launch(table);
}

#ifdef __CUDACC__
#define WGAN_FAST_DEVICE __device__ __forceinline__
#else
#define WGAN_FAST_DEVICE inline
#endif

WGAN_FAST_DEVICE bool is_aligned(const void* place) {
  return reinterpret_cast<uintptr_t>(place) % kBytesPerVector == 0;
}

// Sixteen bytes, to be loaded and stored at once where they lie on a border.
template <typename Element>
struct alignas(kBytesPerVector) ElementVector {
  static constexpr int kSize = kBytesPerVector / sizeof(Element);
  Element elements[kSize];

  WGAN_FAST_DEVICE void load(const Element* from, bool aligned) {
    if (aligned) {
      *this = *reinterpret_cast<const ElementVector*>(from);
    } else {
      for (int lane = 0; lane < kSize; ++lane) elements[lane] = from[lane];
    }
  }

  WGAN_FAST_DEVICE void store(Element* to, bool aligned) const {
    if (aligned) {
      *reinterpret_cast<ElementVector*>(to) = *this;
    } else {
      for (int lane = 0; lane < kSize; ++lane) to[lane] = elements[lane];
    }
  }
};

// What one block does: `count` consecutive numbers of one tensor, as whole vectors between the
// first and the last 16-byte border inside, as single elements outside of them (fewer than a
// vector's each: `head` before the border, those from `tail_begin` on after it).
template <typename Element>
struct Share {
  int tensor;
  int64_t begin;
  int count;
  int head;
  int vectors;
  int tail_begin;

  template <int kPointers>
  WGAN_FAST_DEVICE Share(const Table<kPointers>& table, int block) {
    constexpr int kSize = ElementVector<Element>::kSize;
    constexpr int64_t kPerBlock = Table<kPointers>::kBytesPerBlock / sizeof(Element);
    tensor = table.tensor_of(block);
    begin = (block - table.first_block[tensor]) * kPerBlock;
    const int64_t left = table.spans[tensor].count - begin;
    count = static_cast<int>(left < kPerBlock ? left : kPerBlock);
    const auto* data = static_cast<const Element*>(table.spans[tensor].data[0]) + begin;
    const auto past_border =
        static_cast<int>(reinterpret_cast<uintptr_t>(data) % kBytesPerVector / sizeof(Element));
    const int to_border = past_border == 0 ? 0 : kSize - past_border;
    head = to_border < count ? to_border : count;
    vectors = (count - head) / kSize;
    tail_begin = head + vectors * kSize;
  }
};

}  // namespace wgan_fast::multi_tensor
