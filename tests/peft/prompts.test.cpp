// Prefix and prompt tuning against peft's (golden/make_peft_prompts.py).
#include <filesystem>

#include <tenon/autograd/backward.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/peft/formats/peft.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::error;

namespace {

/// OPT: a decoder of pre-norm layers.
template <class T>
struct Layer {
  LayerNorm<T> self_attn_layer_norm{12}, final_layer_norm{12};
  Attention<T> self_attn{12, 2, true};
  Mlp<T> mlp{12, 16, Activation::relu};
  Var<T> operator()(const Var<T>& x) const {
    const auto h = x + self_attn(self_attn_layer_norm(x));
    return h + mlp(final_layer_norm(h));
  }
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("self_attn_layer_norm", s.self_attn_layer_norm), f("final_layer_norm", s.final_layer_norm), f("self_attn", s.self_attn), f("mlp", s.mlp);
  }
};
template <class T>
struct Decoder {
  Embedding<T> embed_tokens{10, 12}, embed_positions{9, 12};
  std::vector<Layer<T>> layers = std::vector<Layer<T>>(2);
  LayerNorm<T> final_layer_norm{12};

  Decoder() {
    load_params(params(*this), SafetensorsFile::open(golden::path("peft_prompts/base.safetensors")), {.rename = [](std::string name) {
                  if (const auto at = name.find(".mlp."); at != name.npos) name.erase(at, 4);
                  return name;
                }});
    freeze(*this);
  }
  /// ids [N, L] at positions from `first` on; OPT's table has two rows more in front.
  Var<T> operator()(const Tensor<std::int32_t>& ids, std::int32_t first) const {
    Tensor<std::int32_t> positions({ids.extent(1)});
    for (Index i = 0; i < positions.size(); ++i) positions.data()[i] = first + 2 + static_cast<std::int32_t>(i);
    Var<T> x = embed_tokens(ids) + embed_positions(positions);
    for (const auto& layer : layers) x = layer(x);
    return final_layer_norm(x);
  }
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("embed_tokens", s.embed_tokens), f("embed_positions", s.embed_positions), f("layers", s.layers), f("final_layer_norm", s.final_layer_norm);
  }
};

Tensor<std::int32_t> ids() {
  const std::int32_t all[] = {4, 0, 8, 9, 4, 4, 2, 1};
  return {{2, 4}, std::span(all)};
}

void backward_of_squares(const Var<double>& y) { backward(sum(y * y) * 0.5); }

}  // namespace

TEST_CASE("prefix and prompt tuning of peft: outputs, gradients, files") {
  Scratch scratch("prompts");
  const char* keep = std::getenv("TENON_KEEP");  // a directory for make_peft_prompts.py --read
  for (const std::string name : {"prefix", "prefix_projection", "prompt"}) {
    INFO(name);
    const std::string folder = golden::path("peft_prompts/" + name), out = keep != nullptr ? keep + ("/" + name) : scratch / name;
    const auto file = SafetensorsFile::open(folder + "/expected.safetensors");
    const auto expected = [&](const std::string& what) { return file.load<double>(what); };
    Decoder<double> model;
    const auto report = attach(model, load_adapter(folder));
    CHECK(report.unused.empty());
    for (const auto& ref : patch_params(model)) ref.weight->set_trainable(true);
    const bool prompt = name == "prompt";
    CHECK(report.sites == (prompt ? std::vector<std::string>{"embed_tokens"} : std::vector<std::string>{"layers.0.self_attn", "layers.1.self_attn"}));
    const auto y = model(prompt ? insert_tokens(ids(), token_ids(model, "default")) : ids(), prompt ? 0 : 3);
    CHECK(error(y.value(), expected("last_hidden_state")) < 1e-6);
    backward_of_squares(y);
    std::vector<Var<double>> grads;
    for (const auto& ref : patch_params(model)) grads.emplace_back(ref.weight->var().grad());
    if (name != "prefix_projection") CHECK(error(concat(grads, prompt ? 0 : 1).value(), expected("grad.embedding.weight")) < 1e-6);

    save_adapter(model, out);
    const auto written = SafetensorsFile::open(out + "/adapter_model.safetensors"), theirs = SafetensorsFile::open(folder + "/adapter_model.safetensors");
    CHECK(written.names() == theirs.names());
    CHECK(written.load<float>("prompt_embeddings") == theirs.load<float>("prompt_embeddings"));
    const Json config = Json::read(out + "/adapter_config.json"), original = Json::read(folder + "/adapter_config.json");
    CHECK(config.get<std::string>("task_type") == original.get<std::string>("task_type"));  // peft's model leaves the prompt out without one
    for (const char* key : {"num_virtual_tokens", "token_dim", "num_transformer_submodules"}) CHECK(config.get<Index>(key) == original.get<Index>(key));
  }
}

TEST_CASE("a prefix of a network is peft's prefix_projection") {
  const auto file = SafetensorsFile::open(golden::path("peft_prompts/prefix_projection/expected.safetensors"));
  Decoder<double> model;
  Generator generator(1);
  attach(model, PrefixConfig{.length = 3, .reparametrisation = 7}, generator);
  const auto rows = [&](const std::string& name, Index layer) {
    const auto all = file.load<double>(name);
    return copy(all.view().sliced(0, layer * 24, layer * 24 + 24));
  };
  const auto attention = [&](std::size_t layer) -> Prefix<double>& {
    return dynamic_cast<Prefix<double>&>(*model.layers[layer].self_attn.key_values.entries.at(0).patch);
  };
  auto& trunk = *attention(0).trunk;
  trunk.table->set(file.load<double>("embedding.weight"));
  trunk.hidden.weight->set(file.load<double>("transform.0.weight"));
  trunk.hidden.bias->set(file.load<double>("transform.0.bias"));
  for (Index layer = 0; layer < 2; ++layer) {
    attention(static_cast<std::size_t>(layer)).last.weight->set(rows("transform.2.weight", layer));
    attention(static_cast<std::size_t>(layer)).last.bias->set(rows("transform.2.bias", layer));
  }
  const auto y = model(ids(), 3);
  CHECK(error(y.value(), file.load<double>("last_hidden_state")) < 1e-6);
  backward_of_squares(y);
  CHECK(error(trunk.table->var().grad(), file.load<double>("grad.embedding.weight")) < 1e-6);
  CHECK(error(trunk.hidden.weight->var().grad(), file.load<double>("grad.transform.0.weight")) < 1e-6);
  CHECK(error(trunk.hidden.bias->var().grad(), file.load<double>("grad.transform.0.bias")) < 1e-6);
  for (Index layer = 0; layer < 2; ++layer) {
    CHECK(error(attention(static_cast<std::size_t>(layer)).last.weight->var().grad(), rows("grad.transform.2.weight", layer)) < 1e-6);
    CHECK(error(attention(static_cast<std::size_t>(layer)).last.bias->var().grad(), rows("grad.transform.2.bias", layer)) < 1e-6);
  }
}
