"""Writes include/tenon/models/clip/html_entities.hpp: the named character references of HTML 5 (Python's html.entities.html5)."""
import html.entities
import pathlib
import unicodedata

table = html.entities.html5
escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def spell(c):
    """Invisible and combining characters are written as escapes."""
    return escapes.get(c) or (f"\\u{ord(c):04x}" if unicodedata.category(c)[0] in "CMZ" else c)


lines, line = [], ""
for name in sorted(n[:-1] for n in table if n.endswith(";")):
    value = table[name + ";"]
    assert table.get(name, value) == value
    entry = name + ("=" if name in table else ";") + "".join(map(spell, value)) + "\\0"
    if len(line) + len(entry) > 110:
        lines.append(line)
        line = ""
    line += entry
lines.append(line)
body = "\n".join(f'    "{text}"' for text in lines)
path = pathlib.Path(__file__).parents[2] / "include/tenon/models/clip/html_entities.hpp"
path.write_text(f"""#pragma once
// The named character references of HTML 5, made by tests/golden/make_html_entities.py.
#include <string>
#include <string_view>
#include <unordered_map>

#include <tenon/core/config.hpp>

namespace tenon::inline TENON_ABI::detail {{

// Name, `=` when the reference may stand without its semicolon, else `;`, value, zero byte.
inline constexpr char html_entity_text[] =
// clang-format off
{body};
// clang-format on

/// From the name, with its semicolon and, where HTML allows it, without, to the text that it stands for.
inline const std::unordered_map<std::string_view, std::string_view>& html_entities() {{
  static const auto table = [] {{
    std::unordered_map<std::string_view, std::string_view> entities;
    static std::string names;  // the names with a semicolon after them, which the text spells `=` for some
    names.assign(html_entity_text, sizeof html_entity_text - 1);
    for (char& c : names) c = c == '=' ? ';' : c;
    const std::string_view text(html_entity_text, sizeof html_entity_text - 1);
    for (std::size_t begin = 0; begin < text.size();) {{
      const auto mark = text.find_first_of("=;", begin), end = text.find('\\0', mark + 1);
      const auto value = text.substr(mark + 1, end - mark - 1);
      entities.emplace(std::string_view(names).substr(begin, mark - begin + 1), value);
      if (text[mark] == '=') entities.emplace(text.substr(begin, mark - begin), value);
      begin = end + 1;
    }}
    return entities;
  }}();
  return table;
}}

}}  // namespace tenon::inline TENON_ABI::detail
""")
