#pragma once
// Bicubic and Lanczos resizing of 8-bit pictures with Pillow's bits (Pillow, src/libImaging/Resample.c).
#include <algorithm>
#include <cmath>
#include <numbers>

#include <tenon/core/parallel.hpp>
#include <tenon/io/pixels.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// Keys' cubic kernel with a = -0.5.
inline double bicubic_weight(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

/// sinc(x) sinc(x / 3) within 3.
inline double lanczos_weight(double x) {
  const auto sinc = [](double y) { return y == 0.0 ? 1.0 : std::sin(y * std::numbers::pi) / (y * std::numbers::pi); };
  return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
}

/// How far a kernel reaches in pixels of the smaller picture, and its weight at a distance.
struct ResizeKernel {
  double support;
  double (*weight)(double);
};
inline constexpr ResizeKernel bicubic_kernel{2.0, bicubic_weight}, lanczos_kernel{3.0, lanczos_weight};

inline constexpr int resize_bits = 22;  // of the fixed-point weights

/// The input pixels [begin, begin + count) that an output pixel is made of, and where its weights start.
struct ResizeWindow {
  Index begin, count;
  std::size_t weights;
};

struct ResizePlan {
  std::vector<ResizeWindow> windows;
  std::vector<std::int32_t> weights;
};

/// The window widens with the scale when shrinking, and the weights of a clipped window still sum to one.
inline ResizePlan plan_resize(Index from, Index to, const ResizeKernel& kernel = bicubic_kernel) {
  const double scale = static_cast<double>(from) / static_cast<double>(to), stretch = std::max(scale, 1.0), support = kernel.support * stretch;
  ResizePlan plan;
  std::vector<double> weights;
  for (Index i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const Index begin = std::max<Index>(static_cast<Index>(center - support + 0.5), 0);
    const Index end = std::min(static_cast<Index>(center + support + 0.5), from);
    weights.clear();
    double sum = 0.0;
    for (Index j = begin; j < end; ++j) {
      weights.push_back(kernel.weight((static_cast<double>(j) - center + 0.5) * (1.0 / stretch)));
      sum += weights.back();
    }
    plan.windows.push_back({begin, end - begin, plan.weights.size()});
    for (double weight : weights) {
      const double fixed = (sum != 0.0 ? weight / sum : weight) * (1 << resize_bits);
      plan.weights.push_back(static_cast<std::int32_t>(fixed < 0.0 ? fixed - 0.5 : fixed + 0.5));
    }
  }
  return plan;
}

inline std::uint8_t resize_round(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> resize_bits, 0, 255));
}

inline Image resize_rows(const Image& image, Index width, const ResizeKernel& kernel) {
  const auto plan = plan_resize(image.width, width, kernel);
  const Index channels = image.channels;
  Image out(image.height, width, channels);
  parallel_chunks(image.height, 16, [&](Index begin, Index end) {
    for (Index y = begin; y < end; ++y)
      for (Index x = 0; x < width; ++x) {
        const auto& window = plan.windows[static_cast<std::size_t>(x)];
        const std::int32_t* weights = plan.weights.data() + window.weights;
        const std::uint8_t* from = image.at(y, window.begin);
        std::int32_t sums[4] = {1 << (resize_bits - 1), 1 << (resize_bits - 1), 1 << (resize_bits - 1), 1 << (resize_bits - 1)};
        for (Index j = 0; j < window.count; ++j)
          for (Index c = 0; c < channels; ++c) sums[c] += from[j * channels + c] * weights[j];
        for (Index c = 0; c < channels; ++c) out.at(y, x)[c] = resize_round(sums[c]);
      }
  });
  return out;
}

inline Image resize_columns(const Image& image, Index height, const ResizeKernel& kernel) {
  const auto plan = plan_resize(image.height, height, kernel);
  const Index row = image.width * image.channels;
  Image out(height, image.width, image.channels);
  parallel_chunks(height, 16, [&](Index begin, Index end) {
    std::vector<std::int32_t> sums(static_cast<std::size_t>(row));
    for (Index y = begin; y < end; ++y) {
      const auto& window = plan.windows[static_cast<std::size_t>(y)];
      std::fill(sums.begin(), sums.end(), 1 << (resize_bits - 1));
      for (Index j = 0; j < window.count; ++j) {
        const std::int32_t weight = plan.weights[window.weights + static_cast<std::size_t>(j)];
        const std::uint8_t* from = image.at(window.begin + j, 0);
        for (Index i = 0; i < row; ++i) sums[static_cast<std::size_t>(i)] += from[i] * weight;
      }
      for (Index i = 0; i < row; ++i) out.at(y, 0)[i] = resize_round(sums[static_cast<std::size_t>(i)]);
    }
  });
  return out;
}

inline Image resize_with(std::string_view op, const Image& image, Index height, Index width, const ResizeKernel& kernel) {
  check<ShapeError>(height > 0 && width > 0 && image.height > 0 && image.width > 0, op, "expected sides of at least 1, got ",
                    Shape{image.height, image.width}, " to ", Shape{height, width});
  check<ShapeError>(Shape{height, width}.size() <= max_image_pixels, op, "expected at most ", max_image_pixels, " pixels, got ",
                    Shape{image.height, image.width}, " to ", Shape{height, width});
  if (width == image.width) return height == image.height ? image : resize_columns(image, height, kernel);
  if (height == image.height) return resize_rows(image, width, kernel);
  const bool columns_first = height < image.height && image.height - height > 2 * (image.width - width);
  return columns_first ? resize_rows(resize_columns(image, height, kernel), width, kernel)
                       : resize_columns(resize_rows(image, width, kernel), height, kernel);
}

}  // namespace detail

/// `Image.resize((width, height), BICUBIC)` of Pillow, to the bit: rows first, then columns, 8 bits between; as in Pillow
/// since version 13, columns first where the height loses more than twice what the width does.
/// Throws ShapeError on sides below 1 and on more than 64 megapixels.
inline Image resize_bicubic(const Image& image, Index height, Index width) {
  return detail::resize_with("resize_bicubic", image, height, width, detail::bicubic_kernel);
}
/// `Image.resize((width, height), LANCZOS)` of Pillow. Throws as resize_bicubic.
inline Image resize_lanczos(const Image& image, Index height, Index width) {
  return detail::resize_with("resize_lanczos", image, height, width, detail::lanczos_kernel);
}

/// The part of a picture of `height` x `width` whose upper left corner lies at `top`, `left`; zeros outside the picture.
inline Image crop_at(const Image& image, Index top, Index left, Index height, Index width) {
  Image out(height, width, image.channels);
  for (Index y = 0; y < height; ++y)
    for (Index x = 0; x < width; ++x)
      if (y + top >= 0 && y + top < image.height && x + left >= 0 && x + left < image.width)
        std::copy_n(image.at(y + top, x + left), image.channels, out.at(y, x));
  return out;
}

/// The `height` x `width` middle of a picture, zeros outside it (transformers' center_crop).
inline Image center_crop(const Image& image, Index height, Index width) {
  // A crop larger than the picture puts the odd pixel of padding before it, a smaller one cuts it after.
  const auto offset = [](Index from, Index to) { return from >= to ? (from - to) / 2 : -((to - from + 1) / 2); };
  return crop_at(image, offset(image.height, height), offset(image.width, width), height, width);
}

}  // namespace tenon::inline TENON_ABI
