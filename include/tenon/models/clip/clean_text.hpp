#pragma once
// How a text is cleaned before CLIP's tokenizer splits it, after OpenAI's simple_tokenizer.py and transformers' CLIPTokenizer.
#include <algorithm>

#include <tenon/models/clip/html_entities.hpp>
#include <tenon/models/clip/unicode.hpp>

namespace tenon::inline TENON_ABI::detail {

/// The characters of Windows-1252 that browsers read into the control characters U+0080..U+009F.
inline char32_t from_c1_control(char32_t c) {
  constexpr std::u32string_view windows =
      U"\u20ac\u0081\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u008d\u017d\u008f"
      U"\u0090\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u009d\u017e\u0178";
  return c >= 0x80 && c < 0xa0 ? windows[c - 0x80] : c;
}

/// The code point of a numeric reference as Python's html.unescape reads it; none for those that HTML drops.
inline std::u32string numeric_reference(std::uint32_t number) {
  if (number == 0 || (number >= 0xd800 && number < 0xe000) || number > 0x10ffff) return U"\ufffd";
  if (number >= 0x80 && number < 0xa0) return std::u32string(1, from_c1_control(number));
  const bool control = (number < 0x20 && number != '\t' && number != '\n' && number != '\f' && number != '\r') || number == 0x7f;
  const bool noncharacter = (number >= 0xfdd0 && number <= 0xfdef) || (number & 0xfffe) == 0xfffe;
  if (control || noncharacter) return {};
  return std::u32string(1, static_cast<char32_t>(number));
}

/// Python's html.unescape; `strict` takes only references that end in a semicolon, and takes them in capitals too, as ftfy does.
inline std::u32string unescape_html(std::u32string_view text, bool strict = false) {
  const auto is_digit = [](char32_t c) { return c >= U'0' && c <= U'9'; };
  const auto is_hex = [&](char32_t c) { return is_digit(c) || (c >= U'a' && c <= U'f') || (c >= U'A' && c <= U'F'); };
  const auto is_small = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto is_name = [&](char32_t c) { return is_digit(c) || (c >= U'a' && c <= U'z') || (c >= U'A' && c <= U'Z'); };
  std::u32string out;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] != U'&') {
      out += text[at++];
      continue;
    }
    std::size_t end = at + 1;
    if (end < text.size() && text[end] == U'#') {
      ++end;
      const bool hex = end < text.size() && (text[end] == U'x' || text[end] == U'X');
      if (hex) ++end;
      const std::size_t digits = end;
      std::uint32_t number = 0;
      for (; end < text.size() && (hex ? is_hex(text[end]) : is_digit(text[end])); ++end) {
        const auto digit = static_cast<std::uint32_t>(is_digit(text[end]) ? text[end] - U'0' : (text[end] | 32) - U'a' + 10);
        number = number > 0x110000 ? number : number * (hex ? 16 : 10) + digit;
      }
      const bool closed = end < text.size() && text[end] == U';';
      if (end > digits && (closed || !strict)) {
        out += numeric_reference(number);
        at = end + (closed ? 1 : 0);
        continue;
      }
    } else {
      std::string name;
      for (; end < text.size() && is_name(text[end]) && name.size() < 32; ++end) name += static_cast<char>(text[end]);
      if (end < text.size() && text[end] == U';') name += ';';
      const auto& entities = html_entities();
      std::string known = name;
      auto found = entities.find(known);
      while (found == entities.end() && known.size() > 2) {  // the longest beginning that is a name
        known.pop_back();
        found = entities.find(known);
      }
      if (found != entities.end() && (!strict || known.ends_with(';'))) {
        out += to_code_points(found->second);
        at += 1 + known.size();
        continue;
      }
      if (strict && found == entities.end() && std::none_of(name.begin(), name.end(), is_small)) {
        std::string small = name;
        for (char& c : small) c = is_digit(static_cast<char32_t>(c)) || c == ';' ? c : static_cast<char>(c | 32);
        if (const auto capital = entities.find(small); capital != entities.end() && small.ends_with(';')) {
          out += upper(to_code_points(capital->second));
          at += 1 + name.size();
          continue;
        }
      }
    }
    out += text[at++];
  }
  return out;
}

/// Without terminal escapes (ESC [ 1 ; 3 1 m) and control characters.
inline std::u32string remove_controls(std::u32string_view text) {
  const auto is_parameter = [](char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND || c == U';'; };
  std::u32string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char32_t c = text[at];
    if (text.substr(at).starts_with(U"\x1b[")) {
      std::size_t end = at + 2;
      while (end < text.size() && is_parameter(text[end])) ++end;
      if (end < text.size() && (text[end] | 32) >= U'a' && (text[end] | 32) <= U'z') {
        at = end;
        continue;
      }
    }
    const bool control = (c < 0x20 && c != '\t' && c != '\n' && c != '\f' && c != '\r') || c == 0x7f || (c >= 0x206a && c <= 0x206f) || c == 0xfeff ||
                         (c >= 0xfff9 && c <= 0xfffc);
    if (!control) out += c;
  }
  return out;
}

/// ftfy's repairs of characters: C1 controls, Latin ligatures, full- and half-width forms, curly quotes, terminal escapes, control characters.
/// Its guess at text decoded with the wrong encoding is left out.
inline std::u32string repair_characters(std::u32string_view text) {
  std::u32string out;
  for (char32_t c : text) {
    c = from_c1_control(c);
    const bool ligature = (c >= 0xfb00 && c <= 0xfb06) || c == 0x132 || c == 0x133 || c == 0x149 || (c >= 0x1c4 && c <= 0x1cc) ||
                          (c >= 0x1f1 && c <= 0x1f3);
    const bool width = (c >= 0xff01 && c <= 0xffef) || c == 0x3000;
    if (c == 0xfb05)
      out += U"\u017ft";  // keeps its long s
    else if (c == 0x2bc || (c >= 0x2018 && c <= 0x201b) || c == 0x149)
      out += c == 0x149 ? U"'n" : U"'";
    else if (c >= 0x201c && c <= 0x201f)
      out += U'"';
    else if (ligature || width)
      out += normalize(std::u32string_view(&c, 1), UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    else
      out += c;
  }
  return remove_controls(out);
}

/// ftfy.fix_text without its guess at encodings: line by line, repaired until nothing changes. HTML references are resolved
/// up to the first line with a `<`.
inline std::u32string repair_text(std::u32string_view text) {
  std::u32string out;
  bool unescape = true;
  while (!text.empty()) {
    const auto newline = text.find(U'\n');
    std::u32string line(text.substr(0, newline == text.npos ? newline : newline + 1));
    text.remove_prefix(line.size());
    unescape = unescape && line.find(U'<') == line.npos;
    for (bool changed = true; changed;) {
      auto next = normalize(repair_characters(unescape ? unescape_html(line, true) : line));
      changed = next != line;
      line = std::move(next);
    }
    out += line;
  }
  return out;
}

/// OpenAI's cleaning: repaired, HTML references resolved twice, white space trimmed and collapsed, lower case.
inline std::u32string clean_openai(std::string_view text) {
  auto points = collapse_spaces(unescape_html(unescape_html(repair_text(to_code_points(text)))));
  if (points.starts_with(U' ')) points.erase(0, 1);
  if (points.ends_with(U' ')) points.pop_back();
  return lower(points, true);
}

/// transformers' cleaning: NFC, white space collapsed, lower case.
inline std::u32string clean_hugging_face(std::u32string_view text) { return lower(collapse_spaces(normalize(text)), false); }

}  // namespace tenon::inline TENON_ABI::detail
