#pragma once
// PNG through libpng: from bytes to an Image and back.
//
// libpng leaves a failed call by longjmp, so no object with a destructor lives between a guarded call and its library frames.
#include <csetjmp>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include <png.h>

#include <tenon/io/exif.hpp>

namespace tenon::inline TENON_ABI {

/// Key and text pairs stored in a PNG; keys are 1 to 79 printable ASCII characters, texts UTF-8.
using PngText = std::vector<std::pair<std::string, std::string>>;

namespace detail {

inline void check_image_size(std::string_view name, Index width, Index height) {
  check<FileError>(width > 0 && height > 0 && width <= max_image_side && height <= max_image_side &&
                       width * height <= max_image_pixels,
                   "load_image", name, ": expected sides of 1 to ", max_image_side, " and at most ", max_image_pixels,
                   " pixels, found ", width, " x ", height);
}

[[noreturn]] inline void fail_picture(std::string_view name, std::string_view format, std::size_t at, std::size_t size,
                                      std::string_view found) {
  fail<FileError>("load_image", name, ": expected a whole ", format, " picture, found at byte ", at, " of ", size, ": ", found);
}

/// Turns a row of big-endian 16-bit grey, at the front of an RGB row, into RGB cut off at 255.
inline void spread_deep_grey(std::uint8_t* row, Index width) {
  for (Index x = width - 1; x >= 0; --x) {
    const std::uint8_t grey = row[2 * x] != 0 ? 255 : row[2 * x + 1];
    row[3 * x] = row[3 * x + 1] = row[3 * x + 2] = grey;
  }
}

/// Lays a row of RGBA on white as Pillow's alpha_composite does, in 15 bits, into RGB.
inline void lay_on_white(const std::uint8_t* rgba, std::uint8_t* rgb, Index width) {
  for (Index x = 0; x < width; ++x, rgba += 4, rgb += 3) {
    const std::uint32_t over = rgba[3] * 128u, under = 255u * 128u - over;
    for (int c = 0; c < 3; ++c) {
      const std::uint32_t sum = rgba[c] * over + 255u * under + (128u << 7);
      rgb[c] = static_cast<std::uint8_t>(((sum >> 8) + sum) >> 8 >> 7);
    }
  }
}

struct PngContext {
  char message[160] = {};
  // reading
  std::span<const std::uint8_t> bytes;
  std::size_t offset = 0;
  // writing
  std::vector<std::uint8_t> written;
};

[[noreturn]] inline void png_on_error(png_structp png, png_const_charp text) {
  auto& context = *static_cast<PngContext*>(png_get_error_ptr(png));
  std::strncpy(context.message, text, sizeof context.message - 1);
  png_longjmp(png, 1);
}
inline void png_on_warning(png_structp, png_const_charp) {}

inline void png_take(png_structp png, png_bytep out, std::size_t count) {
  auto& context = *static_cast<PngContext*>(png_get_io_ptr(png));
  if (count > context.bytes.size() - context.offset) {
    context.offset = context.bytes.size();
    png_error(png, "the data ends early");
  }
  std::memcpy(out, context.bytes.data() + context.offset, count);
  context.offset += count;
}

inline void png_put(png_structp png, png_bytep data, std::size_t count) {
  auto& written = static_cast<PngContext*>(png_get_io_ptr(png))->written;
  bool stored = true;
  try {
    written.insert(written.end(), data, data + count);
  } catch (...) {
    stored = false;
  }
  if (!stored) png_error(png, "out of memory");
}
inline void png_flush_nothing(png_structp) {}

/// Runs `body`; false when libpng left it by its error exit.
template <class Body>
bool png_guarded(png_structp png, Body&& body) {
  if (setjmp(png_jmpbuf(png))) return false;
  body();
  return true;
}

struct PngReader {
  png_structp png;
  png_infop info;
  explicit PngReader(PngContext& context)
      : png(png_create_read_struct(PNG_LIBPNG_VER_STRING, &context, png_on_error, png_on_warning)),
        info(png ? png_create_info_struct(png) : nullptr) {}
  ~PngReader() { png_destroy_read_struct(&png, &info, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
};

struct PngWriter {
  png_structp png;
  png_infop info;
  explicit PngWriter(PngContext& context)
      : png(png_create_write_struct(PNG_LIBPNG_VER_STRING, &context, png_on_error, png_on_warning)),
        info(png ? png_create_info_struct(png) : nullptr) {}
  ~PngWriter() { png_destroy_write_struct(&png, &info); }
  PngWriter(const PngWriter&) = delete;
  PngWriter& operator=(const PngWriter&) = delete;
};

/// The 8-bit grey that a grey picture's tRNS makes transparent as Pillow reads it, its low byte unscaled; -1 when it has none.
inline int transparent_grey(png_structp png, png_infop info) {
  png_color_16p grey = nullptr;
  if (png_get_tRNS(png, info, nullptr, nullptr, &grey) == 0 || grey == nullptr) return -1;
  return png_get_bit_depth(png, info) == 1 ? (grey->gray != 0 ? 255 : 0) : grey->gray & 255;
}

/// The last text of that key, or nothing.
inline std::string_view png_text_of(png_structp png, png_infop info, std::string_view key) {
  png_textp texts = nullptr;
  std::string_view out;
  for (int left = png_get_text(png, info, &texts, nullptr); left > 0; --left, ++texts)
    if (key == texts->key && texts->text != nullptr) out = texts->text;
  return out;
}

}  // namespace detail

/// The RGB picture in PNG bytes, as Pillow's `convert("RGB")` gives it: palettes looked up, grey repeated, alpha dropped, the
/// high byte of 16-bit colours kept, 16-bit grey without alpha cut off at 255. `name` stands in messages.
/// `orientation`, when given, gets the orientation 1..8 of EXIF, else of XMP, which is not applied. With `on_white`, alpha is not
/// dropped but the picture laid on white; the grey that a grey picture calls transparent is compared with its 8-bit pixels, as in
/// Pillow. Throws FileError on anything but a whole PNG within the limits.
inline Image decode_png(std::span<const std::uint8_t> bytes, std::string_view name, int* orientation = nullptr, bool on_white = false) {
  detail::PngContext context;
  context.bytes = bytes;
  detail::PngReader reader(context);
  check<FileError>(reader.info != nullptr, "load_image", name, ": libpng could not start");
  const auto png = reader.png;
  const auto info = reader.info;

  const bool header = detail::png_guarded(png, [&] {
    png_set_read_fn(png, &context, detail::png_take);
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff);  // ours are checked below, with a better message
    png_read_info(png, info);
  });
  if (!header) detail::fail_picture(name, "PNG", context.offset, bytes.size(), context.message);
  detail::check_image_size(name, png_get_image_width(png, info), png_get_image_height(png, info));

  Image image(png_get_image_height(png, info), png_get_image_width(png, info));
  const bool plain_grey = png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY, deep_grey = plain_grey && png_get_bit_depth(png, info) == 16;
  const int clear_grey = on_white && plain_grey ? detail::transparent_grey(png, info) : -1;
  const bool keep_alpha = on_white && !plain_grey &&
                          ((png_get_color_type(png, info) & PNG_COLOR_MASK_ALPHA) != 0 || png_get_valid(png, info, PNG_INFO_tRNS) != 0);
  Image with_alpha = keep_alpha ? Image(image.height, image.width, 4) : Image();
  Image& target = keep_alpha ? with_alpha : image;
  const bool body = detail::png_guarded(png, [&] {
    if (!deep_grey) {
      png_set_expand(png);
      png_set_strip_16(png);
      if (!keep_alpha) png_set_strip_alpha(png);
      png_set_gray_to_rgb(png);
    }
    const int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != static_cast<std::size_t>(image.width * (deep_grey ? 2 : target.channels))) png_error(png, "rows that are not RGB");
    for (int pass = 0; pass < passes; ++pass)
      for (Index y = 0; y < image.height; ++y) png_read_row(png, target.at(y, 0), nullptr);
    png_read_end(png, info);
  });
  if (!body) detail::fail_picture(name, "PNG", context.offset, bytes.size(), context.message);
  if (orientation != nullptr) {
    png_uint_32 size = 0;
    png_bytep exif = nullptr;
    const std::vector<std::uint8_t> profile = detail::raw_profile(detail::png_text_of(png, info, "Raw profile type exif"));
    if (png_get_eXIf_1(png, info, &size, &exif) == 0) exif = nullptr;
    *orientation = detail::exif_orientation(exif != nullptr ? std::span<const std::uint8_t>(exif, size) : profile,
                                            detail::xmp_orientation(detail::png_text_of(png, info, "XML:com.adobe.xmp")));
  }
  if (keep_alpha)
    for (Index y = 0; y < image.height; ++y) detail::lay_on_white(with_alpha.at(y, 0), image.at(y, 0), image.width);
  if (deep_grey)
    for (Index y = 0; y < image.height; ++y) detail::spread_deep_grey(image.at(y, 0), image.width);
  if (clear_grey >= 0) std::replace(image.pixels.begin(), image.pixels.end(), static_cast<std::uint8_t>(clear_grey), std::uint8_t{255});
  return image;
}

/// The bytes of a PNG file that holds the picture and the texts (ASCII as tEXt, anything else as iTXt).
/// Throws ShapeError on an image whose bytes do not fit its size, NameError on a bad key, Error when libpng refuses.
inline std::vector<std::uint8_t> encode_png(const Image& image, const PngText& text = {}) {
  const auto extents = Shape{image.height, image.width, image.channels};
  check<ShapeError>(image.height > 0 && image.width > 0 && (image.channels == 1 || image.channels == 3 || image.channels == 4) &&
                        static_cast<Index>(image.pixels.size()) == extents.size(),
                    "encode_png", "expected the bytes of a picture with 1, 3 or 4 channels, got ", image.pixels.size(), " for ", extents);
  std::vector<png_text> entries(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto& [key, value] = text[i];
    bool printable = !key.empty() && key.size() <= 79 && key.front() != ' ' && key.back() != ' ';
    for (char c : key) printable = printable && c >= ' ' && c <= '~';
    check<NameError>(printable, "encode_png", "expected a text key of 1 to 79 printable ASCII characters, got \"", key, '"');
    bool ascii = true;
    for (char c : value) ascii = ascii && static_cast<unsigned char>(c) < 0x80;
    check<Error>(value.find('\0') == std::string::npos, "encode_png", "the text of \"", key, "\" holds a zero byte");
    // libpng takes mutable pointers but does not write through them
    entries[i].compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    entries[i].key = const_cast<char*>(key.c_str());
    entries[i].text = const_cast<char*>(value.c_str());
    (ascii ? entries[i].text_length : entries[i].itxt_length) = value.size();
  }

  detail::PngContext context;
  detail::PngWriter writer(context);
  check<Error>(writer.info != nullptr, "encode_png", "libpng could not start");
  const auto png = writer.png;
  const auto info = writer.info;
  const bool done = detail::png_guarded(png, [&] {
    png_set_write_fn(png, &context, detail::png_put, detail::png_flush_nothing);
    const int type = image.channels == 1 ? PNG_COLOR_TYPE_GRAY : image.channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_RGB_ALPHA;
    png_set_IHDR(png, info, static_cast<png_uint_32>(image.width), static_cast<png_uint_32>(image.height), 8, type,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (!entries.empty()) png_set_text(png, info, entries.data(), static_cast<int>(entries.size()));
    png_write_info(png, info);
    for (Index y = 0; y < image.height; ++y) png_write_row(png, image.at(y, 0));
    png_write_end(png, nullptr);
  });
  check<Error>(done, "encode_png", "libpng: ", std::string_view(context.message));
  return std::move(context.written);
}

}  // namespace tenon::inline TENON_ABI
