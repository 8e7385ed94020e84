// How the work on a batch of rows is cut. The cut depends on the shape alone, never on the number
// of threads, so that a sum over a row is the same number whoever computes it.
#pragma once

#include <ATen/Parallel.h>
#include <c10/util/SmallVector.h>

#include <algorithm>
#include <cstdint>

namespace wgan_fast {

// Half an L1 cache of float32, and a thread's smallest share of an operator (ATen's own figure).
constexpr int64_t kChunkColumns = 4096;
constexpr int64_t kGrainElements = 32768;

struct RowChunks {
  int64_t rows;
  int64_t columns;

  int64_t per_row() const { return at::divup(columns, kChunkColumns); }
  int64_t begin(int64_t chunk) const { return chunk * kChunkColumns; }
  int64_t length(int64_t chunk) const { return std::min(kChunkColumns, columns - begin(chunk)); }

  // Calls body(row, chunk) for every chunk of every row, in parallel: one huge row is shared too.
  template <typename Body>
  void for_each(const Body& body) const {
    if (rows == 0 || columns == 0) return;
    const int64_t chunks = per_row();
    const int64_t grain = at::divup(kGrainElements, std::min(columns, kChunkColumns));
    at::parallel_for(0, rows * chunks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) body(task / chunks, task % chunks);
    });
  }

  // Calls body(row) for every row, in parallel.
  template <typename Body>
  void for_each_row(const Body& body) const {
    const int64_t grain = at::divup(kGrainElements, std::max<int64_t>(columns, 1));
    at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) body(row);
    });
  }

  // Whether whole rows keep every thread busy. A thread that owns a row reads it the second time
  // from its cache, and needs no second parallel region.
  bool enough_rows() const {
    return rows >= 8 * at::get_num_threads() || rows * columns <= kGrainElements;
  }
};

// First part(row, chunk) -> Part for every chunk of a row, joined in order by join(whole, part);
// then finish(row, whole); then write(row, chunk) for every chunk of it.
template <typename PartOf, typename Join, typename Finish, typename Write>
void reduce_then_write(const RowChunks& work, const PartOf& part, const Join& join,
                       const Finish& finish, const Write& write) {
  using Part = decltype(part(int64_t(0), int64_t(0)));
  const int64_t chunks = work.per_row();
  if (work.enough_rows()) {
    work.for_each_row([&](int64_t row) {
      Part whole{};
      for (int64_t chunk = 0; chunk < chunks; ++chunk) join(whole, part(row, chunk));
      finish(row, whole);
      for (int64_t chunk = 0; chunk < chunks; ++chunk) write(row, chunk);
    });
    return;
  }
  c10::SmallVector<Part, 64> parts(work.rows * chunks, Part{});
  work.for_each(
      [&](int64_t row, int64_t chunk) { parts[row * chunks + chunk] = part(row, chunk); });
  for (int64_t row = 0; row < work.rows; ++row) {
    Part whole{};
    for (int64_t chunk = 0; chunk < chunks; ++chunk) join(whole, parts[row * chunks + chunk]);
    finish(row, whole);
  }
  work.for_each(write);
}

}  // namespace wgan_fast
