// Latents of pictures of several sizes, and the file that keeps them.
#include <fstream>

#include "../../examples/common/tuning_data.hpp"
#include "../io/scratch.hpp"
#include "catch.hpp"

using namespace tenon;
using namespace tenon::examples;

namespace {

CaptionedPictures pictures() {
  CaptionedPictures out;
  Generator generator(1);
  for (const auto& [original, size] : {std::pair<PictureSize, PictureSize>{{7, 11}, {48, 80}}, {{40, 15}, {96, 32}}, {{9, 14}, {48, 80}}}) {
    Image image(original.height, original.width);
    for (auto& pixel : image.pixels) pixel = static_cast<std::uint8_t>(generator.integer(0, 256));
    out.pictures.push_back(fitted_picture(image, size));
    out.captions.push_back({join_text("a picture of ", original.width)});
  }
  return out;
}

}  // namespace

TEST_CASE("pictures to tune on, their latents kept in a file") {
  Scratch scratch("latents");
  AutoencoderKlConfig config;
  config.block_out_channels = {8, 8};
  config.layers_per_block = 1;
  config.norm_num_groups = 4;
  Generator weights(2);
  AutoencoderKl<float> vae(config, weights);
  const std::string path = scratch / "latents.safetensors";
  const TuningData plain(vae, pictures()), fresh(vae, pictures(), LatentCache{path, "three"});
  REQUIRE(detail::exists(path));
  vae = AutoencoderKl<float>(config, weights);  // others now: what comes from the file is of those before
  const TuningData kept(vae, pictures(), LatentCache{path, "three"}), changed(vae, pictures());
  REQUIRE((plain.size() == 3 && kept.size() == 3));
  CHECK(plain.buckets() == "80x48 2, 32x96 1");
  CHECK((plain.alike(0, 2) && !plain.alike(0, 1)));
  CHECK(plain.time_ids(0) == std::array<float, 6>{7, 11, 1, 0, 48, 80});  // 51 x 80 when resized
  CHECK(plain.time_ids(1) == std::array<float, 6>{40, 15, 0, 2, 96, 32});  // 96 x 36
  Generator generator(0);
  CHECK(kept.caption(1, generator) == "a picture of 15");
  for (Index i = 0; i < 3; ++i) {
    Generator a(3), b(3), c(3), d(3);
    const auto latents = plain.latents(i, a);
    CHECK(latents.shape() == Shape{1, i == 1 ? 48 : 24, i == 1 ? 16 : 40, config.latent_channels});
    CHECK(fresh.latents(i, b) == latents);
    CHECK(kept.latents(i, c) == latents);
    CHECK(changed.latents(i, d) != latents);
  }
  const TuningData again(vae, pictures(), LatentCache{path, "three of another model"});  // takes the old one's place
  Generator a(3), b(3);
  CHECK(again.latents(0, a) == changed.latents(0, b));
  CHECK(SafetensorsFile::open(path).metadata().begin()->second == "three of another model");

  save_safetensors(path, {}, {});
  REQUIRE_THROWS_WITH(TuningData(vae, pictures(), LatentCache{path, "three"}), contains("latents.safetensors: expected latents that a run has kept there"));
  std::ofstream(path) << "no such file";
  REQUIRE_THROWS_AS(TuningData(vae, pictures(), LatentCache{path, "three"}), FileError);
}
