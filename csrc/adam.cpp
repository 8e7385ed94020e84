// wgan_fast._C.adam_step: what torch.optim.Adam(fused=True).step() computes, in one call.
//
// Its counters of steps, one for each parameter, are tensors of one number. To add one to each
// takes PyTorch as long as the update of a small critic, and a pointer no time.

#include "adam.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/extension.h>

#include <vector>

namespace wgan_fast {
namespace {

using Tensors = std::vector<at::Tensor>;

void count(const Tensors& steps) {
  // Whoever sees every operator has to see this one as well.
  const bool watched = c10::impl::TorchDispatchModeTLS::any_modes_set();
  for (const at::Tensor& step : steps) {
    if (watched || !step.is_cpu() || step.scalar_type() != at::kFloat || step.numel() != 1) {
      at::Tensor(step).add_(1);
    } else {
      *step.mutable_data_ptr<float>() += 1;
      step.unsafeGetTensorImpl()->bump_version();
    }
  }
}

void adam_step(const Tensors& parameters, const Tensors& gradients, const Tensors& averages,
               const Tensors& squares, const Tensors& steps, double lr, double beta1, double beta2,
               double weight_decay, double eps, bool maximize, bool decoupled_weight_decay) {
  const at::NoGradGuard no_grad;
  count(steps);
  const auto update = [&](const auto& adam) {
    adam(parameters, gradients, averages, squares, /*max_exp_avg_sqs=*/at::TensorList(), steps, lr,
         beta1, beta2, weight_decay, eps, /*amsgrad=*/false, maximize);
  };
  if (decoupled_weight_decay) {
    update([](auto&&... given) { at::_fused_adamw_(given...); });
  } else {
    update([](auto&&... given) { at::_fused_adam_(given...); });
  }
}

}  // namespace

void bind_adam(pybind11::module_& m) {
  namespace py = pybind11;
  m.def("adam_step", &adam_step, "torch.optim.Adam's fused step on parameters of one group.",
        py::arg("parameters"), py::arg("gradients"), py::arg("averages"), py::arg("squares"),
        py::arg("steps"), py::arg("lr"), py::arg("beta1"), py::arg("beta2"),
        py::arg("weight_decay"), py::arg("eps"), py::arg("maximize"),
        py::arg("decoupled_weight_decay"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace wgan_fast
