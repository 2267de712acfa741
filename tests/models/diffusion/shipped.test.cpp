// The small model that ships, with trained weights, against diffusers: see golden/make_shipped_diffusion.py.
#include <tenon/diffusion.hpp>

#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;

TEST_CASE("the model that ships gives diffusers' latents and picture") {
  const auto finals = SafetensorsFile::open(golden::path("shipped_diffusion.safetensors"));
  const auto pipe = StableDiffusion<float>::load(std::string(TENON_SOURCE_DIR) + "/examples/data/diffusion");
  for (const char* prompt : {"red apple", "blue book"}) {
    const auto out = pipe.generate(prompt, {.steps = 10, .guidance_scale = 3.0, .seed = 4});
    CHECK(golden::error(out.latents, finals.load<double>(prompt)) < 20 * std::stod(finals.metadata().at(prompt)));
    if (prompt != std::string("red apple")) continue;
    const auto expected = finals.load<float>("picture");
    const Image image = as_image(expected.reshape({expected.extent(1), expected.extent(2), 3}));
    REQUIRE(image.pixels.size() == out.image.pixels.size());
    int far = 0;
    for (std::size_t i = 0; i < image.pixels.size(); ++i) far = std::max(far, std::abs(image.pixels[i] - out.image.pixels[i]));
    CHECK(far <= 1);
  }
}
