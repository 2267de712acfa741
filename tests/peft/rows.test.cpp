// A different adapter for each row of a batch, and learned rows of an Embedding: prompts and textual inversion.
#include <tenon/autograd/backward.hpp>
#include <tenon/nn/checkpoint.hpp>
#include <tenon/ops/reduce.hpp>
#include <tenon/peft/dora.hpp>
#include <tenon/peft/formats/peft.hpp>
#include <tenon/peft/formats/textual_inversion.hpp>
#include <tenon/peft/row_adapters.hpp>

#include "../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::numbers;

namespace {

template <class T>
struct Block {
  LayerNorm<T> norm{8};
  Attention<T> attention{8, 2};
  Mlp<T> mlp{8, 12, Activation::gelu};
  Var<T> operator()(const Var<T>& x) const {
    const Var<T> h = x + attention(norm(x));
    return h + mlp(h);
  }
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("norm", s.norm), f("attention", s.attention), f("mlp", s.mlp);
  }
};
template <class T>
struct Model {
  Embedding<T> table{11, 8};
  std::vector<Block<T>> blocks = std::vector<Block<T>>(2);
  Conv2d<T> conv{8, 4, 3, {.padding = 1}};

  Model() {
    Generator generator(3);
    for (const auto& ref : params(*this)) ref.weight->set(numbers<T>(ref.weight->shape(), generator, 0.4));
    freeze(*this);
  }
  Var<T> operator()(const Tensor<std::int32_t>& ids, bool checkpointing = false) const {
    Var<T> x = table(ids);
    for (const auto& block : blocks) x = checkpointing ? checkpoint(block, x) : block(x);
    return conv(reshape(x, {x.extent(0), 2, -1, 8}));
  }
  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("table", s.table), f("blocks", s.blocks), f("conv", s.conv);
  }
};

/// Adapters of every kind of patch, on overlapping sets of layers.
template <class T>
void attach_all(Model<T>& model) {
  Generator generator(5);
  attach(model, LoraConfig{.rank = 2, .alpha = 3, .targets = {"q_proj", "v_proj", "fc1", "table", "conv"}}, generator, {.name = "lora"});
  attach(model, LoraConfig{.rank = 4, .alpha = 3, .targets = {"q_proj", "out_proj"}}, generator, {.name = "other", .scale = 0.7});
  attach(model, DoraConfig{.rank = 2, .alpha = 3, .targets = {"fc1", "fc2", "table", "conv"}}, generator, {.name = "dora"});
  attach(model, BottleneckConfig{.bottleneck = 3, .placement = BottleneckConfig::Placement::both}, generator, {.name = "adapter"});
  attach(model, PrefixConfig{.length = 2}, generator, {.name = "prefix"});
  attach(model, PrefixConfig{.length = 2, .gated = true}, generator, {.name = "gated"});
  for (const auto& ref : patch_params(model)) ref.weight->set(numbers<T>(ref.weight->shape(), generator, 0.4));
}
Tensor<std::int32_t> some_ids(Index n) {
  auto ids = Tensor<std::int32_t>::uninitialized({n, 4});
  for (Index i = 0; i < ids.size(); ++i) ids.data()[i] = static_cast<std::int32_t>(i * 7 % 11);
  return ids;
}

}  // namespace

TEST_CASE("each row of a batch has the bits that it has alone with its adapter") {
  Model<float> model;
  attach_all(model);
  const std::vector<std::string> names{"lora", "dora", "", "adapter", "lora", "prefix", "other", "gated", "", "dora"};
  const auto ids = some_ids(10);
  Tensor<float> together;
  {
    const RowAdapters rows(model, names);
    together = model(ids).value();
  }
  const Index each = together.size() / 10;
  for (Index n = 0; n < 10; ++n) {
    INFO(names[static_cast<std::size_t>(n)]);
    const std::string& name = names[static_cast<std::size_t>(n)];
    activate(model, name.empty() ? std::vector<std::string>{} : std::vector<std::string>{name});
    const Tensor<std::int32_t> row({1, 4}, std::span<const std::int32_t>(ids.data() + 4 * n, 4));
    const Tensor<float> alone = model(row).value();
    CHECK(std::equal(alone.begin(), alone.end(), together.data() + n * each));
  }
  activate(model, {"*"});
  {
    const RowAdapters rows(model, std::vector<std::string>(10, "lora"));
    activate(model, {"lora"});
    const auto scoped = model(ids).value();
    CHECK(!(scoped == together));
    disable(model, "lora");
    CHECK(model(ids).value() == [&] {
      const RowAdapters base(model, std::vector<std::string>(10, ""));
      return model(ids).value();
    }());
  }
}

TEST_CASE("gradients of adapters by row are those of each row alone, with checkpointing too") {
  Model<double> model;
  attach_all(model);
  const std::vector<std::string> names{"lora", "dora", "lora", "gated"};
  const auto ids = some_ids(4);
  std::vector<Tensor<double>> expected;
  for (Index n = 0; n < 4; ++n) {
    activate(model, {names[static_cast<std::size_t>(n)]});
    const auto y = model(Tensor<std::int32_t>({1, 4}, std::span<const std::int32_t>(ids.data() + 4 * n, 4)));
    backward(sum(y * y));
  }
  const auto collect = [&] {
    std::vector<Tensor<double>> out;
    for (const auto& ref : patch_params(model)) {
      out.push_back(ref.weight->var().has_grad() ? ref.weight->var().grad() : Tensor<double>());
      ref.weight->var().clear_grad();
    }
    return out;
  };
  expected = collect();
  activate(model, {"*"});
  for (const bool checkpointing : {false, true}) {
    Var<double> loss;
    {
      const RowAdapters rows(model, names);
      const auto y = model(ids, checkpointing);
      loss = sum(y * y);
    }
    backward(loss);
    const auto found = collect();
    for (std::size_t i = 0; i < found.size(); ++i) {
      INFO(patch_params(model)[i].path);
      if (expected[i].size() > 0) CHECK(golden::error(found[i], expected[i]) < 1e-12);
    }
  }
}

TEST_CASE("adapters by row: unknown names, other batches and merged adapters are errors") {
  Model<float> model;
  attach_all(model);
  REQUIRE_THROWS_WITH(RowAdapters(model, {"lora", "dorra"}), contains("[RowAdapters] no adapter 'dorra' is attached; nearest: dora"));
  {
    const RowAdapters rows(model, {"lora", ""});
    REQUIRE_THROWS_WITH(model(some_ids(3)), contains("[RowAdapters] expected 2 rows, one for each adapter, got [3, 4]"));
    REQUIRE_THROWS_WITH(model.table(Tensor<std::int32_t>({2}, {1, 2})), contains("takes ids [N, L], got [2]"));
  }
  activate(model, {"lora"});
  merge(model, "lora");
  const RowAdapters rows(model, {"lora", "dora"});
  REQUIRE_THROWS_WITH(model(some_ids(2)), contains("adapter 'lora' is merged, so every row would have it; unmerge it first"));
}

TEST_CASE("learned rows are a longer table; their gradients, scales, files and errors") {
  Model<double> model;
  Generator generator(6);
  attach(model, TokenRowsConfig{.count = 2, .targets = {"table"}, .initial = {3}}, generator, {.name = "cat"});
  attach(model, TokenRowsConfig{.count = 1, .targets = {"table"}}, generator, {.name = "dog"});
  CHECK(token_ids(model, "cat") == std::vector<std::int32_t>{11, 12});
  CHECK(token_ids(model, "dog") == std::vector<std::int32_t>{13});
  const auto row = [&](std::int32_t id) { return model.table(Tensor<std::int32_t>({1}, {id})).value(); };
  CHECK(row(12) == row(3));
  const auto plain = some_ids(2);
  Model<double> untouched;
  CHECK(model(plain).value() == untouched(plain).value());
  for (const auto& ref : patch_params(model)) ref.weight->set(numbers<double>(ref.weight->shape(), generator));

  Embedding<double> longer(14, 8);  // the table and the rows in one
  longer.weight->set(concat<double>({model.table.weight->var().detach(), patch_params(model)[0].weight->var().detach(), patch_params(model)[1].weight->var().detach()}, 0).value());
  longer.weight->set_trainable(true);
  const Tensor<std::int32_t> ids({2, 4}, {4, 13, 11, 4, 12, 12, 0, 13});
  CHECK(model.table(ids).value() == longer(ids).value());
  const auto weigh = numbers<double>({2, 4, 8}, generator);
  backward(sum(model.table(ids) * Var<double>(weigh)));
  backward(sum(longer(ids) * Var<double>(weigh)));
  const auto expected = longer.weight->var().grad();
  const auto rows_grad = concat<double>({Var<double>(patch_params(model)[0].weight->var().grad()), Var<double>(patch_params(model)[1].weight->var().grad())}, 0).value();
  for (Index i = 0; i < 24; ++i) CHECK(rows_grad.data()[i] == Approx(expected.data()[88 + i]));
  CHECK(!model.table.weight->var().has_grad());

  set_scale(model, "dog", 0.5);
  CHECK(row(13).data()[2] == longer.weight->value()(13, 2) * 0.5);
  REQUIRE_THROWS_WITH(merge(model, "cat"), contains("cannot be merged"));
  disable(model, "dog");
  REQUIRE_THROWS_WITH(model.table(ids), contains("expected ids in [0, 11), got 13"));
  REQUIRE_THROWS_WITH(token_ids(model, "bird"), contains("no adapter 'bird'"));
  REQUIRE_THROWS_WITH(attach(model, TokenRowsConfig{.count = 1, .targets = {"table"}, .initial = {11}}, generator, {.name = "x"}), contains("initial ids in [0, 11)"));
  REQUIRE_THROWS_WITH(attach(model, TokenRowsConfig{.count = 1, .targets = {"conv"}}, generator, {.name = "x"}), contains("does not fit"));
  CHECK(insert_tokens(Tensor<std::int32_t>({2, 2}, {1, 2, 3, 4}), {11, 12}, 1) == Tensor<std::int32_t>({2, 4}, {1, 11, 12, 2, 3, 11, 12, 4}));
  REQUIRE_THROWS_AS(insert_tokens(Tensor<std::int32_t>({2, 2}), {11}, 3), ShapeError);
}

TEST_CASE("a prompt goes through peft's directory, a textual inversion through A1111's files") {
  Scratch scratch("rows");
  Model<float> model, other;
  Generator generator(7);
  attach(model, TokenRowsConfig{.count = 3, .targets = {"table"}}, generator);
  const Tensor<float> vectors = patch_params(model)[0].weight->value();
  save_adapter(model, scratch / "prompt");
  CHECK(attach(other, load_adapter(scratch / "prompt"), {.name = "prompt"}).unused.empty());
  const Tensor<std::int32_t> ids({1, 4}, {11, 12, 13, 5});
  CHECK(other(ids).value() == model(ids).value());
  for (const std::string name : {"a.pt", "a.safetensors"}) {
    save_textual_inversion(scratch / name, vectors, "<cat>");
    const auto read = load_textual_inversion(scratch / name);
    CHECK(read.vectors.at("") == vectors);
    CHECK(read.token == "a");
    attach(other, read.vectors.at(""), "table", {.name = name});
    CHECK(token_ids(other, name).size() == 3);
    const auto at = token_ids(other, name).front();
    CHECK(other.table(Tensor<std::int32_t>({1}, {at})).value() == model.table(Tensor<std::int32_t>({1}, {11})).value());
  }
  if (const char* keep = std::getenv("TENON_KEEP")) save_textual_inversion(std::string(keep) + "/a.pt", vectors, "<cat>");
  const auto theirs = load_textual_inversion(golden::path("textual_inversion.pt"));  // written by torch as A1111 does
  CHECK(theirs.vectors.at("") == Tensor<float>({2, 3}, {0, 0.5f, 1, 1.5f, 2, 2.5f}));
  save_safetensors(scratch / "one.safetensors", {{"<dog>", raw_copy(Tensor<float>({8}))}});  // diffusers' form
  CHECK(load_textual_inversion(scratch / "one.safetensors").token == "<dog>");
  REQUIRE_THROWS_WITH(attach(other, theirs.vectors.at(""), "table", {.name = "narrow"}), contains("expected vectors of width 8 for table, got [2, 3]"));
  save_safetensors(scratch / "b.safetensors", {{"emb_params", raw_copy(Tensor<float>::full({1, 8}, NAN))}});
  REQUIRE_THROWS_WITH(load_textual_inversion(scratch / "b.safetensors"), contains("emb_params: expected finite numbers"));
  save_safetensors(scratch / "c.safetensors", {{"x", raw_copy(Tensor<float>({2, 2}))}, {"y", raw_copy(Tensor<float>({2, 2}))}});
  REQUIRE_THROWS_WITH(load_textual_inversion(scratch / "c.safetensors"), contains("found 2 tensors"));
  REQUIRE_THROWS_AS(save_textual_inversion(scratch / "a.bin", vectors, "x"), NameError);
  REQUIRE_THROWS_AS(attach(other, load_adapter(scratch / "prompt"), {.name = "prompt"}), NameError);
}

TEST_CASE("LoRA trains over a bfloat16 and an int8 base; merging says what it loses") {
  for (const DType panels : {DType::bf16, DType::i8}) {
    Model<float> model, plain;
    for (const auto& site : sites(model))
      if (std::holds_alternative<Linear<float>*>(site.layer)) site.weight->set_panels(panels);
    Generator generator(8);
    attach(model, LoraConfig{.rank = 2, .alpha = 4, .targets = {"q_proj", "v_proj", "fc2"}}, generator);
    const auto ids = some_ids(3);
    const Tensor<float> wanted = numbers<float>(plain(ids).shape(), generator);
    double first = 0, last = 0;
    for (int step = 0; step < 60; ++step) {
      const auto y = model(ids) - Var<float>(wanted);
      const auto loss = sum(y * y);
      (step == 0 ? first : last) = static_cast<double>(loss.item());
      backward(loss);
      for (const auto& ref : patch_params(model)) {
        const Tensor<float> grad = ref.weight->var().grad();
        ref.weight->var().clear_grad();
        float square = 1e-12f;
        for (const float g : grad) square += g * g;
        ref.weight->update([&](Tensor<float>& value) {  // steps of a fixed length
          for (Index i = 0; i < value.size(); ++i) value.data()[i] -= 0.03f / std::sqrt(square) * grad.data()[i];
        });
      }
    }
    CHECK(last < 0.9 * first);
    const auto tuned = model(ids).value();
    const auto report = merge(model);
    CHECK(report.sites.size() == 6);
    CHECK(report.worst() > 1e-4);
    CHECK(report.worst() < 0.6);
    const double apart = golden::error(model(ids).value(), tuned);
    CHECK(apart > 0);
    CHECK(apart < 0.1);
    unmerge(model);
    CHECK(model(ids).value() == tuned);
  }
  Model<float> model;  // stored as bfloat16: stays so
  for (const auto& site : sites(model))
    if (site.path.ends_with("fc2")) site.weight->set(Weight<float>::Stored(raw_copy(cast<bfloat16>(site.weight->value()))));
  Generator generator(8);
  attach(model, LoraConfig{.rank = 2, .alpha = 4, .targets = {"fc2", "q_proj"}}, generator);
  for (const auto& ref : patch_params(model)) ref.weight->set(numbers<float>(ref.weight->shape(), generator, 0.1));
  const auto report = merge(model);
  for (std::size_t i = 0; i < report.sites.size(); ++i) CHECK((report.losses[i] > 0) == report.sites[i].ends_with("fc2"));
  for (const auto& site : sites(model))
    if (site.path.ends_with("fc2")) CHECK(site.weight->storage() == DType::bf16);
}
