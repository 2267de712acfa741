#include <tenon/io/pickle.hpp>
#include <tenon/io/torch_file.hpp>
#include <tenon/io/checkpoint.hpp>

#include <filesystem>

#include "catch.hpp"
#include "golden.hpp"
#include "scratch.hpp"

using namespace tenon;

namespace {

const std::string folder = golden::path("torch");

Pickle parse(std::string_view text) { return Pickle::parse(std::as_bytes(std::span(text)), "test"); }
Tensor<double> counting(const Shape& shape) {
  Tensor<double> out(shape);
  for (Index i = 0; i < out.size(); ++i) out.data()[i] = static_cast<double>(i);
  return out;
}

}  // namespace

TEST_CASE("a pickle by hand") {
  using namespace std::string_view_literals;
  // {'a': (1, 255, -2)}, protocol 2
  const Pickle pickle = parse("\x80\x02}q\x00X\x01\x00\x00\x00" "aK\x01M\xff\x00J\xfe\xff\xff\xff\x87s."sv);
  REQUIRE(pickle[pickle.root()].kind == Pickle::Kind::dictionary);
  const Pickle::Id* value = pickle.find(pickle.root(), "a");
  REQUIRE(value != nullptr);
  const auto& items = pickle[*value].items;
  REQUIRE(items.size() == 3);
  CHECK(pickle[items[0]].number == 1);
  CHECK(pickle[items[1]].number == 255);
  CHECK(pickle[items[2]].number == -2);
  CHECK(pickle.find(pickle.root(), "b") == nullptr);

  REQUIRE_THROWS_WITH(parse(""sv), contains("ends too early"));
  REQUIRE_THROWS_WITH(parse("\x80\x09."sv), contains("protocol 0 to 5"));
  REQUIRE_THROWS_WITH(parse("."sv), contains("expected an object on the stack"));
  REQUIRE_THROWS_WITH(parse("K\x01K\x02s."sv), contains("[pickle] test: byte 5"));
  REQUIRE_THROWS_WITH(parse("h\x05."sv), contains("remembered"));
  REQUIRE_THROWS_WITH(parse("X\xff\xff\xff\xff."sv), contains("ends too early"));
  REQUIRE_THROWS_WITH(parse("\xfe."sv), contains("opcode 254"));
  REQUIRE_THROWS_WITH(parse("cos\nsystem\n."sv), contains("refers to os.system") && contains("refused"));
  REQUIRE_THROWS_WITH(parse("cbuiltins\neval\n."sv), contains("builtins.eval"));
  REQUIRE_THROWS_WITH(parse("ctorchvision\nx\n."sv), contains("torchvision.x"));  // a family's name, not its first letters
}

TEST_CASE("what torch.save wrote") {
  for (const char* name : {"plain.pt", "trainer.ckpt"}) {
    INFO(name);
    const StateDict dict = open_checkpoint(folder + "/" + name);
    CHECK(dict.size() == 15);
    const Tensor<double> a = counting({4, 6});
    const auto load = [&](const char* tensor) { return cast<double>(dict.raw(tensor)); };
    CHECK(load("whole") == a);
    CHECK(load("half") == a);
    CHECK(load("turned") == copy(a.view().permuted(std::array<Index, 2>{1, 0})));
    CHECK(load("part") == copy(a.view().sliced(0, 1, 3).sliced(1, 2, 5)));
    CHECK(load("bfloat") == counting({1, 6}));
    CHECK(load("double") == counting({1, 6}));
    CHECK(load("ids") == Tensor<double>::of({-2, -1, 0, 1, 2}));
    CHECK(load("small") == Tensor<double>::of({0, 1, 2}));
    CHECK(load("bytes") == Tensor<double>::of({0, 1, 2}));
    CHECK(load("signed") == Tensor<double>::of({0, -1, -2}));
    CHECK(load("wide") == counting({1, 7}));
    CHECK(load("scalar") == Tensor<double>::scalar(3.5));
    CHECK(load("empty").shape() == Shape{0, 3});
    CHECK(load("flag") == Tensor<double>::of({1, 0}));
    CHECK(dict.info("half").dtype == DType::f16);
    CHECK(dict.info("short").dtype_name == "ShortStorage");
    REQUIRE_THROWS_WITH(dict.raw("short"), contains("ShortStorage") && contains("does not read"));
    REQUIRE_THROWS_WITH(dict.raw("hole"), contains("nearest: whole"));
  }
  CHECK(cast<double>(open_checkpoint(folder + "/parameter.pt").raw("p")) == Tensor<double>::of({0, 1}));
}

TEST_CASE("what torch.jit.save wrote") {
  const StateDict dict = open_checkpoint(folder + "/script.pt");
  CHECK(dict.names() == std::vector<std::string>{"fc.bias", "fc.weight", "inner.0.bias", "inner.0.weight", "scale", "steps"});
  CHECK(cast<double>(dict.raw("fc.weight")) == Tensor<double>({2, 3}, {10, 11, 12, 13, 14, 15}));
  CHECK(cast<double>(dict.raw("steps")) == Tensor<double>::of({7}));
}

TEST_CASE("files that are no checkpoint are named") {
  REQUIRE_THROWS_WITH(open_checkpoint(folder + "/hostile.pt"), contains("posix.system") && contains("refused"));
  REQUIRE_THROWS_WITH(open_checkpoint(folder + "/old.pt"), contains("before 1.6"));
  REQUIRE_THROWS_AS(open_checkpoint(folder + "/absent.pt"), FileError);
  REQUIRE_THROWS_WITH(open_checkpoint(folder, {"model", "weights"}), contains("expected one of model.safetensors, weights.safetensors"));
}

TEST_CASE("a broken archive is an error, never a crash") {
  const Scratch scratch("torch-1");
  const std::string path = scratch / "broken.pt";
  const auto judge = [&](const std::string& bytes) {
    put(path, bytes);
    try {
      const StateDict dict = read_torch_file(path);
      for (const auto& name : dict.names())
        if (dict.info(name).dtype) (void)cast<double>(dict.raw(name));
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  const std::string good = contents(folder + "/plain.pt");
  REQUIRE(judge(good));
  for (std::size_t size = 0; size < good.size(); size += 97) CHECK_FALSE(judge(good.substr(0, size)));
  std::uint64_t state = 7;
  const auto draw = [&](std::uint64_t bound) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % bound;
  };
  int accepted = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string bytes = good;
    for (std::uint64_t k = 0, count = 1 + draw(4); k < count; ++k) bytes[draw(bytes.size())] = static_cast<char>(draw(256));
    accepted += judge(bytes);
  }
  CHECK(accepted < 1500);  // some bytes are padding or elements; most of the pickle and the directory are not
}

TEST_CASE("a sharded checkpoint") {
  const Scratch scratch("torch-2");
  const Tensor<float> a = Tensor<float>::of({1, 2}), b = Tensor<float>::of({3});
  save_safetensors(scratch / "model-1.safetensors", {{"a", raw_copy(a)}});
  save_safetensors(scratch / "model-2.safetensors", {{"b", raw_copy(b)}});
  const auto index = [&](const std::string& map) {
    put(scratch / "model.safetensors.index.json", "{\"weight_map\": " + map + "}");
  };
  index(R"({"a": "model-1.safetensors", "b": "model-2.safetensors"})");
  const StateDict dict = open_checkpoint(scratch.path.string(), {"model"});
  CHECK(dict.names() == std::vector<std::string>{"a", "b"});
  CHECK(cast<float>(dict.raw("b")) == b);
  index(R"({"a": "model-1.safetensors", "c": "model-2.safetensors"})");
  REQUIRE_THROWS_WITH(open_checkpoint(scratch.path.string(), {"model"}), contains("expected tensor c in model-2.safetensors"));
  index(R"({"a": "../model-1.safetensors"})");
  REQUIRE_THROWS_WITH(open_checkpoint(scratch.path.string(), {"model"}), contains("a file beside the index"));
  put(scratch / "other.safetensors.index.fp16.json", R"({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})");
  CHECK(open_checkpoint(scratch.path.string(), {"other", "other.fp16"}).names() == std::vector<std::string>{"a", "b"});
  index("{}");
  REQUIRE_THROWS_WITH(open_checkpoint(scratch.path.string(), {"model"}), contains("weight_map"));
}

TEST_CASE("tensors renamed, split, transposed and reshaped") {
  StateDict dict("test");
  const auto add = [&](const std::string& name, const Tensor<float>& value) {
    dict.insert(name, {DType::f32, "F32", value.shape(), [value] { return raw_copy(value); }});
  };
  add("qkv", Tensor<float>({3, 2}, {1, 2, 3, 4, 5, 6}));
  add("p", Tensor<float>({2, 3}, {1, 2, 3, 4, 5, 6}));
  add("s", Tensor<float>::of({9}));
  REQUIRE_THROWS_WITH(dict.insert("s", {}), contains("\"s\" occurs twice"));
  dict.split("qkv", std::array<std::string, 3>{"q", "k", "v"});
  dict.transpose("p");
  dict.reshape("s", {});
  dict.rename([](const std::string& name) { return name == "k" ? std::nullopt : std::optional("x." + name); });
  CHECK(dict.names() == std::vector<std::string>{"x.p", "x.q", "x.s", "x.v"});
  CHECK(cast<float>(dict.raw("x.v")) == Tensor<float>({1, 2}, {5, 6}));
  CHECK(cast<float>(dict.raw("x.p")) == Tensor<float>({3, 2}, {1, 4, 2, 5, 3, 6}));
  CHECK(cast<float>(dict.raw("x.s")) == Tensor<float>::scalar(9));
  REQUIRE_THROWS_AS(dict.transpose("x.s"), ShapeError);
  REQUIRE_THROWS_AS(dict.split("x.p", std::array<std::string, 2>{"a", "b"}), ShapeError);
  REQUIRE_THROWS_AS(dict.reshape("x.p", {5}), ShapeError);
}
