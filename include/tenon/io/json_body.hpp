#pragma once
// The definitions of json.hpp.
#include <cstdio>
#include <utility>

#include <nlohmann/json.hpp>

#include <tenon/core/nearest.hpp>
#include <tenon/io/json.hpp>
#include <tenon/io/mapped_file.hpp>
#include <tenon/io/safetensors_header.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// An iterator over characters that tells how far nlohmann has read.
struct JsonCursor {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  const char* at;
  std::size_t* position;
  const char* start;
  const char& operator*() const { return *at; }
  JsonCursor& operator++() {
    *position = static_cast<std::size_t>(++at - start);
    return *this;
  }
  JsonCursor operator++(int) {
    JsonCursor before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const JsonCursor& a, const JsonCursor& b) { return a.at == b.at; }
  friend bool operator!=(const JsonCursor& a, const JsonCursor& b) { return a.at != b.at; }
};

/// Builds the value while nlohmann's parser, instantiated once, reads.
TENON_ON_CALL class JsonBuilder {
 public:
  JsonBuilder(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  nlohmann::json parse() {
    // nlohmann takes a NUL byte for the end of the text
    if (const auto nul = text_.find('\0'); nul != text_.npos) reject(nul, "a NUL byte");
    const JsonCursor begin{text_.data(), &position_, text_.data()}, end{text_.data() + text_.size(), &position_, text_.data()};
    nlohmann::json::sax_parse(begin, end, this);
    return std::move(root_);
  }

  // what sax_parse calls
  bool null() { return add(nullptr) != nullptr; }
  bool boolean(bool value) { return add(value) != nullptr; }
  bool number_integer(std::int64_t value) { return add(value) != nullptr; }
  bool number_unsigned(std::uint64_t value) { return add(value) != nullptr; }
  bool number_float(double value, const std::string&) { return add(value) != nullptr; }
  bool string(std::string& value) { return add(std::move(value)) != nullptr; }
  bool binary(nlohmann::json::binary_t&) { return false; }
  bool start_object(std::size_t) { return open(nlohmann::json::value_t::object); }
  bool start_array(std::size_t) { return open(nlohmann::json::value_t::array); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    auto& members = open_.back()->get_ref<nlohmann::json::object_t&>();
    const auto [at, fresh] = members.emplace(name, nullptr);
    if (!fresh) reject(position_ - 1, "key \"" + name + "\" twice in one object");
    member_ = &at->second;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& e) {
    const std::string_view what = e.what();
    const auto column = what.find("column "), colon = what.find(": ", column == what.npos ? 0 : column);
    reject(position_ > 0 ? position_ - 1 : 0, colon == what.npos ? what : what.substr(colon + 2));
    return false;
  }

 private:
  [[noreturn]] void reject(std::size_t at, std::string_view what) const {
    std::size_t line = 1, column = 1;
    for (const char c : text_.substr(0, at)) c == '\n' ? (++line, column = 1) : ++column;
    fail<FileError>("json", file_, ':', line, ':', column, ": ", what);
  }
  nlohmann::json* add(nlohmann::json value) {
    nlohmann::json* to = &root_;
    if (!open_.empty() && open_.back()->is_array())
      to = &open_.back()->get_ref<nlohmann::json::array_t&>().emplace_back();
    else if (!open_.empty())
      to = member_;
    *to = std::move(value);
    return to;
  }
  bool open(nlohmann::json::value_t kind) {
    if (open_.size() == Json::max_depth) reject(position_ - 1, "nested more than 64 deep");
    open_.push_back(add(kind));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& file_;
  std::size_t position_ = 0;
  nlohmann::json root_;
  std::vector<nlohmann::json*> open_;  // objects and arrays around the place that is read; an array grows only at its last
  nlohmann::json* member_ = nullptr;
};

TENON_IN_BODY std::string shown(const nlohmann::json& value) {
  if (value.is_string()) return detail::quoted(value.get_ref<const std::string&>());
  if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
  if (value.is_number_unsigned()) return std::to_string(value.get<std::uint64_t>());
  if (value.is_number_integer()) return std::to_string(value.get<std::int64_t>());
  if (!value.is_number_float()) return value.type_name();
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value.get<double>());
  return text;
}

}  // namespace detail

TENON_IN_BODY Json Json::read(const std::string& path) { return parse(read_file(path, max_bytes), path); }

TENON_IN_BODY Json Json::parse(std::string_view text, const std::string& file) {
  return Json(std::make_shared<const nlohmann::json>(detail::JsonBuilder<>(text, file).parse()), file, "");
}

TENON_MEMBER_IN_BODY bool Json::is_null(std::string_view path) const {
  const auto* value = find(path);
  return value == nullptr || value->is_null();
}
TENON_MEMBER_IN_BODY bool Json::is_object() const { return value_->is_object(); }
TENON_MEMBER_IN_BODY bool Json::is_array() const { return value_->is_array(); }
TENON_MEMBER_IN_BODY bool Json::is_string() const { return value_->is_string(); }

TENON_MEMBER_IN_BODY Json Json::at(std::string_view path) const {
  const auto* value = find(path);
  if (value == nullptr) fail_absent(path);
  return Json(std::shared_ptr<const nlohmann::json>(value_, value), file_, full(path));
}

TENON_MEMBER_IN_BODY std::vector<std::string> Json::keys() const {
  std::vector<std::string> out;
  if (value_->is_object())
    for (const auto& [key, value] : value_->get_ref<const nlohmann::json::object_t&>()) out.push_back(key);
  return out;
}

TENON_MEMBER_IN_BODY Index Json::size() const { return static_cast<Index>(value_->size()); }

TENON_MEMBER_IN_BODY std::string Json::full(std::string_view path) const {
  return path_.empty() ? std::string(path) : path_ + '.' + std::string(path);
}

TENON_MEMBER_IN_BODY const nlohmann::json* Json::find(std::string_view path) const {
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
TENON_MEMBER_IN_BODY void Json::fail_absent(std::string_view path) const {
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

TENON_MEMBER_IN_BODY void Json::fail_type(std::string_view expected) const {
  fail<FileError>("json", file_, ": ", path_, ": expected ", expected, ", found ", detail::shown(*value_));
}

TENON_MEMBER_IN_BODY bool Json::as_bool() const {
  if (!value_->is_boolean()) fail_type("true or false");
  return value_->get<bool>();
}

TENON_MEMBER_IN_BODY std::uint64_t Json::as_integer(std::int64_t least, std::uint64_t most) const {
  if (!value_->is_number_integer()) fail_type("an integer");
  const bool fits = value_->is_number_unsigned() ? value_->get<std::uint64_t>() <= most : value_->get<std::int64_t>() >= least;
  if (!fits) fail_type(join_text("an integer in [", least, ", ", most, ']'));
  return value_->is_number_unsigned() ? value_->get<std::uint64_t>() : static_cast<std::uint64_t>(value_->get<std::int64_t>());
}

TENON_MEMBER_IN_BODY double Json::as_number() const {
  if (!value_->is_number()) fail_type("a number");
  return value_->get<double>();
}

TENON_MEMBER_IN_BODY std::string Json::as_text() const {
  if (!value_->is_string()) fail_type("a string");
  return value_->get_ref<const std::string&>();
}

TENON_MEMBER_IN_BODY Json Json::element(Index i) const {
  return Json(std::shared_ptr<const nlohmann::json>(value_, &(*value_)[static_cast<std::size_t>(i)]), file_, full(std::to_string(i)));
}

TENON_IN_BODY void save_json(const std::string& path, const nlohmann::json& value, FileOperations& files) {
  std::string text;
  try {
    text = value.dump(2) + '\n';
  } catch (const nlohmann::json::exception& e) {
    fail<FileError>("save_json", path, ": ", std::string_view(e.what()));
  }
  atomic_write(path, [&](FileSink& sink) { sink.write(text); }, files);
}

TENON_IN_BODY void check_extents(const Json& json, std::initializer_list<std::string_view> keys, Index least, Index most) {
  const auto inside = [&](const std::string& key, const auto& self) -> void {
    if (json.is_null(key)) return;
    if (const Json part = json.at(key); part.is_array()) {
      for (Index i = 0; i < part.size(); ++i) self(join_text(key, '.', i), self);
      return;
    }
    const auto found = json.get<Index>(key);
    check<FileError>(found >= least && found <= most, "config", json.file(), ": ", key, ": expected ", least, " to ", most, ", found ", found);
  };
  for (const auto key : keys) inside(std::string(key), inside);
}

}  // namespace tenon::inline TENON_ABI
