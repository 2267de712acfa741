#pragma once
// What reads bytes from outside, as functions to be fuzzed: whatever the bytes are, the answer is a value or a tenon::Error.
//   fuzz.cpp         one libFuzzer program for each (TENON_FUZZ=ON, clang)
//   corpus.test.cpp  the seeds and mutations of them that are the same in every run, as an ordinary test
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include <nlohmann/json.hpp>

#include <tenon/io/image.hpp>
#include <tenon/io/json.hpp>
#include <tenon/io/npy.hpp>
#include <tenon/io/safetensors.hpp>
#include <tenon/io/torch_file.hpp>
#include <tenon/models/clip/tokenizer_files.hpp>

namespace fuzz {

using namespace tenon;
using Bytes = std::span<const std::uint8_t>;

inline std::string_view text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// A folder of this process for readers that take paths.
inline std::string folder() {
  static const std::string path = [] {
    const auto at = std::filesystem::temp_directory_path() / ("tenon-fuzz-" + std::to_string(::getpid()));
    std::filesystem::create_directories(at);
    return at.string();
  }();
  return path;
}
inline std::string file_of(const std::string& name, Bytes bytes) {
  const std::string path = folder() + '/' + name;
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr || std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size() || std::fclose(file) != 0) std::abort();
  return path;
}

inline void safetensors(Bytes bytes) {
  const auto copy = std::make_shared<const std::vector<std::uint8_t>>(bytes.begin(), bytes.end());
  const auto file = SafetensorsFile::parse({copy, reinterpret_cast<const std::byte*>(copy->data())}, copy->size(), "fuzz");
  std::uint64_t covered = 0;
  for (const auto& t : file.tensors()) {
    covered += t.end - t.begin;
    if (t.dtype && t.dtype != DType::boolean) cast<double>(file.raw(t.name));
  }
  if (covered > bytes.size()) std::abort();
}
inline void npy(Bytes bytes) {
  const std::string path = file_of("array.npy", bytes);
  if (load_npy<float>(path).size() > static_cast<Index>(bytes.size())) std::abort();
}
inline void json(Bytes bytes) {
  const Json value = Json::parse(text_of(bytes), "fuzz");
  if (value.value().is_object()) value.get<double>("rope_theta", 1.0);
  Json::parse(value.value().dump(), "again");
}
/// Checksums put right, so that what lies behind them is reached too.
inline std::vector<std::uint8_t> with_png_checksums(Bytes bytes) {
  std::vector<std::uint8_t> out(bytes.begin(), bytes.end());
  const auto word = [&](std::size_t at) {
    return std::size_t{out[at]} << 24 | std::size_t{out[at + 1]} << 16 | std::size_t{out[at + 2]} << 8 | out[at + 3];
  };
  for (std::size_t at = 8; at + 12 <= out.size();) {
    const std::size_t end = at + 8 + word(at);
    if (end + 4 > out.size()) break;
    std::uint32_t crc = ~0u;
    for (std::size_t i = at + 4; i < end; ++i) {
      crc ^= out[i];
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    crc = ~crc;
    for (std::size_t i = 0; i < 4; ++i) out[end + i] = static_cast<std::uint8_t>(crc >> (24 - 8 * i));
    at = end + 4;
  }
  return out;
}
inline void picture(Bytes bytes) {
  const auto repaired = with_png_checksums(bytes);
  const Image image = decode_image(bytes.size() > 1 && bytes[1] == 'P' ? Bytes(repaired) : bytes, "fuzz");
  if (static_cast<Index>(image.pixels.size()) != image.width * image.height * 3) std::abort();
}
inline void torch(Bytes bytes) {
  const StateDict dict = read_torch_file(file_of("checkpoint.pt", bytes));
  for (const auto& name : dict.names())
    if (dict.info(name).dtype) cast<double>(dict.raw(name));
}
/// vocab.json, a zero byte, merges.txt.
inline void tokenizer(Bytes bytes) {
  const auto text = text_of(bytes);
  const auto cut = std::min(text.find('\0'), text.size());
  file_of("vocab.json", bytes.first(cut));
  file_of("merges.txt", bytes.subspan(std::min(cut + 1, text.size())));
  const Tokenizer made = load_tokenizer(folder());
  made.encode("a horse, h\xc3\xb6rse 7");
}

struct Target {
  std::string_view name;
  void (*run)(Bytes);
  std::vector<std::string> seeds;  ///< files, or folders of files, under tests/
};
inline const std::vector<Target>& targets() {
  static const std::vector<Target> all{
      {"safetensors", safetensors, {"golden/reference.safetensors", "golden/peft/convolutions/adapter_model.safetensors"}},
      {"npy", npy, {"golden/npy"}},
      {"json", json, {"golden/clip/config.json", "golden/peft/lora/adapter_config.json"}},
      {"picture", picture, {"golden/pictures"}},
      {"torch", torch, {"golden/torch"}},
      {"tokenizer", tokenizer, {"fuzz/corpus/tokenizer"}},
  };
  return all;
}

/// Runs a target; an Error is an answer, and whether there was none is returned. Anything else goes through.
inline bool accepts(const Target& target, Bytes bytes) {
  try {
    target.run(bytes);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace fuzz
