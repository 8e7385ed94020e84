// Runs the device code of clip_weights_, with its real packing of tensors into launches, on the
// host.
//
// stdin:  int64 element type (0 float, 1 double, 2 bfloat16), double clip_value, int64 tensors,
// then
//         for each tensor int64 count, int64 address modulo 16, and its numbers
// stdout: int64 launches, then each tensor's numbers
//
// Exit status 3 says that bytes outside of a tensor have changed; a signal says the rest.

#include <cstdint>
#include <cstdio>
#include <vector>

#include "cuda_host_shim.h"
#include "guarded_buffer.h"
// The shim comes first: it stands for the CUDA compiler.
#include "clip_weights.cuh"

using Span = wgan_fast::multi_tensor::Span<1>;
using Table = wgan_fast::multi_tensor::Table<1>;

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
    spans.push_back({{buffers.back().data()}, count});
    if (std::fread(buffers.back().data(), sizeof(Element), count, stdin) !=
        static_cast<std::size_t>(count)) {
      return 2;
    }
  }

  int64_t launches = 0;
  wgan_fast::multi_tensor::for_each_table<1>(spans, sizeof(Element), [&](const Table& table) {
    launch_on_host(wgan_fast::clip_weights_kernel<Element, Math>, table.blocks,
                   wgan_fast::multi_tensor::kThreadsPerBlock, table, static_cast<Math>(clip_value));
    ++launches;
  });

  std::fwrite(&launches, sizeof(launches), 1, stdout);
  for (const Span& span : spans) std::fwrite(span.data[0], sizeof(Element), span.count, stdout);
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
