#pragma once
// The header of a safetensors file: the one place where such a file is judged, before any tensor is touched.
//
// Layout (github.com/huggingface/safetensors): 8 bytes N, little endian; N bytes of JSON, at most 100,000,000; the data.
// The JSON maps a name to {"dtype", "shape", "data_offsets": [begin, end)} within the data, and "__metadata__" to text
// keys and values. Every rule has an id, which its error names. Stricter than the reference reader on purpose: names
// and keys must differ and names hold no NUL, a tensor has no unknown keys, at most eight extents and each below 2^63,
// "__metadata__" is no null, and nothing precedes the first `{`.
#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include <tenon/core/dtype.hpp>
#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI {

/// One tensor of a safetensors file.
struct TensorInfo {
  std::string name;
  std::string_view dtype_name;  // as in the file: "BF16"
  std::optional<DType> dtype;   // absent: a type that files may hold and tenon does not read
  Shape shape;
  std::uint64_t begin = 0, end = 0;  // bytes within the data
};

/// What a valid header says. Tensors are sorted by name.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

namespace detail {

struct SafetensorsType {
  std::string_view name;
  unsigned bits;
  std::optional<DType> dtype;
};
inline constexpr SafetensorsType safetensors_types[] = {
    {"BOOL", 8, DType::boolean}, {"U8", 8, DType::u8},     {"I8", 8, DType::i8},
    {"I32", 32, DType::i32},     {"I64", 64, DType::i64},  {"F16", 16, DType::f16},
    {"BF16", 16, DType::bf16},   {"F32", 32, DType::f32},  {"F64", 64, DType::f64},
    {"U16", 16, {}},             {"I16", 16, {}},          {"U32", 32, {}},
    {"U64", 64, {}},             {"C64", 64, {}},          {"F8_E5M2", 8, {}},
    {"F8_E4M3", 8, {}},          {"F8_E8M0", 8, {}},       {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}},      {"F6_E2M3", 6, {}},       {"F6_E3M2", 6, {}},
    {"F4", 4, {}},
};

/// A name as an error shows it: quoted, at most 100 bytes, control characters as `?`.
inline std::string quoted(std::string_view name) {
  std::string out = "\"";
  for (char c : name.substr(0, 100)) out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
  return out + (name.size() > 100 ? "...\"" : "\"");
}

/// The first byte that breaks UTF-8 (overlong forms and surrogates included), or npos.
inline std::size_t first_invalid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t k) { return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u; };
    const unsigned lead = byte(0);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const std::size_t more = lead >= 0xc2 && lead <= 0xdf ? 1 : (lead & 0xf0u) == 0xe0 ? 2 : lead >= 0xf0 && lead <= 0xf4 ? 3 : 0;
    const unsigned low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80, high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (more == 0 || byte(1) < low || byte(1) > high) return i;
    for (std::size_t k = 2; k <= more; ++k)
      if ((byte(k) & 0xc0u) != 0x80) return i;
    i += more + 1;
  }
  return std::string_view::npos;
}

inline void append_utf8(std::string& out, std::uint32_t point) {
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
  if (point < 0x80) return put(point);
  if (point < 0x800) {
    put(0xc0 | point >> 6);
  } else {
    if (point < 0x10000) {
      put(0xe0 | point >> 12);
    } else {
      put(0xf0 | point >> 18);
      put(0x80 | (point >> 12 & 0x3f));
    }
    put(0x80 | (point >> 6 & 0x3f));
  }
  put(0x80 | (point & 0x3f));
}

/// Reads exactly the JSON that a header may hold: objects at two depths, strings, and arrays of unsigned integers. It
/// neither recurses nor allocates by a number found in the file.
class SafetensorsParser {
 public:
  SafetensorsParser(std::string_view text, std::uint64_t data_size, const std::string& file)
      : text_(text), data_size_(data_size), file_(file) {}

  SafetensorsHeader parse() {
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
    check_names();
    check_layout();
    return std::move(header_);
  }

 private:
  // ---- judging
  template <class Expected, class Found>
  [[noreturn]] void reject(std::string_view rule, const Expected& expected, const Found& found) const {
    fail<FileError>("safetensors", file_, ": ", where_.empty() ? "header" : where_, ": rule ", rule, ": expected ", expected,
                    ", found ", found, " at header byte ", at_);
  }
  /// Rules on a tensor's meaning rather than its text.
  template <class Expected, class Found>
  [[noreturn]] void reject(const TensorInfo& t, std::string_view rule, const Expected& expected, const Found& found) const {
    fail<FileError>("safetensors", file_, ": tensor ", detail::quoted(t.name), ": rule ", rule, ": expected ", expected, ", found ",
                    found);
  }

  /// Names differ. Sorts the tensors by name.
  void check_names() {
    auto& tensors = header_.tensors;
    std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    const auto twin = std::adjacent_find(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name == b.name; });
    if (twin != tensors.end()) reject(*twin, "duplicate-name", "each name once", "it twice");
  }
  /// The tensors tile the data: from 0, without overlap or hole, to the end.
  void check_layout() const {
    std::vector<const TensorInfo*> order;
    order.reserve(header_.tensors.size());
    for (const auto& t : header_.tensors) order.push_back(&t);
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
      return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
    });
    std::uint64_t covered = 0;
    for (const auto* t : order) {
      if (t->begin != covered)
        reject(*t, t->begin < covered ? "overlap" : "hole", join_text("its data to begin at ", covered), t->begin);
      covered = t->end;
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
      if (!header_.metadata.emplace(key, string()).second) reject("duplicate-key", "each key once", detail::quoted(key));
    });
    where_.clear();
  }

  void tensor(std::string&& name) {
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
        if (count != 2) reject("offsets", "two offsets", count);
      } else {
        reject("key", "dtype, shape or data_offsets", detail::quoted(key));
      }
    });
    if (!has_dtype || !has_shape || !has_offsets)
      reject("missing-key", "dtype, shape and data_offsets", has_dtype ? (has_shape ? "no data_offsets" : "no shape") : "no dtype");
    if (t.begin > t.end) reject(t, "offsets", "begin <= end", join_text('[', t.begin, ", ", t.end, ']'));
    if (t.end > data_size_) reject(t, "data-end", join_text("an end of at most ", data_size_, " (is the file cut short?)"), t.end);
    const auto elements = static_cast<std::uint64_t>(t.shape.size());
    if (elements > ~std::uint64_t{0} / bits) reject(t, "shape-size", "a number of bits below 2^64", "more");
    if (elements * bits % 8 != 0) reject(t, "bits", "whole bytes", join_text(elements * bits, " bits"));
    if (t.end - t.begin != elements * bits / 8)
      reject(t, "size", join_text(elements * bits / 8, " bytes for ", t.dtype_name, ' ', t.shape), t.end - t.begin);
    header_.tensors.push_back(std::move(t));
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
      auto key = string();
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
  std::string where_;
  std::size_t at_ = 0;
  bool has_metadata_ = false;
};

}  // namespace detail

/// The largest header that the format allows.
inline constexpr std::uint64_t safetensors_max_header = 100'000'000;

/// The length of the header, from the file's first 8 bytes. Throws FileError when header and file cannot fit.
inline std::uint64_t validate_safetensors_prefix(std::uint64_t prefix, std::uint64_t file_size, const std::string& file) {
  check<FileError>(prefix >= 2 && prefix <= safetensors_max_header, "safetensors", file,
                   ": rule header-size: expected a header of 2 to ", safetensors_max_header, " bytes, found ", prefix,
                   " (is this a safetensors file?)");
  check<FileError>(prefix <= file_size - 8, "safetensors", file, ": rule header-fits: expected ", prefix,
                   " bytes of header, found ", file_size - 8, " (is the file cut short?)");
  return prefix;
}

/// Judges a header against `data_size` bytes of data that follow it: every rule is checked here, and nowhere else.
/// Throws FileError with file, tensor, rule, what was expected and what was found.
inline SafetensorsHeader validate_safetensors(std::string_view header, std::uint64_t data_size, const std::string& file) {
  return detail::SafetensorsParser(header, data_size, file).parse();
}

}  // namespace tenon::inline TENON_ABI
