#pragma once
// ControlNet: a copy of a U-Net's way down that reads a picture too and adds to the U-Net's skips (Zhang et al. 2023,
// 2302.05543; diffusers' ControlNetModel).
#include <tenon/models/diffusion/unet.hpp>
#include <tenon/ops/reduce.hpp>

namespace tenon::inline TENON_ABI {

struct ControlNetConfig {
  UnetConfig unet;  ///< its way up is not used
  Index conditioning_channels = 3;
  std::vector<Index> conditioning_embedding_out_channels = {16, 32, 96, 256};
  bool bgr = false;                     ///< reads pictures in the order blue, green, red
  bool global_pool_conditions = false;  ///< adds one vector to all pixels
};

/// Reads config.json as diffusers writes it. Throws FileError as read_unet_config does.
inline ControlNetConfig read_control_net_config(const Json& json) {
  ControlNetConfig c;
  c.unet = read_unet_config(json);
  check_extents(json, {"conditioning_channels", "conditioning_embedding_out_channels"}, 1);
  c.conditioning_channels = json.get("conditioning_channels", c.conditioning_channels);
  c.conditioning_embedding_out_channels = json.get("conditioning_embedding_out_channels", c.conditioning_embedding_out_channels);
  check<FileError>(!c.conditioning_embedding_out_channels.empty(), "control_net", json.file(), ": conditioning_embedding_out_channels is empty");
  detail::only_known(json, "controlnet_conditioning_channel_order", {"rgb", "bgr"});
  c.bgr = json.get<std::string>("controlnet_conditioning_channel_order", "rgb") == "bgr";
  c.global_pool_conditions = json.get("global_pool_conditions", false);
  return c;
}

/// A picture at the latents' size: convolutions, each second one of stride 2.
template <class T>
struct ControlNetConditioningEmbedding {
  Conv2d<T> conv_in;
  std::vector<Conv2d<T>> blocks;
  Conv2d<T> conv_out;

  ControlNetConditioningEmbedding() = default;
  /// Declared: to be loaded or initialised.
  ControlNetConditioningEmbedding(Index in, const std::vector<Index>& channels, Index out)
      : conv_in(in, channels.front(), 3, {.padding = 1}), conv_out(channels.back(), out, 3, {.padding = 1}) {
    for (std::size_t i = 0; i + 1 < channels.size(); ++i) {
      blocks.emplace_back(channels[i], channels[i], 3, Conv2dConfig{.padding = 1});
      blocks.emplace_back(channels[i], channels[i + 1], 3, Conv2dConfig{.stride = 2, .padding = 1});
    }
  }

  /// x [N, H, W, in] -> [N, H / 2^k, W / 2^k, out], k being one less than the number of channels.
  Var<T> operator()(const Var<T>& x) const {
    Var<T> h = silu(conv_in(x));
    for (const auto& block : blocks) h = silu(block(h));
    return conv_out(h);
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv_in", s.conv_in);
    f("blocks", s.blocks);
    f("conv_out", s.conv_out);
  }
};

struct ControlNetOptions {
  double scale = 1;    ///< of all residuals
  bool guess = false;  ///< weaker on the large maps (from 0.1 of the scale up to 1): for generation without a prompt
};

template <class T>
struct ControlNet {
  ControlNetConfig config;
  Conv2d<T> conv_in;
  UnetTime<T> time;
  ControlNetConditioningEmbedding<T> controlnet_cond_embedding;
  std::vector<UnetDownBlock<T>> down_blocks;
  UnetMidBlock<T> mid_block;
  std::vector<Conv2d<T>> controlnet_down_blocks;  ///< 1x1, one for each skip
  Conv2d<T> controlnet_mid_block;

  ControlNet() = default;
  /// Declared: to be loaded. Throws Error on a configuration whose parts do not fit.
  explicit ControlNet(const ControlNetConfig& c) : config(c) {
    const UnetConfig& u = c.unet;
    check_unet_config(u);
    check(u.mid_block_type.has_value(), "control_net", "expected a mid block");
    const auto& channels = u.block_out_channels;
    conv_in = Conv2d<T>(u.in_channels, channels.front(), 3, {.padding = 1});
    time = UnetTime<T>(u);
    controlnet_cond_embedding = {c.conditioning_channels, c.conditioning_embedding_out_channels, channels.front()};
    controlnet_down_blocks.emplace_back(channels.front(), channels.front(), 1);
    for (std::size_t i = 0; i < u.levels(); ++i) {
      down_blocks.emplace_back(u, i);
      const auto& block = down_blocks.back();
      for (std::size_t k = 0; k < block.layers.resnets.size() + block.downsamplers.size(); ++k)
        controlnet_down_blocks.emplace_back(channels[i], channels[i], 1);
    }
    mid_block = UnetMidBlock<T>(u);
    controlnet_mid_block = Conv2d<T>(channels.back(), channels.back(), 1);
  }

  /// What a U-Net's conditions take as `control`: latents [N, H, W, C] at timesteps [N] or [1], conditions as for the U-Net, and
  /// a picture [N, 8 H, 8 W, 3] in 0..1. Throws ShapeError when they do not fit.
  ControlResiduals<T> operator()(const Var<T>& latents, const Tensor<float>& timesteps, const UnetConditions<T>& conditions, const Var<T>& picture,
                                 const ControlNetOptions& options = {}) const {
    check<ShapeError>(latents.rank() == 4 && latents.extent(3) == config.unet.in_channels, "control_net", "expected latents [N, H, W, ",
                      config.unet.in_channels, "], got ", latents.shape());
    check_text_states("control_net", config.unet, latents.extent(0), conditions.states.shape());
    UnetConditions<T> known = conditions;
    known.guidance.reset();  // which latent consistency models alone take
    const Var<T> t = time(latents.extent(0), timesteps, known);
    Var<T> x = conv_in(latents);
    const Var<T> hint = controlnet_cond_embedding(config.bgr ? flip(picture, -1) : picture);
    check<ShapeError>(hint.shape() == x.shape(), "control_net", "expected a picture [N, ", x.extent(1), " f, ", x.extent(2), " f, ",
                      config.conditioning_channels, "] with f = 2^", config.conditioning_embedding_out_channels.size() - 1, ", got ",
                      picture.shape());
    std::vector<Var<T>> skips{x = x + hint};
    for (const auto& block : down_blocks) x = block(x, t, conditions.states, skips);
    x = mid_block(x, t, conditions.states);
    const auto last = static_cast<double>(skips.size());
    const auto residual = [&](const Conv2d<T>& layer, const Var<T>& h, std::size_t place) {
      const bool fading = options.guess && !config.global_pool_conditions;
      const double fade = fading ? std::pow(10.0, static_cast<double>(place) / last - 1) : 1;
      const Var<T> y = layer(h) * static_cast<T>(fade * options.scale);
      return config.global_pool_conditions ? mean(y, {1, 2}, true) : y;
    };
    ControlResiduals<T> out;
    for (std::size_t i = 0; i < skips.size(); ++i) out.down.push_back(residual(controlnet_down_blocks[i], skips[i], i));
    out.mid = residual(controlnet_mid_block, x, skips.size());
    return out;
  }

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("conv_in", s.conv_in);
    f("", s.time);
    f("controlnet_cond_embedding", s.controlnet_cond_embedding);
    f("down_blocks", s.down_blocks);
    f("mid_block", s.mid_block);
    f("controlnet_down_blocks", s.controlnet_down_blocks);
    f("controlnet_mid_block", s.controlnet_mid_block);
  }
};

/// A frozen model from a folder of diffusers' form, as load_unet.
template <class T>
ControlNet<T> load_control_net(const std::string& path, const UnetLoadOptions& options = {}) {
  ControlNet<T> net(read_control_net_config(Json::read(path + "/config.json")));
  LoadOptions load;
  load.weights = options.weights;
  load_params(params(net), open_checkpoint(path, {"diffusion_pytorch_model", "diffusion_pytorch_model.fp16"}), load);
  return net;
}

}  // namespace tenon::inline TENON_ABI
