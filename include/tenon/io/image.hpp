#pragma once
// Pictures from and to files: PNG, JPEG and PNM in, PNG out. Needs libpng and libjpeg (the component tenon::image).
#include <cmath>

#include <tenon/io/atomic.hpp>
#include <tenon/io/jpeg.hpp>
#include <tenon/io/mapped_file.hpp>
#include <tenon/io/png.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// The bytes of an ordinary file of at most 512 MiB.
inline std::vector<std::uint8_t> read_picture_file(const std::string& name) {
  const FileReader file(name);
  constexpr std::uint64_t limit = std::uint64_t{512} << 20;
  check<FileError>(file.size() <= limit, "load_image", name, ": expected at most ", limit, " bytes, found ", file.size());
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(file.size()));
  file.read(0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

}  // namespace detail

/// The RGB picture in PNM bytes (P4 bits, P5 grey, P6 colour, of 8 or 16 bits; P1, P2 and P3, the same in decimal digits), as
/// Pillow's `convert("RGB")` gives it: samples scaled from their maximum to 255 and rounded half to even; 16-bit grey scaled to
/// 65535 and cut off at 255. Throws FileError on anything but a whole picture within the limits.
inline Image decode_pnm(std::span<const std::uint8_t> bytes, std::string_view name) {
  std::size_t at = 2;
  const auto stop = [&](std::string_view found) { detail::fail_picture(name, "PNM", at, bytes.size(), found); };
  const auto is_space = [](std::uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  const auto skip_spaces = [&] {
    while (at < bytes.size() && (is_space(bytes[at]) || bytes[at] == '#')) {
      if (bytes[at] == '#')
        while (at < bytes.size() && bytes[at] != '\n' && bytes[at] != '\r') ++at;
      else
        ++at;
    }
  };
  /// The next number, of one digit only where digits stand for bits.
  const auto number = [&](bool bit = false) {
    skip_spaces();
    Index value = -1;
    for (; at < bytes.size() && bytes[at] >= '0' && bytes[at] <= '9' && !(bit && value >= 0); ++at) {
      value = (value < 0 ? 0 : value * 10) + (bytes[at] - '0');
      if (value > 1'000'000) stop("a number past one million");
    }
    if (value < 0) stop("no number where one is needed");
    return value;
  };
  if (bytes.size() < 2 || bytes[0] != 'P' || bytes[1] < '1' || bytes[1] > '6') stop("no P1 to P6 at the start");
  const bool digits = bytes[1] <= '3', bits = bytes[1] == '1' || bytes[1] == '4';
  const Index channels = bytes[1] == '6' || bytes[1] == '3' ? 3 : 1;
  const Index width = number(), height = number(), maximum = bits ? 1 : number();
  detail::check_image_size(name, width, height);
  if (maximum < 1 || maximum > 65535) stop("a largest sample outside 1..65535");
  if (at >= bytes.size() || !is_space(bytes[at++])) stop("no white space after the header");
  const Index samples = width * height * channels, sample_bytes = maximum > 255 && !digits ? 2 : 1, row_bytes = (width + 7) / 8;
  const Index expected = digits ? samples : bits ? height * row_bytes : samples * sample_bytes;
  check<FileError>(static_cast<Index>(bytes.size() - at) >= expected, "load_image", name, ": expected ", expected,
                   " bytes of samples after byte ", at, ", found ", bytes.size() - at);

  Image image(height, width);
  const double top = channels == 1 && maximum > 255 ? 65535.0 : 255.0;
  const std::uint8_t* sample = bytes.data() + at;
  for (Index i = 0; i < samples; ++i) {
    Index raw = 0;
    if (digits) {
      raw = number(bits);
      if (raw > maximum) stop("a sample past the largest");
    } else if (bits) {
      raw = sample[i / width * row_bytes + i % width / 8] >> (7 - i % width % 8) & 1;
    } else {
      raw = sample_bytes == 2 ? sample[2 * i] * 256 + sample[2 * i + 1] : sample[i];
    }
    if (bits) raw = 1 - raw;
    const double scaled = std::nearbyint(static_cast<double>(raw) / static_cast<double>(maximum) * top);
    const auto value = static_cast<std::uint8_t>(scaled < 255.0 ? scaled : 255.0);
    for (Index c = 0; c < 3 / channels; ++c) image.pixels[static_cast<std::size_t>(i * (3 / channels) + c)] = value;
  }
  return image;
}

struct ImageOptions {
  /// Turn the picture as its orientation in EXIF, else in XMP, says, as viewers and transformers' load_image do. OpenAI's and open_clip's
  /// own programs do not.
  bool orient = true;
  /// Lay transparent pictures on white, as transformers' image processors do with Pillow pictures (since 5.0), instead of dropping
  /// alpha, as Pillow's `convert("RGB")` does.
  bool on_white = false;
};

/// The RGB picture in the bytes of a PNG, JPEG or PNM file, told apart by content. `name` stands in messages.
inline Image decode_image(std::span<const std::uint8_t> bytes, std::string_view name, const ImageOptions& options = {}) {
  check<FileError>(!bytes.empty(), "load_image", name, ": expected a picture, found an empty file");
  constexpr std::uint8_t png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, jpeg[] = {0xff, 0xd8, 0xff};
  const auto starts_with = [&](std::span<const std::uint8_t> magic) {
    return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin());
  };
  if (starts_with(png) || starts_with(jpeg)) {
    int orientation = 1;
    auto image = starts_with(png) ? decode_png(bytes, name, &orientation, options.on_white) : decode_jpeg(bytes, name, &orientation);
    return options.orient ? oriented(std::move(image), orientation) : image;
  }
  if (bytes.size() > 2 && bytes[0] == 'P' && bytes[1] >= '1' && bytes[1] <= '6') return decode_pnm(bytes, name);
  std::string found;
  for (std::size_t i = 0; i < bytes.size() && i < 8; ++i) {
    constexpr char digits[] = "0123456789abcdef";
    found += {' ', digits[bytes[i] >> 4], digits[bytes[i] & 15]};
  }
  fail<FileError>("load_image", name, ": expected a PNG, JPEG or PNM picture, found a file that begins with", found);
}

/// The RGB picture in a PNG, JPEG or PNM file; see the decoders for what becomes of other kinds of pixels.
/// Throws FileError, which names the file, on anything but a whole picture with sides of at most 16,384 and 64 megapixels.
inline Image load_image(const std::string& path, const ImageOptions& options = {}) {
  return decode_image(detail::read_picture_file(path), path, options);
}

/// Writes a PNG file, whole or not at all. Throws FileError when the file cannot be written, and what encode_png throws.
inline void save_png(const Image& image, const std::string& path, const PngText& text = {}) {
  const auto bytes = encode_png(image, text);
  atomic_write(path, [&](FileSink& out) { out.write(std::as_bytes(std::span(bytes))); });
}

}  // namespace tenon::inline TENON_ABI
