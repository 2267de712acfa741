#pragma once
// The U-Net of latent diffusion (diffusers' UNet2DConditionModel) and of diffusion in pixels (UNet2DModel).
#include <sys/stat.h>

#include <cstring>

#include <tenon/io/checkpoint.hpp>
#include <tenon/models/diffusion/unet_blocks.hpp>
#include <tenon/models/diffusion/unet_conditions.hpp>
#include <tenon/models/diffusion/unet_infer.hpp>

namespace tenon::inline TENON_ABI {

/// Predicts what the scheduler asks for (noise, velocity or sample) from noisy latents, their time and the conditions.
template <class T>
struct Unet2d {
  UnetConfig config;
  Conv2d<T> conv_in;
  UnetTime<T> time;
  std::vector<UnetDownBlock<T>> down_blocks;
  std::optional<UnetMidBlock<T>> mid_block;
  std::vector<UnetUpBlock<T>> up_blocks;
  GroupNorm<T> conv_norm_out;
  Conv2d<T> conv_out;

  Unet2d() = default;
  /// Declared: to be loaded or initialised. Throws Error on a configuration whose parts do not fit.
  explicit Unet2d(const UnetConfig& c) : config(c) {
    check_unet_config(c);
    const Index first = c.block_out_channels.front();
    conv_in = Conv2d<T>(c.in_channels, first, 3, {.padding = 1});
    time = UnetTime<T>(c);
    for (std::size_t i = 0; i < c.levels(); ++i) down_blocks.emplace_back(c, i);
    if (c.mid_block_type) mid_block.emplace(c);
    for (std::size_t i = 0; i < c.levels(); ++i) up_blocks.emplace_back(c, i);
    conv_norm_out = GroupNorm<T>(c.norm_num_groups, first, c.norm_eps);
    conv_out = Conv2d<T>(first, c.out_channels, 3, {.padding = 1});
  }
  Unet2d(const UnetConfig& c, Generator& generator) : Unet2d(c) { initialize(generator); }
  /// torch's defaults, as diffusers has them for a new model.
  void initialize(Generator& generator) {
    conv_in.initialize(generator);
    time.initialize(generator);
    for (auto& block : down_blocks) block.initialize(generator);
    if (mid_block) mid_block->initialize(generator);
    for (auto& block : up_blocks) block.initialize(generator);
    conv_norm_out.initialize();
    conv_out.initialize(generator);
  }
  /// In training, backward keeps the inputs of resnets and transformer blocks only and computes them again.
  void set_checkpointing(bool on) {
    for (auto& block : down_blocks) block.layers.set_checkpointing(on);
    if (mid_block) mid_block->layers.set_checkpointing(on);
    for (auto& block : up_blocks) block.layers.set_checkpointing(on);
  }

  /// latents [N, H, W, in_channels] at the timesteps [N] or [1], which may be fractional -> [N, H, W, out_channels].
  /// Throws ShapeError when the conditions are not those that this model takes.
  Var<T> operator()(const Var<T>& latents, const Tensor<float>& timesteps, const UnetConditions<T>& conditions = {}) const {
    check<ShapeError>(latents.rank() == 4 && latents.extent(3) == config.in_channels, "unet", "expected latents [N, H, W, ", config.in_channels,
                      "], got ", latents.shape());
    const Var<T> t = time(latents.extent(0), timesteps, conditions);
    check_text_states("unet", config, latents.extent(0), conditions.states.shape());
    const Var<T> states = with_image_tokens(conditions);
    std::vector<Var<T>> skips{conv_in(config.center_input_sample ? latents * T(2) - T(1) : latents)};
    Var<T> x = skips.back();
    for (const auto& block : down_blocks) x = block(x, t, states, skips);
    if (const auto& control = conditions.control) {
      check<ShapeError>(control->down.size() == skips.size() && control->mid, "unet", "expected control residuals for ", skips.size(),
                        " skips and the mid block, got ", control->down.size(), control->mid ? " and one" : " and none");
      for (std::size_t i = 0; i < skips.size(); ++i) skips[i] = skips[i] + control->down[i];
    }
    if (mid_block) x = (*mid_block)(x, t, states);
    if (conditions.control) x = x + *conditions.control->mid;
    for (const auto& block : up_blocks) x = block(x, t, states, skips);
    return conv_out(conv_norm_out(std::move(x), true));
  }

  /// The adapters attached to the cross-attentions that look at rows of their own, and how many, in the order of attaching.
  std::vector<std::pair<std::string, Index>> image_adapters() const {
    std::vector<std::pair<std::string, Index>> out;
    const auto first = [&](const auto& layers) {
      if (!out.empty() || layers.attentions.empty()) return;
      for (const auto& entry : layers.attentions.front().transformer_blocks.front().attn2.key_values)
        if (entry.patch->context_rows() > 0) out.emplace_back(entry.adapter, entry.patch->context_rows());
    };
    for (const auto& block : down_blocks) first(block.layers);
    if (mid_block) first(mid_block->layers);
    for (const auto& block : up_blocks) first(block.layers);
    return out;
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv_in", s.conv_in);
    f("", s.time);
    f("down_blocks", s.down_blocks);
    f("mid_block", s.mid_block);
    f("up_blocks", s.up_blocks);
    f("conv_norm_out", s.conv_norm_out);
    f("conv_out", s.conv_out);
  }

 private:
  /// The text's states, and behind them the tokens of pictures, as the cross-attentions expect them.
  Var<T> with_image_tokens(const UnetConditions<T>& conditions) const {
    const auto adapters = image_adapters();
    for (const auto& given : conditions.image_tokens)
      check<NameError>(std::any_of(adapters.begin(), adapters.end(), [&](const auto& a) { return a.first == given.first; }), "unet", "image tokens for '",
                       given.first, "', which is not attached as an IP-Adapter");
    if (adapters.empty()) return conditions.states;
    std::vector<Var<T>> parts{conditions.states};
    for (const auto& [name, rows] : adapters) {
      const auto at = conditions.image_tokens.find(name);
      check(at != conditions.image_tokens.end(), "unet", "the IP-Adapter '", name, "' is attached and needs a picture: give image_tokens, or detach it");
      const Shape expected{conditions.states.extent(0), rows, conditions.states.extent(2)};
      check<ShapeError>(at->second.shape() == expected, "unet", "expected image tokens ", expected, " for '", name, "', got ", at->second.shape());
      parts.push_back(at->second);
    }
    return concat<T>(parts, 1);
  }
};

struct UnetLoadOptions {
  /// How matrices are multiplied: bfloat16 or int8 (see LoadOptions), frozen for good; T when not given.
  std::optional<DType> weights{};
};

/// A frozen model from a checkpoint in diffusers' names. Throws one FileError that lists every name that is missing, misshapen
/// or unexpected.
template <class T>
Unet2d<T> load_unet(StateDict dict, const UnetConfig& config, const UnetLoadOptions& options = {}) {
  Unet2d<T> unet(config);
  to_current_attention_names(dict);
  LoadOptions load;
  load.weights = options.weights;
  load_params(params(unet), dict, load);
  return unet;
}
/// From a folder of diffusers' form: config.json and diffusion_pytorch_model, sharded or not, safetensors or torch's; or from one
/// file in diffusers' names, whose shapes say what it is. Throws FileError when a file is missing or broken, and as above.
template <class T>
Unet2d<T> load_unet(const std::string& path, const UnetLoadOptions& options = {}) {
  struct ::stat status {};
  if (::stat(path.c_str(), &status) != 0) fail<FileError>("load_unet", path, ": ", std::strerror(errno));
  if (S_ISDIR(status.st_mode))
    return load_unet<T>(open_checkpoint(path, {"diffusion_pytorch_model", "diffusion_pytorch_model.fp16"}), read_unet_config(path), options);
  StateDict dict = open_checkpoint(path);
  to_current_attention_names(dict);
  const UnetConfig config = infer_unet_config(dict);
  return load_unet<T>(std::move(dict), config, options);
}

/// Writes config.json and diffusion_pytorch_model.safetensors, floating-point as `dtype`; makes the folder when absent. Attached
/// adapters are not part of it. Throws FileError.
template <class T>
void save_unet(Unet2d<T>& unet, const std::string& directory, DType dtype = DType::f32) {
  if (::mkdir(directory.c_str(), 0777) != 0)
    check<FileError>(errno == EEXIST, "save_unet", directory, ": cannot make the directory: ", std::strerror(errno));
  save_params(directory + "/diffusion_pytorch_model.safetensors", params(unet), {{"format", "pt"}}, dtype);
  save_json(directory + "/config.json", write_unet_config(unet.config));
}

}  // namespace tenon::inline TENON_ABI
