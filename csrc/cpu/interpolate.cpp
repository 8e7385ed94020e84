// wgan_fast::interpolate(Tensor real, Tensor fake, Tensor alpha) -> Tensor
//
// out_i = alpha_i real_i + (1 - alpha_i) fake_i, computed in the accumulation type, rounded once.

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
#include <torch/library.h>

#include "checks.h"
#include "chunks.h"
#include "rows.h"
#include "transform.h"

namespace wgan_fast {
namespace {

template <typename scalar_t>
void interpolate_rows(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha,
                      const at::Tensor& out) {
  using accumulate_t = at::opmath_type<scalar_t>;
  using Vector = at::vec::Vectorized<accumulate_t>;
  const scalar_t* real_data = real.const_data_ptr<scalar_t>();
  const scalar_t* fake_data = fake.const_data_ptr<scalar_t>();
  const accumulate_t* alpha_data = alpha.const_data_ptr<accumulate_t>();
  scalar_t* out_data = out.data_ptr<scalar_t>();
  const RowChunks work{out.size(0), columns_of(out)};
  work.for_each([&](int64_t row, int64_t chunk) {
    const int64_t begin = row * work.columns + work.begin(chunk);
    const Vector of_real(alpha_data[row]);
    const Vector of_fake(accumulate_t(1) - alpha_data[row]);
    const auto mix = [=](Vector x, Vector y) { return of_real * x + of_fake * y; };
    transform(work.length(chunk), out_data + begin, mix, real_data + begin, fake_data + begin);
  });
}

at::Tensor interpolate(const at::Tensor& real, const at::Tensor& fake, const at::Tensor& alpha) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  check_batch("interpolate", "real", real);
  check_like("interpolate", "fake", fake, "real", real);
  check_per_sample("interpolate", "alpha", alpha, "real", real);
  RowsOutput out(real);
  const at::Tensor real_rows = out.operand(real);
  const at::Tensor fake_rows = out.operand(fake);
  const at::Tensor alphas = alpha.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, real.scalar_type(), "wgan_fast::interpolate",
      [&] { interpolate_rows<scalar_t>(real_rows, fake_rows, alphas, out.rows()); });
  return out.take();
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) { m.impl("interpolate", TORCH_FN(interpolate)); }

}  // namespace wgan_fast
