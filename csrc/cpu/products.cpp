// wgan_fast::product(Tensor a, Tensor b, Tensor? added=None) -> Tensor
//
// a b, plus what is broadcast to it: torch.mm and torch.addmm, for float32 by products.h where that
// is there.

#include "products.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "../side_by_side.h"

namespace wgan_fast {
namespace {

// A block of b stays in a core's second cache, one of a in its first.
constexpr int64_t kRows = 64, kColumns = 256, kInner = 256;
constexpr int64_t kFurthest = 1 << 22;

#ifdef CPUBLAS_BRGEMM_F32F32F32
void call_microkernel(int64_t m, int64_t n, int64_t k, const float* a, int64_t stride_a,
                      const float* b, int64_t stride_b, float* c, int64_t stride_c, bool adds) {
  at::native::cpublas::brgemm(m, n, k, stride_a, stride_b, stride_c, adds, a, b, c, false);
}
#else
void call_microkernel(int64_t, int64_t, int64_t, const float*, int64_t, const float*, int64_t,
                      float*, int64_t, bool) {
  TORCH_CHECK(false, "this PyTorch has no microkernel");
}
#endif

// The largest size of equal blocks, but for the last, of at most `largest`.
int64_t block_of(int64_t size, int64_t largest, int64_t multiple) {
  const int64_t equal = at::divup(size, at::divup(size, largest));
  return at::divup(equal, multiple) * multiple;
}

// to (columns, rows) from (rows, columns).
void transpose(int64_t rows, int64_t columns, const float* from, int64_t stride, float* to,
               int64_t to_stride) {
  constexpr int64_t kSize = 8;
  const int64_t whole_rows = rows / kSize * kSize, whole_columns = columns / kSize * kSize;
  for (int64_t i = 0; i < whole_rows; i += kSize) {
    for (int64_t j = 0; j < whole_columns; j += kSize) {
      at::vec::transpose_mxn<float, kSize, kSize>(from + i * stride + j, stride,
                                                  to + j * to_stride + i, to_stride);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j) {
      to[j * to_stride + i] = from[i * stride + j];
    }
  }
}

// A block of a matrix, row by row: where it lies, or copied to `memory`.
Matrix rows_of(Matrix matrix, int64_t row, int64_t column, int64_t rows, int64_t columns,
               std::vector<float>& memory) {
  const Matrix block = matrix.from(row, column);
  if (matrix.column_stride == 1) return block;
  memory.resize(static_cast<size_t>(rows * columns));
  transpose(columns, rows, block.data, block.column_stride, memory.data(), columns);
  return {memory.data(), columns, 1};
}

}  // namespace

bool has_microkernel() {
#if defined(CPUBLAS_BRGEMM_F32F32F32) && defined(CPU_CAPABILITY_AVX2)
  return at::hasMKLDNN() && at::globalContext().userEnabledMkldnn();
#else
  return false;
#endif
}

std::optional<Matrix> matrix_of(const at::Tensor& tensor) {
  const int64_t rows = tensor.size(0), columns = tensor.size(1);
  const float* data = tensor.const_data_ptr<float>();
  // The stride of an axis of one number says nothing.
  const int64_t by_row = rows == 1 ? columns : tensor.stride(0);
  const int64_t by_column = columns == 1 ? rows : tensor.stride(1);
  if ((columns == 1 || by_column == 1) && by_row >= columns) return Matrix{data, by_row, 1};
  if ((rows == 1 || by_row == 1) && by_column >= rows) return Matrix{data, 1, by_column};
  return std::nullopt;
}

void multiply(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t stride,
              const float* start, int64_t start_stride) {
  // Writes the start to a block, which the microkernel then finds in the cache.
  const auto begin_with = [&](int64_t row, int64_t column, int64_t rows, int64_t columns) {
    for (int64_t i = row; i < row + rows && start != c; ++i) {
      float* to = c + i * stride + column;
      if (start == nullptr) {
        std::fill_n(to, columns, 0.0F);
      } else {
        std::copy_n(start + i * start_stride + column, columns, to);
      }
    }
  };
  if (m == 0 || n == 0) return;
  if (k == 0) return begin_with(0, 0, m, n);
  thread_local std::vector<float> memory_a, memory_b;
  const int64_t rows = block_of(m, kRows, 1), inner = block_of(k, kInner, 1);
  const int64_t columns = block_of(n, kColumns, 16);
  for (int64_t column = 0; column < n; column += columns) {
    const int64_t some_columns = std::min(columns, n - column);
    for (int64_t depth = 0; depth < k; depth += inner) {
      const int64_t some_inner = std::min(inner, k - depth);
      const Matrix right = rows_of(b, depth, column, some_inner, some_columns, memory_b);
      for (int64_t row = 0; row < m; row += rows) {
        const int64_t some_rows = std::min(rows, m - row);
        const Matrix left = rows_of(a, row, depth, some_rows, some_inner, memory_a);
        if (depth == 0 && start != nullptr) begin_with(row, column, some_rows, some_columns);
        call_microkernel(some_rows, some_columns, some_inner, left.data, left.row_stride,
                         right.data, right.row_stride, c + row * stride + column, stride,
                         start != nullptr || depth > 0);
      }
    }
  }
}

namespace {

// What lies in any other way is copied; to keep the copy, ``tensor`` becomes it.
Matrix in_memory(at::Tensor& tensor) {
  if (!matrix_of(tensor)) tensor = tensor.contiguous();
  return *matrix_of(tensor);
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b,
                   const std::optional<at::Tensor>& added) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0),
              "product: a and b must be (m, k) and (k, n), got ", a.sizes(), " and ", b.sizes());
  const int64_t m = a.size(0), n = b.size(1), k = a.size(1);
  const bool adds = added.has_value() && added->defined();
  const auto is_float = [](const at::Tensor& one) { return one.scalar_type() == at::kFloat; };
  // oneDNN makes no kernel for rows that lie further apart than 32 bits can say.
  const auto is_near = [](at::IntArrayRef strides) {
    return std::max(strides[0], strides[1]) <= kFurthest;
  };
  const bool fits = is_float(a) && is_float(b) && (!adds || is_float(*added)) && m * n * k > 0 &&
                    n <= kFurthest && is_near(a.strides()) && is_near(b.strides());
  if (!fits || !has_microkernel()) return adds ? at::addmm(*added, a, b) : at::mm(a, b);
  at::Tensor held_a = a, held_b = b;
  const Matrix left = in_memory(held_a), right = in_memory(held_b);
  at::Tensor start;
  if (adds) {
    start = added->expand({m, n});
    if (start.stride(1) != 1) start = start.contiguous();
  }
  at::Tensor result = at::empty({m, n}, a.options());
  float* data = result.data_ptr<float>();
  const bool by_rows = m >= n;
  const int64_t size = by_rows ? m : n;
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t parts = std::min(threads, at::divup(size, kRows));
  side_by_side(static_cast<size_t>(parts), [&](size_t part) {
    const auto share = static_cast<int64_t>(part);
    const int64_t first = size * share / parts, count = size * (share + 1) / parts - first;
    const int64_t row = by_rows ? first : 0, column = by_rows ? 0 : first;
    const int64_t start_stride = adds ? start.stride(0) : 0;
    const float* own_start =
        adds ? start.const_data_ptr<float>() + row * start_stride + column : nullptr;
    multiply(by_rows ? count : m, by_rows ? n : count, k, left.from(row, 0), right.from(0, column),
             data + row * n + column, n, own_start, start_stride);
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) { m.impl("product", TORCH_FN(product)); }

}  // namespace wgan_fast
