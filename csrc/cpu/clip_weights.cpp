// wgan_fast::clip_weights_(Tensor(a!)[] parameters, float clip_value) -> ()
//
// Clamps every number to [-clip_value, clip_value] in place.

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/util/bit_cast.h>
#include <torch/library.h>

#include <cstdint>
#include <limits>
#include <type_traits>

#include "chunks.h"
#include "many_tensors.h"
#include "transform.h"

namespace wgan_fast {
namespace {

// A clamp is so cheap that to wake a thread for less costs more than it saves.
constexpr int64_t kClipGrainElements = 4 * kGrainElements;

// One parameter's numbers, in the order in which they lie in memory.
struct Numbers {
  void* data;
  at::ScalarType dtype;
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

void clip(const Numbers& numbers, int64_t begin, int64_t end, double clip_value) {
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, numbers.dtype, "wgan_fast::clip_weights_",
      [&] { clip_numbers(static_cast<scalar_t*>(numbers.data) + begin, end - begin, clip_value); });
}

void clip_weights_(at::TensorList parameters, double clip_value) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  TORCH_CHECK(clip_value > 0, "clip_weights_: clip_value must be positive, got ", clip_value);
  ManyTensors<Numbers> numbers;
  for (const at::Tensor& parameter : parameters) {
    TORCH_CHECK(parameter.is_cpu() && at::isFloatingType(parameter.scalar_type()),
                "clip_weights_: parameters must be floating point and all on one kind of device, "
                "got ",
                parameter.scalar_type(), " on ", parameter.device(), " among CPU tensors");
    if (parameter.is_non_overlapping_and_dense()) {
      numbers.add({parameter.mutable_data_ptr(), parameter.scalar_type()}, parameter.numel());
    } else {
      parameter.clamp_(-clip_value, clip_value);
    }
  }
  numbers.for_each_share(kClipGrainElements,
                         [&](const Numbers& tensor, int64_t begin, int64_t end) {
                           clip(tensor, begin, end, clip_value);
                         });
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) { m.impl("clip_weights_", TORCH_FN(clip_weights_)); }

}  // namespace wgan_fast
