// Independent pieces of work, each in one thread.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/ThreadLocalState.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include <cstddef>
#include <cstdint>

namespace wgan_fast {

// body(i) for every i below ``count``, each in one thread and with this one's modes.
template <typename Body>
void side_by_side(size_t count, const Body& body) {
  const at::ThreadLocalState here;
  at::parallel_for(0, static_cast<int64_t>(count), 1, [&](int64_t begin, int64_t end) {
    const at::ThreadLocalStateGuard as_here(here);
#ifdef _OPENMP
    if (at::in_parallel_region()) {
      // oneDNN plans for as many threads as it is told of, and would wait for them in here. PyTorch
      // tells each thread once, at its first operator; this thread's time to hear it is before.
      at::internal::lazy_init_num_threads();
      at::get_num_threads();
      omp_set_num_threads(1);
    }
#endif
    for (int64_t i = begin; i < end; ++i) body(static_cast<size_t>(i));
  });
}

}  // namespace wgan_fast
