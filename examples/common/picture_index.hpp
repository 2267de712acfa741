#pragma once
// An index of a folder's pictures on disk: one feature for each file, and when and how large the file was.
#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>

#include <sys/stat.h>

#include <tenon/io/safetensors.hpp>

namespace tenon::examples {

/// What tells that a file has changed.
struct FileStamp {
  std::int64_t size = 0, modified = 0;  ///< bytes; nanoseconds since 1970
  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

/// Nothing when the file is gone.
inline std::optional<FileStamp> stamp_of(const std::string& path) {
  struct ::stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return FileStamp{static_cast<std::int64_t>(status.st_size),
                   std::int64_t{1'000'000'000} * static_cast<std::int64_t>(status.st_mtim.tv_sec) + static_cast<std::int64_t>(status.st_mtim.tv_nsec)};
}

struct PictureIndex {
  struct Row {
    FileStamp stamp;
    std::vector<float> feature;  ///< of length 1; empty for a file that is no picture
  };
  struct Match {
    float score;
    std::string name;
  };
  std::string model;   ///< what the features depend on, and what is compared
  std::string folder;  ///< where the pictures were
  std::map<std::string, Row> rows;  ///< by the name within the folder

  /// Throws FileError on a file that is no index or a broken one.
  static PictureIndex load(const std::string& path) {
    const auto file = SafetensorsFile::open(path);
    const auto& metadata = file.metadata();
    const auto value = [&](const char* key) { return metadata.contains(key) ? metadata.at(key) : std::string(); };
    check<FileError>(value("format") == format, "index", path, ": expected an index of pictures, found another safetensors file");
    PictureIndex out{value("model"), value("folder"), {}};
    const auto names = file.load<std::uint8_t>("names");
    const auto stamps = file.load<std::int64_t>("stamps");
    const auto readable = file.load<bool>("readable");
    const auto features = file.load<float>("features");
    const Index count = readable.size(), known = std::count(readable.begin(), readable.end(), true);
    check<FileError>(stamps.shape() == Shape{count, 2} && features.rank() == 2 && features.extent(0) == known, "index", path, ": its parts do not fit: ",
                     count, " files, stamps ", stamps.shape(), ", features ", features.shape());
    const char* name = reinterpret_cast<const char*>(names.data());
    const char* const end = name + names.size();
    const float* feature = features.data();
    for (Index i = 0; i < count; ++i) {
      const char* stop = std::find(name, end, '\0');
      check<FileError>(stop != end, "index", path, ": expected ", count, " names, found ", i);
      Row& row = out.rows[std::string(name, stop)];
      row.stamp = {stamps(i, 0), stamps(i, 1)};
      if (readable(i)) {
        row.feature.assign(feature, feature + features.extent(1));
        feature += features.extent(1);
      }
      name = stop + 1;
    }
    return out;
  }
  /// Whole or not at all. Throws FileError.
  void save(const std::string& path) const {
    const auto count = static_cast<Index>(rows.size());
    Tensor<std::int64_t> stamps({count, 2});
    Tensor<bool> readable({count});
    std::string names;
    std::vector<float> features;
    Index i = 0, width = 0;
    for (const auto& [name, row] : rows) {
      names += name;
      names += '\0';
      stamps(i, 0) = row.stamp.size;
      stamps(i, 1) = row.stamp.modified;
      readable(i++) = !row.feature.empty();
      features.insert(features.end(), row.feature.begin(), row.feature.end());
      if (!row.feature.empty()) width = static_cast<Index>(row.feature.size());
    }
    const Index known = width > 0 ? static_cast<Index>(features.size()) / width : 0;
    auto letters = Tensor<std::uint8_t>::uninitialized({static_cast<Index>(names.size())});
    std::copy(names.begin(), names.end(), letters.data());
    save_safetensors(path, {{"names", raw_copy(letters)}, {"stamps", raw_copy(stamps)}, {"readable", raw_copy(readable)},
                            {"features", raw_copy(Tensor<float>({known, width}, std::move(features)))}},
                     {{"format", std::string(format)}, {"model", model}, {"folder", folder}});
  }

  /// Drops the rows of files that are gone and returns how many they were.
  Index drop_missing(const std::map<std::string, FileStamp>& files) {
    return static_cast<Index>(std::erase_if(rows, [&](const auto& row) { return !files.contains(row.first); }));
  }
  /// The files that are new or have changed since they were indexed.
  std::vector<std::string> outdated(const std::map<std::string, FileStamp>& files) const {
    std::vector<std::string> out;
    for (const auto& [name, stamp] : files)
      if (const auto at = rows.find(name); at == rows.end() || at->second.stamp != stamp) out.push_back(name);
    return out;
  }
  Index unreadable() const {
    return std::count_if(rows.begin(), rows.end(), [](const auto& row) { return row.second.feature.empty(); });
  }
  /// The `top` pictures whose features have the largest product with a query, best first; ties by name.
  std::vector<Match> best(const Tensor<float>& query, std::size_t top) const {
    std::vector<Match> out;
    for (const auto& [name, row] : rows) {
      if (row.feature.empty()) continue;
      check<ShapeError>(static_cast<Index>(row.feature.size()) == query.size(), "index", "expected a query of ", row.feature.size(), " values, got ", query.shape());
      float score = 0;
      for (std::size_t i = 0; i < row.feature.size(); ++i) score += row.feature[i] * query.data()[i];
      out.push_back({score, name});
    }
    const auto better = [](const Match& a, const Match& b) { return a.score != b.score ? a.score > b.score : a.name < b.name; };
    top = std::min(top, out.size());
    std::partial_sort(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(top), out.end(), better);
    out.resize(top);
    return out;
  }

 private:
  static constexpr std::string_view format = "tenon picture index 1";
};

}  // namespace tenon::examples
