// wgan_fast::merged_batch(Tensor real, Tensor fake, Tensor alpha) -> Tensor
//
// [real, fake, alpha real + (1 - alpha) fake] as one batch: every input read once, every output
// written once. The mix is computed in the accumulation type and rounded once.

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "checks.h"
#include "chunks.h"
#include "rows.h"
#include "transform.h"

namespace wgan_fast {
namespace {

// Three streams out of two: real and fake as they are, and their mix.
template <typename scalar_t, typename Mix>
void copy_and_mix(int64_t count, const Mix& mix, const scalar_t* real, const scalar_t* fake,
                  scalar_t* real_out, scalar_t* fake_out, scalar_t* mixed_out) {
  using Vector = at::vec::Vectorized<scalar_t>;
  int64_t k = 0;
  for (; k + Vector::size() <= count; k += Vector::size()) {
    const Vector x = Vector::loadu(real + k);
    const Vector y = Vector::loadu(fake + k);
    x.store(real_out + k);
    y.store(fake_out + k);
    apply_widened<scalar_t>(mix, x, y).store(mixed_out + k);
  }
  if (k == count) return;
  const int rest = static_cast<int>(count - k);
  const Vector x = Vector::loadu(real + k, rest);
  const Vector y = Vector::loadu(fake + k, rest);
  x.store(real_out + k, rest);
  y.store(fake_out + k, rest);
  apply_widened<scalar_t>(mix, x, y).store(mixed_out + k, rest);
}

template <typename scalar_t>
void fill(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha,
          const at::Tensor& out) {
  using accumulate_t = at::opmath_type<scalar_t>;
  using Vector = at::vec::Vectorized<accumulate_t>;
  const scalar_t* real_data = real.const_data_ptr<scalar_t>();
  const scalar_t* fake_data = fake.const_data_ptr<scalar_t>();
  const accumulate_t* alpha_data = alpha.const_data_ptr<accumulate_t>();
  scalar_t* out_data = out.data_ptr<scalar_t>();
  const RowChunks work{real.size(0), columns_of(real)};
  const int64_t part = real.numel();
  work.for_each([&](int64_t row, int64_t chunk) {
    const int64_t begin = row * work.columns + work.begin(chunk);
    const Vector of_real(alpha_data[row]);
    const Vector of_fake(accumulate_t(1) - alpha_data[row]);
    const auto mix = [=](Vector x, Vector y) { return of_real * x + of_fake * y; };
    copy_and_mix(work.length(chunk), mix, real_data + begin, fake_data + begin, out_data + begin,
                 out_data + part + begin, out_data + 2 * part + begin);
  });
}

at::Tensor merged_batch(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  check_batch("merged_batch", "real", real);
  check_like("merged_batch", "fake", fake, "real", real);
  check_per_sample("merged_batch", "alpha", alpha, "real", real);
  const at::MemoryFormat format = real.suggest_memory_format();
  at::DimVector sizes(real.sizes());
  sizes[0] *= 3;
  at::Tensor out = at::empty(sizes, real.options().memory_format(format));
  // Samples are runs of memory, in the same order in all three.
  const at::Tensor real_runs = real.contiguous(format);
  const at::Tensor fake_runs = fake.contiguous(format);
  const at::Tensor alphas = alpha.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, real.scalar_type(),
                                  "wgan_fast::merged_batch",
                                  [&] { fill<scalar_t>(real_runs, fake_runs, alphas, out); });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) { m.impl("merged_batch", TORCH_FN(merged_batch)); }

}  // namespace wgan_fast
