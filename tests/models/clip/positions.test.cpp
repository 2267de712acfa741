#include <tenon/models/clip/checkpoint.hpp>
#include <tenon/models/clip/positions.hpp>
#include <tenon/peft/lora.hpp>

#include "../../io/scratch.hpp"
#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::error;

namespace {

const std::string folder = golden::path("clip");

/// The upper left corner of the picture of the golden file.
template <class T>
Tensor<T> corner(const SafetensorsFile& file, const ImageSize& size) {
  const auto whole = file.load<std::uint8_t>("picture");
  const auto part = copy(whole.view().sliced(0, 0, size.height).sliced(1, 0, size.width));
  auto out = Tensor<T>::uninitialized({1, size.height, size.width, 3});
  for (Index i = 0; i < out.size(); ++i) out.data()[i] = static_cast<T>(part.data()[i]) / T(255);
  return out;
}

}  // namespace

TEST_CASE("antialias_taps by hand") {
  const kernels::Taps half = detail::antialias_taps(2, 1);  // one window over both places
  CHECK(half.source == std::vector<Index>{0, 1});
  CHECK(half.weight == std::vector<double>{0.5, 0.5});
  const kernels::Taps same = detail::antialias_taps(3, 3);
  for (Index i = 0; i < 3; ++i)
    for (Index t = same.begin[static_cast<std::size_t>(i)]; t < same.begin[static_cast<std::size_t>(i) + 1]; ++t)
      CHECK(same.weight[static_cast<std::size_t>(t)] == (same.source[static_cast<std::size_t>(t)] == i ? 1.0 : 0.0));
}

TEMPLATE_TEST_CASE("set_image_size gives the features of transformers and the table of open_clip", "", float, double) {
  using T = TestType;
  const double limit = std::same_as<T, float> ? 1e-5 : 1e-12;
  const auto file = SafetensorsFile::open(golden::path("clip_positions.safetensors"));
  for (const ImageSize size : {ImageSize(43), ImageSize(16), ImageSize(8), ImageSize(96), ImageSize(24, 43), ImageSize(96, 16), ImageSize(8, 90), ImageSize(61, 24)}) {
    const std::string name = size.square() ? join_text(size.height) : join_text(size.height, 'x', size.width);
    INFO(name);
    Clip<T> clip = load_clip<T>(folder), other = load_clip<T>(folder);
    set_image_size(clip, size);
    CHECK(clip.config.image_size() == size);
    CHECK(trainable(clip).empty());
    CHECK(error(clip.image_features(corner<T>(file, size)).value(), file.load<double>("features." + name)) < limit);
    set_image_size(other, size, PositionResize::bicubic_antialias);
    CHECK(error(other.vision_model.embeddings.position_embedding.weight->value(), file.load<double>("antialias." + name)) < 1e-6);
  }
}

TEST_CASE("a resized tower is saved, loaded and trained") {
  Scratch scratch("clip-positions");
  Clip<float> clip = load_clip<float>(folder);
  unfreeze(clip);
  set_image_size(clip, 40);
  CHECK(trainable(clip).size() == params(clip).size());
  const Tensor<float> pictures = corner<float>(SafetensorsFile::open(golden::path("clip_positions.safetensors")), 40);
  const Tensor<float> features = clip.image_features(pictures).value();
  backward(sum(clip.image_features(pictures)));
  CHECK(clip.vision_model.embeddings.position_embedding.weight->var().grad().shape() == Shape{26, 32});
  save_clip(clip, scratch / "40");
  CHECK(load_clip<float>(scratch / "40").image_features(pictures).value() == features);
  const Tensor<float> before = clip.vision_model.embeddings.position_embedding.weight->value();
  set_image_size(clip, 47);  // the same 5 patches: nothing to interpolate
  CHECK(clip.vision_model.embeddings.position_embedding.weight->value() == before);
  set_image_size(clip, {16, 40});
  const Tensor<float> wide = corner<float>(SafetensorsFile::open(golden::path("clip_positions.safetensors")), {16, 40});
  save_clip(clip, scratch / "wide");
  const Clip<float> again = load_clip<float>(scratch / "wide");
  CHECK(again.config.image_size() == ImageSize(16, 40));
  CHECK(again.image_features(wide).value() == clip.image_features(wide).value());
  REQUIRE_THROWS_WITH(again.image_features(corner<float>(SafetensorsFile::open(golden::path("clip_positions.safetensors")), {40, 16})),
                      contains("expected pictures [N, 16, 40, 3], got [1, 40, 16, 3]"));
}

TEST_CASE("set_image_size says what it cannot do") {
  Clip<float> clip = load_clip<float>(folder);
  REQUIRE_THROWS_WITH(set_image_size(clip, 7), contains("at least one patch of 8 pixels, got 7"));
  REQUIRE_THROWS_WITH(set_image_size(clip, {Index{1} << 62, 8}), contains("sides of at most 16384 and at most 64000000 pixels, got 4611686018427387904 x 8"));
  REQUIRE_THROWS_WITH(set_image_size(clip, 16384), contains("pixels, got 16384"));
  Generator generator(1);
  attach(clip.vision_model, LoraConfig{.rank = 2, .targets = {"position_embedding"}}, generator);
  REQUIRE_THROWS_WITH(set_image_size(clip, 40), contains("detach them first"));
  CHECK(clip.config.image_size() == 24);
  Clip<float> empty(clip.config);
  REQUIRE_THROWS_WITH(set_image_size(empty, 40), contains("load a checkpoint or initialise first"));
  CHECK(empty.config.image_size() == 24);
}
