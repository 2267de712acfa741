#pragma once
// The tiny pipelines of golden/stable_diffusion as folders with weights, drawn as make_stable_diffusion.py draws them.
#include <filesystem>

#include <tenon/models/diffusion/load_components.hpp>
#include <tenon/ops/shape.hpp>

#include "../../io/scratch.hpp"
#include "golden.hpp"

namespace tiny {

using namespace tenon;

/// Every parameter by its name's order: matrices and kernels uniform with variance 1 / fan in, norms about 1, biases small.
template <class M>
void draw(M& model, std::uint64_t seed) {
  Generator generator(seed);
  auto list = params(model);
  std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.path < b.path; });
  for (const auto& ref : list) {
    const Shape& shape = ref.weight->shape();
    auto value = Tensor<float>::uninitialized(shape);
    fill_uniform(value.span(), -1, 1, generator);
    const float scale = shape.rank() == 1 ? 0 : static_cast<float>(std::sqrt(3.0 / static_cast<double>(value.size() / shape[0])));
    for (float& x : value) x = shape.rank() > 1 ? x * scale : ref.path.ends_with("weight") ? 1 + 0.25f * x : 0.1f * x;
    ref.weight->set(std::move(value));
  }
}

template <class M>
void write(M&& model, std::uint64_t seed, const std::string& file) {
  draw(model, seed);
  save_params(file, params(model));
}

/// Makes the folder of one model, its weights and its vocabulary beside the configurations.
inline std::string folder(const Scratch& scratch, const std::string& name) {
  namespace fs = std::filesystem;
  const std::string to = scratch / name;
  fs::copy(golden::path("stable_diffusion/" + name), to, fs::copy_options::recursive);
  const std::uint64_t seed = 100 * name.size();
  write(Unet2d<float>(read_unet_config(to + "/unet")), seed, to + "/unet/diffusion_pytorch_model.safetensors");
  write(AutoencoderKl<float>(read_autoencoder_kl_config(Json::read(to + "/vae/config.json"))), seed + 1, to + "/vae/diffusion_pytorch_model.safetensors");
  for (const auto& [part, offset] : {std::pair<std::string, std::uint64_t>{"text_encoder", 2}, {"text_encoder_2", 3}}) {
    if (!fs::exists(to + "/" + part)) continue;
    const Json config = Json::read(to + "/" + part + "/config.json");
    const Index projection = offset == 3 ? config.get<Index>("projection_dim") : 0;
    write(TextEncoder<float>(read_text_config(config), projection), seed + offset, to + "/" + part + "/model.safetensors");
    for (const char* file : {"vocab.json", "merges.txt"})
      fs::copy(std::string(TENON_SOURCE_DIR) + "/examples/data/clip/" + file, to + "/tokenizer" + part.substr(12) + "/" + file);
  }
  return to;
}

/// The tensors of a model's folder under the names of a single file, as single_file_<model>.json says.
inline StateDict single_file(const std::string& folder, const std::string& model) {
  StateDict out("single");
  const Json parts = Json::read(golden::path("stable_diffusion") + "/single_file_" + model + ".json");
  for (const std::string& part : parts.keys()) {
    const auto file = SafetensorsFile::open(folder + "/" + part + (part.starts_with("text") ? "/model.safetensors" : "/diffusion_pytorch_model.safetensors"));
    for (const auto& [name, from] : parts.value()[part].items()) {
      const auto make = [&](const Tensor<float>& value) { out.insert(name, {DType::f32, "F32", value.shape(), [value] { return raw_copy(value); }}); };
      if (from.is_array()) {  // q, k and v, one below the other
        std::vector<Var<float>> rows;
        for (const auto& one : from) rows.emplace_back(file.load<float>(one.get<std::string>()));
        make(concat(rows, 0).value());
        continue;
      }
      Tensor<float> value = file.load<float>(from.get<std::string>());
      if (name.ends_with("text_projection")) value = transpose(Var<float>(value)).value();
      if (name.find(".attn_1.") != name.npos && value.rank() == 2) value = std::move(value).reshape({value.extent(0), value.extent(1), 1, 1});
      make(value);
    }
  }
  const Tensor<float> unread({3}, {1, 2, 3});  // what trainers leave beside the model
  for (const char* name : {"alphas_cumprod", "model_ema.diffusion_modelinput_blocks00weight"}) out.insert(name, {DType::f32, "F32", unread.shape(), [unread] { return raw_copy(unread); }});
  return out;
}
inline void save(const std::string& path, const StateDict& dict) {
  std::vector<NamedTensor> tensors;
  for (const auto& name : dict.names()) tensors.push_back({name, dict.raw(name)});
  save_safetensors(path, std::move(tensors));
}

/// The picture and the mask that make_stable_diffusion.py gives its pipelines.
inline Image picture(Index height, Index width) {
  Image out(height, width);
  for (Index y = 0; y < height; ++y)
    for (Index x = 0; x < width; ++x)
      for (Index c = 0; c < 3; ++c) out.at(y, x)[c] = static_cast<std::uint8_t>((y * y * 3 + x * 11 + c * 70 + x * y) % 256);
  return out;
}
inline Image mask(Index height, Index width) {
  Image out(height, width, 1, 20);
  for (Index y = height / 4 + 1; y < height; ++y)
    for (Index x = width / 3 + 1; x < width; ++x) *out.at(y, x) = 255;
  return out;
}

}  // namespace tiny
