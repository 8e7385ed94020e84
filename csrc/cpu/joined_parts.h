// Results for the equal parts of a batch, joined to the batch's: means of means, and rows in order.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "many_tensors.h"

namespace wgan_fast {

// By place among the results: one tensor of each part, all undefined where there is no result.
using PartsByPlace = std::vector<std::vector<at::Tensor>>;

// A share of one sum over the parts: enough of it to be worth another thread.
constexpr int64_t kMeanGrain = 8192;

// One tensor of each part; the mean is written into the first.
template <typename T>
struct Parts {
  std::vector<T*> data;

  void add(const at::Tensor& part) { data.push_back(part.mutable_data_ptr<T>()); }

  void average(int64_t begin, int64_t end) const {
    T* const mean = data[0];
    for (size_t part = 1; part < data.size(); ++part) {
      const T* const more = data[part];
      for (int64_t i = begin; i < end; ++i) mean[i] += more[i];
    }
    const T share = T(1) / static_cast<T>(data.size());
    for (int64_t i = begin; i < end; ++i) mean[i] *= share;
  }
};

template <typename T>
class Means {
 public:
  // Whether nobody else sees the first one's memory, and all numbers lie in the same order.
  static bool takes(const std::vector<at::Tensor>& parts) {
    const at::Tensor& first = parts[0];
    if (first.scalar_type() != c10::CppTypeToScalarType<T>::value) return false;
    if (first.use_count() != 1 || first.storage().use_count() != 1) return false;
    if (!first.is_non_overlapping_and_dense()) return false;
    return std::all_of(parts.begin(), parts.end(), [&](const at::Tensor& part) {
      return part.is_cpu() && part.scalar_type() == first.scalar_type() &&
             part.sizes() == first.sizes() && part.strides() == first.strides();
    });
  }

  void add(const std::vector<at::Tensor>& parts) {
    Parts<T> all;
    for (const at::Tensor& part : parts) all.add(part);
    tensors_.add(std::move(all), parts[0].numel());
  }

  void write() const {
    tensors_.for_each_share(kMeanGrain, [](const Parts<T>& parts, int64_t begin, int64_t end) {
      parts.average(begin, end);
    });
  }

 private:
  ManyTensors<Parts<T>> tensors_;
};

// Whether ``average`` takes a tensor of each part.
inline bool averages_in_place(const std::vector<at::Tensor>& parts) {
  return parts[0].defined() && (Means<float>::takes(parts) || Means<double>::takes(parts));
}

// Leaves the mean of the parts alone, in the first one's memory; in one thread.
inline void average(std::vector<at::Tensor>& parts) {
  const auto write = [&](auto zero) {
    Parts<decltype(zero)> all;
    for (const at::Tensor& part : parts) all.add(part);
    all.average(0, parts[0].numel());
  };
  parts[0].scalar_type() == at::kFloat ? write(0.0F) : write(0.0);
  parts.resize(1);
}

// The mean at every place but those in ``rows``, where the parts follow each other. A place with
// one tensor alone, of one part or the mean already, gives that.
inline std::vector<at::Tensor> joined_parts(PartsByPlace places, const std::vector<int64_t>& rows) {
  for (const int64_t place : rows) {
    auto& parts = places.at(place);
    if (parts[0].defined()) parts = {at::cat(parts)};
  }
  Means<float> floats;
  Means<double> doubles;
  for (auto& parts : places) {
    if (!parts[0].defined() || parts.size() == 1) continue;
    if (Means<float>::takes(parts)) {
      floats.add(parts);
    } else if (Means<double>::takes(parts)) {
      doubles.add(parts);
    } else {
      // In the strides that the parts have: an optimiser goes by memory.
      parts[0] = at::empty_like(parts[0]).copy_(at::stack(parts).mean(0));
    }
  }
  floats.write();
  doubles.write();
  std::vector<at::Tensor> joined;
  for (auto& parts : places) joined.push_back(std::move(parts[0]));
  return joined;
}

}  // namespace wgan_fast
