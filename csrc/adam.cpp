// wgan_fast._C.Adam: what torch.optim.Adam(fused=True).step() computes, in one call.
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

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "side_by_side.h"

namespace wgan_fast {
namespace {

using Tensors = std::vector<at::Tensor>;

// In numbers: with more of them, the threads that share each tensor finish at the same time, and
// those that take whole tensors do not.
constexpr int64_t kFew = 1 << 18;

struct Settings {
  double lr, beta1, beta2, weight_decay, eps;
  bool maximize, decoupled_weight_decay;
};

// Of each parameter: it, its gradient, both averages, and the count of its steps.
struct Group {
  std::array<Tensors, 5> tensors;
  int64_t numbers = 0;

  void add(const Group& from, size_t i) {
    for (size_t kind = 0; kind < tensors.size(); ++kind) {
      tensors[kind].push_back(from.tensors[kind].at(i));
    }
    numbers += from.tensors[0][i].numel();
  }

  void update(const Settings& to) const {
    const auto& [parameters, gradients, averages, squares, steps] = tensors;
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
};

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

// For as many threads: whole parameters, the largest first and each to whoever has least.
std::vector<Group> shared(const Group& all, size_t threads) {
  std::vector<size_t> order(all.tensors[0].size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t one, size_t other) {
    return all.tensors[0][one].numel() > all.tensors[0][other].numel();
  });
  std::vector<Group> groups(threads);
  for (const size_t i : order) {
    const auto least = [](const Group& a, const Group& b) { return a.numbers < b.numbers; };
    std::min_element(groups.begin(), groups.end(), least)->add(all, i);
  }
  return groups;
}

class Adam {
 public:
  Adam(Tensors parameters, Tensors averages, Tensors squares, Tensors steps, double lr,
       double beta1, double beta2, double weight_decay, double eps, bool maximize,
       bool decoupled_weight_decay)
      : settings_{lr, beta1, beta2, weight_decay, eps, maximize, decoupled_weight_decay},
        all_{{std::move(parameters), {}, std::move(averages), std::move(squares),
              std::move(steps)}} {
    for (const at::Tensor& parameter : all_.tensors[0]) all_.numbers += parameter.numel();
  }

  void step(Tensors gradients) const {
    const at::NoGradGuard no_grad;
    Group all = all_;
    all.tensors[1] = std::move(gradients);
    TORCH_CHECK(all.tensors[1].size() == all.tensors[0].size(), "gradients: expected ",
                all.tensors[0].size(), ", got ", all.tensors[1].size());
    count(all.tensors[4]);
    const size_t threads = at::get_num_threads();
    if (watched() || threads == 1 || all.numbers > kFew || all.tensors[0].size() < threads) {
      all.update(settings_);
      return;
    }
    const std::vector<Group> groups = shared(all, threads);
    side_by_side(groups.size(), [&](size_t i) {
      if (groups[i].numbers > 0) groups[i].update(settings_);
    });
  }

 private:
  Settings settings_;
  Group all_;  // Without gradients.
};

}  // namespace

void bind_adam(pybind11::module_& m) {
  namespace py = pybind11;
  const char* const says = "torch.optim.Adam's fused step on parameters of one group.";
  py::class_<Adam>(m, "Adam", says)
      .def(py::init<Tensors, Tensors, Tensors, Tensors, double, double, double, double, double,
                    bool, bool>(),
           py::arg("parameters"), py::arg("averages"), py::arg("squares"), py::arg("steps"),
           py::arg("lr"), py::arg("beta1"), py::arg("beta2"), py::arg("weight_decay"),
           py::arg("eps"), py::arg("maximize"), py::arg("decoupled_weight_decay"))
      .def("step", &Adam::step, py::arg("gradients"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace wgan_fast
