#pragma once
// CLIP's ModifiedResNet (openai/CLIP model.py): a stem of three convolutions, average pools before strided convolutions,
// attention pooling at the end. For inference: each batch norm is folded into the convolution before it when a checkpoint
// is loaded (models/clip/names.hpp).
#include <tenon/models/clip/config.hpp>
#include <tenon/nn/attention.hpp>
#include <tenon/nn/conv2d.hpp>
#include <tenon/nn/embedding.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/ops/resample.hpp>

namespace tenon::inline TENON_ABI {

/// 1x1, 3x3 and 1x1 convolutions around a shortcut; the output has 4 `planes` channels.
template <class T>
struct ClipBottleneck {
  Conv2d<T> conv1, conv2, conv3;
  std::optional<Conv2d<T>> downsample;
  Index stride = 1;

  ClipBottleneck() = default;
  ClipBottleneck(Index in, Index planes, Index stride_of);

  /// x [N, H, W, in] -> [N, H / stride, W / stride, 4 planes].
  Var<T> operator()(const Var<T>& x) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv1", s.conv1);
    f("conv2", s.conv2);
    f("conv3", s.conv3);
    f("downsample", s.downsample);
  }
};

/// The mean of all places attends to the mean and the places.
template <class T>
struct ClipAttentionPool {
  Param<T> positional_embedding;  ///< [1 + places, D]
  Attention<T> attention;

  ClipAttentionPool() = default;
  ClipAttentionPool(Index places, Index width, Index heads, Index out) : positional_embedding(Shape{1 + places, width}), attention(width, heads) {
    attention.out_proj = Linear<T>(width, out);
  }

  /// x [N, H, W, D] -> [N, E]. Throws ShapeError for another number of places.
  Var<T> operator()(const Var<T>& x) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("positional_embedding", s.positional_embedding);
    Attention<T>::fields(s.attention, [&](std::string_view name, auto& member) { f(name == "out_proj" ? "c_proj" : name, member); });
  }
};

template <class T>
struct ClipResNet {
  ClipResNetConfig config;
  Conv2d<T> conv1, conv2, conv3;
  std::vector<ClipBottleneck<T>> layer1, layer2, layer3, layer4;
  ClipAttentionPool<T> attnpool;

  ClipResNet() = default;
  ClipResNet(const ClipResNetConfig& c, Index out);

  /// pictures [N, image_size, image_size, 3], normalised -> features [N, E]. Throws ShapeError for others.
  Var<T> operator()(const Var<T>& pictures) const;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv1", s.conv1);
    f("conv2", s.conv2);
    f("conv3", s.conv3);
    f("layer1", s.layer1);
    f("layer2", s.layer2);
    f("layer3", s.layer3);
    f("layer4", s.layer4);
    f("attnpool", s.attnpool);
  }
};

template <class T>
ClipBottleneck<T>::ClipBottleneck(Index in, Index planes, Index stride_of)
    : conv1(in, planes, 1), conv2(planes, planes, 3, {.padding = 1}), conv3(planes, 4 * planes, 1), stride(stride_of) {
  if (stride > 1 || in != 4 * planes) downsample.emplace(in, 4 * planes, 1);
}

template <class T>
Var<T> ClipBottleneck<T>::operator()(const Var<T>& x) const {
  const auto pooled = [&](const Var<T>& y) { return stride > 1 ? average_pool(y, stride) : y; };
  const Var<T> y = conv3(pooled(relu(conv2(relu(conv1(x))))));
  return relu(y + (downsample ? (*downsample)(pooled(x)) : x));
}

template <class T>
Var<T> ClipAttentionPool<T>::operator()(const Var<T>& x) const {
  const Index n = x.extent(0), width = x.extent(3), places = x.extent(1) * x.extent(2);
  check<ShapeError>(positional_embedding->shape()[0] == places + 1, "clip", "expected ", positional_embedding->shape()[0] - 1,
                    " places at the end of the tower, got ", places);
  const Var<T> flat = reshape(x, {n, places, width});
  const Var<T> tokens = concat({mean(flat, {1}, true), flat}, 1) + Var<T>(positional_embedding->values(), nullptr);
  return reshape(attention(slice(tokens, 1, 0, 1), tokens), {n, -1});
}

template <class T>
ClipResNet<T>::ClipResNet(const ClipResNetConfig& c, Index out)
    : config(c),
      conv1(3, c.width / 2, 3, {.stride = 2, .padding = 1}),
      conv2(c.width / 2, c.width / 2, 3, {.padding = 1}),
      conv3(c.width / 2, c.width, 3, {.padding = 1}),
      attnpool((c.image_size / 32) * (c.image_size / 32), 32 * c.width, c.num_attention_heads, out) {
  check(c.image_size >= 32 && c.width > 0, "clip", "expected pictures of at least 32 pixels, got ", c.image_size);
  Index in = c.width, planes = c.width, stage_number = 0;
  for (auto* stage : {&layer1, &layer2, &layer3, &layer4}) {
    for (Index i = 0; i < c.layers[static_cast<std::size_t>(stage_number)]; ++i) {
      stage->emplace_back(in, planes, i == 0 && stage_number > 0 ? 2 : 1);
      in = 4 * planes;
    }
    planes *= 2;
    ++stage_number;
  }
}

template <class T>
Var<T> ClipResNet<T>::operator()(const Var<T>& pictures) const {
  const Index size = config.image_size;
  check<ShapeError>(pictures.rank() == 4 && pictures.shape() == Shape{pictures.extent(0), size, size, 3}, "clip",
                    "expected pictures [N, ", size, ", ", size, ", 3], got ", pictures.shape());
  Var<T> x = average_pool(relu(conv3(relu(conv2(relu(conv1(pictures)))))), 2);
  for (const auto* stage : {&layer1, &layer2, &layer3, &layer4})
    for (const auto& block : *stage) x = block(x);
  return attnpool(x);
}

TENON_COMPILED_TEMPLATE(struct ClipBottleneck<float>)
TENON_COMPILED_TEMPLATE(struct ClipAttentionPool<float>)
TENON_COMPILED_TEMPLATE(struct ClipResNet<float>)

}  // namespace tenon::inline TENON_ABI
