// Convolutions by 4x4 kernels at stride 2, every DCGAN critic's, with 9/16 of the multiplications:
// Winograd's F(2x2, 2x2) on each of the four images that the stride takes a pixel in four of.
//
//   winograd_gather(Tensor images, Tensor weight, Tensor? bias, int[2] padding) -> Tensor
//
//   winograd_spread(Tensor maps, Tensor weight, int[2] size, int[2] padding) -> Tensor
//
//   winograd_weight(Tensor maps, Tensor images, int[2] padding) -> Tensor
//
// the convolution, and its gradients in images and weight for the gradient `maps` of its result.
// For each of the nine places of a transformed tile, products of matrices sum over the four images'
// channels:
//
//   of_pixels (tiles, 4C)  @  of_weight (M, 4C)^T  =  of_results (tiles, M)
//
// and the two gradients are the transposed products between the transposed transformations. Tiles
// go through the cache in blocks.

#include <ATen/Dispatch.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "../side_by_side.h"
#include "products.h"
#include "winograd_transforms.h"

namespace wgan_fast {
namespace {

using namespace winograd;

constexpr int64_t kBlock = 127;  // tiles that are in the cache at once
constexpr int64_t kKeptBytes = 16 << 20;

at::Tensor in_channels_last(const at::Tensor& tensor) {
  return tensor.contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor new_channels_last(const at::Tensor& like, at::IntArrayRef sizes) {
  return at::empty(sizes, like.options().memory_format(at::MemoryFormat::ChannelsLast));
}

// c (9, m, n) is a (9, m, k) b (9, k, n), to which is added what it holds, if it `adds`.
template <typename scalar_t>
void multiply_points(const at::Tensor& a, const at::Tensor& b, at::Tensor& c, bool adds) {
  if constexpr (std::is_same_v<scalar_t, float>) {
    if (has_microkernel()) {
      for (int64_t point = 0; point < kPoints; ++point) {
        float* to = c.data_ptr<float>() + point * c.stride(0);
        multiply(c.size(1), c.size(2), a.size(2), *matrix_of(a.select(0, point)),
                 *matrix_of(b.select(0, point)), to, c.stride(1), adds ? to : nullptr);
      }
      return;
    }
  }
  adds ? c.baddbmm_(a, b) : at::bmm_out(c, a, b);
}

enum class For { kPixels, kResults, kKernels };

// Memory that this thread keeps between calls, unless it is much: the system's fresh pages would
// take longer to come than what is done in them.
template <For kPurpose>
at::Tensor kept(at::IntArrayRef sizes, const at::Tensor& like) {
  thread_local at::Tensor memory;
  const int64_t count = c10::multiply_integers(sizes);
  if (count * static_cast<int64_t>(like.element_size()) > kKeptBytes) {
    return at::empty(sizes, like.options());
  }
  if (!memory.defined() || memory.numel() < count || memory.scalar_type() != like.scalar_type()) {
    memory = at::empty({count}, like.options());
  }
  return memory.narrow(0, 0, count).view(sizes);
}

// The tiles of some whole images, a block at a time, with memory for a block's transformations.
template <typename scalar_t>
class Blocks {
 public:
  Blocks(const Geometry& shape, const at::Tensor& like, int64_t first, int64_t last)
      : shape_(shape),
        begin_(first * shape.tiles()),
        end_(last * shape.tiles()),
        like_(like),
        outside_(at::zeros({2, std::max(shape.channels, shape.maps)}, like.options())) {}

  // body(tiles, of_pixels, of_results) for each block.
  template <typename Body>
  void for_each(const Body& body) const {
    if (begin_ == end_) return;
    // Of one size, as a small one reads as much of the weight; odd, or a tile's nine places would
    // lie in one set of the cache.
    const int64_t size = at::divup(end_ - begin_, at::divup(end_ - begin_, kBlock)) | 1;
    scalar_t* outside = outside_.data_ptr<scalar_t>();
    for (int64_t begin = begin_; begin < end_; begin += size) {
      const Tiles<scalar_t> tiles{shape_, begin, std::min(begin + size, end_), outside,
                                  outside + outside_.size(1)};
      at::Tensor of_pixels =
          kept<For::kPixels>({kPoints, tiles.count(), tiles.pixels_width()}, like_);
      at::Tensor of_results = kept<For::kResults>({kPoints, tiles.count(), shape_.maps}, like_);
      body(tiles, of_pixels, of_results);
    }
  }

 private:
  const Geometry& shape_;
  int64_t begin_, end_;
  const at::Tensor& like_;
  at::Tensor outside_;
};

// body(part, blocks) for one part of the images in each thread.
template <typename scalar_t, typename Body>
void for_parts(const Geometry& shape, const at::Tensor& like, int64_t parts, const Body& body) {
  side_by_side(static_cast<size_t>(parts), [&](size_t part) {
    const auto share = static_cast<int64_t>(part);
    const int64_t first = shape.samples * share / parts;
    const int64_t last = shape.samples * (share + 1) / parts;
    body(share, Blocks<scalar_t>(shape, like, first, last));
  });
}

int64_t parts_of(const Geometry& shape) {
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  return std::max<int64_t>(std::min(threads, shape.samples), 1);
}

template <typename scalar_t>
at::Tensor of_weight(const at::Tensor& weight) {
  const Kernels<scalar_t> kernels{weight.size(0), weight.size(1)};
  // Not one run of memory: places at powers of two from each other would lie in one set of a cache.
  const int64_t width = kPhases * kernels.channels, stride = kernels.maps * width + 80;
  at::Tensor found = kept<For::kKernels>({kPoints * stride}, weight)
                         .as_strided({kPoints, kernels.maps, width}, {stride, width, 1});
  const at::Tensor given = in_channels_last(weight);
  kernels.in(given.const_data_ptr<scalar_t>(), found.data_ptr<scalar_t>(), stride);
  return found;
}

void check(const char* op, const at::Tensor& tensor, const at::Tensor& weight) {
  TORCH_CHECK(weight.dim() == 4 && weight.size(2) == kKernel && weight.size(3) == kKernel, op,
              ": weight must be (M, C, 4, 4), got ", weight.sizes());
  TORCH_CHECK(tensor.scalar_type() == weight.scalar_type(), op,
              ": images, maps and weight must have one dtype, got ", tensor.scalar_type(), " and ",
              weight.scalar_type());
}

void check_images(const char* op, const char* name, const at::Tensor& tensor,
                  at::IntArrayRef sizes) {
  TORCH_CHECK(tensor.sizes() == sizes, op, ": ", name, " must be ", sizes, ", got ",
              tensor.sizes());
}

// Of images (N, C, height, width).
Geometry geometry(const char* op, at::IntArrayRef images, int64_t maps, at::IntArrayRef padding) {
  TORCH_CHECK(images.size() == 4, op, ": images must be (N, C, height, width), got ", images);
  TORCH_CHECK(padding.size() == 2 && padding[0] >= 0 && padding[1] >= 0, op,
              ": padding must be two numbers of at least 0, got ", padding);
  const int64_t height = (images[2] + 2 * padding[0] - kKernel) / 2 + 1;
  const int64_t width = (images[3] + 2 * padding[1] - kKernel) / 2 + 1;
  TORCH_CHECK(images[2] + 2 * padding[0] >= kKernel && images[3] + 2 * padding[1] >= kKernel, op,
              ": images must have at least 4x4 pixels with padding, got ", images, " with ",
              padding);
  return {images[0], images[1], images[2], images[3], maps, height, width, padding[0], padding[1]};
}

at::Tensor winograd_gather(const at::Tensor& images, const at::Tensor& weight,
                           const std::optional<at::Tensor>& bias, at::IntArrayRef padding) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const char* op = "winograd_gather";
  check(op, images, weight);
  const Geometry shape = geometry(op, images.sizes(), weight.size(0), padding);
  check_images(op, "weight", weight, {shape.maps, shape.channels, kKernel, kKernel});
  const bool biased = bias.has_value() && bias->defined();
  const at::Tensor added = biased ? bias->contiguous() : at::Tensor();
  if (biased) check_images(op, "bias", added, {shape.maps});
  const at::Tensor given = in_channels_last(images);
  at::Tensor maps =
      new_channels_last(images, {shape.samples, shape.maps, shape.map_height, shape.map_width});
  AT_DISPATCH_FLOATING_TYPES(images.scalar_type(), "wgan_fast::winograd_gather", [&] {
    const at::Tensor kernels = of_weight<scalar_t>(weight).transpose(1, 2);
    const scalar_t* bias_data = biased ? added.const_data_ptr<scalar_t>() : nullptr;
    for_parts<scalar_t>(shape, images, parts_of(shape), [&](int64_t, const auto& blocks) {
      blocks.for_each([&](const auto& tiles, at::Tensor& of_pixels, at::Tensor& of_results) {
        tiles.pixels_in(given.const_data_ptr<scalar_t>(), of_pixels.data_ptr<scalar_t>());
        multiply_points<scalar_t>(of_pixels, kernels, of_results, false);
        tiles.results_out(of_results.const_data_ptr<scalar_t>(), bias_data,
                          maps.data_ptr<scalar_t>());
      });
    });
  });
  return maps;
}

at::Tensor winograd_spread(const at::Tensor& maps, const at::Tensor& weight, at::IntArrayRef size,
                           at::IntArrayRef padding) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const char* op = "winograd_spread";
  check(op, maps, weight);
  TORCH_CHECK(maps.dim() == 4, op, ": maps must be (N, M, height, width), got ", maps.sizes());
  TORCH_CHECK(size.size() == 2, op, ": size must be two numbers, got ", size);
  const std::array<int64_t, 4> sizes{maps.size(0), weight.size(1), size[0], size[1]};
  const Geometry shape = geometry(op, sizes, weight.size(0), padding);
  check_images(op, "maps", maps, {shape.samples, shape.maps, shape.map_height, shape.map_width});
  const at::Tensor given = in_channels_last(maps);
  at::Tensor images = new_channels_last(maps, sizes).zero_();
  AT_DISPATCH_FLOATING_TYPES(maps.scalar_type(), "wgan_fast::winograd_spread", [&] {
    const at::Tensor kernels = of_weight<scalar_t>(weight);
    for_parts<scalar_t>(shape, maps, parts_of(shape), [&](int64_t, const auto& blocks) {
      blocks.for_each([&](const auto& tiles, at::Tensor& of_pixels, at::Tensor& of_results) {
        tiles.results_in(given.const_data_ptr<scalar_t>(), of_results.data_ptr<scalar_t>());
        multiply_points<scalar_t>(of_results, kernels, of_pixels, false);
        tiles.pixels_out(of_pixels.const_data_ptr<scalar_t>(), images.data_ptr<scalar_t>());
      });
    });
  });
  return images;
}

at::Tensor winograd_weight(const at::Tensor& maps, const at::Tensor& images,
                           at::IntArrayRef padding) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const char* op = "winograd_weight";
  TORCH_CHECK(maps.dim() == 4, op, ": maps must be (N, M, height, width), got ", maps.sizes());
  TORCH_CHECK(images.scalar_type() == maps.scalar_type(), op, ": images must be ",
              maps.scalar_type(), " as maps are, got ", images.scalar_type());
  const Geometry shape = geometry(op, images.sizes(), maps.size(1), padding);
  check_images(op, "maps", maps, {shape.samples, shape.maps, shape.map_height, shape.map_width});
  const at::Tensor given = in_channels_last(maps), seen = in_channels_last(images);
  at::Tensor weight = new_channels_last(maps, {shape.maps, shape.channels, kKernel, kKernel});
  if (shape.samples == 0) return weight.zero_();
  AT_DISPATCH_FLOATING_TYPES(maps.scalar_type(), "wgan_fast::winograd_weight", [&] {
    const int64_t count = parts_of(shape);
    const at::Tensor sums =
        kept<For::kKernels>({count, kPoints, shape.maps, kPhases * shape.channels}, maps);
    for_parts<scalar_t>(shape, maps, count, [&](int64_t part, const auto& blocks) {
      at::Tensor sum = sums.select(0, part);
      bool adds = false;
      blocks.for_each([&](const auto& tiles, at::Tensor& of_pixels, at::Tensor& of_results) {
        tiles.pixels_in(seen.const_data_ptr<scalar_t>(), of_pixels.data_ptr<scalar_t>());
        tiles.results_in(given.const_data_ptr<scalar_t>(), of_results.data_ptr<scalar_t>());
        multiply_points<scalar_t>(of_results.transpose(1, 2), of_pixels, sum, adds);
        adds = true;
      });
    });
    at::Tensor sum = sums.select(0, 0);
    for (int64_t part = 1; part < count; ++part) sum.add_(sums.select(0, part));
    const at::Tensor zeros = at::zeros({shape.channels}, maps.options());
    Kernels<scalar_t>{shape.maps, shape.channels}.out(sum.const_data_ptr<scalar_t>(), sum.stride(0),
                                                      zeros.const_data_ptr<scalar_t>(),
                                                      weight.data_ptr<scalar_t>());
  });
  return weight;
}

}  // namespace

TORCH_LIBRARY_IMPL(wgan_fast, CPU, m) {
  m.impl("winograd_gather", TORCH_FN(winograd_gather));
  m.impl("winograd_spread", TORCH_FN(winograd_spread));
  m.impl("winograd_weight", TORCH_FN(winograd_weight));
}

}  // namespace wgan_fast
