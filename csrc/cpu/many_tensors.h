// Many tensors as one list of numbers, cut into equal shares for the threads: a critic's many small
// biases cost no parallel region of their own.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace wgan_fast {

// `Tensor` is whatever an operator needs to know of one tensor, or of several of one size.
template <typename Tensor>
class ManyTensors {
 public:
  void add(Tensor tensor, int64_t count) {
    if (count == 0) return;
    runs_.push_back({tensor, total_, total_ + count});
    total_ += count;
  }

  // Calls body(tensor, begin, end) in parallel, so that together every tensor's numbers
  // [0, count) are met once. A thread takes `grain` numbers at least.
  template <typename Body>
  void for_each_share(int64_t grain, const Body& body) const {
    at::parallel_for(0, total_, grain, [&](int64_t begin, int64_t end) {
      auto run = std::upper_bound(runs_.begin(), runs_.end(), begin,
                                  [](int64_t place, const Run& r) { return place < r.end; });
      for (; run != runs_.end() && run->begin < end; ++run) {
        const int64_t from = std::max(begin, run->begin) - run->begin;
        body(run->tensor, from, std::min(end, run->end) - run->begin);
      }
    });
  }

 private:
  struct Run {
    Tensor tensor;
    int64_t begin;  // its place in the list of all numbers
    int64_t end;
  };
  std::vector<Run> runs_;
  int64_t total_ = 0;
};

}  // namespace wgan_fast
