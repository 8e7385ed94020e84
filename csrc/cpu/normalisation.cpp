// wgan_fast::normalisation_vjp, _jvp, _second and _parameters: the derivatives of layer, group,
// instance and RMS norm. The formulas stand in wgan_fast/ops/normalisation.py.
//
// A row is a group of numbers that share statistics. It is read twice: for its sums, and, from the
// cache, to write the result. x^ = (x - mean) r is never stored.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>

#include "checks.h"
#include "chunks.h"
#include "sums.h"
#include "transform.h"

namespace wgan_fast {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// Rows are summed into gamma in so many parts, whoever computes them: the same numbers in every
// run.
constexpr int64_t kParts = 16;

void check_rows(const char* op, const at::Tensor& x, const OptionalTensor& mean,
                const at::Tensor& inverse, const OptionalTensor& gamma, int64_t groups,
                int64_t repeat) {
  TORCH_CHECK(x.dim() == 2 && x.is_contiguous(), op, ": x must be contiguous rows, got ",
              x.sizes());
  TORCH_CHECK(groups > 0 && repeat > 0 && x.size(1) % repeat == 0 && x.size(0) % groups == 0, op,
              ": ", x.sizes(), " has no ", groups, " groups or runs of ", repeat);
  const auto check = [&](const char* name, const at::Tensor& tensor, int64_t numel) {
    TORCH_CHECK(tensor.numel() == numel && tensor.is_contiguous() &&
                    tensor.scalar_type() == x.scalar_type() && tensor.device() == x.device(),
                op, ": ", name, " must be ", numel, " contiguous ", x.scalar_type(), ", got ",
                tensor.sizes(), " ", tensor.scalar_type());
  };
  check("inverse", inverse, x.size(0));
  if (mean) check("mean", *mean, x.size(0));
  if (gamma) check("gamma", *gamma, groups * (x.size(1) / repeat));
}

template <typename scalar_t>
struct Rows {
  using Vector = at::vec::Vectorized<scalar_t>;

  Rows(const at::Tensor& x, const OptionalTensor& mean, const at::Tensor& inverse,
       const OptionalTensor& gamma, int64_t groups, int64_t repeat)
      : x(x.const_data_ptr<scalar_t>()),
        mean(mean ? mean->const_data_ptr<scalar_t>() : nullptr),
        inverse(inverse.const_data_ptr<scalar_t>()),
        gamma(gamma ? gamma->const_data_ptr<scalar_t>() : nullptr),
        rows(x.size(0)),
        columns(x.size(1)),
        groups(groups),
        repeat(repeat) {}

  const scalar_t* x;
  const scalar_t* mean;  // null: not centred
  const scalar_t* inverse;
  const scalar_t* gamma;  // null: ones
  int64_t rows, columns, groups, repeat;

  // The first of the row's elements of gamma.
  int64_t gamma_begin(int64_t row) const { return row % groups * (columns / repeat); }

  // Calls body(begin, count, scale) for the row's runs. Where every column has its own element of
  // gamma, the row is one run and scale(k) a vector of them; else scale(k) is the run's one.
  template <typename Body>
  void for_each_run(int64_t row, const Body& body) const {
    if (gamma == nullptr) {
      body(0, columns, static_cast<const scalar_t*>(nullptr), Vector(1));
    } else if (repeat == 1) {
      body(0, columns, gamma + gamma_begin(row), Vector(1));
    } else {
      for (int64_t run = 0; run < columns / repeat; ++run) {
        body(run * repeat, repeat, static_cast<const scalar_t*>(nullptr),
             Vector(gamma[gamma_begin(row) + run]));
      }
    }
  }

  template <typename Body>
  void for_each_row(const Body& body) const {
    RowChunks{rows, columns}.for_each_row(body);
  }

  Vector mean_of(int64_t row) const { return Vector(mean == nullptr ? 0 : mean[row]); }
};

template <int kSums>
void add_to(std::array<double, kSums>& totals, const std::array<double, kSums>& more) {
  for (int which = 0; which < kSums; ++which) totals[which] += more[which];
}

#define DISPATCH(NAME, ...) \
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "wgan_fast::" NAME, __VA_ARGS__)

// Both are r P(u), with gamma multiplied before (vjp) or after (jvp).
template <bool kBefore>
at::Tensor projected(const char* op, const at::Tensor& u, const at::Tensor& x,
                     const OptionalTensor& mean, const at::Tensor& inverse,
                     const OptionalTensor& gamma, int64_t groups, int64_t repeat) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  check_rows(op, x, mean, inverse, gamma, groups, repeat);
  check_like(op, kBefore ? "delta" : "tangent", u, "x", x);
  const at::Tensor given = u.contiguous();
  at::Tensor result = at::empty_like(x);
  DISPATCH("normalisation", [&] {
    using Vector = at::vec::Vectorized<scalar_t>;
    const Rows<scalar_t> of(x, mean, inverse, gamma, groups, repeat);
    const scalar_t* u_data = given.const_data_ptr<scalar_t>();
    scalar_t* result_data = result.data_ptr<scalar_t>();
    of.for_each_row([&](int64_t row) {
      const int64_t at = row * of.columns;
      const Vector m = of.mean_of(row), r(of.inverse[row]);
      std::array<double, 2> totals{};
      of.for_each_run(row, [&](int64_t begin, int64_t count, const scalar_t* own, Vector scale) {
        const scalar_t *x_run = of.x + at + begin, *u_run = u_data + at + begin;
        if (kBefore && own != nullptr) {
          add_to<2>(totals, sums_over<2, scalar_t>(
                                count,
                                [&](Vector g, Vector x, Vector u) {
                                  const Vector d = g * u;
                                  return std::array<Vector, 2>{d, (x - m) * r * d};
                                },
                                own, x_run, u_run));
        } else {
          const Vector factor = kBefore ? scale : Vector(1);
          add_to<2>(totals, sums_over<2, scalar_t>(
                                count,
                                [&](Vector x, Vector u) {
                                  const Vector d = factor * u;
                                  return std::array<Vector, 2>{d, (x - m) * r * d};
                                },
                                x_run, u_run));
        }
      });
      const Vector average(of.mean == nullptr ? 0 : totals[0] / of.columns);
      const Vector along(totals[1] / of.columns);
      of.for_each_run(row, [&](int64_t begin, int64_t count, const scalar_t* own, Vector scale) {
        const scalar_t *x_run = of.x + at + begin, *u_run = u_data + at + begin;
        const auto project = [&](Vector g, Vector x, Vector u) {
          const Vector d = kBefore ? g * u : u;
          const Vector p = r * (d - average - (x - m) * r * along);
          return kBefore ? p : g * p;
        };
        if (own != nullptr) {
          transform(count, result_data + at + begin, project, own, x_run, u_run);
        } else {
          transform(
              count, result_data + at + begin,
              [&](Vector x, Vector u) { return project(scale, x, u); }, x_run, u_run);
        }
      });
    });
  });
  return result;
}

at::Tensor normalisation_vjp(const at::Tensor& delta, const at::Tensor& x,
                             const OptionalTensor& mean, const at::Tensor& inverse,
                             const OptionalTensor& gamma, int64_t groups, int64_t repeat) {
  return projected<true>("normalisation_vjp", delta, x, mean, inverse, gamma, groups, repeat);
}

at::Tensor normalisation_jvp(const at::Tensor& tangent, const at::Tensor& x,
                             const OptionalTensor& mean, const at::Tensor& inverse,
                             const OptionalTensor& gamma, int64_t groups, int64_t repeat) {
  return projected<false>("normalisation_jvp", tangent, x, mean, inverse, gamma, groups, repeat);
}

// Adds to `sums`, one number per element of gamma, what terms(...) gives for the row's columns.
template <typename scalar_t, typename Terms, typename... Inputs>
void add_columns(const Rows<scalar_t>& of, int64_t row, scalar_t* sums, const Terms& terms,
                 const Inputs*... inputs) {
  using Vector = at::vec::Vectorized<scalar_t>;
  scalar_t* own = sums + of.gamma_begin(row);
  const int64_t at = row * of.columns;
  if (of.repeat == 1) {
    // Not transform, whose last vector overlaps the one before: these would be added twice.
    int64_t k = 0;
    for (; k + Vector::size() <= of.columns; k += Vector::size()) {
      (Vector::loadu(own + k) + terms(Vector::loadu(inputs + at + k)...)).store(own + k);
    }
    if (k < of.columns) {
      const int64_t rest = of.columns - k;
      (Vector::loadu(own + k, rest) + terms(Vector::loadu(inputs + at + k, rest)...))
          .store(own + k, rest);
    }
    return;
  }
  for (int64_t run = 0; run < of.columns / of.repeat; ++run) {
    const auto total = sums_over<1, scalar_t>(
        of.repeat, [&](auto... vectors) { return std::array<Vector, 1>{terms(vectors...)}; },
        (inputs + at + run * of.repeat)...);
    own[run] += static_cast<scalar_t>(total[0]);
  }
}

// Calls body(row, part) for the rows of every part, in parallel where there is enough to do.
template <typename Body>
void for_each_part(const at::Tensor& x, const Body& body) {
  const int64_t numbers = std::max<int64_t>(x.numel(), 1);
  const int64_t grain = std::min(at::divup(kGrainElements * kParts, numbers), kParts);
  at::parallel_for(0, kParts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t stop = (part + 1) * x.size(0) / kParts;
      for (int64_t row = part * x.size(0) / kParts; row < stop; ++row) {
        body(row, part);
      }
    }
  });
}

std::tuple<at::Tensor, at::Tensor> normalisation_second(
    const at::Tensor& delta, const at::Tensor& tangent, const at::Tensor& x,
    const OptionalTensor& mean, const at::Tensor& inverse, const OptionalTensor& gamma,
    int64_t groups, int64_t repeat) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  check_rows("normalisation_second", x, mean, inverse, gamma, groups, repeat);
  check_like("normalisation_second", "delta", delta, "x", x);
  check_like("normalisation_second", "tangent", tangent, "x", x);
  const at::Tensor deltas = delta.contiguous(), tangents = tangent.contiguous();
  at::Tensor result = at::empty_like(x);
  const int64_t elements = groups * (x.size(1) / repeat);
  at::Tensor sums = at::zeros({kParts, elements}, x.options());
  DISPATCH("normalisation_second", [&] {
    using Vector = at::vec::Vectorized<scalar_t>;
    const Rows<scalar_t> of(x, mean, inverse, gamma, groups, repeat);
    const bool centred = of.mean != nullptr;
    const scalar_t* delta_data = deltas.const_data_ptr<scalar_t>();
    const scalar_t* tangent_data = tangents.const_data_ptr<scalar_t>();
    scalar_t* result_data = result.data_ptr<scalar_t>();
    scalar_t* sums_data = sums.data_ptr<scalar_t>();
    for_each_part(x, [&](int64_t row, int64_t part) {
      const int64_t at = row * of.columns;
      const Vector m = of.mean_of(row), r(of.inverse[row]);
      std::array<double, 5> totals{};  // of t, d, x^ t, x^ d, d t
      of.for_each_run(row, [&](int64_t begin, int64_t count, const scalar_t* own, Vector scale) {
        const auto terms = [&](Vector g, Vector x, Vector t, Vector delta) {
          const Vector d = g * delta, normal = (x - m) * r;
          return std::array<Vector, 5>{t, d, normal * t, normal * d, d * t};
        };
        const scalar_t *x_run = of.x + at + begin, *t_run = tangent_data + at + begin,
                       *delta_run = delta_data + at + begin;
        if (own != nullptr) {
          add_to<5>(totals, sums_over<5, scalar_t>(count, terms, own, x_run, t_run, delta_run));
        } else {
          add_to<5>(totals,
                    sums_over<5, scalar_t>(
                        count,
                        [&](Vector x, Vector t, Vector delta) { return terms(scale, x, t, delta); },
                        x_run, t_run, delta_run));
        }
      });
      for (double& total : totals) total /= of.columns;
      const Vector t_mean(centred ? totals[0] : 0), d_mean(centred ? totals[1] : 0);
      const Vector t_along(totals[2]), d_along(totals[3]);
      const Vector curl(totals[4] - (centred ? totals[0] * totals[1] : 0) - totals[2] * totals[3]);
      of.for_each_run(row, [&](int64_t begin, int64_t count, const scalar_t* own, Vector scale) {
        const auto bar = [&](Vector g, Vector x, Vector t, Vector delta) {
          const Vector normal = (x - m) * r;
          const Vector of_d = g * delta - d_mean - normal * d_along;
          const Vector of_t = t - t_mean - normal * t_along;
          return (t_along * of_d + d_along * of_t + normal * curl) * (r * r).neg();
        };
        const scalar_t *x_run = of.x + at + begin, *t_run = tangent_data + at + begin,
                       *delta_run = delta_data + at + begin;
        if (own != nullptr) {
          transform(count, result_data + at + begin, bar, own, x_run, t_run, delta_run);
        } else {
          transform(
              count, result_data + at + begin,
              [&](Vector x, Vector t, Vector delta) { return bar(scale, x, t, delta); }, x_run,
              t_run, delta_run);
        }
      });
      add_columns(
          of, row, sums_data + part * elements,
          [&](Vector x, Vector t, Vector delta) {
            return delta * (r * (t - t_mean - (x - m) * r * t_along));
          },
          of.x, tangent_data, delta_data);
    });
  });
  return {result, sums.sum(0)};
}

std::tuple<at::Tensor, at::Tensor> normalisation_parameters(const at::Tensor& delta,
                                                            const at::Tensor& x,
                                                            const OptionalTensor& mean,
                                                            const at::Tensor& inverse,
                                                            int64_t groups, int64_t repeat) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  check_rows("normalisation_parameters", x, mean, inverse, std::nullopt, groups, repeat);
  check_like("normalisation_parameters", "delta", delta, "x", x);
  const at::Tensor deltas = delta.contiguous();
  const int64_t elements = groups * (x.size(1) / repeat);
  at::Tensor sums = at::zeros({kParts, 2, elements}, x.options());
  DISPATCH("normalisation_parameters", [&] {
    using Vector = at::vec::Vectorized<scalar_t>;
    const Rows<scalar_t> of(x, mean, inverse, std::nullopt, groups, repeat);
    const scalar_t* delta_data = deltas.const_data_ptr<scalar_t>();
    scalar_t* sums_data = sums.data_ptr<scalar_t>();
    for_each_part(x, [&](int64_t row, int64_t part) {
      const Vector m = of.mean_of(row), r(of.inverse[row]);
      scalar_t* own = sums_data + part * 2 * elements;
      add_columns(
          of, row, own, [&](Vector x, Vector delta) { return delta * ((x - m) * r); }, of.x,
          delta_data);
      add_columns(of, row, own + elements, [](Vector delta) { return delta; }, delta_data);
    });
  });
  return {sums.select(1, 0).sum(0), sums.select(1, 1).sum(0)};
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) {
  m.impl("normalisation_vjp", TORCH_FN(normalisation_vjp));
  m.impl("normalisation_jvp", TORCH_FN(normalisation_jvp));
  m.impl("normalisation_second", TORCH_FN(normalisation_second));
  m.impl("normalisation_parameters", TORCH_FN(normalisation_parameters));
}

}  // namespace wgan_fast
