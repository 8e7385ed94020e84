// wgan_fast._C.Adam: what step() of a fused torch.optim.Adam or AdamW computes, in one call.
//
// Its counters of steps, one for each parameter, are tensors of one number. To add one to each
// takes PyTorch as long as the update of a small critic, and a pointer no time.

#include "adam.h"

#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/extension.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <utility>

#include "cpu/joined_parts.h"
#include "side_by_side.h"

namespace wgan_fast {
namespace {

using Tensors = Adam::Tensors;

// In numbers: with more of them, the threads that share each tensor finish at the same time, and
// those that take whole tensors do not.
constexpr int64_t kFew = 1 << 18;

bool watched() { return c10::impl::TorchDispatchModeTLS::any_modes_set(); }

void count(const Tensors& steps) {
  for (const at::Tensor& step : steps) {
    if (watched() || !step.is_cpu() || step.scalar_type() != at::kFloat || step.numel() != 1) {
      at::Tensor(step).add_(1);
    } else {
      *step.mutable_data_ptr<float>() += 1;
      step.unsafeGetTensorImpl()->bump_version();
    }
  }
}

// For as many threads, the places of whole parameters: the largest first and each to whoever has
// least. None where all threads had better share every parameter.
std::vector<std::vector<size_t>> shared(const Tensors& parameters) {
  const size_t threads = at::get_num_threads();
  int64_t numbers = 0;
  for (const at::Tensor& parameter : parameters) numbers += parameter.numel();
  if (watched() || threads == 1 || numbers > kFew || parameters.size() < threads) return {};
  std::vector<size_t> order(parameters.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t one, size_t other) {
    return parameters[one].numel() > parameters[other].numel();
  });
  std::vector<std::vector<size_t>> shares(threads);
  std::vector<int64_t> sizes(threads, 0);
  for (const size_t place : order) {
    const size_t least = std::min_element(sizes.begin(), sizes.end()) - sizes.begin();
    shares[least].push_back(place);
    sizes[least] += parameters[place].numel();
  }
  return shares;
}

Tensors some(const Tensors& all, const std::vector<size_t>& places) {
  Tensors found;
  for (const size_t place : places) found.push_back(all[place]);
  return found;
}

// Parameters, their gradients, both averages, and the counts of steps.
using Group = std::array<Tensors, 5>;

void update(const Group& group, const Adam::Settings& to) {
  const auto& [parameters, gradients, averages, squares, steps] = group;
  const auto by = [&](const auto& adam) {
    adam(parameters, gradients, averages, squares, /*max_exp_avg_sqs=*/at::TensorList(), steps,
         to.lr, to.beta1, to.beta2, to.weight_decay, to.eps, /*amsgrad=*/false, to.maximize);
  };
  if (to.decoupled_weight_decay) {
    by([](auto&&... given) { at::_fused_adamw_(given...); });
  } else {
    by([](auto&&... given) { at::_fused_adam_(given...); });
  }
}

}  // namespace

Adam::Adam(Tensors parameters, Tensors averages, Tensors squares, Tensors steps, Settings settings)
    : parameters_(std::move(parameters)),
      averages_(std::move(averages)),
      squares_(std::move(squares)),
      steps_(std::move(steps)),
      settings_(settings) {
  for (const Tensors* tensors : {&averages_, &squares_, &steps_}) {
    TORCH_CHECK(tensors->size() == parameters_.size(), "expected averages, squares and steps of ",
                parameters_.size(), " parameters, got ", tensors->size());
  }
}

// Before anything changes: the operator itself would read beyond what is too small.
void Adam::take(const Tensors& gradients) const {
  TORCH_CHECK(gradients.size() == parameters_.size(), "gradients: expected one for each of ",
              parameters_.size(), " parameters, got ", gradients.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& parameter = parameters_[i];
    TORCH_CHECK(gradients[i].defined(), "gradients: expected tensors, got a None");
    TORCH_CHECK(gradients[i].scalar_type() == parameter.scalar_type(), "gradients: expected ",
                parameter.scalar_type(), ", got ", gradients[i].scalar_type());
    for (const at::Tensor* one : {&gradients[i], &averages_[i], &squares_[i]}) {
      TORCH_CHECK(one->sizes() == parameter.sizes(), "gradients and averages: expected the shape ",
                  parameter.sizes(), " of their parameter, got ", one->sizes());
    }
  }
  for (size_t i = 0; i < parameters_.size(); ++i) parameters_[i].mutable_grad() = gradients[i];
  count(steps_);
}

void Adam::step(const Tensors& gradients) const {
  const at::NoGradGuard no_grad;
  take(gradients);
  const Group all{parameters_, gradients, averages_, squares_, steps_};
  const auto shares = shared(parameters_);
  if (shares.empty()) update(all, settings_);
  side_by_side(shares.size(), [&](size_t i) {
    Group share;
    for (size_t kind = 0; kind < all.size(); ++kind) share[kind] = some(all[kind], shares[i]);
    if (!shares[i].empty()) update(share, settings_);
  });
}

void Adam::step_by_means(const std::vector<Tensors*>& gradients) const {
  const auto shares = shared(parameters_);
  const bool in_place = std::all_of(gradients.begin(), gradients.end(),
                                    [](const Tensors* parts) { return averages_in_place(*parts); });
  if (shares.empty() || !in_place) {
    PartsByPlace places;
    for (Tensors* parts : gradients) places.push_back(std::move(*parts));
    const Tensors means = joined_parts(std::move(places), {});
    for (size_t i = 0; i < means.size(); ++i) *gradients[i] = {means[i]};
    step(means);
    return;
  }
  const at::NoGradGuard no_grad;
  Tensors means;  // once the threads have been here
  for (const Tensors* parts : gradients) means.push_back(parts->front());
  take(means);
  side_by_side(shares.size(), [&](size_t i) {
    for (const size_t place : shares[i]) average(*gradients[place]);
    const Group share{some(parameters_, shares[i]), some(means, shares[i]),
                      some(averages_, shares[i]), some(squares_, shares[i]),
                      some(steps_, shares[i])};
    if (!shares[i].empty()) update(share, settings_);
  });
}

void bind_adam(pybind11::module_& m) {
  namespace py = pybind11;
  const char* const says =
      "Steps of a fused torch.optim.Adam or AdamW on the parameters of a group.";
  py::class_<Adam>(m, "Adam", says)
      .def(py::init([](Tensors parameters, Tensors averages, Tensors squares, Tensors steps,
                       double lr, double beta1, double beta2, double weight_decay, double eps,
                       bool maximize, bool decoupled_weight_decay) {
             return Adam(std::move(parameters), std::move(averages), std::move(squares),
                         std::move(steps),
                         {lr, beta1, beta2, weight_decay, eps, maximize, decoupled_weight_decay});
           }),
           py::arg("parameters"), py::arg("averages"), py::arg("squares"), py::arg("steps"),
           py::kw_only(), py::arg("lr"), py::arg("beta1"), py::arg("beta2"),
           py::arg("weight_decay"), py::arg("eps"), py::arg("maximize"),
           py::arg("decoupled_weight_decay"))
      .def("step", &Adam::step, py::arg("gradients"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace wgan_fast
