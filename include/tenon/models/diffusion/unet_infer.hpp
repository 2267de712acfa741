#pragma once
// The configuration of a U-Net that has none: what the shapes of its checkpoint say.
#include <tenon/io/state_dict.hpp>
#include <tenon/models/diffusion/unet_config.hpp>

namespace tenon::inline TENON_ABI {

/// Of a checkpoint in diffusers' names. What shapes do not tell is as in Stable Diffusion: 32 groups, the eps, and the heads:
/// 8 where proj_in is a convolution (SD 1), else 64 wide (SD 2, XL). Throws NameError when a part is missing, FileError when
/// the shapes are of no U-Net that tenon has.
inline UnetConfig infer_unet_config(const StateDict& dict) {
  const auto shape = [&](const std::string& name, Index rank) {
    const Shape& out = dict.info(name).shape;
    check<FileError>(out.rank() == rank, "unet", dict.source(), ": ", name, ": expected rank ", rank, ", found shape ", out);
    return out;
  };
  const auto count = [&](const std::string& prefix, std::string_view suffix) {
    Index n = 0;
    while (dict.contains(join_text(prefix, n, suffix))) ++n;
    return n;
  };
  UnetConfig c;
  const Shape first = shape("conv_in.weight", 4);
  c.in_channels = first[1];
  c.out_channels = shape("conv_out.weight", 4)[0];
  const Index levels = count("down_blocks.", ".resnets.0.conv1.weight");
  check<FileError>(levels > 0, "unet", dict.source(), ": expected down_blocks, found none");
  c.down_block_types.clear();
  c.up_block_types.clear();
  for (auto* list : {&c.block_out_channels, &c.layers_per_block, &c.cross_attention_dim, &c.attention_head_dim}) list->clear();
  c.transformer_layers_per_block.clear();
  c.only_cross_attention.clear();

  std::optional<Index> text_width;
  const auto type_of = [&](const std::string& block) {
    if (!dict.contains(block + ".attentions.0.proj_in.weight"))
      return dict.contains(block + ".attentions.0.to_q.weight") ? UnetBlockType::self_attention : UnetBlockType::plain;
    text_width = shape(block + ".attentions.0.transformer_blocks.0.attn2.to_k.weight", 2)[1];
    c.use_linear_projection = dict.info(block + ".attentions.0.proj_in.weight").shape.rank() == 2;
    return UnetBlockType::cross_attention;
  };
  const auto depths_of = [&](const std::string& block, Index layers) {
    std::vector<Index> depths;
    for (Index i = 0; i < layers; ++i)
      depths.push_back(std::max<Index>(1, count(join_text(block, ".attentions.", i, ".transformer_blocks."), ".attn2.to_k.weight")));
    return depths;
  };
  for (Index i = 0; i < levels; ++i) {
    const std::string block = join_text("down_blocks.", i);
    const Index channels = shape(block + ".resnets.0.conv1.weight", 4)[0], layers = count(block + ".resnets.", ".conv1.weight");
    c.block_out_channels.push_back(channels);
    c.layers_per_block.push_back(layers);
    c.down_block_types.push_back(type_of(block));
    c.transformer_layers_per_block.push_back(depths_of(block, layers));
    const std::string attention = block + ".attentions.0.transformer_blocks.0.attn1.";
    c.only_cross_attention.push_back(text_width && *text_width != channels && dict.contains(attention + "to_k.weight") &&
                                     shape(attention + "to_k.weight", 2)[1] == *text_width);
  }
  for (Index i = 0; i < levels; ++i) {
    const std::string block = join_text("up_blocks.", i);
    c.up_block_types.push_back(type_of(block));
    c.reverse_transformer_layers_per_block.push_back(depths_of(block, count(block + ".resnets.", ".conv1.weight")));
  }
  c.mid_block_type.reset();
  if (dict.contains("mid_block.resnets.0.conv1.weight")) {
    c.mid_block_type = type_of("mid_block");
    c.mid_block_layers = count("mid_block.resnets.", ".conv1.weight") - 1;
    const Index depth = depths_of("mid_block", 1).front();
    auto& last = c.transformer_layers_per_block.back();
    if (c.down_block_types.back() == UnetBlockType::cross_attention)
      check<FileError>(last.front() == depth || c.mid_block_type != UnetBlockType::cross_attention, "unet", dict.source(),
                       ": expected a mid block as deep as the last block, ", last.front(), ", found ", depth);
    else
      last = {depth};
  }
  c.cross_attention_dim = {text_width.value_or(c.block_out_channels.back())};
  const bool eight_heads = text_width && !c.use_linear_projection;
  for (const Index channels : c.block_out_channels) c.attention_head_dim.push_back(eight_heads ? 8 : std::max<Index>(1, channels / 64));
  if (!text_width) c.attention_head_dim = {8};  // a head's width, as UNet2DModel has it
  const Index time_width = shape("time_embedding.linear_1.weight", 2)[0];
  check<FileError>(time_width == c.time_width(), "unet", dict.source(), ": time_embedding.linear_1.weight: expected ", c.time_width(),
                   " rows, found ", time_width);
  if (dict.contains("down_blocks.0.resnets.0.time_emb_proj.weight") &&
      shape("down_blocks.0.resnets.0.time_emb_proj.weight", 2)[0] == 2 * c.block_out_channels.front())
    c.resnet_time_scale_shift = TimeEmbeddingNorm::scale_shift;
  if (dict.contains("time_embedding.cond_proj.weight")) c.time_cond_proj_dim = shape("time_embedding.cond_proj.weight", 2)[1];
  if (dict.contains("class_embedding.weight")) c.num_class_embeds = shape("class_embedding.weight", 2)[0];
  if (dict.contains("add_embedding.linear_1.weight")) {
    c.addition_time_embed_dim = 256;
    c.projection_class_embeddings_input_dim = shape("add_embedding.linear_1.weight", 2)[1];
  }
  check_unet_config(c);
  return c;
}

}  // namespace tenon::inline TENON_ABI
