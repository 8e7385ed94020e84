// wgan_fast::clip_weights_(Tensor(a!)[] parameters, float clip_value) -> ()
//
// Clamps every number to [-clip_value, clip_value] in place. All tensors together are one list of
// numbers, cut into equal shares for the threads: a critic's many small biases cost no parallel
// region of their own.

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/util/bit_cast.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "chunks.h"
#include "transform.h"

namespace wgan_fast {
namespace {

// A clamp is so cheap that to wake a thread for less costs more than it saves.
constexpr int64_t kClipGrainElements = 4 * kGrainElements;

// One parameter's numbers, in the order in which they lie in memory.
struct Run {
  void* data;
  at::ScalarType dtype;
  int64_t begin;  // its place in the list of all numbers
  int64_t end;
};

// Clamps to the bound as scalar_t holds it, as clamp_ does. NaN stays NaN.
template <typename scalar_t>
void clip_numbers(scalar_t* data, int64_t count, double clip_value) {
  if constexpr (std::is_same_v<scalar_t, at::opmath_type<scalar_t>>) {
    using Vector = at::vec::Vectorized<scalar_t>;
    const Vector high(static_cast<scalar_t>(clip_value));
    const Vector low = high.neg();
    const auto clamp = [=](Vector x) { return at::vec::clamp(x, low, high); };
    transform(count, data, clamp, data);
  } else {
    // 16-bit: without their sign, floats are ordered as integers are, with NaN after infinity. So
    // the clamp is an integer minimum, several times faster than by way of float32.
    using Vector = at::vec::Vectorized<int16_t>;
    const Vector sign_bit(std::numeric_limits<int16_t>::min());
    const Vector infinity(c10::bit_cast<int16_t>(std::numeric_limits<scalar_t>::infinity()));
    const Vector high(c10::bit_cast<int16_t>(static_cast<scalar_t>(clip_value)));
    const auto clamp = [=](Vector x) {
      const Vector sign = x & sign_bit;
      const Vector magnitude = x ^ sign;
      const Vector clamped = sign | at::vec::minimum(magnitude, high);
      return Vector::blendv(clamped, x, magnitude > infinity);
    };
    int16_t* bits = reinterpret_cast<int16_t*>(data);
    transform(count, bits, clamp, bits);
  }
}

void clip(const Run& run, int64_t begin, int64_t end, double clip_value) {
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, run.dtype, "wgan_fast::clip_weights_", [&] {
        scalar_t* data = static_cast<scalar_t*>(run.data) + (begin - run.begin);
        clip_numbers(data, end - begin, clip_value);
      });
}

void clip_weights_(at::TensorList parameters, double clip_value) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  TORCH_CHECK(clip_value > 0, "clip_weights_: clip_value must be positive, got ", clip_value);
  std::vector<Run> runs;
  runs.reserve(parameters.size());
  int64_t total = 0;
  for (const at::Tensor& parameter : parameters) {
    TORCH_CHECK(parameter.is_cpu() && at::isFloatingType(parameter.scalar_type()),
                "clip_weights_: parameters must be floating point and all on one kind of device, "
                "got ",
                parameter.scalar_type(), " on ", parameter.device(), " among CPU tensors");
    if (parameter.numel() == 0) continue;
    if (!parameter.is_non_overlapping_and_dense()) {
      parameter.clamp_(-clip_value, clip_value);
    } else {
      runs.push_back({parameter.mutable_data_ptr(), parameter.scalar_type(), total,
                      total + parameter.numel()});
      total = runs.back().end;
    }
  }
  at::parallel_for(0, total, kClipGrainElements, [&](int64_t begin, int64_t end) {
    auto run = std::upper_bound(runs.begin(), runs.end(), begin,
                                [](int64_t place, const Run& r) { return place < r.end; });
    for (; run != runs.end() && run->begin < end; ++run) {
      clip(*run, std::max(begin, run->begin), std::min(end, run->end), clip_value);
    }
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) { m.impl("clip_weights_", TORCH_FN(clip_weights_)); }

}  // namespace wgan_fast
