#pragma once
// Pictures of files and folders, and files of lines.
#include <algorithm>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include <tenon/core/error.hpp>
#include <tenon/io/mapped_file.hpp>

namespace tenon::examples {

inline bool is_picture_name(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  for (const char* known : {".png", ".jpg", ".jpeg", ".jpe", ".ppm", ".pgm", ".pnm"})
    if (extension == known) return true;
  return false;
}

/// The pictures in a folder and the folders in it, sorted; names that begin with a dot are passed over. Throws FileError.
inline std::vector<std::string> pictures_in(const std::string& folder) {
  namespace fs = std::filesystem;
  std::vector<std::string> out;
  std::error_code error;
  fs::recursive_directory_iterator at(folder, fs::directory_options::skip_permission_denied, error);
  check<FileError>(!error, "pictures", folder, ": ", error.message());
  for (const fs::recursive_directory_iterator end; at != end; at.increment(error)) {
    check<FileError>(!error, "pictures", folder, ": ", error.message());
    std::error_code ignored;
    const bool hidden = at->path().filename().string().starts_with('.'), directory = at->is_directory(ignored);
    if (hidden && directory) at.disable_recursion_pending();
    if (!hidden && !directory && is_picture_name(at->path())) out.push_back(at->path().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// Files as they are given, folders as the pictures in them. Throws FileError when there is none.
inline std::vector<std::string> list_pictures(const std::vector<std::string>& paths) {
  std::vector<std::string> out;
  for (const auto& path : paths) {
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) {
      out.push_back(path);
      continue;
    }
    const auto inside = pictures_in(path);
    check<FileError>(!inside.empty(), "pictures", path, ": no PNG, JPEG or PNM files in this folder");
    out.insert(out.end(), inside.begin(), inside.end());
  }
  return out;
}

/// The lines of a file that are neither empty nor begin with #. Throws FileError when there is none.
inline std::vector<std::string> read_lines(const std::string& path) {
  std::vector<std::string> out;
  std::string bytes = read_file(path, 64u << 20);
  if (bytes.starts_with("\xef\xbb\xbf")) bytes.erase(0, 3);  // a byte order mark
  std::stringstream text(bytes);
  for (std::string line; std::getline(text, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && line[0] != '#') out.push_back(line);
  }
  check<FileError>(!out.empty(), "lines", path, ": expected lines of text, found none");
  return out;
}

}  // namespace tenon::examples
