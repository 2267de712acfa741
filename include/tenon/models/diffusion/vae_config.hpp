#pragma once
// The configurations of autoencoders, as diffusers' config.json has them (AutoencoderKL, AutoencoderTiny).
#include <algorithm>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include <tenon/io/json.hpp>
#include <tenon/kernels/activation_kind.hpp>

namespace tenon::inline TENON_ABI {

using kernels::Activation;

/// The defaults are those of Stable Diffusion 1 and 2.
struct AutoencoderKlConfig {
  Index in_channels = 3, out_channels = 3;
  Index latent_channels = 4;
  std::vector<Index> block_out_channels = {128, 256, 512, 512};
  Index layers_per_block = 2;  ///< one more on the way back
  Index norm_num_groups = 32;
  Index sample_size = 512;     ///< pixels' side that the model was trained on, and a tile's
  double scaling_factor = 0.18215;
  double shift_factor = 0;
  std::vector<double> latents_mean = {}, latents_std = {};  ///< of each channel; empty: 0 and 1
  bool use_quant_conv = true, use_post_quant_conv = true;
  bool mid_block_add_attention = true;

  /// Pixels of a side for each latent.
  Index scale() const { return Index{1} << (block_out_channels.size() - 1); }
};

/// Reads config.json; what is absent has diffusers' default. Throws FileError on a wrong value and on blocks that tenon does not have.
inline AutoencoderKlConfig read_autoencoder_kl_config(const Json& json) {
  const AutoencoderKlConfig defaults;
  check_extents(json, {"in_channels", "out_channels", "latent_channels", "block_out_channels", "norm_num_groups", "sample_size"}, 1);
  check_extents(json, {"layers_per_block"}, 0, max_layers);
  AutoencoderKlConfig c;
  c.in_channels = json.get("in_channels", defaults.in_channels);
  c.out_channels = json.get("out_channels", defaults.out_channels);
  c.latent_channels = json.get("latent_channels", defaults.latent_channels);
  c.block_out_channels = json.get("block_out_channels", std::vector<Index>{64});
  c.layers_per_block = json.get<Index>("layers_per_block", 1);
  c.norm_num_groups = json.get("norm_num_groups", defaults.norm_num_groups);
  c.sample_size = json.contains("sample_size.0") ? json.get<Index>("sample_size.0") : json.get<Index>("sample_size", 32);
  c.scaling_factor = json.get("scaling_factor", defaults.scaling_factor);
  c.shift_factor = json.get("shift_factor", defaults.shift_factor);
  c.latents_mean = json.get("latents_mean", defaults.latents_mean);
  c.latents_std = json.get("latents_std", defaults.latents_std);
  c.use_quant_conv = json.get("use_quant_conv", defaults.use_quant_conv);
  c.use_post_quant_conv = json.get("use_post_quant_conv", defaults.use_post_quant_conv);
  c.mid_block_add_attention = json.get("mid_block_add_attention", defaults.mid_block_add_attention);
  const auto only = [&](const char* key, std::string_view wanted) {
    for (const std::string& found : json.get(key, std::vector<std::string>(c.block_out_channels.size(), std::string(wanted))))
      check<FileError>(found == wanted, "autoencoder", json.file(), ": ", key, ": expected ", wanted, ", found ", found);
  };
  only("down_block_types", "DownEncoderBlock2D");
  only("up_block_types", "UpDecoderBlock2D");
  const std::string act = json.get("act_fn", std::string("silu"));
  check<FileError>(act == "silu" || act == "swish", "autoencoder", json.file(), ": act_fn: expected silu, found ", act);
  check<FileError>(!c.block_out_channels.empty() && c.block_out_channels.size() < 16, "autoencoder", json.file(), ": expected 1 to 15 block_out_channels");
  check<FileError>(c.latents_mean.size() == c.latents_std.size() &&
                       (c.latents_mean.empty() || static_cast<Index>(c.latents_mean.size()) == c.latent_channels),
                   "autoencoder", json.file(), ": expected latents_mean and latents_std of ", c.latent_channels, " channels");
  return c;
}

inline nlohmann::json write_autoencoder_kl_config(const AutoencoderKlConfig& c) {
  const std::size_t levels = c.block_out_channels.size();
  nlohmann::json out{{"_class_name", "AutoencoderKL"},
                     {"act_fn", "silu"},
                     {"block_out_channels", c.block_out_channels},
                     {"down_block_types", std::vector<std::string>(levels, "DownEncoderBlock2D")},
                     {"in_channels", c.in_channels},
                     {"latent_channels", c.latent_channels},
                     {"layers_per_block", c.layers_per_block},
                     {"mid_block_add_attention", c.mid_block_add_attention},
                     {"norm_num_groups", c.norm_num_groups},
                     {"out_channels", c.out_channels},
                     {"sample_size", c.sample_size},
                     {"scaling_factor", c.scaling_factor},
                     {"up_block_types", std::vector<std::string>(levels, "UpDecoderBlock2D")},
                     {"use_post_quant_conv", c.use_post_quant_conv},
                     {"use_quant_conv", c.use_quant_conv}};
  if (c.shift_factor != 0) out["shift_factor"] = c.shift_factor;
  if (!c.latents_mean.empty()) out.update({{"latents_mean", c.latents_mean}, {"latents_std", c.latents_std}});
  return out;
}

/// The defaults are those of TAESD.
struct AutoencoderTinyConfig {
  Index in_channels = 3, out_channels = 3;
  Index latent_channels = 4;
  std::vector<Index> encoder_block_out_channels = {64, 64, 64, 64}, decoder_block_out_channels = {64, 64, 64, 64};
  std::vector<Index> num_encoder_blocks = {1, 3, 3, 3}, num_decoder_blocks = {3, 3, 3, 1};
  Activation act_fn = Activation::relu;
  Index upsampling_scaling_factor = 2;
  double scaling_factor = 1, shift_factor = 0;

  /// Pixels of a side for each latent.
  Index scale() const { return Index{1} << (num_encoder_blocks.size() - 1); }
};

/// Reads config.json; what is absent has diffusers' default. Throws FileError on a wrong value.
inline AutoencoderTinyConfig read_autoencoder_tiny_config(const Json& json) {
  check_extents(json, {"in_channels", "out_channels", "latent_channels", "encoder_block_out_channels", "decoder_block_out_channels", "upsampling_scaling_factor"}, 1);
  check_extents(json, {"num_encoder_blocks", "num_decoder_blocks"}, 0, max_layers);
  AutoencoderTinyConfig c;
  c.in_channels = json.get("in_channels", c.in_channels);
  c.out_channels = json.get("out_channels", c.out_channels);
  c.latent_channels = json.get("latent_channels", c.latent_channels);
  c.encoder_block_out_channels = json.get("encoder_block_out_channels", c.encoder_block_out_channels);
  c.decoder_block_out_channels = json.get("decoder_block_out_channels", c.decoder_block_out_channels);
  c.num_encoder_blocks = json.get("num_encoder_blocks", c.num_encoder_blocks);
  c.num_decoder_blocks = json.get("num_decoder_blocks", c.num_decoder_blocks);
  c.act_fn = kernels::activation_from_name(json.get("act_fn", std::string("relu")));
  c.upsampling_scaling_factor = json.get("upsampling_scaling_factor", c.upsampling_scaling_factor);
  c.scaling_factor = json.get("scaling_factor", c.scaling_factor);
  c.shift_factor = json.get("shift_factor", c.shift_factor);
  const std::string upsample = json.get("upsample_fn", std::string("nearest"));
  check<FileError>(upsample == "nearest", "autoencoder", json.file(), ": upsample_fn: expected nearest, found ", upsample);
  const auto pair = [&](const char* name, const auto& channels, const auto& blocks) {
    const bool even = std::equal(channels.begin(), channels.end(), channels.begin(), [&](Index a, Index) { return a == channels.front(); });
    check<FileError>(!channels.empty() && channels.size() == blocks.size() && channels.size() < 16 && even, "autoencoder", json.file(), ": ", name,
                     ": expected as many block_out_channels, all equal, as blocks");
  };
  pair("encoder", c.encoder_block_out_channels, c.num_encoder_blocks);
  pair("decoder", c.decoder_block_out_channels, c.num_decoder_blocks);
  return c;
}

}  // namespace tenon::inline TENON_ABI
