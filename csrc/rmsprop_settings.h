// The hyperparameters of wgan_fast::rmsprop_, as the optimiser holds them. Plain C++.
#pragma once

namespace wgan_fast {

struct RMSpropSettings {
  double learning_rate;
  double alpha;
  double eps;
  double weight_decay;
  double momentum;
  bool maximize;
  double clip_value;  // infinity where nothing is clipped
};

}  // namespace wgan_fast
