// The penalty phi of a gradient norm n, and its derivatives.
#pragma once

#include <cmath>

namespace wgan_fast {

// phi(n) = |n - target|^power, or max(0, n - target)^power where it is one-sided. In double, once a
// row.
struct Penalty {
  double target;
  bool one_sided;
  double power;

  // A NaN norm stays NaN: every comparison with it is false.
  bool is_flat(double norm) const { return one_sided && norm <= target; }

  // phi(n) = n^2, smooth in g where n is zero, too
  bool is_square() const { return target == 0 && power == 2; }

  double value(double norm) const {
    if (is_flat(norm)) return 0;
    const double excess = norm - target;
    return power == 2 ? excess * excess : std::pow(std::abs(excess), power);
  }

  // phi'(n), 0 at the target
  double slope(double norm) const {
    const double excess = norm - target;
    if (is_flat(norm)) return 0;
    if (power == 2) return 2 * excess;
    if (excess == 0) return 0;
    return std::copysign(power * std::pow(std::abs(excess), power - 1), excess);
  }

  // phi''(n), 0 where it is infinite
  double curvature(double norm) const {
    if (is_flat(norm)) return 0;
    if (power == 2) return 2;
    const double excess = norm - target;
    return excess == 0 ? 0 : power * (power - 1) * std::pow(std::abs(excess), power - 2);
  }
};

}  // namespace wgan_fast
