#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include <vector>

namespace wgan_fast {

// Steps of a fused torch.optim.Adam or AdamW on the parameters of one group.
class Adam {
 public:
  using Tensors = std::vector<at::Tensor>;

  struct Settings {
    double lr, beta1, beta2, weight_decay, eps;
    bool maximize, decoupled_weight_decay;
  };

  Adam(Tensors parameters, Tensors averages, Tensors squares, Tensors steps, Settings settings);

  // A step by one gradient for each parameter, which keeps it.
  void step(const Tensors& gradients) const;

  // A step by the means of the gradients that the equal parts of a batch have, given for each
  // parameter as a list of one tensor per part; what is left in each list is the mean.
  void step_by_means(const std::vector<Tensors*>& gradients) const;

 private:
  // The parameters keep these gradients, and a step is counted.
  void take(const Tensors& gradients) const;

  Tensors parameters_, averages_, squares_, steps_;
  Settings settings_;
};

// Add the class Adam to the module.
void bind_adam(pybind11::module_& m);

}  // namespace wgan_fast
