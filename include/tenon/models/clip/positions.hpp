#pragma once
// CLIP's vision transformer for pictures of another size: its position embeddings, interpolated over the grid of patches.
#include <tenon/io/resize.hpp>
#include <tenon/kernels/resample.hpp>
#include <tenon/models/clip/clip.hpp>

namespace tenon::inline TENON_ABI {

/// Two bicubic rules, both torch's with align_corners = false.
enum class PositionResize {
  bicubic,            ///< a = -0.75 (transformers: interpolate_pos_encoding)
  bicubic_antialias,  ///< a = -0.5, over more places when the grid shrinks (open_clip: resize_pos_embed)
};

namespace detail {
/// torch's bicubic with antialias, which is Pillow's: the window widens when shrinking, clipped weights sum to one.
inline kernels::Taps antialias_taps(Index in, Index out) {
  kernels::Taps taps{.in = in, .out = out, .begin = {0}};
  const double scale = static_cast<double>(in) / static_cast<double>(out), stretch = std::max(scale, 1.0), support = 2 * stretch;
  for (Index i = 0; i < out; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const Index end = std::min(static_cast<Index>(center + support + 0.5), in);
    const std::size_t first = taps.weight.size();
    double sum = 0;
    for (Index j = static_cast<Index>(std::max(center - support + 0.5, 0.0)); j < end; ++j) {
      taps.source.push_back(j);
      taps.weight.push_back(bicubic_weight((static_cast<double>(j) - center + 0.5) / stretch));
      sum += taps.weight.back();
    }
    for (std::size_t t = first; t < taps.weight.size(); ++t) taps.weight[t] /= sum;
    taps.begin.push_back(static_cast<Index>(taps.weight.size()));
  }
  return taps;
}
}  // namespace detail

/// From now on the tower takes pictures of `size`, square or not, and is saved so; the class token keeps its place. To be called
/// before lists of parameters are made (an optimizer's too): the table of positions becomes another parameter. Throws Error
/// for less than one patch or more than a picture may have (max_image_side, max_image_pixels), for a table without elements, and when patches are attached to it.
template <class T>
void set_image_size(ClipVision<T>& vision, const ImageSize& size, PositionResize rule = PositionResize::bicubic) {
  ClipVisionConfig config = vision.config;
  config.image_size = size;
  check(config.grid_height() > 0 && config.grid_width() > 0, "set_image_size", "expected at least one patch of ", config.patch_size, " pixels, got ", size);
  check(size.height <= max_image_side && size.width <= max_image_side && size.height * size.width <= max_image_pixels, "set_image_size",
        "expected sides of at most ", max_image_side, " and at most ", max_image_pixels, " pixels, got ", size);
  auto& table = vision.embeddings.position_embedding;
  const Index old_height = vision.config.grid_height(), old_width = vision.config.grid_width();
  const Index height = config.grid_height(), width = config.grid_width(), channels = config.hidden_size;
  if (height != old_height || width != old_width) {
    check(table.patches.empty(), "set_image_size", "patches on position_embedding are made for ", old_height, " x ", old_width, " of the picture's patches: detach them first");
    const auto old = table.weight->values();
    auto positions = Tensor<T>::uninitialized({1 + height * width, channels});
    std::copy_n(old->data(), channels, positions.data());
    const auto taps = [&](Index in, Index out) { return rule == PositionResize::bicubic ? kernels::bicubic_taps(in, out) : detail::antialias_taps(in, out); };
    kernels::resample_forward(1, channels, taps(old_height, height), taps(old_width, width), old->data() + channels, positions.data() + channels);
    table.weight = Param<T>(std::move(positions), table.weight->trainable());
  }
  vision.config = config;
}
/// As above, for a whole model. Throws Error for a ResNet too.
template <class T>
void set_image_size(Clip<T>& clip, const ImageSize& size, PositionResize rule = PositionResize::bicubic) {
  check(!clip.visual, "set_image_size", "expected a vision transformer, got a ResNet, whose pooling knows one size");
  set_image_size(clip.vision_model, size, rule);
  clip.config.vision_config = clip.vision_model.config;
}

}  // namespace tenon::inline TENON_ABI
