#pragma once
// Configuration files in JSON: read with limits, asked by path, and wrong values answered with file and path.
//
//   auto config = Json::read("clip/config.json");
//   auto width = config.get<Index>("vision_config.hidden_size");
//   auto eps = config.get<double>("vision_config.layer_norm_eps", 1e-5);
#include <concepts>
#include <limits>
#include <set>

#include <nlohmann/json.hpp>

#include <tenon/core/nearest.hpp>
#include <tenon/core/shape.hpp>
#include <tenon/io/mapped_file.hpp>

namespace tenon::inline TENON_ABI {

/// A JSON value read from a file, or a part of one that remembers where it stood. Copies share it.
class Json {
 public:
  static constexpr std::size_t max_depth = 64;
  static constexpr std::uint64_t max_bytes = 64u << 20;

  /// Throws FileError on a file over 64 MiB, and as `parse`.
  static Json read(const std::string& path) { return parse(read_file(path, max_bytes), path); }
  /// Text as strict JSON, nested at most 64 deep, with no key twice in an object. `file` stands for it in errors.
  /// Throws FileError with file, line and column.
  static Json parse(std::string_view text, const std::string& file) {
    std::size_t position = 0;
    const auto reject = [&](std::size_t at, std::string_view what) {
      std::size_t line = 1, column = 1;
      for (const char c : text.substr(0, at)) c == '\n' ? (++line, column = 1) : ++column;
      fail<FileError>("json", file, ':', line, ':', column, ": ", what);
    };
    // nlohmann takes a NUL byte for the end of the text
    if (const auto nul = text.find('\0'); nul != std::string_view::npos) reject(nul, "a NUL byte");
    std::vector<std::set<std::string>> keys;
    std::size_t depth = 0;
    using Event = nlohmann::json::parse_event_t;
    const auto watch = [&](int, Event event, nlohmann::json& value) {
      if (event == Event::object_start || event == Event::array_start) {
        if (++depth > max_depth) reject(position - 1, "nested more than 64 deep");
        keys.emplace_back();
      } else if (event == Event::object_end || event == Event::array_end) {
        --depth;
        keys.pop_back();
      } else if (event == Event::key) {
        const auto& key = value.get_ref<const std::string&>();
        if (!keys.back().insert(key).second) reject(position - 1, "key \"" + key + "\" twice in one object");
      }
      return true;
    };
    try {
      const Cursor begin{text.data(), &position, text.data()}, end{text.data() + text.size(), &position, text.data()};
      return Json(std::make_shared<const nlohmann::json>(nlohmann::json::parse(begin, end, watch)), file, "");
    } catch (const nlohmann::json::exception& e) {
      const std::string_view what = e.what();
      const auto column = what.find("column "), colon = what.find(": ", column == std::string_view::npos ? 0 : column);
      reject(position > 0 ? position - 1 : 0, colon == std::string_view::npos ? what : what.substr(colon + 2));
      throw;
    }
  }

  /// The value at `path`: names joined by dots, numbers for the elements of arrays. T is bool, an integer, a
  /// floating-point type, std::string, or a vector of them. Throws FileError when it is absent, null or of another type.
  template <class T>
  T get(std::string_view path) const {
    const auto* value = find(path);
    if (value == nullptr) fail_absent(path);
    return convert<T>(*value, full(path));
  }
  /// The value at `path`, or `fallback` when it is absent or null. Throws FileError when it is of another type.
  template <class T>
  T get(std::string_view path, T fallback) const {
    const auto* value = find(path);
    return value == nullptr || value->is_null() ? fallback : convert<T>(*value, full(path));
  }
  /// Whether there is a value at `path`, null included.
  bool contains(std::string_view path) const { return find(path) != nullptr; }
  /// A part. Throws FileError when it is absent.
  Json at(std::string_view path) const {
    const auto* value = find(path);
    if (value == nullptr) fail_absent(path);
    return Json(std::shared_ptr<const nlohmann::json>(value_, value), file_, full(path));
  }
  /// The names in an object, sorted; nothing for other values.
  std::vector<std::string> keys() const {
    std::vector<std::string> out;
    if (value_->is_object())
      for (const auto& [key, value] : value_->items()) out.push_back(key);
    return out;
  }
  /// The number of members or elements.
  Index size() const { return static_cast<Index>(value_->size()); }
  const std::string& file() const { return file_; }
  const nlohmann::json& value() const { return *value_; }

 private:
  /// An iterator over characters that tells how far nlohmann has read.
  struct Cursor {
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;
    const char* at;
    std::size_t* position;
    const char* start;
    const char& operator*() const { return *at; }
    Cursor& operator++() {
      *position = static_cast<std::size_t>(++at - start);
      return *this;
    }
    Cursor operator++(int) {
      Cursor before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const Cursor& a, const Cursor& b) { return a.at == b.at; }
    friend bool operator!=(const Cursor& a, const Cursor& b) { return a.at != b.at; }
  };

  Json(std::shared_ptr<const nlohmann::json> value, std::string file, std::string path)
      : value_(std::move(value)), file_(std::move(file)), path_(std::move(path)) {}

  std::string full(std::string_view path) const { return path_.empty() ? std::string(path) : path_ + '.' + std::string(path); }

  const nlohmann::json* find(std::string_view path) const {
    const nlohmann::json* value = value_.get();
    while (true) {
      const auto dot = path.find('.');
      const auto name = path.substr(0, dot);
      if (value->is_object()) {
        const auto member = value->find(std::string(name));
        if (member == value->end()) return nullptr;
        value = &*member;
      } else if (value->is_array() && !name.empty() && name.size() < 10 &&
                 name.find_first_not_of("0123456789") == std::string_view::npos) {
        const auto index = std::stoul(std::string(name));
        if (index >= value->size()) return nullptr;
        value = &(*value)[index];
      } else {
        return nullptr;
      }
      if (dot == std::string_view::npos) return value;
      path.remove_prefix(dot + 1);
    }
  }
  /// Names the value's nearest neighbours: those beside the first part of `path` that does not exist.
  [[noreturn]] void fail_absent(std::string_view path) const {
    auto parent_path = path;
    const nlohmann::json* parent = nullptr;
    std::string_view name;
    while (parent == nullptr) {
      const auto dot = parent_path.rfind('.');
      name = dot == std::string_view::npos ? parent_path : parent_path.substr(dot + 1);
      parent_path = parent_path.substr(0, dot == std::string_view::npos ? 0 : dot);
      parent = dot == std::string_view::npos ? value_.get() : find(parent_path);
    }
    const auto near = nearest_names(name, Json(std::shared_ptr<const nlohmann::json>(value_, parent), file_, "").keys());
    fail<FileError>("json", file_, ": expected a value at ", full(path), near.empty() ? "" : "; nearest: ", near);
  }

  template <class T>
  T convert(const nlohmann::json& value, const std::string& path) const {
    const auto expect = [&](bool condition, std::string_view what) {
      if (!condition)
        fail<FileError>("json", file_, ": ", path, ": expected ", what, ", found ",
                        value.is_structured() ? value.type_name() : value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    };
    if constexpr (std::same_as<T, bool>) {
      expect(value.is_boolean(), "true or false");
      return value.get<bool>();
    } else if constexpr (std::integral<T>) {
      expect(value.is_number_integer(), "an integer");
      using Limits = std::numeric_limits<T>;
      expect(value.is_number_unsigned() ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(Limits::max())
                                        : std::in_range<T>(value.get<std::int64_t>()),
             join_text("an integer in [", Limits::min(), ", ", Limits::max(), ']'));
      return value.get<T>();
    } else if constexpr (std::floating_point<T>) {
      expect(value.is_number(), "a number");
      return value.get<T>();
    } else if constexpr (std::same_as<T, std::string>) {
      expect(value.is_string(), "a string");
      return value.get<std::string>();
    } else {
      expect(value.is_array(), "an array");
      T out;
      for (std::size_t i = 0; i < value.size(); ++i) out.push_back(convert<typename T::value_type>(value[i], join_text(path, '.', i)));
      return out;
    }
  }

  std::shared_ptr<const nlohmann::json> value_;
  std::string file_, path_;
};

/// Writes a value, keys sorted, two spaces to a level, through atomic_write. Throws FileError on broken UTF-8 too.
inline void save_json(const std::string& path, const nlohmann::json& value, FileOperations& files = system_files()) {
  std::string text;
  try {
    text = value.dump(2) + '\n';
  } catch (const nlohmann::json::exception& e) {
    fail<FileError>("save_json", path, ": ", std::string_view(e.what()));
  }
  atomic_write(path, [&](FileSink& sink) { sink.write(text); }, files);
}

}  // namespace tenon::inline TENON_ABI
