// wgan_fast::clip_weights_(Tensor(a!)[] parameters, float clip_value) -> ()
//
// Clamps every number to [-clip_value, clip_value] in place. All tensors together are one list of
// numbers, cut into equal shares for the threads: a critic's many small biases cost no parallel
// region of their own.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/functional.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "chunks.h"

namespace wgan_fast {
namespace {

// One parameter's numbers, in the order in which they lie in memory.
struct Run {
  void* data;
  at::ScalarType dtype;
  int64_t begin;  // its place in the list of all numbers
  int64_t end;
};

void clip(const Run& run, int64_t begin, int64_t end, double clip_value) {
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, run.dtype, "wgan_fast::clip_weights_", [&] {
        using Vector = at::vec::Vectorized<scalar_t>;
        scalar_t* data = static_cast<scalar_t*>(run.data) + (begin - run.begin);
        const Vector low(static_cast<scalar_t>(-clip_value));
        const Vector high(static_cast<scalar_t>(clip_value));
        const int64_t count = end - begin;
        int64_t k = 0;
        // at::vec::map would widen 16-bit numbers; Vectorized's own clamp is ATen's, NaN and all.
        for (; k + Vector::size() <= count; k += Vector::size()) {
          at::vec::clamp(Vector::loadu(data + k), low, high).store(data + k);
        }
        if (k < count) {
          at::vec::clamp(Vector::loadu(data + k, count - k), low, high).store(data + k, count - k);
        }
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
  at::parallel_for(0, total, kGrainElements, [&](int64_t begin, int64_t end) {
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
