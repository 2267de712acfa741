#pragma once
// The definitions of safetensors_header.hpp.
#include <algorithm>
#include <deque>
#include <set>
#include <utility>

#include <tenon/io/safetensors_header.hpp>
#include <tenon/io/utf8.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

TENON_IN_BODY std::string quoted(std::string_view name) {
  std::string out = "\"";
  for (char c : name.substr(0, 100)) out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return out + (name.size() > 100 ? "...\"" : "\"");
}

/// Reads exactly the JSON that a header may hold: objects at two depths, strings, and arrays of unsigned integers. It
/// neither recurses nor allocates by a number found in the file. The text is read twice: judged, in no more memory than it
/// takes itself however hostile it is, and only then kept.
TENON_ON_CALL class SafetensorsParser {
 public:
  SafetensorsParser(std::string_view text, std::uint64_t data_size, const std::string& file)
      : text_(text), data_size_(data_size), file_(file) {}

  SafetensorsHeader parse() {
    read();
    seen_.clear();
    keys_.clear();
    keep_ = true;
    read();
    std::sort(header_.tensors.begin(), header_.tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return std::move(header_);
  }

 private:
  void read() {
    has_metadata_ = false;
    if (text_.empty() || text_[0] != '{') reject("header-start", "'{' as the first byte", found());
    if (text_.find('\0') != std::string_view::npos) reject("header-nul", "text", "a NUL byte");
    if (at_ = first_invalid_utf8(text_); at_ != std::string_view::npos) reject("header-utf8", "UTF-8", "a byte that breaks it");
    at_ = 0;
    object([&](std::string&& name) {
      if (name == "__metadata__")
        metadata();
      else
        tensor(std::move(name));
    });
    skip_space();
    if (at_ != text_.size()) reject("json-end", "nothing but spaces after the header", found());
    if (keep_) return;
    check_names(keys_, [&](const std::string& key) {
      where_ = "__metadata__";
      reject("duplicate-key", "each key once", detail::quoted(key));
    });
    check_names(seen_, [&](const std::string& name) { reject_tensor(name, "duplicate-name", "each name once", "it twice"); });
    check_layout();
  }

  // ---- judging
  [[noreturn]] TENON_COLD void reject(std::string_view rule, std::string_view expected, std::string_view found) const {
    fail<FileError>("safetensors", file_, ": ", where_.empty() ? "header" : where_, ": rule ", rule, ": expected ", expected,
                    ", found ", found, " at header byte ", at_);
  }
  /// Rules on a tensor's meaning rather than its text.
  [[noreturn]] TENON_COLD void reject_tensor(const std::string& name, std::string_view rule, std::string_view expected, std::string_view found) const {
    fail<FileError>("safetensors", file_, ": tensor ", detail::quoted(name), ": rule ", rule, ": expected ", expected, ", found ",
                    found);
  }

  /// Where a name stands (its opening quote), and a hash of what it spells.
  struct NameAt {
    std::uint32_t hash, at;
  };
  struct TensorAt : NameAt {
    std::uint64_t begin, end;
  };
  static NameAt name_at(const std::string& name, std::size_t at) {
    return {static_cast<std::uint32_t>(std::hash<std::string>()(name)), static_cast<std::uint32_t>(at)};
  }
  std::string string_at(std::size_t at) {
    const std::size_t before = std::exchange(at_, at);
    std::string out = string();
    at_ = before;
    return out;
  }
  /// Names differ. Sorts the list by hash.
  template <class List, class Twice>
  void check_names(List& list, Twice&& twice) {
    std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.hash < b.hash; });
    for (std::size_t begin = 0, end = 0; begin < list.size(); begin = end) {
      std::set<std::string> names;
      for (end = begin + 1; end < list.size() && list[end].hash == list[begin].hash; ++end) {
        if (names.empty()) names.insert(string_at(list[begin].at));
        if (const auto name = string_at(list[end].at); !names.insert(name).second) twice(name);
      }
    }
  }
  /// The tensors tile the data: from 0, without overlap or hole, to the end.
  void check_layout() {
    std::sort(seen_.begin(), seen_.end(), [](const auto& a, const auto& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
    std::uint64_t covered = 0;
    for (const auto& t : seen_) {
      if (t.begin != covered)
        reject_tensor(string_at(t.at), t.begin < covered ? "overlap" : "hole", join_text("its data to begin at ", covered), std::to_string(t.begin));
      covered = t.end;
    }
    check<FileError>(covered == data_size_, "safetensors", file_, ": rule data-end: expected ", covered,
                     " bytes after the header, found ", data_size_);
  }

  // ---- the header's three kinds of object
  void metadata() {
    where_ = "__metadata__";
    if (has_metadata_) reject("duplicate-name", "__metadata__ once", "it twice");
    has_metadata_ = true;
    object([&](std::string&& key) {
      if (peek() != '"') reject("metadata", "a string value", found());
      if (!keep_) keys_.push_back(name_at(key, key_at_));
      std::string value = string();
      if (keep_) header_.metadata.emplace(std::move(key), std::move(value));
    });
    where_.clear();
  }

  void tensor(std::string&& name) {
    const std::size_t name_begin = key_at_;
    where_ = "tensor " + detail::quoted(name);
    if (name.find('\0') != std::string::npos) reject("name", "a name without NUL", "one");
    TensorInfo t;
    t.name = std::move(name);
    bool has_dtype = false, has_shape = false, has_offsets = false;
    unsigned bits = 0;
    const auto once = [&](bool& seen, std::string_view key) {
      if (seen) reject("duplicate-key", "each key once", key);
      seen = true;
    };
    if (peek() != '{') reject("tensor", "an object with dtype, shape and data_offsets", found());
    object([&](const std::string& key) {
      if (key == "dtype") {
        once(has_dtype, key);
        if (peek() != '"') reject("dtype", "a string", found());
        const auto text = string();
        const auto* type = std::find_if(std::begin(safetensors_types), std::end(safetensors_types),
                                        [&](const auto& known) { return known.name == text; });
        if (type == std::end(safetensors_types)) reject("dtype", "a known type", detail::quoted(text));
        t.dtype_name = type->name;
        t.dtype = type->dtype;
        bits = type->bits;
      } else if (key == "shape") {
        once(has_shape, key);
        integers([&](std::uint64_t extent) {
          if (t.shape.rank() == max_rank) reject("rank", join_text("at most ", max_rank, " extents"), "more");
          if (extent > largest || (extent > 0 && static_cast<std::uint64_t>(t.shape.size()) > largest / extent))
            reject("shape-size", "fewer than 2^63 elements", "more");
          t.shape.push_back(static_cast<Index>(extent));
        });
      } else if (key == "data_offsets") {
        once(has_offsets, key);
        std::size_t count = 0;
        integers([&](std::uint64_t offset) {
          if (count >= 2) reject("offsets", "two offsets", "more");
          (count++ == 0 ? t.begin : t.end) = offset;
        });
        if (count != 2) reject("offsets", "two offsets", std::to_string(count));
      } else {
        reject("key", "dtype, shape or data_offsets", detail::quoted(key));
      }
    });
    if (!has_dtype || !has_shape || !has_offsets)
      reject("missing-key", "dtype, shape and data_offsets", has_dtype ? (has_shape ? "no data_offsets" : "no shape") : "no dtype");
    if (t.begin > t.end) reject_tensor(t.name, "offsets", "begin <= end", join_text('[', t.begin, ", ", t.end, ']'));
    if (t.end > data_size_) reject_tensor(t.name, "data-end", join_text("an end of at most ", data_size_, " (is the file cut short?)"), std::to_string(t.end));
    const auto elements = static_cast<std::uint64_t>(t.shape.size());
    if (elements > ~std::uint64_t{0} / bits) reject_tensor(t.name, "shape-size", "a number of bits below 2^64", "more");
    if (elements * bits % 8 != 0) reject_tensor(t.name, "bits", "whole bytes", join_text(elements * bits, " bits"));
    if (t.end - t.begin != elements * bits / 8)
      reject_tensor(t.name, "size", join_text(elements * bits / 8, " bytes for ", t.dtype_name, ' ', t.shape), std::to_string(t.end - t.begin));
    if (keep_)
      header_.tensors.push_back(std::move(t));
    else
      seen_.push_back({name_at(t.name, name_begin), t.begin, t.end});
    where_.clear();
  }

  // ---- JSON
  static constexpr std::uint64_t largest = static_cast<std::uint64_t>(std::numeric_limits<Index>::max());

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
  }
  /// The next byte that is no space; NUL at the end.
  char peek() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  std::string found() const {
    if (at_ >= text_.size()) return "the end";
    return static_cast<unsigned char>(text_[at_]) < 0x80 ? detail::quoted(text_.substr(at_, 1)) : "a non-ASCII character";
  }
  void expect(char c) {
    if (peek() != c) reject("json", std::string_view(&c, 1), found());
    ++at_;
  }

  /// `{ key: value, ... }`; `member(key)` reads the value.
  template <class Member>
  void object(Member&& member) {
    expect('{');
    if (peek() == '}') return void(++at_);
    while (true) {
      if (peek() != '"') reject("json", "a string", found());
      const std::size_t key_begin = at_;
      auto key = string();
      key_at_ = key_begin;
      expect(':');
      member(std::move(key));
      if (peek() == '}') return void(++at_);
      expect(',');
    }
  }
  /// `[ 1, 2, ... ]`
  template <class Element>
  void integers(Element&& element) {
    if (peek() != '[') reject("json", "an array", found());
    ++at_;
    if (peek() == ']') return void(++at_);
    while (true) {
      element(integer());
      if (peek() == ']') return void(++at_);
      expect(',');
    }
  }
  /// Digits alone: no sign, fraction, exponent or leading zero, and below 2^64.
  std::uint64_t integer() {
    const auto digit = [&] { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; };
    skip_space();
    if (!digit()) reject("number", "an unsigned integer", found());
    std::uint64_t value = 0;
    const std::size_t start = at_;
    for (; digit(); ++at_) {
      const auto d = static_cast<std::uint64_t>(text_[at_] - '0');
      if (value > (~std::uint64_t{0} - d) / 10) reject("number", "an integer below 2^64", "more");
      value = value * 10 + d;
    }
    if (text_[start] == '0' && at_ > start + 1) reject("number", "no leading zero", "one");
    const char next = at_ < text_.size() ? text_[at_] : '\0';
    if (next == '.' || next == 'e' || next == 'E') reject("number", "an integer", found());
    return value;
  }
  std::uint32_t hex4() {
    std::uint32_t value = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0) reject("string", "four hexadecimal digits", found());
      value = value << 4 | static_cast<std::uint32_t>(digit);
    }
    return value;
  }
  std::string string() {
    std::string out;
    ++at_;  // the opening quote, seen by the caller
    if (const auto close = text_.find('"', at_); close != std::string_view::npos) out.reserve(close - at_);
    while (true) {
      if (at_ == text_.size()) reject("string", "a closing quote", "the end");
      const char c = text_[at_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) reject("string", "control characters escaped", "one bare");
      if (c != '\\') {
        out += c;
        continue;
      }
      const char escape = at_ < text_.size() ? text_[at_++] : '\0';
      constexpr std::string_view plain = "\"\\/bfnrt", meaning = "\"\\/\b\f\n\r\t";
      if (const auto i = plain.find(escape); escape != '\0' && i != std::string_view::npos) {
        out += meaning[i];
        continue;
      }
      if (escape != 'u') reject("string", "an escape that JSON knows", "another");
      std::uint32_t point = hex4();
      if (point >= 0xdc00 && point <= 0xdfff) reject("string", "a high surrogate first", "a lone low one");
      if (point >= 0xd800 && point <= 0xdbff) {
        if (text_.substr(at_, 2) != "\\u") reject("string", "a low surrogate after a high one", found());
        at_ += 2;
        const std::uint32_t low = hex4();
        if (low < 0xdc00 || low > 0xdfff) reject("string", "a low surrogate after a high one", "something else");
        point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
      }
      append_utf8(out, point);
    }
  }

  std::string_view text_;
  std::uint64_t data_size_;
  const std::string& file_;
  SafetensorsHeader header_;
  std::deque<TensorAt> seen_;  // a deque grows without a second copy
  std::deque<NameAt> keys_;
  std::string where_;
  std::size_t at_ = 0, key_at_ = 0;
  bool has_metadata_ = false, keep_ = false;
};

}  // namespace detail

TENON_IN_BODY std::uint64_t validate_safetensors_prefix(std::uint64_t prefix, std::uint64_t file_size, const std::string& file) {
  check<FileError>(prefix >= 2 && prefix <= safetensors_max_header, "safetensors", file,
                   ": rule header-size: expected a header of 2 to ", safetensors_max_header, " bytes, found ", prefix,
                   " (is this a safetensors file?)");
  check<FileError>(prefix <= file_size - 8, "safetensors", file, ": rule header-fits: expected ", prefix,
                   " bytes of header, found ", file_size - 8, " (is the file cut short?)");
  return prefix;
}
TENON_IN_BODY SafetensorsHeader validate_safetensors(std::string_view header, std::uint64_t data_size, const std::string& file) {
  return detail::SafetensorsParser<>(header, data_size, file).parse();
}

}  // namespace tenon::inline TENON_ABI
