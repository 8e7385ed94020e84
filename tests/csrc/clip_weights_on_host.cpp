// Runs the device code of clip_weights_, with its real packing of tensors into launches, on the
// host.
//
// stdin:  int64 element type (0 float, 1 double, 2 bfloat16), double clip_value, int64 tensors,
// then
//         for each tensor int64 count, int64 address modulo 16, and its numbers
// stdout: int64 launches, then each tensor's numbers
//
// Every tensor lies in a mapping of its own, close before a page that must not be touched, and in a
// page of known bytes that must not change. Exit status 3 says that some did; a signal says the
// rest.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "cuda_host_shim.h"
// The shim comes first: it stands for the CUDA compiler.
#include "clip_weights.cuh"

using wgan_fast::multi_tensor::Span;
using wgan_fast::multi_tensor::Table;

constexpr unsigned char kCanary = 0xA5;

template <typename T>
T read_one() {
  T value;
  if (std::fread(&value, sizeof(T), 1, stdin) != 1) std::exit(2);
  return value;
}

class GuardedBuffer {
 public:
  GuardedBuffer(int64_t bytes, int64_t remainder) : bytes_(bytes) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    const int64_t writable = ((bytes + 16) / page + 2) * page;
    const int64_t mapped = writable + 2 * page;
    auto* start = static_cast<unsigned char*>(
        mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (start == MAP_FAILED) std::exit(2);
    first_ = start + page;
    last_ = first_ + writable;
    if (mprotect(first_, writable, PROT_READ | PROT_WRITE) != 0) std::exit(2);
    std::memset(first_, kCanary, writable);
    data_ = last_ - bytes;
    while (reinterpret_cast<uintptr_t>(data_) % 16 != static_cast<uintptr_t>(remainder)) --data_;
  }

  unsigned char* data() const { return data_; }

  bool is_intact() const {
    for (const unsigned char* byte = first_; byte < last_; ++byte) {
      if ((byte < data_ || byte >= data_ + bytes_) && *byte != kCanary) return false;
    }
    return true;
  }

 private:
  int64_t bytes_;
  unsigned char* first_;
  unsigned char* last_;
  unsigned char* data_;
};

template <typename Element, typename Math>
int run() {
  const double clip_value = read_one<double>();
  const auto tensors = read_one<int64_t>();
  std::vector<GuardedBuffer> buffers;
  std::vector<Span> spans;
  for (int64_t tensor = 0; tensor < tensors; ++tensor) {
    const auto count = read_one<int64_t>();
    const auto remainder = read_one<int64_t>();
    buffers.emplace_back(count * sizeof(Element), remainder);
    spans.push_back({buffers.back().data(), count});
    if (std::fread(spans.back().data, sizeof(Element), count, stdin) !=
        static_cast<std::size_t>(count)) {
      return 2;
    }
  }

  int64_t launches = 0;
  wgan_fast::multi_tensor::for_each_table(spans, sizeof(Element), [&](const Table& table) {
    launch_on_host(wgan_fast::clip_weights_kernel<Element, Math>, table.blocks,
                   wgan_fast::multi_tensor::kThreadsPerBlock, table, static_cast<Math>(clip_value));
    ++launches;
  });

  std::fwrite(&launches, sizeof(launches), 1, stdout);
  for (const Span& span : spans) std::fwrite(span.data, sizeof(Element), span.count, stdout);
  for (const GuardedBuffer& buffer : buffers) {
    if (!buffer.is_intact()) return 3;
  }
  return 0;
}

int main() {
  switch (read_one<int64_t>()) {
    case 0:
      return run<float, float>();
    case 1:
      return run<double, double>();
    case 2:
      return run<HostBFloat16, float>();
    default:
      return 2;
  }
}
