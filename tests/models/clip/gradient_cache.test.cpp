#include <fstream>

#include <tenon/models/clip/checkpoint.hpp>
#include <tenon/models/clip/gradient_cache.hpp>
#include <tenon/ops/create.hpp>
#include <tenon/peft/lora.hpp>
#include <tenon/peft/prefix.hpp>

#include "catch.hpp"
#include "golden.hpp"

using namespace tenon;
using golden::error, golden::numbers;

namespace {

const std::string folder = golden::path("clip");

template <class T>
struct Batch {
  Tensor<T> pictures;
  Tensor<std::int32_t> ids;
};

template <class T>
Batch<T> batch(Index n) {
  Generator generator(5);
  Batch<T> out{numbers<T>({n, 24, 24, 3}, generator), Tensor<std::int32_t>({n, 9})};
  for (Index i = 0; i < n; ++i)
    for (Index k = 0; k < 9; ++k) out.ids(i, k) = static_cast<std::int32_t>(k == 3 + i % 6 ? 98 : (7 * i + 13 * k) % 97);
  return out;
}

template <class T>
std::map<std::string, Tensor<T>> gradients(Clip<T>& clip) {
  std::map<std::string, Tensor<T>> out;
  for (const auto& ref : trainable(clip)) {
    if (!ref.weight->var().has_grad()) continue;
    out.emplace(ref.path, ref.weight->var().grad());
    ref.weight->var().clear_grad();
  }
  return out;
}

template <class T>
void check_same(const std::map<std::string, Tensor<T>>& some, const std::map<std::string, Tensor<T>>& others, double limit) {
  CHECK(some.size() == others.size());
  for (const auto& [name, value] : others) {
    INFO(name);
    REQUIRE(some.contains(name));
    if (name.ends_with("k_proj.bias")) continue;  // softmax does not see it: zero but for rounding
    CHECK(error(some.at(name), value) < limit);
  }
}

/// Bytes by which resident memory grew at most while f ran; nothing where that cannot be measured.
template <class F>
std::optional<Index> peak_growth(F&& f) {
  const auto status = [](const std::string& key) -> Index {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);)
      if (line.starts_with(key)) return 1024 * std::stoll(line.substr(key.size() + 1));
    return 0;
  };
  if (!(std::ofstream("/proc/self/clear_refs") << "5" << std::flush)) return std::nullopt;
  const Index before = status("VmRSS");
  f();
  return status("VmHWM") - before;
}

}  // namespace

TEMPLATE_TEST_CASE("contrastive_backward gives loss and gradients of the whole batch", "", float, double) {
  using T = TestType;
  const double limit = std::same_as<T, float> ? 1e-6 : 1e-12;
  const double far = std::same_as<T, float> ? 2e-6 : 1e-12;  // two float32 sums in different order: 1.14e-6 at most here
  const Index n = 7;
  const Batch<T> pairs = batch<T>(n);
  Clip<T> clip = load_clip<T>(folder);
  unfreeze(clip);
  const auto plain = contrastive_loss(clip(pairs.pictures, pairs.ids));
  backward(plain);
  const auto expected = gradients(clip);
  CHECK(expected.size() == params(clip).size());
  for (const Index micro_batch : {1, 3, 6, 7, 100}) {
    INFO(micro_batch);
    const T loss = contrastive_backward(clip, pairs.pictures, pairs.ids, micro_batch);
    CHECK(static_cast<double>(loss) == Approx(static_cast<double>(plain.item())).epsilon(limit));
    check_same(gradients(clip), expected, far);
  }

  SECTION("of texts cut behind their ends, and with checkpointing towers") {
    clip.text_model.encoder.checkpointing = clip.vision_model.encoder.checkpointing = true;
    contrastive_backward(
        clip, n, 1, [&](Index begin, Index end) { return copy(pairs.pictures.view().sliced(0, begin, end)); },
        [&](Index begin, Index end) { return copy(pairs.ids.view().sliced(0, begin, end).sliced(1, 0, 4 + begin % 6)); });
    check_same(gradients(clip), expected, far);
  }
  SECTION("of one tower") {
    freeze(clip.vision_model);
    clip.visual_projection.weight->set_trainable(false);
    Index asked = 0;
    contrastive_backward(
        clip, n, 2, [&](Index begin, Index end) { return ++asked, copy(pairs.pictures.view().sliced(0, begin, end)); },
        [&](Index begin, Index end) { return copy(pairs.ids.view().sliced(0, begin, end)); });
    CHECK(asked == 4 + 1);  // frozen pictures are not made again
    auto half = expected;
    std::erase_if(half, [](const auto& entry) { return entry.first.starts_with("vi"); });
    check_same(gradients(clip), half, far);
  }
}

TEST_CASE("contrastive_backward of another loss, through adapters") {
  const Index n = 7;
  const Batch<double> pairs = batch<double>(n);
  Generator generator(3);
  Clip<double> clip = load_clip<double>(folder);
  SECTION("LoRA") { attach(clip, LoraConfig{.rank = 2, .targets = {"q_proj", "fc2", "patch_embedding"}}, generator); }
  SECTION("prefix") { attach(clip, PrefixConfig{.length = 3, .targets = {"self_attn"}}, generator); }
  for (const auto& ref : patch_params(clip)) ref.weight->update([&](Tensor<double>& value) { fill_normal(value.span(), 0.0, 0.5, generator); });
  clip.logit_scale->set_trainable(true);
  Tensor<bool> left_out({n, n});
  left_out(2, 5) = left_out(6, 0) = true;
  const auto loss_of = [&](const Var<double>& images, const Var<double>& texts) {
    const Var<double> logits = matmul(images, texts, {.transpose_b = true}) * exp(clip.logit_scale->var());
    return contrastive_loss(ClipOutput<double>{images, texts, where(left_out, Var<double>(Tensor<double>::scalar(-1e4)), logits)});
  };
  const auto output = clip(pairs.pictures, pairs.ids);
  const auto plain = loss_of(output.image_embeds, output.text_embeds);
  CHECK(plain.item() != Approx(contrastive_loss(output).item()));
  backward(plain);
  const auto expected = gradients(clip);
  REQUIRE(expected.contains("logit_scale"));
  CHECK(expected.size() == patch_params(clip).size() + 1);
  for (const Index micro_batch : {2, 7}) {
    INFO(micro_batch);
    const double loss = contrastive_backward(
        clip, n, micro_batch, [&](Index begin, Index end) { return copy(pairs.pictures.view().sliced(0, begin, end)); },
        [&](Index begin, Index end) { return copy(pairs.ids.view().sliced(0, begin, end)); }, loss_of);
    CHECK(loss == Approx(plain.item()).epsilon(1e-12));
    check_same(gradients(clip), expected, 1e-12);
  }
}

TEST_CASE("contrastive_backward drops the same elements in both passes") {
  const Batch<double> pairs = batch<double>(6);
  Generator generator(2);
  Clip<double> clip = load_clip<double>(folder);
  LoraConfig lora{.rank = 2, .targets = {"q_proj", "fc2"}};
  lora.dropout = 0.5;
  attach(clip, lora, generator);
  for (const auto& ref : patch_params(clip)) ref.weight->update([&](Tensor<double>& value) { fill_normal(value.span(), 0.0, 0.5, generator); });
  const auto part = [](const auto& all, Index begin) { return copy(all.view().sliced(0, begin, begin + 2)); };
  std::map<std::string, Tensor<double>> expected;
  {  // one graph over the same micro-batches
    const Training training(3, 4);
    std::vector<Var<double>> images, texts;
    for (const Index begin : {0, 2, 4}) images.push_back(l2_normalize(clip.image_features(part(pairs.pictures, begin))));
    for (const Index begin : {0, 2, 4}) texts.push_back(l2_normalize(clip.text_features(part(pairs.ids, begin))));
    const Var<double> a = concat(images, 0), b = concat(texts, 0);
    backward(contrastive_loss(ClipOutput<double>{a, b, matmul(a, b, {.transpose_b = true}) * exp(clip.logit_scale->var())}));
    expected = gradients(clip);
  }
  const Training training(3, 4);
  contrastive_backward(clip, pairs.pictures, pairs.ids, 2);
  check_same(gradients(clip), expected, 1e-12);
}

TEST_CASE("contrastive_backward holds one micro-batch in memory") {
  const Index n = 2048;
  Clip<float> clip = load_clip<float>(folder);
  unfreeze(clip);
  const Batch<float> pairs = batch<float>(16);
  const auto pictures = [&](Index, Index) { return pairs.pictures; };
  const auto ids = [&](Index, Index) { return pairs.ids; };
  contrastive_backward(clip, 32, 16, pictures, ids);
  const auto grown = peak_growth([&] { contrastive_backward(clip, n, 16, pictures, ids); });
  if (grown && detail::cache_blocks) CHECK(*grown < Index{24} << 20);  // the plain step takes some 300 MB
}

TEST_CASE("contrastive_backward says what it expects") {
  const Batch<float> pairs = batch<float>(4);
  Clip<float> clip = load_clip<float>(folder);
  REQUIRE_THROWS_AS(contrastive_backward(clip, pairs.pictures, pairs.ids, 2), GraphError);
  unfreeze(clip);
  REQUIRE_THROWS_WITH(contrastive_backward(clip, pairs.pictures, pairs.ids, 0), contains("a micro-batch of at least 1"));
  REQUIRE_THROWS_WITH(contrastive_backward(clip, pairs.pictures, Tensor<std::int32_t>({3, 9}), 2), contains("as many texts as pictures"));
  const auto ids = [&](Index, Index) { return pairs.ids; };
  REQUIRE_THROWS_WITH(contrastive_backward(clip, 8, 2, [&](Index, Index) { return pairs.pictures; }, ids),
                      contains("expected 2 pictures and texts from 0 on, got features [4, 20]"));
}
