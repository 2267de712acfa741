#pragma once
// The data that ships: emoji in colour and as line art, with names, subgroups and groups (examples/data/README.md).
#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <tenon/io/image.hpp>
#include <tenon/models/clip/zero_shot.hpp>

#include "augment.hpp"

namespace tenon::examples {

struct Emoji {
  std::string name, group, subgroup;
  Index group_label = 0, subgroup_label = 0;
  bool held_out = false, has_line_art = false;
  bool left_out = false;  // of both sides of the split
};

/// How the table's words stand in captions: "-" as a blank, "&" as "and".
inline std::string in_words(std::string text) {
  std::string out;
  for (char c : text) {
    if (c == '-') out += ' ';
    else if (c == '&') out += "and";
    else out += c;
  }
  return out;
}

struct EmojiSet {
  static constexpr Index side = 64;
  std::vector<Emoji> rows;
  std::vector<std::string> groups, subgroups;  // in words, in the order of the table
  std::vector<std::string> captions;           // templates over {name}, {subgroup}, {group}
  Tensor<float> colour, line_art;              // [rows, 64, 64, 3], 0..1

  explicit EmojiSet(const std::string& directory) {
    read_table(directory + "/emoji.tsv");
    std::ifstream file(directory + "/captions.txt");
    for (std::string line; std::getline(file, line);)
      if (!line.empty() && line[0] != '#') captions.push_back(line);
    check<FileError>(!captions.empty(), "emoji", directory, "/captions.txt: expected caption templates, found none");
    colour = read_atlas(directory + "/emoji_colour.png");
    line_art = read_atlas(directory + "/emoji_line_art.png");
  }

  /// Row numbers of one side of the split; `drawn` keeps those with line art only.
  std::vector<Index> split(bool held_out, bool drawn = false) const {
    std::vector<Index> out;
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (!rows[i].left_out && rows[i].held_out == held_out && (!drawn || rows[i].has_line_art)) out.push_back(static_cast<Index>(i));
    return out;
  }
  /// Leaves the held-out characters alone and holds out runs of training characters instead: for choosing settings.
  void use_development_split() {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      rows[i].left_out = rows[i].held_out;
      rows[i].held_out = !rows[i].left_out && i / 8 % 6 == 0;
    }
  }
  /// Template `t` filled for row `i`; its name with `before` in front, "red " say.
  std::string caption(Index i, std::size_t t, const std::string& before = "") const {
    const Emoji& row = rows[static_cast<std::size_t>(i)];
    const std::string name = before + row.name;
    std::string out = captions[t];
    for (const auto& [key, value] : {std::pair{std::string("{name}"), &name}, {"{subgroup}", &row.subgroup}, {"{group}", &row.group}})
      for (auto at = out.find(key); at != std::string::npos; at = out.find(key, at + 1)) out.replace(at, key.size(), in_words(*value));
    return out;
  }
  /// What a caption is about: 0 the group, 1 the subgroup, 2 the character itself.
  int level(std::size_t t) const {
    if (captions[t].find("{name}") != std::string::npos) return 2;
    return captions[t].find("{subgroup}") != std::string::npos ? 1 : 0;
  }
  /// The templates for zero-shot labels, with "{}" in place of "{group}" or "{subgroup}": those with no other placeholder.
  std::vector<std::string> label_templates(const std::string& placeholder) const {
    std::vector<std::string> out;
    for (const auto& text : captions) {
      const auto at = text.find("{" + placeholder + "}");
      if (at == std::string::npos || std::count(text.begin(), text.end(), '{') != 1) continue;
      out.push_back(text.substr(0, at) + "{}" + text.substr(at + placeholder.size() + 2));
    }
    return out;
  }

 private:
  void read_table(const std::string& path) {
    std::ifstream file(path);
    check<FileError>(file.good(), "emoji", path, ": cannot be read");
    for (std::string line; std::getline(file, line);) {
      if (line.empty() || line[0] == '#') continue;
      std::vector<std::string> cells;
      std::stringstream text(line);
      for (std::string cell; std::getline(text, cell, '\t');) cells.push_back(cell);
      check<FileError>(cells.size() == 7, "emoji", path, ": expected 7 columns, found ", cells.size(), " in '", line, "'");
      Emoji row{cells[2], cells[3], cells[4], 0, 0, cells[5] != "train", cells[6] == "1"};
      row.group_label = label(groups, in_words(row.group));
      row.subgroup_label = label(subgroups, in_words(row.subgroup));
      rows.push_back(std::move(row));
    }
    check<FileError>(!rows.empty(), "emoji", path, ": expected rows, found none");
  }
  static Index label(std::vector<std::string>& names, const std::string& name) {
    const auto at = std::find(names.begin(), names.end(), name);
    if (at != names.end()) return at - names.begin();
    names.push_back(name);
    return static_cast<Index>(names.size()) - 1;
  }
  Tensor<float> read_atlas(const std::string& path) const {
    const Image atlas = load_image(path);
    const Index count = static_cast<Index>(rows.size()), columns = atlas.width / side;
    check<FileError>(columns > 0 && atlas.height / side * columns >= count, "emoji", path, ": expected places for ", count, " pictures of ",
                     side, " pixels, found ", atlas.height / side * columns);
    auto out = Tensor<float>::uninitialized({count, side, side, 3});
    for (Index i = 0; i < count; ++i)
      for (Index y = 0; y < side; ++y) {
        const std::uint8_t* from = atlas.pixels.data() + ((i / columns * side + y) * atlas.width + i % columns * side) * 3;
        float* to = out.data() + (i * side + y) * side * 3;
        for (Index x = 0; x < side * 3; ++x) to[x] = static_cast<float>(from[x]) / 255.0f;
      }
    return out;
  }
};

/// What some training character is called by two words, a colour and the thing: "red apple".
inline std::vector<std::string> coloured_things(const EmojiSet& set) {
  std::vector<std::string> out;
  for (const Index id : set.split(false)) {
    const std::string name = in_words(set.rows[static_cast<std::size_t>(id)].name);
    for (const NamedColour& colour : plain_colours) {
      const std::string start = std::string(colour.name) + " ";
      if (!name.starts_with(start) || name.find(' ', start.size()) != std::string::npos) continue;
      const std::string thing = name.substr(start.size());
      if (std::find(out.begin(), out.end(), thing) == out.end()) out.push_back(thing);
    }
  }
  return out;
}

/// CLIP's normalisation of values 0..1, in place; the last axis is RGB.
inline void normalise(Tensor<float>& pictures) {
  constexpr float mean[] = {0.48145466f, 0.4578275f, 0.40821073f}, deviation[] = {0.26862954f, 0.26130258f, 0.27577711f};
  for (Index i = 0; i < pictures.size(); ++i) {
    const auto c = static_cast<std::size_t>(i % 3);
    pictures.data()[i] = (pictures.data()[i] - mean[c]) / deviation[c];
  }
}

/// The pictures of some rows, [n, 64, 64, 3].
inline Tensor<float> pick(const Tensor<float>& pictures, std::span<const Index> ids) {
  const Index each = pictures.size() / pictures.extent(0);
  auto out = Tensor<float>::uninitialized(pictures.shape().with(0, static_cast<Index>(ids.size())));
  for (std::size_t i = 0; i < ids.size(); ++i)
    std::copy_n(pictures.data() + ids[i] * each, each, out.data() + static_cast<Index>(i) * each);
  return out;
}

}  // namespace tenon::examples
