// wgan_fast::rmsprop_, whose schema is in wgan_fast/ops/rmsprop.py.
//
// One pass over memory: parameter, gradient and state are read once and written once, the clamp
// included. The operations and their order are those of torch.optim.RMSprop, in the accumulation
// type.

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/item.h>
#include <c10/macros/Macros.h>
#include <torch/library.h>

#include <cstdint>
#include <tuple>
#include <type_traits>

#include "../rmsprop_settings.h"
#include "../rmsprop_tensors.h"
#include "chunks.h"
#include "many_tensors.h"

namespace wgan_fast {
namespace {

template <typename T>
using Vector = at::vec::Vectorized<T>;

// A vector of each of a parameter's tensors, in the accumulation type.
template <typename T>
struct Numbers {
  Vector<T> parameter;
  Vector<T> gradient;
  Vector<T> square_average;
  Vector<T> gradient_average;
  Vector<T> momentum_buffer;
};

template <typename T>
struct Factors {
  // The bound as scalar_t, the parameters' type, holds it: clamp_ rounds it so.
  template <typename scalar_t>
  static Factors of(const RMSpropSettings& settings, scalar_t) {
    const auto vector = [](double number) { return Vector<T>(static_cast<T>(number)); };
    return {vector(-settings.learning_rate),
            vector(settings.alpha),
            vector(1 - settings.alpha),
            vector(settings.eps),
            vector(settings.weight_decay),
            vector(settings.momentum),
            Vector<T>(static_cast<T>(static_cast<scalar_t>(settings.clip_value))),
            settings.maximize,
            settings.weight_decay != 0,
            1 - settings.alpha < 0.5};
  }

  Vector<T> minus_learning_rate;
  Vector<T> alpha;
  Vector<T> rest;  // 1 − α
  Vector<T> eps;
  Vector<T> weight_decay;
  Vector<T> momentum;
  Vector<T> bound;
  bool maximize;
  bool decays;
  bool lerp_from_start;
};

// Inlined, as is its caller: a call would send every vector through memory.
template <bool kCentered, bool kMomentum, typename T>
C10_ALWAYS_INLINE void take_step(Numbers<T>& n, const Factors<T>& f) {
  Vector<T> gradient = f.maximize ? n.gradient.neg() : n.gradient;
  if (f.decays) gradient = gradient + f.weight_decay * n.parameter;
  n.square_average = n.square_average * f.alpha + f.rest * gradient * gradient;
  Vector<T> average = n.square_average;
  if constexpr (kCentered) {
    // lerp_'s two forms, each exact at its end.
    const Vector<T> way = gradient - n.gradient_average;
    n.gradient_average =
        f.lerp_from_start ? n.gradient_average + f.rest * way : gradient - way * f.alpha;
    average = average - n.gradient_average * n.gradient_average;
  }
  average = average.sqrt() + f.eps;
  if constexpr (kMomentum) {
    n.momentum_buffer = n.momentum_buffer * f.momentum + gradient / average;
    n.parameter = n.parameter + f.minus_learning_rate * n.momentum_buffer;
  } else {
    n.parameter = n.parameter + f.minus_learning_rate * gradient / average;
  }
  n.parameter = at::vec::clamp(n.parameter, f.bound.neg(), f.bound);
}

// A parameter's pointers, at the numbers to update.
template <typename scalar_t>
struct Pointers {
  scalar_t* parameter;
  const scalar_t* gradient;
  scalar_t* square_average;
  scalar_t* gradient_average;
  scalar_t* momentum_buffer;
};

// The next `count` ≤ a vector's numbers.
template <bool kCentered, bool kMomentum, typename scalar_t, typename T>
C10_ALWAYS_INLINE void step_vector(const Pointers<scalar_t>& at, int64_t k, int64_t count,
                                   const Factors<T>& f) {
  using Narrow = Vector<scalar_t>;
  const auto load = [&](const scalar_t* from) {
    return count == Narrow::size() ? Narrow::loadu(from + k) : Narrow::loadu(from + k, count);
  };
  const auto store = [&](const Narrow& vector, scalar_t* to) {
    if (count == Narrow::size()) {
      vector.store(to + k);
    } else {
      vector.store(to + k, count);
    }
  };
  Narrow average, buffer;
  const Narrow parameter = load(at.parameter);
  const Narrow gradient = load(at.gradient);
  const Narrow square = load(at.square_average);
  if constexpr (kCentered) average = load(at.gradient_average);
  if constexpr (kMomentum) buffer = load(at.momentum_buffer);
  if constexpr (std::is_same_v<scalar_t, T>) {
    Numbers<T> n{parameter, gradient, square, average, buffer};
    take_step<kCentered, kMomentum>(n, f);
    store(n.parameter, at.parameter);
    store(n.square_average, at.square_average);
    if constexpr (kCentered) store(n.gradient_average, at.gradient_average);
    if constexpr (kMomentum) store(n.momentum_buffer, at.momentum_buffer);
  } else {
    const auto wide = [](const Narrow& v) { return at::vec::convert_to_float<scalar_t>(v); };
    const auto narrow = [](const Vector<T>& low, const Vector<T>& high) {
      return at::vec::convert_from_float<scalar_t>(low, high);
    };
    const auto p = wide(parameter), g = wide(gradient), s = wide(square);
    std::tuple<Vector<T>, Vector<T>> a, b;
    if constexpr (kCentered) a = wide(average);
    if constexpr (kMomentum) b = wide(buffer);
    Numbers<T> low{std::get<0>(p), std::get<0>(g), std::get<0>(s), std::get<0>(a), std::get<0>(b)};
    Numbers<T> high{std::get<1>(p), std::get<1>(g), std::get<1>(s), std::get<1>(a), std::get<1>(b)};
    take_step<kCentered, kMomentum>(low, f);
    take_step<kCentered, kMomentum>(high, f);
    store(narrow(low.parameter, high.parameter), at.parameter);
    store(narrow(low.square_average, high.square_average), at.square_average);
    if constexpr (kCentered) {
      store(narrow(low.gradient_average, high.gradient_average), at.gradient_average);
    }
    if constexpr (kMomentum) {
      store(narrow(low.momentum_buffer, high.momentum_buffer), at.momentum_buffer);
    }
  }
}

template <bool kCentered, bool kMomentum>
void step_share(const RMSpropTensors& tensors, int64_t begin, int64_t end,
                const RMSpropSettings& settings) {
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, tensors.dtype(), "wgan_fast::rmsprop_", [&] {
        using T = at::opmath_type<scalar_t>;
        constexpr int64_t kSize = Vector<scalar_t>::size();
        const auto at_begin = [&](void* data) { return static_cast<scalar_t*>(data) + begin; };
        const Pointers<scalar_t> pointers{
            at_begin(tensors.parameter()), at_begin(tensors.gradient()),
            at_begin(tensors.square_average()),
            kCentered ? at_begin(tensors.gradient_average()) : nullptr,
            kMomentum ? at_begin(tensors.momentum_buffer()) : nullptr};
        const auto factors = Factors<T>::of(settings, scalar_t());
        const int64_t count = end - begin;
        int64_t k = 0;
        for (; k + kSize <= count; k += kSize) {
          step_vector<kCentered, kMomentum>(pointers, k, kSize, factors);
        }
        if (k < count) step_vector<kCentered, kMomentum>(pointers, k, count - k, factors);
      });
}

using Step = void (*)(const RMSpropTensors&, int64_t, int64_t, const RMSpropSettings&);

Step step_for(bool centered, bool momentum) {
  if (centered) return momentum ? step_share<true, true> : step_share<true, false>;
  return momentum ? step_share<false, true> : step_share<false, false>;
}

void rmsprop_(at::TensorList parameters, at::TensorList gradients, at::TensorList square_averages,
              at::TensorList gradient_averages, at::TensorList momentum_buffers, double lr,
              double alpha, double eps, double weight_decay, double momentum, bool maximize,
              std::optional<double> clip_value, const std::optional<at::Tensor>& lr_tensor) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const double learning_rate = lr_tensor ? lr_tensor->item().toDouble() : lr;
  const RMSpropSettings settings{
      learning_rate, alpha, eps, weight_decay, momentum, maximize, checked_bound(clip_value)};
  const auto tensors =
      rmsprop_tensors(parameters, gradients, square_averages, gradient_averages, momentum_buffers);
  ManyTensors<const RMSpropTensors*> numbers;
  for (const RMSpropTensors& each : tensors) {
    TORCH_CHECK(each.device().is_cpu(), "rmsprop_: parameters must be on one device");
    numbers.add(&each, each.count());
  }
  const Step step = step_for(!gradient_averages.empty(), !momentum_buffers.empty());
  numbers.for_each_share(kGrainElements, [&](const RMSpropTensors* each, int64_t begin,
                                             int64_t end) { step(*each, begin, end, settings); });
  for (const RMSpropTensors& each : tensors) each.copy_back();
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) { m.impl("rmsprop_", TORCH_FN(rmsprop_)); }

}  // namespace wgan_fast
