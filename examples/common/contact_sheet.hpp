#pragma once
// Pictures in a grid, each with lines of text below it.
#include "canvas.hpp"

namespace tenon::examples {

struct Label {
  std::string text;
  Colour colour = black;
};

struct Tile {
  Image picture;
  std::vector<Label> labels{};
};

struct ContactSheetConfig {
  std::string title{};
  Index columns = 8;
  Index zoom = 1;      ///< pixels of the sheet for one of a picture
  Index letters = 18;  ///< room for a label; longer ones are cut
};

/// The sheet. Throws ShapeError when there is nothing to show.
inline Image contact_sheet(const std::vector<Tile>& tiles, const ContactSheetConfig& config = {}) {
  constexpr Index gap = 10;
  check<ShapeError>(!tiles.empty() && config.columns > 0 && config.zoom > 0, "contact_sheet", "expected pictures, columns and a zoom, got ",
                    tiles.size(), ", ", config.columns, " and ", config.zoom);
  Index width = config.letters * letter_width, height = 0;
  std::size_t lines = 0;
  for (const auto& [picture, labels] : tiles) {
    width = std::max(width, picture.width * config.zoom);
    height = std::max(height, picture.height * config.zoom);
    lines = std::max(lines, labels.size());
  }
  const Index cell_width = width + gap, cell_height = height + gap + 4 + static_cast<Index>(lines) * letter_height;
  const Index columns = std::min(config.columns, static_cast<Index>(tiles.size()));
  const Index rows = (static_cast<Index>(tiles.size()) + columns - 1) / columns;
  const Index top = gap + (config.title.empty() ? 0 : letter_height + gap);
  Image sheet(top + rows * cell_height, std::max(gap + columns * cell_width, 2 * gap + text_width(config.title)), 3, 255);
  draw_text(sheet, gap, gap, config.title);

  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const auto& [picture, labels] = tiles[i];
    const Index x = gap + static_cast<Index>(i) % columns * cell_width, y = top + static_cast<Index>(i) / columns * cell_height;
    draw_image(sheet, y + height - picture.height * config.zoom, x + (width - picture.width * config.zoom) / 2, picture, config.zoom);
    for (std::size_t line = 0; line < labels.size(); ++line) {
      auto text = to_letters(labels[line].text);
      const auto room = static_cast<std::size_t>(width / letter_width);
      if (text.size() > room) text = text.substr(0, room - 2) + "..";
      draw_text(sheet, y + height + 4 + static_cast<Index>(line) * letter_height, x + (width - text_width(text)) / 2, text, labels[line].colour);
    }
  }
  return sheet;
}

}  // namespace tenon::examples
