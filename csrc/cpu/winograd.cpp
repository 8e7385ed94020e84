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
// Along one axis, two results of two taps take three products in the place of four,
//
//   y0 = d0 g0 + d1 g1 = m0 + m1    with  m0 = (d0 - d1) g0,  m1 = d1 (g0 + g1),
//   y1 = d1 g0 + d2 g1 = m1 + m2          m2 = (d2 - d1) g1,
//
// along both, nine for sixteen. A tile of 2x2 results sees 3x3 pixels of each of the four images;
// for each of the nine, products of matrices sum over the four images' channels:
//
//   of_pixels (tiles, 4C)  @  of_weight (M, 4C)^T  =  of_results (tiles, M)
//
// and the two gradients are the transposed products between the transposed transformations. All is
// channels_last. Tiles go through the cache in blocks.

#include <ATen/Dispatch.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/vec.h>
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
#include "chunks.h"
#include "products.h"

namespace wgan_fast {
namespace {

constexpr int64_t kKernel = 4;
constexpr int64_t kPhases = 4;   // images of every second pixel of every second row
constexpr int64_t kPoints = 9;   // products for each tile
constexpr int64_t kBlock = 127;  // tiles that are in the cache at once
constexpr int64_t kKeptBytes = 16 << 20;

template <typename scalar_t>
using Vector = at::vec::Vectorized<scalar_t>;
template <typename scalar_t>
using Square = std::array<Vector<scalar_t>, kPoints>;  // 3x3

// body(k, lanes) for vectors of channels from k on; of whole ones, the compiler knows the size.
template <typename scalar_t, typename Body>
void for_channels(int64_t channels, const Body& body) {
  using Whole = std::integral_constant<int64_t, Vector<scalar_t>::size()>;
  int64_t k = 0;
  for (; k + Whole::value <= channels; k += Whole::value) body(k, Whole{});
  if (k < channels) body(k, channels - k);
}

template <typename scalar_t, typename Lanes>
Vector<scalar_t> load(const scalar_t* from, Lanes lanes) {
  if constexpr (std::is_integral_v<Lanes>) {
    return Vector<scalar_t>::loadu(from, lanes);
  } else {
    return Vector<scalar_t>::loadu(from);
  }
}

template <typename scalar_t, typename Lanes>
void store(const Vector<scalar_t>& vector, scalar_t* to, Lanes lanes) {
  if constexpr (std::is_integral_v<Lanes>) {
    vector.store(to, static_cast<int>(lanes));
  } else {
    vector.store(to);
  }
}

// What a transformation does to three numbers, along both axes of a square; in registers.
template <typename scalar_t, typename Along>
C10_ALWAYS_INLINE void along_both(Square<scalar_t>& s, const Along& along) {
  along(s[0], s[1], s[2]), along(s[3], s[4], s[5]), along(s[6], s[7], s[8]);
  along(s[0], s[3], s[6]), along(s[1], s[4], s[7]), along(s[2], s[5], s[8]);
}

// The shapes of one convolution, and its tiles of 2x2 results.
struct Geometry {
  int64_t samples, channels, height, width;  // of the images
  int64_t maps, map_height, map_width;       // of the results
  int64_t top, left;                         // padding

  int64_t tile_rows() const { return (map_height + 1) / 2; }
  int64_t tile_columns() const { return (map_width + 1) / 2; }
  int64_t tiles() const { return tile_rows() * tile_columns(); }  // of one image

  // Where a result's numbers begin; -1 outside.
  int64_t result(int64_t sample, int64_t y, int64_t x) const {
    const bool inside = y < map_height && x < map_width;
    return inside ? ((sample * map_height + y) * map_width + x) * maps : -1;
  }

  // body(sample, row, column) of the first result of the k-th tile of all.
  template <typename Body>
  void at_tile(int64_t k, const Body& body) const {
    const int64_t within = k % tiles();
    body(k / tiles(), 2 * (within / tile_columns()), 2 * (within % tile_columns()));
  }

  // body(phase, pixels) for the 3x3 pixels that a tile sees in each phase: where the numbers of
  // each begin; -1 outside.
  template <typename Body>
  void at_phases(int64_t tile, const Body& body) const {
    at_tile(tile, [&](int64_t sample, int64_t row, int64_t column) {
      std::array<int64_t, 6> rows, columns;
      for (int64_t k = 0; k < 6; ++k) {
        const int64_t y = 2 * row + k - top, x = 2 * column + k - left;
        rows[k] = y >= 0 && y < height ? (sample * height + y) * width * channels : -1;
        columns[k] = x >= 0 && x < width ? x * channels : -1;
      }
      for (int64_t phase = 0; phase < kPhases; ++phase) {
        std::array<int64_t, kPoints> pixels;
        for (int64_t k = 0; k < kPoints; ++k) {
          const int64_t y = rows[k / 3 * 2 + phase / 2], x = columns[k % 3 * 2 + phase % 2];
          pixels[k] = y < 0 || x < 0 ? -1 : y + x;
        }
        body(phase, pixels);
      }
    });
  }

  // body(results) for the 2x2 results of a tile.
  template <typename Body>
  void at_results(int64_t tile, const Body& body) const {
    at_tile(tile, [&](int64_t sample, int64_t row, int64_t column) {
      std::array<int64_t, 4> results;
      for (int64_t k = 0; k < 4; ++k) results[k] = result(sample, row + k / 2, column + k % 2);
      body(results);
    });
  }
};

// The transformations of `channels` numbers at each place, and their transposes; what a place
// outside holds is 0, what is written there is not seen.
template <typename scalar_t>
struct Places {
  template <size_t kCount>
  using From = std::array<const scalar_t*, kCount>;
  template <size_t kCount>
  using To = std::array<scalar_t*, kCount>;

  static void pixels_in(From<kPoints> from, scalar_t* to, int64_t stride, int64_t channels) {
    for_channels<scalar_t>(channels, [=](int64_t k, auto lanes) {
      Square<scalar_t> d;
      for (size_t n = 0; n < kPoints; ++n) d[n] = load(from[n] + k, lanes);
      along_both<scalar_t>(d, [](auto& d0, auto& d1, auto& d2) {
        d0 = d0 - d1;
        d2 = d2 - d1;
      });
      for (size_t n = 0; n < kPoints; ++n) store(d[n], to + n * stride + k, lanes);
    });
  }

  // Adds to the pixels, since tiles see each other's.
  static void pixels_out(const scalar_t* from, int64_t stride, To<kPoints> to, int64_t channels) {
    for_channels<scalar_t>(channels, [=](int64_t k, auto lanes) {
      Square<scalar_t> d;
      for (size_t n = 0; n < kPoints; ++n) d[n] = load(from + n * stride + k, lanes);
      along_both<scalar_t>(d, [](auto& d0, auto& d1, auto& d2) { d1 = d1 - d0 - d2; });
      for (size_t n = 0; n < kPoints; ++n) store(load(to[n] + k, lanes) + d[n], to[n] + k, lanes);
    });
  }

  static void results_in(From<4> from, scalar_t* to, int64_t stride, int64_t channels) {
    for_channels<scalar_t>(channels, [=](int64_t k, auto lanes) {
      Square<scalar_t> m{};
      for (size_t n = 0; n < 4; ++n) m[kCorners[n]] = load(from[n] + k, lanes);
      along_both<scalar_t>(m, [](auto& m0, auto& m1, auto& m2) { m1 = m0 + m2; });
      for (size_t n = 0; n < kPoints; ++n) store(m[n], to + n * stride + k, lanes);
    });
  }

  static void results_out(const scalar_t* from, int64_t stride, const scalar_t* bias, To<4> to,
                          int64_t channels) {
    for_channels<scalar_t>(channels, [=](int64_t k, auto lanes) {
      Square<scalar_t> m;
      for (size_t n = 0; n < kPoints; ++n) m[n] = load(from + n * stride + k, lanes);
      along_both<scalar_t>(m, [](auto& m0, auto& m1, auto& m2) {
        m0 = m0 + m1;
        m2 = m1 + m2;
      });
      const auto added = load(bias + k, lanes);
      for (size_t n = 0; n < 4; ++n) store(m[kCorners[n]] + added, to[n] + k, lanes);
    });
  }

  static constexpr std::array<size_t, 4> kCorners{0, 2, 6, 8};
};

// Tiles [begin, end), a block, and their transformations.
template <typename scalar_t>
struct Tiles {
  const Geometry& shape;
  int64_t begin, end;
  const scalar_t* zeros;  // of a place outside
  scalar_t* sink;         // for one

  int64_t count() const { return end - begin; }
  int64_t pixels_width() const { return kPhases * shape.channels; }

  void pixels_in(const scalar_t* images, scalar_t* of_pixels) const {
    each_phase([&](int64_t at, const auto& pixels) {
      Places<scalar_t>::pixels_in(pointers(images, pixels, zeros), of_pixels + at,
                                  count() * pixels_width(), shape.channels);
    });
  }

  void pixels_out(const scalar_t* of_pixels, scalar_t* images) const {
    each_phase([&](int64_t at, const auto& pixels) {
      Places<scalar_t>::pixels_out(of_pixels + at, count() * pixels_width(),
                                   pointers(images, pixels, sink), shape.channels);
    });
  }

  void results_in(const scalar_t* maps, scalar_t* of_results) const {
    each([&](int64_t at, const auto& results) {
      Places<scalar_t>::results_in(pointers(maps, results, zeros), of_results + at,
                                   count() * shape.maps, shape.maps);
    });
  }

  void results_out(const scalar_t* of_results, const scalar_t* bias, scalar_t* maps) const {
    each([&](int64_t at, const auto& results) {
      Places<scalar_t>::results_out(of_results + at, count() * shape.maps, bias ? bias : zeros,
                                    pointers(maps, results, sink), shape.maps);
    });
  }

 private:
  template <typename Pointer, size_t kCount>
  static std::array<Pointer, kCount> pointers(Pointer memory,
                                              const std::array<int64_t, kCount>& places,
                                              Pointer outside) {
    std::array<Pointer, kCount> found;
    for (size_t n = 0; n < kCount; ++n) found[n] = places[n] < 0 ? outside : memory + places[n];
    return found;
  }

  template <typename Body>
  void each_phase(const Body& body) const {
    for (int64_t tile = begin; tile < end; ++tile) {
      shape.at_phases(tile, [&](int64_t phase, const auto& pixels) {
        body((tile - begin) * pixels_width() + phase * shape.channels, pixels);
      });
    }
  }

  template <typename Body>
  void each(const Body& body) const {
    for (int64_t tile = begin; tile < end; ++tile) {
      shape.at_results(tile,
                       [&](const auto& results) { body((tile - begin) * shape.maps, results); });
    }
  }
};

// Kernels, (M, C, 4, 4), and what of_weight holds of them, (9, M, 4C).
template <typename scalar_t>
struct Kernels {
  int64_t maps, channels;

  void in(const scalar_t* weight, scalar_t* of_weight, int64_t stride) const {
    for_each([&](int64_t at, const auto& taps) {
      std::array<const scalar_t*, 4> from;
      for (size_t n = 0; n < 4; ++n) from[n] = weight + taps[n];
      Places<scalar_t>::results_in(from, of_weight + at, stride, channels);
    });
  }

  void out(const scalar_t* of_weight, int64_t stride, const scalar_t* zeros,
           scalar_t* weight) const {
    for_each([&](int64_t at, const auto& taps) {
      std::array<scalar_t*, 4> to;
      for (size_t n = 0; n < 4; ++n) to[n] = weight + taps[n];
      Places<scalar_t>::results_out(of_weight + at, stride, zeros, to, channels);
    });
  }

 private:
  // body(at, taps) in parallel: where the products of a kernel and phase, and its taps, begin.
  template <typename Body>
  void for_each(const Body& body) const {
    at::parallel_for(0, maps, at::divup(kGrainElements, kPhases * channels + 1),
                     [&](auto begin, auto end) {
                       for (int64_t map = begin; map < end; ++map) {
                         for (int64_t phase = 0; phase < kPhases; ++phase) {
                           std::array<int64_t, 4> taps;
                           for (int64_t n = 0; n < 4; ++n) {
                             const int64_t y = n / 2 * 2 + phase / 2, x = n % 2 * 2 + phase % 2;
                             taps[n] = ((map * kKernel + y) * kKernel + x) * channels;
                           }
                           body((map * kPhases + phase) * channels, taps);
                         }
                       }
                     });
  }
};

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
