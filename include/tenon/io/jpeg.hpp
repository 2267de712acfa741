#pragma once
// JPEG through libjpeg-turbo: from bytes to an Image.
//
// The error exit longjmps, so no object with a destructor lives between a guarded call and its library frames.
#include <csetjmp>
#include <cstdio>

#include <jpeglib.h>
#include <jerror.h>

#include <tenon/io/exif.hpp>
#include <tenon/io/png.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

struct JpegReader {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = {};
  bool ended = false;  // libjpeg ran out of bytes and made up an end marker

  JpegReader() = default;
  ~JpegReader() { jpeg_destroy_decompress(&info); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;
};

[[noreturn]] inline void jpeg_on_error(j_common_ptr info) {
  auto& reader = *static_cast<JpegReader*>(info->client_data);
  info->err->format_message(info, reader.message);
  std::longjmp(reader.jump, 1);
}

/// Warnings pass as in Pillow, except missing data at the end of the file.
inline void jpeg_on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  auto& reader = *static_cast<JpegReader*>(info->client_data);
  if (info->err->msg_code == JWRN_JPEG_EOF) reader.ended = true;
  if (info->err->msg_code == JWRN_HIT_MARKER && reader.ended) jpeg_on_error(info);
}

/// A progressive file may repeat scans without end; real ones have about ten.
inline void jpeg_on_progress(j_common_ptr info) {
  auto& reader = *static_cast<JpegReader*>(info->client_data);
  if (reader.info.input_scan_number <= 200) return;
  std::snprintf(reader.message, sizeof reader.message, "more than 200 scans");
  std::longjmp(reader.jump, 1);
}

/// Runs `body`; false when libjpeg left it by its error exit.
template <class Body>
bool jpeg_guarded(JpegReader& reader, Body&& body) {
  if (setjmp(reader.jump)) return false;
  body();
  return true;
}

/// Pillow's CMYK to RGB, on Adobe's inverted values c = 255 - C, k = 255 - K: k - (255 - c) k / 255, rounded.
inline std::uint8_t cmyk_channel(unsigned c, unsigned k) {
  const unsigned product = (255u - c) * k + 128u;
  return static_cast<std::uint8_t>(k - (((product >> 8) + product) >> 8));
}

}  // namespace detail

/// The RGB picture in JPEG bytes, as Pillow's `convert("RGB")` gives it: grey repeated, CMYK taken as Adobe's inverted one.
/// `orientation`, when given, gets the orientation 1..8 of EXIF, else of XMP, which is not applied. `name` stands in messages.
/// Throws FileError on anything but a whole JPEG within the limits.
inline Image decode_jpeg(std::span<const std::uint8_t> bytes, std::string_view name, int* orientation = nullptr) {
  detail::JpegReader reader;
  auto& info = reader.info;
  const auto stop = [&](std::string_view found) {
    const std::size_t left = info.src != nullptr && !reader.ended ? info.src->bytes_in_buffer : 0;
    detail::fail_picture(name, "JPEG", bytes.size() - left, bytes.size(), found);
  };

  const bool header = detail::jpeg_guarded(reader, [&] {
    info.err = jpeg_std_error(&reader.errors);
    reader.errors.error_exit = detail::jpeg_on_error;
    reader.errors.emit_message = detail::jpeg_on_message;
    reader.progress.progress_monitor = detail::jpeg_on_progress;
    info.client_data = &reader;
    jpeg_create_decompress(&info);
    info.progress = &reader.progress;
    jpeg_mem_src(&info, bytes.data(), static_cast<unsigned long>(bytes.size()));
    jpeg_save_markers(&info, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&info, TRUE);
  });
  if (!header) stop(reader.message);
  detail::check_image_size(name, info.image_width, info.image_height);
  check<FileError>(info.num_components == 1 || info.num_components == 3 || info.num_components == 4, "load_image", name,
                   ": expected a JPEG picture of 1, 3 or 4 components, found ", info.num_components);

  if (orientation != nullptr) {
    constexpr std::string_view exif_mark("Exif\0\0", 6), xmp_mark("http://ns.adobe.com/xap/1.0/\0", 29);
    std::span<const std::uint8_t> exif;
    std::string_view xmp;
    for (auto marker = info.marker_list; marker != nullptr; marker = marker->next) {
      const std::string_view text(reinterpret_cast<const char*>(marker->data), marker->data_length);
      if (text.starts_with(exif_mark) && exif.empty()) exif = {marker->data, marker->data_length};
      if (text.starts_with(xmp_mark)) xmp = text.substr(xmp_mark.size());
    }
    *orientation = detail::exif_orientation(exif, detail::xmp_orientation(xmp));
  }

  Image image(info.image_height, info.image_width);
  const bool cmyk = info.num_components == 4;
  std::vector<std::uint8_t> row_of_four(cmyk ? static_cast<std::size_t>(image.width * 4) : 0);
  const bool body = detail::jpeg_guarded(reader, [&] {
    info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(&info);
    while (info.output_scanline < info.output_height) {
      std::uint8_t* out = image.at(static_cast<Index>(info.output_scanline), 0);
      JSAMPROW row = cmyk ? row_of_four.data() : out;
      jpeg_read_scanlines(&info, &row, 1);
      if (!cmyk) continue;
      for (Index x = 0; x < image.width; ++x)
        for (Index c = 0; c < 3; ++c) out[x * 3 + c] = detail::cmyk_channel(row[x * 4 + c], row[x * 4 + 3]);
    }
  });
  if (!body) stop(reader.message);
  if (reader.ended && jpeg_has_multiple_scans(&info)) stop("the data ends early");
  return image;
}

}  // namespace tenon::inline TENON_ABI
