#pragma once
// A model of only the layers that adapter files tune, without weights: what converting, combining and looking into files
// needs where no model is at hand. Names are the file's own; kohya's, which cannot be taken apart, are looked up among those
// of Stable Diffusion 1, 2 and XL.
#include <tenon/peft/formats/peft.hpp>

namespace tenon::inline TENON_ABI {

/// Layers by path, in that order.
template <class T>
struct Skeleton {
  using Layer = std::variant<Linear<T>, Conv2d<T>, Embedding<T>, LayerNorm<T>>;
  std::map<std::string, std::unique_ptr<Layer>> layers;

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    for (auto& [path, layer] : s.layers) std::visit([&, &name = path](auto& l) { f(name, l); }, *layer);
  }
};

namespace detail {

/// The tuned layers that a Stable Diffusion pipeline may have, under diffusers' names.
inline std::vector<std::string> pipeline_layers() {
  std::vector<std::string> out;
  const auto add = [&](auto&&... parts) { out.push_back(join_text(parts...)); };
  const auto transformer = [&](const std::string& root) {
    for (const char* name : {"norm", "proj_in", "proj_out"}) add(root, name);
    for (int i = 0; i < 10; ++i) {
      const std::string block = join_text(root, "transformer_blocks.", i, ".");
      for (const char* name : {"attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0",
                               "ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"})
        add(block, name);
    }
  };
  const auto block = [&](const std::string& root) {
    for (int i = 0; i < 4; ++i) {
      transformer(join_text(root, "attentions.", i, "."));
      for (const char* name : {"norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut"}) add(root, "resnets.", i, ".", name);
    }
    add(root, "downsamplers.0.conv"), add(root, "upsamplers.0.conv");
  };
  for (int level = 0; level < 4; ++level) block(join_text("unet.down_blocks.", level, ".")), block(join_text("unet.up_blocks.", level, "."));
  block("unet.mid_block.");
  for (const char* name : {"conv_in", "conv_norm_out", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2", "add_embedding.linear_1",
                           "add_embedding.linear_2"})
    add("unet.", name);
  for (const char* encoder : {"text_encoder.", "text_encoder_2."}) {
    for (int i = 0; i < 32; ++i)
      for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2",
                               "layer_norm1", "layer_norm2"})
        add(encoder, "text_model.encoder.layers.", i, ".", name);
    add(encoder, "text_model.final_layer_norm"), add(encoder, "text_projection");
  }
  return out;
}

/// The paths that a file's layers may have. Those of text encoders have text_model, which transformers 5 leaves out.
inline std::vector<std::string> candidate_layers(const AdapterFile& file) {
  if (file.format == AdapterFile::Format::kohya) return pipeline_layers();
  std::set<std::string> out;
  for (const auto& [name, tensor] : file.tensors) {
    if (file.format == AdapterFile::Format::peft) {
      for (const std::string_view part : peft_parts) {
        const std::string_view bare = name.ends_with(".weight") && !part.ends_with(".weight") ? std::string_view(name).substr(0, name.size() - 7) : std::string_view(name);
        if (!bare.ends_with(part) || bare.size() <= part.size() || bare[bare.size() - part.size() - 1] != '.') continue;
        out.emplace(bare.substr(0, bare.size() - part.size() - 1));
        break;
      }
      continue;
    }
    const std::string_view part = part_of(name);
    for (const auto& [ending, canonical, processor] : diffusers_endings) {
      const std::string rest = part.empty() ? name : name.substr(part.size() + 1);
      if (!rest.ends_with(ending) || rest.size() == ending.size()) continue;
      const auto names = processor ? processor_layers(rest.substr(0, rest.size() - ending.size())) : std::vector{rest.substr(0, rest.size() - ending.size())};
      const bool text = part.starts_with("text_encoder");  // x.to_out is x.to_out.0 in a U-Net, x.out_proj in an encoder
      const std::string& module = text || names.size() < 3 ? text ? names.back() : names.front() : names[1];
      out.insert(part.empty() ? module : join_text(part, text && module.starts_with("encoder.") ? ".text_model." : ".", module));  // as other tools have it
    }
  }
  return {out.begin(), out.end()};
}

/// A layer of the shape that a file's tensors are for, or none where they do not say.
template <class T>
std::unique_ptr<typename Skeleton<T>::Layer> layer_for(const AdapterFile& file, const LayerTensors& layer) {
  using Layer = typename Skeleton<T>::Layer;
  const auto shape = [&](std::string_view part) -> std::optional<Shape> {
    const RawTensor* raw = tensor_of(file, layer, part);
    return raw == nullptr ? std::nullopt : std::optional(raw->shape);
  };
  const auto with_bias = [&](auto made) {  // base_layer.bias stands for one that must be there
    if (layer.names.contains("base_layer.bias")) made.bias = Param<T>(Tensor<T>(made.bias->shape()));
    return std::make_unique<Layer>(std::move(made));
  };
  const auto of_weight = [&](const Shape& w) -> std::unique_ptr<Layer> {
    if (w.rank() == 2) return with_bias(Linear<T>(w[1], w[0]));
    Conv2d<T> conv(w[1], w[0], 1);
    conv.weight = Param<T>(w);
    return with_bias(std::move(conv));
  };
  const auto matrix = [](const std::optional<Shape>& s) { return s && s->rank() >= 2 && s->size() > 0; };
  const auto a = shape("lora_A.weight"), b = shape("lora_B.weight"), mid = shape("lora_mid.weight");
  if (matrix(a) && matrix(b)) {
    if (a->rank() == 2) return of_weight({(*b)[0], (*a)[1]});
    if (a->rank() == 4 && (!mid || mid->rank() == 4)) return of_weight({(*b)[0], (*a)[1], mid ? (*mid)[2] : (*a)[2], mid ? (*mid)[3] : (*a)[3]});
  }
  if (const auto v = shape("lora_embedding_A"), d = shape("lora_embedding_B"); matrix(v) && matrix(d))
    return std::make_unique<Layer>(Embedding<T>((*v)[1], (*d)[0]));
  if (const auto w1 = shape("hada_w1_a"), w2 = shape("hada_w1_b"), t = shape("hada_t1"); matrix(w1) && matrix(w2))
    return t && t->rank() == 4 ? of_weight({(*w1)[1], (*w2)[1], (*t)[2], (*t)[3]}) : of_weight({(*w1)[0], (*w2)[1]});
  const auto l = shape("lokr_w1"), la = shape("lokr_w1_a"), lb = shape("lokr_w1_b"), r = shape("lokr_w2"), ra = shape("lokr_w2_a"), rb = shape("lokr_w2_b"),
             t = shape("lokr_t2");
  if ((matrix(l) || (matrix(la) && matrix(lb))) && (matrix(r) || (matrix(ra) && matrix(rb)))) {
    const Index out = l ? (*l)[0] : (*la)[0], in = l ? (*l)[1] : (*lb)[1];
    if (r) return r->rank() == 4 ? of_weight({out * (*r)[0], in * (*r)[1], (*r)[2], (*r)[3]}) : of_weight({out * (*r)[0], in * (*r)[1]});
    if (t && t->rank() == 4) return of_weight({out * (*ra)[1], in * (*rb)[1], (*t)[2], (*t)[3]});
    return of_weight({out * (*ra)[0], in * (*rb)[1]});
  }
  if (const auto diff = shape("diff"); diff && (diff->rank() == 2 || diff->rank() == 4)) return of_weight(*diff);
  if (const auto norm = shape("w_norm"); norm && norm->rank() == 1) return std::make_unique<Layer>(LayerNorm<T>((*norm)[0]));
  if (const auto bias = shape("bias"); bias && bias->rank() == 1) {  // whatever layer has it
    LayerNorm<T> norm((*bias)[0]);
    norm.bias = Param<T>(Tensor<T>(*bias));
    return std::make_unique<Layer>(std::move(norm));
  }
  if (const auto ia3 = shape("ia3_l"); matrix(ia3)) return of_weight({(*ia3)[0], (*ia3)[1]});
  if (const auto down = shape("adapter_down.0.weight"); matrix(down)) return of_weight({(*down)[1], 1});
  return nullptr;
}

}  // namespace detail

/// Adds the layers that a file tunes, each of the shape that its tensors tell. Throws FileError when there is none, as of
/// prefixes, prompts and kohya's files of other models, and when only one of two files names the parts of a pipeline;
/// ShapeError when a layer is there in another shape.
template <class T>
void add_layers(Skeleton<T>& skeleton, const AdapterFile& file) {
  auto candidates = detail::candidate_layers(file);
  detail::LayerMap layers = file.format == AdapterFile::Format::peft    ? detail::peft_layers(file, candidates)
                            : file.format == AdapterFile::Format::kohya ? detail::kohya_layers(file, candidates, "")
                                                                        : detail::diffusers_layers(file, candidates, "");
  check<FileError>(!layers.empty(), "adapter", file.path, ": its layers cannot be told from its names alone, for example ", file.tensors.begin()->first,
                   "; give the model");
  const auto in_part = [](const std::string& path) { return !detail::part_of(path).empty(); };
  check<FileError>(skeleton.layers.empty() || in_part(skeleton.layers.begin()->first) == in_part(layers.begin()->first), "adapter", file.path, ": names layers as ",
                   layers.begin()->first, ", another file as ", skeleton.layers.empty() ? "" : skeleton.layers.begin()->first, "; give the model");
  bool any = false;
  for (auto& [path, tensors] : layers) {
    auto layer = detail::layer_for<T>(file, tensors);
    if (layer == nullptr) continue;
    any = true;
    const auto shape_of = [](const auto& l) { return std::visit([](const auto& x) { return x.weight->shape(); }, l); };
    const auto [at, fresh] = skeleton.layers.try_emplace(path, nullptr);
    check<ShapeError>(fresh || detail::same_but_ones(shape_of(*at->second), shape_of(*layer)), "adapter", file.path, ": ", path, ": expected a layer of shape ",
                      fresh ? Shape{} : shape_of(*at->second), " as in the other files, found ", shape_of(*layer));
    if (fresh) at->second = std::move(layer);
  }
  check<FileError>(any, "adapter", file.path, ": the shapes of its layers cannot be told from its tensors, for example ", file.tensors.begin()->first,
                   "; give the model");
}

}  // namespace tenon::inline TENON_ABI
