// A batch seen as rows: sample i's numbers are one contiguous run of memory, in every operand the
// same order within the run. Contiguous and channels_last batches are rows as they are, so that the
// operators read them without a copy; whatever else comes is copied once.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

namespace wgan_fast {

// The numbers of one sample; 1 for a batch of scalars, 0 for a batch of empty samples.
inline int64_t columns_of(const at::Tensor& batch) {
  int64_t columns = 1;
  for (const int64_t size : batch.sizes().slice(1)) columns *= size;
  return columns;
}

inline bool samples_are_runs(const at::Tensor& batch) {
  // A dense tensor whose batch axis strides over one whole sample has that axis slowest.
  return batch.is_non_overlapping_and_dense() &&
         (batch.size(0) <= 1 || batch.stride(0) == columns_of(batch));
}

inline bool same_layout(const at::Tensor& left, const at::Tensor& right) {
  for (int64_t axis = 0; axis < left.dim(); ++axis) {
    // The stride of an axis of length 1 addresses nothing.
    if (left.size(axis) > 1 && left.stride(axis) != right.stride(axis)) return false;
  }
  return true;
}

// An operator's output, like `batch` in shape, dtype and memory format, and the rows to fill it by.
class RowsOutput {
 public:
  explicit RowsOutput(const at::Tensor& batch)
      : result_(at::empty_like(batch)),
        rows_(samples_are_runs(result_) ? result_ : at::empty(batch.sizes(), batch.options())) {}

  const at::Tensor& rows() const { return rows_; }

  // `operand` in the layout of rows(): itself, or a copy.
  at::Tensor operand(const at::Tensor& operand) const {
    return same_layout(operand, rows_) ? operand : at::empty_like(rows_).copy_(operand);
  }

  // The output, once rows() is filled.
  at::Tensor take() {
    if (!rows_.is_same(result_)) result_.copy_(rows_);
    return result_;
  }

 private:
  at::Tensor result_;
  at::Tensor rows_;
};

}  // namespace wgan_fast
