// Runs the device code of rmsprop_, with its real packing of tensors into launches, on the host.
//
// stdin:  int64 element type (0 float, 1 double, 2 bfloat16), int64 centered, int64 momentum, int64
//         maximize, int64 learning rate's place (0 argument, 1 double in memory, 2 float in memory)
//         double learning rate, alpha, eps, weight decay, momentum, clip value, int64 parameters,
//         then for each: int64 count, an int64 address modulo 16 for each of its tensors, and their
//         numbers, tensor by tensor
// stdout: int64 launches, then the tensors' numbers, likewise
//
// Exit status 3 says that bytes outside of a tensor have changed; a signal says the rest.

#include <cstdint>
#include <cstdio>
#include <vector>

#include "cuda_host_shim.h"
#include "guarded_buffer.h"
// The shim comes first: it stands for the CUDA compiler.
#include "rmsprop.cuh"

template <typename Math>
wgan_fast::RMSpropFactors<Math> read_factors(bool maximize, int64_t place, float* in_memory) {
  static double rate;
  rate = read_one<double>();
  *in_memory = static_cast<float>(rate);
  const auto alpha = read_one<double>();
  wgan_fast::RMSpropFactors<Math> factors{};
  factors.alpha = static_cast<Math>(alpha);
  factors.rest = static_cast<Math>(1 - alpha);
  factors.eps = static_cast<Math>(read_one<double>());
  factors.weight_decay = static_cast<Math>(read_one<double>());
  factors.momentum = static_cast<Math>(read_one<double>());
  factors.clip_value = static_cast<Math>(read_one<double>());
  factors.maximize = maximize;
  factors.learning_rate = place == 0 ? rate : 1e9;
  factors.learning_rate_is_double = place == 1;
  if (place == 1) factors.learning_rate_on_device = &rate;
  if (place == 2) factors.learning_rate_on_device = in_memory;
  return factors;
}

template <typename Element, typename Math, bool kCentered, bool kMomentum>
int run(bool maximize, int64_t place) {
  constexpr int kPointers = wgan_fast::RMSpropPlaces<kCentered, kMomentum>::kPointers;
  using Span = wgan_fast::multi_tensor::Span<kPointers>;
  using Table = wgan_fast::multi_tensor::Table<kPointers>;
  float rate_in_memory;
  const auto factors = read_factors<Math>(maximize, place, &rate_in_memory);
  const auto parameters = read_one<int64_t>();
  std::vector<GuardedBuffer> buffers;
  std::vector<Span> spans;
  for (int64_t parameter = 0; parameter < parameters; ++parameter) {
    Span& span = spans.emplace_back();
    span.count = read_one<int64_t>();
    for (void*& data : span.data) {
      buffers.emplace_back(span.count * sizeof(Element), read_one<int64_t>());
      data = buffers.back().data();
    }
    for (void* data : span.data) {
      if (std::fread(data, sizeof(Element), span.count, stdin) !=
          static_cast<std::size_t>(span.count)) {
        return 2;
      }
    }
  }

  int64_t launches = 0;
  wgan_fast::multi_tensor::for_each_table<kPointers>(
      spans, sizeof(Element), [&](const Table& table) {
        launch_on_host(wgan_fast::rmsprop_kernel<Element, Math, kCentered, kMomentum>, table.blocks,
                       wgan_fast::multi_tensor::kThreadsPerBlock, table, factors);
        ++launches;
      });

  std::fwrite(&launches, sizeof(launches), 1, stdout);
  for (const Span& span : spans) {
    for (void* data : span.data) std::fwrite(data, sizeof(Element), span.count, stdout);
  }
  for (const GuardedBuffer& buffer : buffers) {
    if (!buffer.is_intact()) return 3;
  }
  return 0;
}

template <typename Element, typename Math>
int run_as() {
  const bool centered = read_one<int64_t>() != 0;
  const bool momentum = read_one<int64_t>() != 0;
  const bool maximize = read_one<int64_t>() != 0;
  const auto place = read_one<int64_t>();
  if (centered) {
    return momentum ? run<Element, Math, true, true>(maximize, place)
                    : run<Element, Math, true, false>(maximize, place);
  }
  return momentum ? run<Element, Math, false, true>(maximize, place)
                  : run<Element, Math, false, false>(maximize, place);
}

int main() {
  switch (read_one<int64_t>()) {
    case 0:
      return run_as<float, float>();
    case 1:
      return run_as<double, double>();
    case 2:
      return run_as<HostBFloat16, float>();
    default:
      return 2;
  }
}
