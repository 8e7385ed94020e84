// Products of float32 matrices by oneDNN's microkernel.
//
// MKL reaches four fifths of what an AMD CPU can do; oneDNN's kernels, which PyTorch brings, are
// made for the CPU at hand and multiply what lies row by row without a copy.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace wgan_fast {

// Whether this CPU and this PyTorch have the microkernel, and oneDNN is not turned off.
bool has_microkernel();

// A matrix in memory; one of the strides is 1.
struct Matrix {
  const float* data;
  int64_t row_stride, column_stride;

  // From this row and column on.
  Matrix from(int64_t row, int64_t column) const {
    return {data + row * row_stride + column * column_stride, row_stride, column_stride};
  }
};

// Where a tensor of two axes lies, if rows or columns follow each other without overlap.
std::optional<Matrix> matrix_of(const at::Tensor& tensor);

// c (m, n), whose rows lie `stride` apart, is a (m, k) b (k, n), plus `start`, whose rows lie
// `start_stride` apart, 0 for one row that counts for all. c may be its own start. In one thread.
void multiply(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t stride,
              const float* start = nullptr, int64_t start_stride = 0);

}  // namespace wgan_fast
