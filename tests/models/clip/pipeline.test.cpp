#include <tenon/models/clip/pipeline.hpp>

#include <set>

#include "catch.hpp"
#include "golden.hpp"
#include "io/scratch.hpp"

using namespace tenon;

namespace {

/// A folder with the tiny CLIP of 24-pixel pictures and 99 tokens, and a vocabulary of letters that fits it.
struct Folder : Scratch {
  explicit Folder(const std::string& name) : Scratch(name) {
    for (const char* file : {"config.json", "model.safetensors"}) std::filesystem::copy_file(golden::path(std::string("clip/") + file), *this / file);
    std::string vocabulary = "{";
    int id = 0;
    for (const char* ending : {"", "</w>"})
      for (char c = 'a'; c <= 'z'; ++c) vocabulary += '"' + std::string(1, c) + ending + "\": " + std::to_string(id++) + ", ";
    for (; id < 97; ++id) vocabulary += "\"unused" + std::to_string(id) + "\": " + std::to_string(id) + ", ";
    put(*this / "vocab.json", vocabulary + R"("<|startoftext|>": 97, "<|endoftext|>": 98})");
    put(*this / "merges.txt", "#version: 0.2\n");
  }
  ClipPipeline<float> load() const { return ClipPipeline<float>::load(path.string()); }
};

Image picture(Index height, Index width, int seed) {
  Image out(height, width);
  std::uint32_t state = static_cast<std::uint32_t>(seed);
  for (auto& value : out.pixels) value = static_cast<std::uint8_t>((state = state * 1664525u + 1013904223u) >> 24);
  return out;
}

double length(const Tensor<float>& features, Index row) {
  double sum = 0;
  for (Index i = 0; i < features.extent(1); ++i) sum += static_cast<double>(features(row, i)) * static_cast<double>(features(row, i));
  return std::sqrt(sum);
}

}  // namespace

TEST_CASE("pictures and texts of a folder become the model's features") {
  const Folder folder("pipeline");
  const auto clip = folder.load();
  REQUIRE((clip.processor.shortest_edge == 24 && clip.processor.crop_height == 24 && clip.processor.crop_width == 24));
  REQUIRE(clip.tokenizer().size() == 99);
  REQUIRE(clip.tokenizer().pad_id() == 98);

  const std::vector<Image> images{picture(30, 41, 1), picture(24, 24, 2)};
  const NoGrad no_grad;
  const auto raw = clip.embed_images(images, false), unit = clip.embed_images(images);
  REQUIRE(raw == clip.model.image_features(Var<float>(clip.processor(images))).value());
  REQUIRE(unit.shape() == Shape{2, 20});
  for (Index n = 0; n < 2; ++n) {
    CHECK(length(unit, n) == Approx(1).margin(1e-6));
    CHECK(unit(n, 3) == Approx(raw(n, 3) / length(raw, n)));
  }

  const std::vector<std::string> texts{"a cat", "dogs", ""};
  const auto words = clip.embed_texts(texts, false);
  REQUIRE(words == clip.model.text_features(clip.tokenizer()(texts, 16)).value());  // cut behind the end, and padded: the same bits
  REQUIRE(length(clip.embed_texts(texts), 2) == Approx(1).margin(1e-6));
  REQUIRE(clip.embed_texts(std::vector<std::string>{}).shape() == Shape{0, 20});
  const std::vector<std::string> many(131, "dogs");
  REQUIRE(golden::error(clip.embed_texts(many, false), Tensor<float>(words)) == INFINITY);  // another shape
  REQUIRE(clip.embed_texts(many, false)(130, 7) == words(1, 7));
  REQUIRE(clip.embed_texts({{std::string(500, 'x')}}).shape() == Shape{1, 20});  // past the context: the end is lost

  const auto probabilities = clip.zero_shot(unit, {"cat", "dog", "bird"}, {"a {}", "the {}."});
  REQUIRE(probabilities.shape() == Shape{2, 3});
  for (Index n = 0; n < 2; ++n) CHECK(probabilities(n, 0) + probabilities(n, 1) + probabilities(n, 2) == Approx(1));
  REQUIRE_THROWS_WITH(clip.zero_shot(unit, {"cat"}, {"no place"}), contains("expected {} in the template 'no place'"));
  REQUIRE_THROWS_WITH(clip.zero_shot(unit, {}, {"{}"}), contains("at least one label"));
}

TEST_CASE("files: the good ones embedded, the broken ones named, any batch and number of threads") {
  const Folder folder("pipeline-files");
  const auto clip = folder.load();
  std::vector<std::string> paths;
  std::vector<Image> images;
  for (int i = 0; i < 7; ++i) {
    paths.push_back(folder / ("p" + std::to_string(i) + ".png"));
    if (i == 2 || i == 4) continue;  // one that is not there, one that is no picture
    images.push_back(picture(20 + i, 33 - 2 * i, i));
    save_png(images.back(), paths.back());
  }
  put(paths[4], "not a picture");
  const auto wanted = clip.embed_images(images);
  for (const Index batch : {Index{1}, Index{3}, Index{32}})
    for (const int threads : {1, 2}) {
      const ThreadScope scope(threads);
      std::vector<Index> seen;
      const auto found = clip.embed_files(paths, {.batch = batch, .progress = [&](Index done) { seen.push_back(done); }});
      REQUIRE(found.read == std::vector<std::size_t>{0, 1, 3, 5, 6});
      REQUIRE(found.errors.size() == 2);
      CHECK_THAT(found.errors[0], contains("p2.png: cannot open"));
      CHECK_THAT(found.errors[1], contains("p4.png: expected a PNG, JPEG or PNM picture"));
      REQUIRE(found.features == wanted);
      REQUIRE(seen.back() == 7);
      REQUIRE(seen.size() == static_cast<std::size_t>((7 + batch - 1) / batch));
    }
  REQUIRE(clip.embed_files(std::vector<std::string>{}).features.shape() == Shape{0, 20});
  REQUIRE(clip.embed_files(std::vector{paths[2]}).features.shape() == Shape{0, 20});
  REQUIRE_THROWS_WITH(clip.embed_files(paths, {.batch = 0}), contains("a batch of at least 1, got 0"));
  save_png(Image(16384, 1), paths[2]);  // its shortest edge resized, it has too many pixels: named as well
  auto larger = folder.load();
  set_image_size(larger, 96);
  const auto long_one = larger.embed_files(std::span(paths).subspan(2, 2));
  REQUIRE(long_one.read == std::vector<std::size_t>{1});
  CHECK_THAT(long_one.errors.at(0), contains("p2.png: [resize_bicubic] expected at most 64000000 pixels"));
}

TEST_CASE("pictures of OpenAI's and open_clip's checkpoints are cropped as torchvision has it") {
  const std::string names = golden::path("clip_names");
  for (const char* checkpoint : {"/open_clip", "/vit.pt", "/resnet.pt"}) CHECK(ClipPipeline<float>::load(names + checkpoint).processor.even_crop);
  CHECK_FALSE(ClipPipeline<float>::load(golden::path("clip")).processor.even_crop);
  auto clip = ClipPipeline<float>::load(names + "/open_clip");
  set_image_size(clip, 48);
  CHECK(clip.processor.even_crop);
}

TEST_CASE("a pipeline in float64") {
  const Folder folder("pipeline-double");
  const auto wide = ClipPipeline<double>::load(folder.path.string());
  const auto clip = folder.load();
  const std::vector<Image> images{picture(30, 41, 1)};
  const auto features = wide.embed_images(images);
  CHECK(golden::error(features, clip.embed_images(images)) < 1e-5);
  CHECK(golden::error(wide.embed_texts({{std::string("a cat")}}), clip.embed_texts({{std::string("a cat")}})) < 1e-5);
  CHECK(wide.zero_shot(features, {"cat"}) == Tensor<double>::full({1, 1}, 1));  // one label is sure
  CHECK(wide.zero_shot(Tensor<double>({0, 20}), {"cat", "dog"}).shape() == Shape{0, 2});
}

TEST_CASE("the processor is the folder's") {
  const Folder folder("pipeline-processor");
  const std::string five = R"({"image_processor": {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}}})";
  const std::string four = R"({"size": 26, "crop_size": 24})";
  put(folder / "preprocessor_config.json", four);
  REQUIRE(folder.load().processor.shortest_edge == 26);
  put(folder / "processor_config.json", R"({"processor_class": "CLIPProcessor"})");  // of transformers 4: nothing about pictures
  REQUIRE(folder.load().processor.shortest_edge == 26);
  put(folder / "processor_config.json", five);  // transformers 5 reads this one first
  REQUIRE(folder.load().processor.shortest_edge == 28);
  put(folder / "processor_config.json", R"({"image_processor": {"crop_size": 32}})");
  REQUIRE_THROWS_WITH(folder.load(), contains("processor_config.json: expected pictures of the model's 24 pixels, found 32"));
}

TEST_CASE("the processor follows set_image_size") {
  const Folder folder("pipeline-size");
  put(folder / "preprocessor_config.json", R"({"size": 27, "crop_size": 24})");
  auto clip = folder.load();
  set_image_size(clip, 48);
  REQUIRE((clip.processor.crop_height == 48 && clip.processor.crop_width == 48 && clip.processor.shortest_edge == 54));
  REQUIRE(clip.embed_images(std::vector{picture(60, 50, 3)}).shape() == Shape{1, 20});
  set_image_size(clip, {24, 48});  // no square: pictures are resized to cover it
  REQUIRE((clip.processor.crop_size() == ImageSize(24, 48) && clip.processor.cover));
  REQUIRE(clip.embed_images(std::vector{picture(60, 50, 3)}).shape() == Shape{1, 20});
  set_image_size(clip, 48);
  REQUIRE_FALSE(clip.processor.cover);
  set_image_size(clip.model, 24);
  REQUIRE_THROWS_WITH(clip.embed_images(std::vector{picture(60, 50, 3)}), contains("expected pictures [N, 24, 24, 3], got [1, 48, 48, 3]"));
}

TEST_CASE("a missing or foreign tokenizer is an error when texts are asked for") {
  const Folder folder("pipeline-tokenizer");
  std::filesystem::remove(folder / "merges.txt");
  const auto half = folder.load();
  REQUIRE(half.embed_images(std::vector{picture(24, 24, 1)}).shape() == Shape{1, 20});
  for (int i = 0; i < 2; ++i) REQUIRE_THROWS_WITH(half.embed_texts({{std::string("a")}}), contains("merges.txt"));
  std::filesystem::remove(folder / "vocab.json");
  REQUIRE_THROWS_WITH(folder.load().tokenizer(), contains("expected a tokenizer (vocab.json and merges.txt, or tokenizer.json): the model has 99 tokens"));
  std::string larger = "{";
  for (int id = 0; id < 120; ++id) larger += "\"t" + std::to_string(id) + "\": " + std::to_string(id) + ", ";
  put(folder / "vocab.json", larger + R"("<|startoftext|>": 120, "<|endoftext|>": 121})");
  put(folder / "merges.txt", "");
  REQUIRE_THROWS_WITH(folder.load().tokenizer(), contains("the tokenizer has 122 tokens, the model only 99"));
}

TEST_CASE("texts that no tokenizer should see are named") {
  const Folder folder("pipeline-texts");
  const auto clip = folder.load();
  REQUIRE_THROWS_WITH(clip.embed_texts({{std::string("caf\xe9")}}), contains("expected UTF-8 text"));
  REQUIRE_THROWS_WITH(clip.embed_texts({{std::string(10'000'000, 'a')}}), contains("expected texts of at most 1048576 bytes, got one of 10000000"));
  REQUIRE(clip.embed_texts({{std::string(1'000'000, 'a')}}).shape() == Shape{1, 20});
}

TEST_CASE("folders that are no CLIP are named") {
  const Folder folder("pipeline-bad");
  REQUIRE_THROWS_WITH(ClipPipeline<float>::load(folder / "nowhere"), contains("nowhere"));
  put(folder / "config.json", R"({"vision_config": {"image_size": 32}})");
  REQUIRE_THROWS_WITH(folder.load(), contains("does not fit the model"));
  put(folder / "config.json", R"({"vision_config": {"image_size": "big"}})");
  REQUIRE_THROWS_WITH(folder.load(), contains("vision_config.image_size: expected an integer"));
  std::filesystem::remove(folder / "config.json");
  put(folder / "preprocessor_config.json", "{");
  REQUIRE_THROWS_AS(folder.load(), FileError);
}

TEST_CASE("OpenAI's templates") {
  const auto all = openai80_templates(), seven = openai7_templates();
  REQUIRE(all.size() == 80);
  REQUIRE(std::set<std::string>(all.begin(), all.end()).size() == 80);
  REQUIRE(seven.size() == 7);
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a of the lines, against open_clip's OPENAI_IMAGENET_TEMPLATES
  std::string lines;
  for (const auto& text : all) lines += (lines.empty() ? "" : "\n") + text;
  for (const char c : lines) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  CHECK(hash == 0x1b1df35e76aa6ebdULL);
  for (const auto& list : {all, seven})
    for (const auto& text : list) {
      INFO(text);
      CHECK(text.find("{}") == text.rfind("{}"));
      CHECK(fill_template(text, "cat").find("cat") != std::string::npos);
    }
  for (const auto& text : seven) CHECK(std::find(all.begin(), all.end(), text) != all.end());
}
