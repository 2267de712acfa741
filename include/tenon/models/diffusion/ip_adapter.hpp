#pragma once
// IP-Adapter: pictures as prompts. The cross-attention of a U-Net attends to a picture's tokens too, apart from the text, and adds what
// it finds (Ye et al. 2023, 2308.06721; diffusers' IPAdapterMixin, models/embeddings.py, IPAdapterAttnProcessor).
//
//   auto encoder = load_image_encoder<float>("models/image_encoder");
//   auto adapter = attach_ip_adapter(pipe.unet, "ip-adapter_sd15.safetensors", {.scale = 0.6});
//   auto image = pipe("", {.image_prompts = {{&adapter, &encoder, {load_image("cat.png")}}}});
#include <tenon/models/clip/image_encoder.hpp>
#include <tenon/models/diffusion/single_file_names.hpp>
#include <tenon/models/diffusion/unet.hpp>

namespace tenon::inline TENON_ABI {

/// The adapter's keys and values of one cross-attention.
template <class T>
struct PictureAttention final : KeyValuePatch<T> {
  Linear<T> to_k_ip, to_v_ip;  ///< C -> D, no bias
  std::shared_ptr<Index> rows;  ///< tokens of all its pictures, shared by the adapter's layers

  std::string_view kind() const override { return "ip_adapter"; }
  std::vector<NamedParam<T>> params() override { return {{"to_k_ip.weight", &to_k_ip.weight}, {"to_v_ip.weight", &to_v_ip.weight}}; }
  bool apart() const override { return true; }
  Index context_rows() const override { return *rows; }
  typename KeyValuePatch<T>::KeysValues keys_values(const Var<T>& own = {}) const override {
    return {to_k_ip(own), to_v_ip(own), {}};
  }
};

/// One round of the Plus adapters' resampler: learned latents attend to the picture and to themselves.
template <class T>
struct PictureResamplerBlock {
  LayerNorm<T> ln0, ln1;
  Attention<T> attn;
  LayerNorm<T> norm;  ///< before the feed-forward
  Mlp<T> ff;

  PictureResamplerBlock() = default;
  PictureResamplerBlock(Index width, Index inner, Index heads, Index hidden) : ln0(width), ln1(width), norm(width), ff(width, hidden, Activation::gelu) {
    attn.q_proj = Linear<T>(width, inner, false), attn.k_proj = Linear<T>(width, inner, false), attn.v_proj = Linear<T>(width, inner, false);
    attn.out_proj = Linear<T>(inner, width, false);
    attn.heads = heads;
    ff.fc1 = Linear<T>(width, hidden, false), ff.fc2 = Linear<T>(hidden, width, false);
  }
  /// x [N, L, D], latents [N, Q, D] -> [N, Q, D].
  Var<T> operator()(const Var<T>& x, const Var<T>& latents) const {
    const Var<T> queries = ln1(latents);
    const Var<T> seen = attn(queries, concat({ln0(x), queries}, 1)) + latents;
    return seen + ff(norm(seen));
  }
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("0.norm1", s.ln0);
    f("0.norm2", s.ln1);
    f("0", s.attn, {{"q_proj", "to_q"}, {"k_proj", "to_k"}, {"v_proj", "to_v"}, {"out_proj", "to_out"}});
    f("1.0", s.norm);
    f("1", s.ff, {{"fc1", "1"}, {"fc2", "3"}});
  }
};

/// From an image encoder's features to tokens [N, P, C], by one of three networks.
template <class T>
struct PictureProjection {
  enum class Kind { linear, plus, full } kind = Kind::linear;
  Index tokens = 0;  ///< P of linear

  // linear: image_embeds [N, E] -> P tokens at once.       full: hidden states [N, L, E] -> L tokens.
  Linear<T> proj, proj_2;
  LayerNorm<T> norm;
  // plus: hidden states [N, L, E] -> Q tokens.
  Param<T> latents;  ///< [1, Q, D]
  Linear<T> proj_in, proj_out;
  LayerNorm<T> norm_out;
  std::vector<PictureResamplerBlock<T>> layers;

  /// Tokens of features [N, E] or [N, L, E]. Throws ShapeError.
  Var<T> operator()(const Var<T>& features) const {
    check<ShapeError>(features.rank() == (kind == Kind::linear ? 2 : 3) && features.extent(-1) == width_in(), "ip_adapter", "expected features ",
                      kind == Kind::linear ? "[N, " : "[N, L, ", width_in(), "], got ", features.shape());
    if (kind == Kind::linear) return norm(reshape(proj(features), {features.extent(0), tokens, -1}));
    if (kind == Kind::full) return norm(proj_2(gelu(proj(features))));
    const Var<T> x = proj_in(features);
    Var<T> seen = broadcast_to(latents->var(), {features.extent(0), latents->shape()[1], latents->shape()[2]});
    for (const auto& layer : layers) seen = layer(x, seen);
    return norm_out(proj_out(seen));
  }
  Index width_in() const { return kind == Kind::plus ? proj_in.in() : proj.in(); }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    if (s.kind == Kind::linear) {
      f("proj", s.proj);
      f("norm", s.norm);
    } else if (s.kind == Kind::full) {
      f("proj.0", s.proj);
      f("proj.2", s.proj_2);
      f("proj.3", s.norm);
    } else {
      f("latents", s.latents);
      f("proj_in", s.proj_in);
      f("layers", s.layers);
      f("proj_out", s.proj_out);
      f("norm_out", s.norm_out);
    }
  }
};

/// An attached IP-Adapter: makes tokens of pictures. Scale, enable and detach it by its name, as any adapter.
template <class T>
struct IpAdapter {
  std::string name;
  PictureProjection<T> image_proj;
  std::shared_ptr<Index> rows;

  /// Whether it reads the encoder's hidden states, not its embedding.
  bool reads_hidden_states() const { return image_proj.kind != PictureProjection<T>::Kind::linear; }

  /// What an encoder sees in pictures, and in none: [n, E] or [n, L, E] each. None is zeros in the place of the embedding or, for
  /// hidden states, of the picture's values, as in diffusers.
  std::pair<Var<T>, Var<T>> features(const ClipImageEncoder<T>& encoder, std::span<const Image> images) const {
    check(!images.empty(), "ip_adapter", "expected at least one picture for '", name, "'");
    const Var<T> pictures(cast<T>(encoder.processor(images)));
    if (reads_hidden_states()) return {encoder.penultimate(pictures), encoder.penultimate(Var<T>(Tensor<T>(pictures.shape())))};
    const Var<T> seen = encoder.image_embeds(pictures);
    return {seen, Var<T>(Tensor<T>(seen.shape()))};
  }
  /// The tokens [1, n P, C] of one prompt's n pictures; from here on the U-Net expects so many, so runs with different numbers of
  /// pictures cannot go on at the same time.
  Var<T> tokens(const Var<T>& features) const {
    const Var<T> each = image_proj(features);
    *rows = each.extent(0) * each.extent(1);
    return reshape(each, {1, *rows, each.extent(2)});
  }
};

namespace detail {

/// The cross-attentions of a U-Net in the order in which diffusers numbers them: on the way down, on the way up, in the middle.
template <class T>
std::vector<SiteRef<T>> cross_attentions(Unet2d<T>& unet) {
  std::vector<SiteRef<T>> out;
  const auto all = sites(unet);
  for (const char* part : {"down_blocks.", "up_blocks.", "mid_block."})
    for (const auto& site : all)
      if (site.path.starts_with(part) && site.path.ends_with(".attn2") && std::holds_alternative<Attention<T>*>(site.layer)) out.push_back(site);
  return out;
}

/// The network that a file's tensors under image_proj. are of, declared. Throws FileError on another.
template <class T>
PictureProjection<T> declare_projection(const StateDict& dict, Index context_width) {
  using Kind = typename PictureProjection<T>::Kind;
  const auto extents = [&](const std::string& name, Index rank) {
    const Shape& shape = dict.info(name).shape;
    check<FileError>(shape.rank() == rank, "ip_adapter", dict.source(), ": ", name, ": expected ", rank, " axes, found shape ", shape);
    return shape;
  };
  PictureProjection<T> out;
  if (dict.contains("latents")) {
    out.kind = Kind::plus;
    const Shape latents = extents("latents", 3);
    const Index width = latents[2], inner = extents("layers.0.0.to_q.weight", 2)[0], hidden = extents("layers.0.1.1.weight", 2)[0];
    check<FileError>(inner % 64 == 0 && inner > 0, "ip_adapter", dict.source(), ": expected attention of heads of width 64, found width ", inner);
    out.latents = Param<T>(latents);
    out.proj_in = Linear<T>(extents("proj_in.weight", 2)[1], width);
    out.proj_out = Linear<T>(width, context_width);
    out.norm_out = LayerNorm<T>(context_width);
    for (Index i = 0, n = layer_count(dict, "layers.", ".0.to_q.weight"); i < n; ++i) out.layers.emplace_back(width, inner, inner / 64, hidden);
  } else if (dict.contains("proj.3.weight")) {
    out.kind = Kind::full;
    const Shape first = extents("proj.0.weight", 2);
    out.proj = Linear<T>(first[1], first[0]);
    out.proj_2 = Linear<T>(first[0], context_width);
    out.norm = LayerNorm<T>(context_width);
  } else {
    check<FileError>(dict.contains("proj.weight") && dict.contains("norm.weight"), "ip_adapter", dict.source(),
                     ": expected the image_proj of an IP-Adapter, IP-Adapter Plus or Full Face; FaceID is not supported");
    const Shape shape = extents("proj.weight", 2);
    check<FileError>(shape[0] % context_width == 0 && shape[0] > 0, "ip_adapter", dict.source(), ": the U-Net attends to states of width ", context_width,
                     ", and image_proj gives ", shape[0], " values");
    out.tokens = shape[0] / context_width;
    out.proj = Linear<T>(shape[1], shape[0]);
    out.norm = LayerNorm<T>(context_width);
  }
  return out;
}

}  // namespace detail

/// An IP-Adapter as its file has it, not attached yet.
template <class T>
struct IpAdapterParts {
  IpAdapter<T> adapter;
  std::vector<std::pair<SiteRef<T>, std::unique_ptr<PictureAttention<T>>>> layers;  ///< of each cross-attention
};

/// Reads an IP-Adapter (safetensors, or torch's .bin) for a U-Net, frozen. Throws FileError on a file of something else or of another
/// family of U-Nets.
template <class T>
IpAdapterParts<T> read_ip_adapter(Unet2d<T>& unet, const std::string& path, const std::string& name) {
  const StateDict file = open_checkpoint(path);
  const auto all = detail::cross_attentions(unet);
  check(!all.empty() && unet.config.conditional(), "ip_adapter", "the U-Net has no cross-attention");
  const Index context_width = unet.config.cross_attention_dim.front();
  const auto part = [&](const std::string& prefix) {
    StateDict out = file;
    out.rename([&](const std::string& key) { return key.starts_with(prefix) ? std::optional(key.substr(prefix.size())) : std::nullopt; });
    return out;
  };
  StateDict projection = part("image_proj.");
  const StateDict keys_values = part("ip_adapter.");
  check<FileError>(projection.size() > 0 && keys_values.size() > 0, "ip_adapter", path, ": expected tensors named image_proj. and ip_adapter., found ", projection.size(),
                   " and ", keys_values.size());
  IpAdapterParts<T> out{{name, detail::declare_projection<T>(projection, context_width), std::make_shared<Index>(0)}, {}};
  PictureProjection<T>& image_proj = out.adapter.image_proj;
  constexpr std::string_view fused = "to_kv.weight";
  for (const auto& key : projection.names())
    if (key.ends_with(fused)) {
      const std::string stem = key.substr(0, key.size() - fused.size()), parts[] = {stem + "to_k.weight", stem + "to_v.weight"};
      projection.split(key, parts);
    }
  load_params(params(image_proj), projection);
  using Kind = typename PictureProjection<T>::Kind;
  *out.adapter.rows = image_proj.kind == Kind::linear ? image_proj.tokens : image_proj.kind == Kind::plus ? image_proj.latents->shape()[1] : 1;
  std::vector<ParamRef<T>> list;
  for (std::size_t i = 0; i < all.size(); ++i) {
    auto patch = std::make_unique<PictureAttention<T>>();
    const Index width = std::get<Attention<T>*>(all[i].layer)->k_proj.out();
    patch->to_k_ip = Linear<T>(context_width, width, false), patch->to_v_ip = Linear<T>(context_width, width, false);
    patch->rows = out.adapter.rows;
    for (const auto& [key, param] : patch->params()) list.push_back({join_text(2 * i + 1, '.', key), param->get()});
    out.layers.emplace_back(all[i], std::move(patch));
  }
  load_params(list, keys_values);
  return out;
}

/// An attached IP-Adapter and what it looks at in a run.
template <class T>
struct ImagePrompt {
  const IpAdapter<T>* adapter = nullptr;
  const ClipImageEncoder<T>* encoder = nullptr;
  std::vector<Image> images = {};  ///< RGB, one or more
  /// In the place of encoder and pictures: features of pictures and of none, as `IpAdapter::features` gives them.
  std::optional<std::pair<Var<T>, Var<T>>> features = {};
};

}  // namespace tenon::inline TENON_ABI
