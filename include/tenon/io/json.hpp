#pragma once
// Configuration files in JSON: read with limits, asked by path, and wrong values answered with file and path.
//
//   auto config = Json::read("clip/config.json");
//   auto width = config.get<Index>("vision_config.hidden_size");
//   auto eps = config.get<double>("vision_config.layer_norm_eps", 1e-5);
#include <concepts>
#include <initializer_list>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include <tenon/core/shape.hpp>
#include <tenon/io/atomic.hpp>

namespace tenon::inline TENON_ABI {

/// A JSON value read from a file, or a part of one that remembers where it stood. Copies share it.
class Json {
 public:
  static constexpr std::size_t max_depth = 64;
  static constexpr std::uint64_t max_bytes = 64u << 20;

  /// Throws FileError on a file over 64 MiB, and as `parse`.
  TENON_IN_BODY static Json read(const std::string& path);
  /// Text as strict JSON, nested at most 64 deep, with no key twice in an object. `file` stands for it in errors.
  /// Throws FileError with file, line and column.
  TENON_IN_BODY static Json parse(std::string_view text, const std::string& file);

  /// The value at `path`: names joined by dots, numbers for the elements of arrays. T is bool, an integer, a
  /// floating-point type, std::string, or a vector of them. Throws FileError when it is absent, null or of another type.
  template <class T>
  T get(std::string_view path) const {
    return at(path).as<T>();
  }
  /// The value at `path`, or `fallback` when it is absent or null. Throws FileError when it is of another type.
  template <class T>
  T get(std::string_view path, T fallback) const {
    return is_null(path) ? fallback : get<T>(path);
  }
  /// Whether there is a value at `path`, null included.
  bool contains(std::string_view path) const { return find(path) != nullptr; }
  /// Whether the value at `path` is absent or null.
  bool is_null(std::string_view path) const;
  bool is_object() const;
  bool is_array() const;
  bool is_string() const;
  /// A part. Throws FileError when it is absent.
  Json at(std::string_view path) const;
  /// The names in an object, sorted; nothing for other values.
  std::vector<std::string> keys() const;
  /// The number of members or elements.
  Index size() const;
  const std::string& file() const { return file_; }
  /// The value itself, for those who include <nlohmann/json.hpp>.
  const nlohmann::json& value() const { return *value_; }

 private:
  Json(std::shared_ptr<const nlohmann::json> value, std::string file, std::string path)
      : value_(std::move(value)), file_(std::move(file)), path_(std::move(path)) {}

  std::string full(std::string_view path) const;
  const nlohmann::json* find(std::string_view path) const;
  [[noreturn]] void fail_absent(std::string_view path) const;
  [[noreturn]] void fail_type(std::string_view expected) const;
  bool as_bool() const;
  std::uint64_t as_integer(std::int64_t least, std::uint64_t most) const;
  double as_number() const;
  std::string as_text() const;
  Json element(Index i) const;

  template <class T>
  T as() const {
    if constexpr (std::same_as<T, bool>) {
      return as_bool();
    } else if constexpr (std::integral<T>) {
      return static_cast<T>(as_integer(static_cast<std::int64_t>(std::numeric_limits<T>::min()), static_cast<std::uint64_t>(std::numeric_limits<T>::max())));
    } else if constexpr (std::floating_point<T>) {
      return static_cast<T>(as_number());
    } else if constexpr (std::same_as<T, std::string>) {
      return as_text();
    } else {
      if (!is_array()) fail_type("an array");
      T out;
      for (Index i = 0; i < size(); ++i) out.push_back(element(i).as<typename T::value_type>());
      return out;
    }
  }

  std::shared_ptr<const nlohmann::json> value_;
  std::string file_, path_;
};

namespace detail {
/// A value as an error shows it: a number, a quoted text, or what kind it is.
TENON_IN_BODY std::string shown(const nlohmann::json& value);
}  // namespace detail

/// Writes a value, keys sorted, two spaces to a level, through atomic_write. Throws FileError on broken UTF-8 too.
TENON_IN_BODY void save_json(const std::string& path, const nlohmann::json& value, FileOperations& files = system_files());

/// How many layers a configuration may ask for: one that is hostile would fill the memory before anything else is seen.
inline constexpr Index max_layers = 1024;
/// Throws FileError unless every number at `keys`, alone or in lists, lies in these limits; absent and null ones do.
TENON_IN_BODY void check_extents(const Json& json, std::initializer_list<std::string_view> keys, Index least, Index most = Index{1} << 24);

}  // namespace tenon::inline TENON_ABI

#if !defined(TENON_COMPILED)
#include <tenon/io/json_body.hpp>
#endif
