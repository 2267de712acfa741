#pragma once
// Tables in plain text: the first column to the left, the others to the right.
#include <algorithm>
#include <string>
#include <vector>

namespace tenon::examples {

class Table {
 public:
  explicit Table(std::vector<std::string> heading) { rows_.push_back(std::move(heading)); }
  /// A row; cells that are missing stay empty, those past the heading are left out.
  void add(std::vector<std::string> row) {
    row.resize(rows_.front().size());
    rows_.push_back(std::move(row));
  }
  /// Heading, a rule, and the rows, each line ended.
  std::string text() const {
    std::vector<std::size_t> widths(rows_.front().size(), 0);
    for (const auto& row : rows_)
      for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], length(row[i]));
    std::string out;
    for (std::size_t r = 0; r < rows_.size(); ++r) {
      std::string line, rule;
      for (std::size_t i = 0; i < widths.size(); ++i) {
        const std::string blanks(widths[i] - length(rows_[r][i]), ' ');
        if (i > 0) line += "  ", rule += "  ";
        line += i > 0 ? blanks + rows_[r][i] : rows_[r][i] + blanks;
        rule += std::string(widths[i], '-');
      }
      line.erase(line.find_last_not_of(' ') + 1);
      out += line + '\n';
      if (r == 0) out += rule + '\n';
    }
    return out;
  }

 private:
  /// In code points of UTF-8.
  static std::size_t length(const std::string& text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
  }
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace tenon::examples
