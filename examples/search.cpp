// search: finds pictures in a folder by words. What CLIP makes of each picture is kept in an index and computed once.
#include <nlohmann/json.hpp>

#include <csignal>

#include <tenon/io/utf8.hpp>

#include "common/clip_options.hpp"
#include "common/picture_index.hpp"

namespace {

using namespace tenon;
using namespace tenon::examples;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Options : ClipOptions {
  std::string images, index;
  std::vector<std::string> words;
  Index top = 10;
  bool json = false, rebuild = false;
};

volatile std::sig_atomic_t stop_requested = 0;

/// Of all that a picture's feature depends on: samples of the vision tower's weights, its configuration, the processor, how pictures are read.
std::string fingerprint(ClipPipeline<float>& clip, const Options& o) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  const auto add = [&](std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) hash = (hash ^ static_cast<std::uint64_t>(b)) * 0x100000001b3;
  };
  for (const auto& ref : params(clip.model)) {
    if (ref.path.starts_with("text_") || ref.path == "logit_scale") continue;
    add(std::as_bytes(std::span(ref.path)));
    const auto raw = ref.weight->bytes();
    const std::size_t size = raw.byte_count();
    for (std::size_t at = 0; at < size; at += size / 64 + 1) add({raw.bytes.get() + at, 1});
  }
  const auto& p = clip.processor;
  const auto& v = clip.model.config.vision_config;
  const std::string rest = join_text(p.shortest_edge, ' ', p.crop_size(), ' ', p.cover, ' ', p.even_crop, ' ', p.exact_height, ' ', p.exact_width, ' ', p.resize, ' ', p.rescale_factor, ' ', p.mean[0],
                                     ' ', p.mean[1], ' ', p.mean[2], ' ', p.std[0], ' ', p.std[1], ' ', p.std[2], ' ', o.dtype, ' ', o.exif,
                                     ' ', v.patch_size, ' ', v.num_attention_heads, ' ', name_of(v.hidden_act), ' ', v.layer_norm_eps);
  add(std::as_bytes(std::span(rest)));
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

/// The folder's absolute path, for the index; safetensors keeps UTF-8, so other bytes stand as %FF.
std::string folder_name(const std::string& path) {
  std::string out = fs::canonical(path).string();
  for (std::size_t at; (at = tenon::detail::first_invalid_utf8(out)) != out.npos;) {
    char text[4];
    std::snprintf(text, sizeof text, "%%%02X", static_cast<unsigned>(static_cast<unsigned char>(out[at])));
    out.replace(at, 1, text);
  }
  return out;
}

/// The index as it lies on disk, or an empty one. Throws Error when it belongs to another model or folder.
PictureIndex open_index(const Options& o, const std::string& model, const std::string& folder) {
  std::error_code error;
  if (!fs::exists(o.index, error)) return {model, folder, {}};
  auto index = PictureIndex::load(o.index);
  if (o.rebuild) return {model, folder, {}};
  constexpr const char* hint = "; give another --index, or --rebuild to make it anew";
  check(index.model == model, "search", o.index, " was made with another model or other options (--dtype, --image-size, --no-exif)", hint);
  check(index.folder == folder || !fs::exists(index.folder, error), "search", o.index, " is of another folder, ", index.folder, hint);
  index.folder = folder;
  return index;
}

/// Embeds the files that are new or have changed. Saves now and then: a killed run goes on where it last saved.
void refresh(PictureIndex& index, const ClipPipeline<float>& clip, const Options& o, const std::map<std::string, FileStamp>& files) {
  const Index removed = index.drop_missing(files);
  const auto names = index.outdated(files);
  if (removed > 0) std::cerr << removed << (removed == 1 ? " picture is gone\n" : " pictures are gone\n");
  if (names.empty()) {
    if (removed > 0 || o.rebuild) index.save(o.index);
    return;
  }
  const auto total = static_cast<Index>(names.size());
  std::cerr << "indexing " << total << (total == 1 ? " new or changed picture of " : " new or changed pictures of ") << files.size() << '\n';
  std::optional<Progress> progress;
  const auto start = Clock::now();
  auto saved = start;
  Clock::duration wait = std::chrono::seconds(5);
  const auto step = 4 * static_cast<std::size_t>(o.batch);
  for (std::size_t begin = 0; begin < names.size() && stop_requested == 0; begin += step) {
    const auto part = std::span(names).subspan(begin, std::min(step, names.size() - begin));
    std::vector<std::string> paths;
    for (const auto& name : part) paths.push_back((fs::path(o.images) / name).string());
    const auto found = clip.embed_files(paths, {.batch = o.batch, .image = {.orient = o.exif, .on_white = true}, .progress = [&](Index done) {
                                          done += static_cast<Index>(begin);
                                          if (!progress && done < total && Clock::now() - start > std::chrono::seconds(1)) progress.emplace("indexing", total, done);
                                          if (progress) progress->update(done);
                                        }});
    for (const auto& name : part) index.rows[name] = {files.at(name), {}};
    for (std::size_t i = 0; i < found.read.size(); ++i) {
      const float* row = found.features.data() + static_cast<Index>(i) * found.features.extent(1);
      index.rows[part[found.read[i]]].feature.assign(row, row + found.features.extent(1));
    }
    for (const auto& error : found.errors) progress ? progress->note(error) : void(std::cerr << error << '\n');
    if (Clock::now() - saved < wait) continue;
    const auto before = Clock::now();
    index.save(o.index);
    saved = Clock::now();
    wait = std::max<Clock::duration>(std::chrono::seconds(5), 20 * (saved - before));  // saving takes at most a twentieth of the time
  }
  index.save(o.index);
  progress.reset();
  const auto left = index.outdated(files).size();
  check(left == 0, "search", "stopped; ", files.size() - left, " of ", files.size(), " pictures are indexed in ", o.index, ", and the same command goes on from there");
}

void run(Options o) {
  const ThreadScope threads(o.threads);
  std::error_code error;
  check<FileError>(fs::is_directory(o.images, error), "search", o.images, ": expected a folder of pictures");
  if (o.index.empty()) o.index = (fs::path(o.images) / ".tenon-index.safetensors").string();
  std::map<std::string, FileStamp> files;
  for (const auto& path : list_pictures({o.images}))
    if (const auto stamp = stamp_of(path)) files.emplace(fs::path(path).lexically_relative(o.images).string(), *stamp);
  auto clip = o.load("search");
  auto index = open_index(o, fingerprint(clip, o), folder_name(o.images));
  std::string query;
  for (const auto& word : o.words) query += (query.empty() ? "" : " ") + word;
  const Tensor<float> direction = query.empty() ? Tensor<float>() : clip.embed_texts(std::vector{query});
  if (!fs::exists(o.index, error)) index.save(o.index);  // where it cannot be written, the work has not begun yet
  std::signal(SIGINT, [](int) { stop_requested = 1; });
  std::signal(SIGTERM, [](int) { stop_requested = 1; });
  refresh(index, clip, o, files);
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);

  const Index unreadable = index.unreadable(), readable = static_cast<Index>(index.rows.size()) - unreadable;
  std::cerr << readable << (readable == 1 ? " picture in " : " pictures in ") << o.index;
  if (unreadable > 0) std::cerr << ", " << unreadable << (unreadable == 1 ? " file that could not be read" : " files that could not be read");
  std::cerr << '\n';
  if (query.empty()) return;
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& match : index.best(direction, static_cast<std::size_t>(o.top))) {
    const std::string path = (fs::path(o.images) / match.name).string();
    if (o.json)
      rows.push_back({{"image", path}, {"score", match.score}});
    else
      std::cout << fixed(static_cast<double>(match.score), 4) << "  " << path << '\n';
  }
  if (o.json) std::cout << rows.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Finds pictures by words: search --images FOLDER \"a dog on a beach\"");
  Options o;
  o.add_to(app);
  app.add_option("--images", o.images, "Folder of pictures, searched with the folders in it")->required();
  app.add_option("--index", o.index, "File that keeps the pictures' features (default: .tenon-index.safetensors in the folder)");
  app.add_option("words", o.words, "What the pictures should show; without words, the index is brought up to date");
  app.add_option("--top", o.top, "Pictures to print")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_flag("--json", o.json, "Print JSON");
  app.add_flag("--rebuild", o.rebuild, "Make the index anew");
  return run_program(app, argc, argv, [&] { run(o); });
}
