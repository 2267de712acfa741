#pragma once
// What the tokenizer needs of Unicode, through utf8proc, on texts of code points.
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include <utf8proc.h>

#include <tenon/core/shape.hpp>

namespace tenon::inline TENON_ABI::detail {

/// The code points of UTF-8. Throws Error at the first byte that is not UTF-8.
inline std::u32string to_code_points(std::string_view text) {
  std::u32string out;
  for (std::size_t at = 0; at < text.size();) {
    utf8proc_int32_t code = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                         static_cast<utf8proc_ssize_t>(text.size() - at), &code);
    check<Error>(length > 0, "Tokenizer", "expected UTF-8 text, found another byte at position ", at);
    out += static_cast<char32_t>(code);
    at += static_cast<std::size_t>(length);
  }
  return out;
}

inline void append_utf8(std::string& out, char32_t code) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
}

inline std::string to_utf8(std::u32string_view text) {
  std::string out;
  for (char32_t code : text) append_utf8(out, code);
  return out;
}

/// Unicode normal form: UTF8PROC_COMPOSE gives NFC, with UTF8PROC_COMPAT it gives NFKC.
inline std::u32string normalize(std::u32string_view text, int form = UTF8PROC_COMPOSE) {
  const auto bytes = to_utf8(text);
  utf8proc_uint8_t* mapped = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(bytes.data()), static_cast<utf8proc_ssize_t>(bytes.size()),
                                   &mapped, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | form));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
  check<Error>(length >= 0, "Tokenizer", "the text cannot be normalised");
  return to_code_points({reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(length)});
}

inline bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}
inline utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
inline bool is_letter(char32_t c) { return category(c) >= UTF8PROC_CATEGORY_LU && category(c) <= UTF8PROC_CATEGORY_LO; }
inline bool is_number(char32_t c) { return category(c) >= UTF8PROC_CATEGORY_ND && category(c) <= UTF8PROC_CATEGORY_NO; }
/// What \w matches: letters and their marks, decimal and letter-like numbers, connectors and joiners.
inline bool is_word_character(char32_t c) {
  const auto kind = category(c);
  return is_letter(c) || (kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_NL) || kind == UTF8PROC_CATEGORY_PC || c == 0x200c || c == 0x200d ||
         (c >= 0x24b6 && c <= 0x24e9);
}

/// Whether a capital sigma at `at` ends a word: a cased letter before it and none after, marks and the like skipped.
inline bool is_final_sigma(std::u32string_view text, std::size_t at) {
  const auto is_skipped = [](char32_t c) {
    constexpr std::u32string_view inside_words = U"'.:^`\u00a8\u00ad\u00af\u00b4\u00b7\u00b8\u2018\u2019\u2024\u2027\ufe13\ufe52\ufe55\uff07\uff0e\uff1a";
    const auto kind = category(c);
    return kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_ME || kind == UTF8PROC_CATEGORY_CF || kind == UTF8PROC_CATEGORY_LM ||
           kind == UTF8PROC_CATEGORY_SK || inside_words.find(c) != inside_words.npos;
  };
  const auto is_cased = [](char32_t c) {
    return (category(c) >= UTF8PROC_CATEGORY_LU && category(c) <= UTF8PROC_CATEGORY_LT) || c == 0xaa || c == 0xba ||
           (c >= 0x2160 && c <= 0x217f) || (c >= 0x24b6 && c <= 0x24e9);  // ordinals, Roman numerals, letters in circles
  };
  std::size_t before = at, after = at + 1;
  while (before > 0 && is_skipped(text[before - 1])) --before;
  while (after < text.size() && is_skipped(text[after])) ++after;
  return before > 0 && is_cased(text[before - 1]) && !(after < text.size() && is_cased(text[after]));
}

/// Lower case; `final_sigma`: the capital sigma that ends a word becomes the final one, as in Python's str.lower.
inline std::u32string lower(std::u32string_view text, bool final_sigma) {
  std::u32string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == U'\u0130')
      out += U"i\u0307";
    else if (text[i] == U'\u03a3' && final_sigma && is_final_sigma(text, i))
      out += U'\u03c2';
    else
      out += static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(text[i])));
  }
  return out;
}

/// Upper case, as Python's str.upper of the characters that HTML names.
inline std::u32string upper(std::u32string_view text) {
  std::u32string out;
  for (const char32_t c : text)
    if (c == U'\u00df')
      out += U"SS";
    else
      out += static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
  return out;
}

/// Runs of white space become one space.
inline std::u32string collapse_spaces(std::u32string_view text) {
  std::u32string out;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (!is_space(text[i]))
      out += text[i];
    else if (i == 0 || !is_space(text[i - 1]))
      out += U' ';
  return out;
}

}  // namespace tenon::inline TENON_ABI::detail
