// The penalty phi of a gradient norm n, and what its derivatives are made of.
#pragma once

#include <cmath>

namespace wgan_fast {

// phi(n) = (n - target)^2, or max(0, n - target)^2 where it is one-sided. In double, once a row.
struct Penalty {
  double target;
  bool one_sided;

  // A NaN norm stays NaN: every comparison with it is false.
  bool is_flat(double norm) const { return one_sided && norm <= target; }

  double value(double norm) const { return is_flat(norm) ? 0 : (norm - target) * (norm - target); }

  // phi'(n)
  double slope(double norm) const { return is_flat(norm) ? 0 : 2 * (norm - target); }

  // d/dn of phi'(n) / n
  double slope_ratio_derivative(double norm) const {
    return is_flat(norm) ? 0 : 2 * target / (norm * norm);
  }
};

}  // namespace wgan_fast
