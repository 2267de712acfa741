// Weights that stay in their mapped file: the same bits as copies, in half the memory.
#include <tenon/io/checkpoint.hpp>
#include <tenon/nn/conv2d.hpp>
#include <tenon/nn/linear.hpp>
#include <tenon/peft/lora.hpp>
#include <tenon/peft/merge.hpp>

#include "catch.hpp"
#include "scratch.hpp"

using namespace tenon;

namespace {

template <class T>
struct Pair {
  Linear<T> linear;
  Conv2d<T> conv;

  Pair() : linear(96, 40), conv(8, 24, 3, {.padding = 1}) {}

  template <class Self, class F>
  static void fields(Self& s, F&& f) {
    f("linear", s.linear);
    f("conv", s.conv);
  }
};

struct Outputs {
  Tensor<float> linear, conv;
  bool operator==(const Outputs&) const = default;
};
Outputs run(const Pair<float>& pair) {
  Generator generator(5);
  Tensor<float> x({7, 96}), picture({2, 6, 5, 8});
  fill_normal(x.span(), 0.0f, 1.0f, generator);
  fill_normal(picture.span(), 0.0f, 1.0f, generator);
  return {pair.linear(Var<float>(x)).value(), pair.conv(Var<float>(picture)).value()};
}

/// A file of a Pair with elements of that type.
std::string file_of(const Scratch& scratch, DType dtype) {
  Generator generator(1);
  Pair<float> pair;
  pair.linear.initialize(generator);
  pair.conv.initialize(generator);
  const std::string path = scratch / (std::string(name_of(dtype)) + ".safetensors");
  save_params(path, params(pair), {}, dtype);
  return path;
}
Pair<float> loaded(const std::string& path, std::optional<DType> weights = {}) {
  Pair<float> pair;
  load_params(params(pair), SafetensorsFile::open(path), {.weights = weights});
  return pair;
}
/// The same elements in memory of their own.
Pair<float> copied(const std::string& path) {
  Pair<float> pair;
  const auto file = SafetensorsFile::open(path, {.mapped = false});
  for (const auto& ref : params(pair)) ref.weight->set(file.load<float>(ref.path));
  return pair;
}
bool mapped(const Weight<float>& weight) {
  const RawTensor* raw = std::get_if<RawTensor>(&weight.stored());
  return raw != nullptr ? std::get_deleter<MappedPages>(raw->bytes) != nullptr : std::get_deleter<MappedPages>(weight.value().memory()) != nullptr;
}

}  // namespace

TEST_CASE("matrices and kernels stay in the file and keep their bits") {
  const Scratch scratch("checkpoint");
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    INFO(name_of(dtype));
    const std::string path = file_of(scratch, dtype);
    Pair<float> pair = loaded(path);
    Pair<float> copy = copied(path);
    CHECK(mapped(*pair.linear.weight));
    CHECK(mapped(*pair.conv.weight));
    CHECK(pair.linear.bias->storage() == DType::f32);
    CHECK(pair.conv.weight->panels() == DType::f32);
    const Outputs expected = run(copy);
    CHECK(run(pair) == expected);
    CHECK(run(pair) == expected);
    for (const auto* weight : {pair.linear.weight.get(), pair.conv.weight.get()}) weight->drop_packed();
    CHECK(run(pair) == expected);
    CHECK(*pair.conv.weight->values() == copy.conv.weight->value());

    Pair<float> third;
    copy_params(pair, third);
    CHECK(run(third) == expected);
    for (const DType narrow : {DType::bf16, DType::i8}) {
      for (const auto& ref : params(copy))
        if (ref.weight->shape().rank() > 1) ref.weight->set_trainable(false), ref.weight->set_panels(narrow);
      const Pair<float> same = loaded(path, narrow);
      CHECK(mapped(*same.linear.weight));
      CHECK(run(same) == run(copy));
    }
    unfreeze(pair);  // now as copies
    CHECK(!mapped(*loaded(path).linear.bias));
    CHECK(pair.conv.weight->value() == copy.conv.weight->value());
    pair.conv.weight->update([](Tensor<float>& value) { value.data()[0] += 1; });
    CHECK(!mapped(*pair.conv.weight));
    CHECK(*loaded(path).conv.weight->values() == copy.conv.weight->value());
  }
}

TEST_CASE("merge, unmerge and save of weights that stay in the file") {
  const Scratch scratch("checkpoint-merge");
  for (const DType dtype : {DType::f32, DType::f16}) {
    const std::string path = file_of(scratch, dtype);
    Pair<float> pair = loaded(path);
    const Outputs before = run(pair);
    Generator generator(2);
    attach(pair, LoraConfig{.rank = 2, .alpha = 4, .targets = {"linear", "conv"}}, generator);
    for (const auto& ref : patch_params(pair)) ref.weight->update([&](Tensor<float>& value) { fill_normal(value.span(), 0.0f, 0.1f, generator); });
    const Outputs tuned = run(pair);
    CHECK(!(tuned == before));
    merge(pair);
    const Outputs merged = run(pair);
    for (Index i = 0; i < tuned.conv.size(); ++i) CHECK(merged.conv.data()[i] == Approx(tuned.conv.data()[i]).margin(1e-5));
    unmerge(pair);
    CHECK(mapped(*pair.linear.weight));
    CHECK(run(pair) == tuned);
    detach(pair);
    CHECK(run(pair) == before);
    const std::string content = contents(path);
    save_params(scratch / "again.safetensors", params(pair), {}, dtype);
    CHECK(contents(scratch / "again.safetensors") == content);
    save_params(path, params(pair), {}, dtype);  // onto the file that is mapped
    CHECK(contents(path) == content);
    CHECK(run(pair) == before);
  }
}

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
TEST_CASE("a packed weight's pages of the file are given back") {
  const auto resident = [] {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);)
      if (line.starts_with("RssFile:")) return std::stol(line.substr(8));
    return 0L;
  };
  const Scratch scratch("checkpoint-pages");
  const Index width = 2048;
  {
    Tensor<float> w({width, width});
    for (Index i = 0; i < w.size(); ++i) w.data()[i] = static_cast<float>(i % 97);
    save_safetensors(scratch / "w.safetensors", {{"weight", raw_copy(std::move(w))}});
  }
  Linear<float> layer(width, width, false);
  load_params(params(layer), SafetensorsFile::open(scratch / "w.safetensors"));
  const long before = resident();
  const float y = layer(Var<float>(Tensor<float>::full({1, width}, 1))).value().data()[0];
  CHECK(y == 97831.0f);
  CHECK(resident() < before + 2048);  // of 16384 kB
}
#endif
