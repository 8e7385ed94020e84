// The transformations of Winograd's F(2x2, 2x2) for 4x4 kernels at stride 2.
//
// Along one axis, two results of two taps take three products in the place of four,
//
//   y0 = d0 g0 + d1 g1 = m0 + m1    with  m0 = (d0 - d1) g0,  m1 = d1 (g0 + g1),
//   y1 = d1 g0 + d2 g1 = m1 + m2          m2 = (d2 - d1) g1,
//
// along both, nine for sixteen. The stride leaves four images, of every second pixel of every
// second row; a tile of 2x2 results sees 3x3 pixels of each. All is channels_last.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/macros/Macros.h>

#include <array>
#include <cstdint>
#include <type_traits>

#include "chunks.h"

namespace wgan_fast::winograd {

constexpr int64_t kKernel = 4;
constexpr int64_t kPhases = 4;  // images of every second pixel of every second row
constexpr int64_t kPoints = 9;  // products for each tile

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

}  // namespace wgan_fast::winograd
