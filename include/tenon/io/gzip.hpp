#pragma once
// gzip files (RFC 1952) read whole: the deflate format (RFC 1951), checked to its last byte, without a library.
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <tenon/core/error.hpp>

namespace tenon::inline TENON_ABI {

namespace detail {

/// Canonical Huffman codes of at most 15 bits, decoded bit by bit from counts and sorted symbols.
struct HuffmanCode {
  std::array<std::uint16_t, 16> count{};
  std::array<std::uint16_t, 288> symbol{};

  /// False when the lengths ask for more codes than there are.
  bool assign(std::span<const std::uint8_t> lengths) {
    count = {};
    for (const auto length : lengths) ++count[length];
    count[0] = 0;
    std::array<std::uint16_t, 16> next{};
    int left = 1;
    for (std::size_t length = 1; length < 16; ++length) {
      left = 2 * left - count[length];
      if (left < 0) return false;
      if (length < 15) next[length + 1] = static_cast<std::uint16_t>(next[length] + count[length]);
    }
    for (std::size_t i = 0; i < lengths.size(); ++i)
      if (lengths[i] != 0) symbol[next[lengths[i]]++] = static_cast<std::uint16_t>(i);
    return true;
  }
};

/// One run over a gzip file's bytes.
class Inflate {
 public:
  Inflate(std::string_view bytes, std::size_t limit, std::string_view name) : bytes_(bytes), limit_(limit), name_(name) {}

  std::string file() {
    do member();
    while (at_ < bytes_.size());
    return std::move(out_);
  }

 private:
  [[noreturn]] void stop(std::string_view what) const { fail<FileError>("gunzip", name_, ": byte ", at_, " of ", bytes_.size(), ": ", what); }
  unsigned byte() {
    if (at_ == bytes_.size()) stop("the data ends early");
    return static_cast<unsigned char>(bytes_[at_++]);
  }
  std::uint32_t number(int count) {
    std::uint32_t value = 0;
    for (int i = 0; i < count; ++i) value |= byte() << 8 * i;
    return value;
  }
  unsigned bits(unsigned count) {
    while (held_ < count) {
      buffer_ |= byte() << held_;
      held_ += 8;
    }
    const unsigned value = buffer_ & ((1u << count) - 1u);
    buffer_ >>= count;
    held_ -= count;
    return value;
  }
  void put(char c) {
    if (out_.size() == limit_) fail<FileError>("gunzip", name_, ": expected at most ", limit_, " bytes when unpacked");
    out_ += c;
  }
  unsigned symbol(const HuffmanCode& code) {
    int value = 0, first = 0, index = 0;
    for (std::size_t length = 1; length < 16; ++length) {
      value |= static_cast<int>(bits(1));
      const int count = code.count[length];
      if (value - first < count) return code.symbol[static_cast<std::size_t>(index + value - first)];
      index += count;
      first = 2 * (first + count);
      value *= 2;
    }
    stop("a code that is not in its table");
  }

  void member() {
    const std::size_t start = out_.size();
    if (number(2) != 0x8b1f || byte() != 8) stop("expected a gzip file");
    const unsigned flags = byte();
    number(4);  // when, how and where it was packed
    number(2);
    if (flags & 0xe0u) stop("unknown flags");
    if (flags & 4u)
      for (std::uint32_t rest = number(2); rest > 0; --rest) byte();
    for (const unsigned text : {8u, 16u})  // a name, a comment
      if (flags & text)
        while (byte() != 0) {}
    if (flags & 2u) number(2);
    bool last = false;
    while (!last) {
      last = bits(1) != 0;
      const unsigned kind = bits(2);
      if (kind == 0)
        stored();
      else if (kind == 1)
        fixed();
      else if (kind == 2)
        dynamic();
      else
        stop("a block of an unknown kind");
    }
    held_ = buffer_ = 0;  // what is left of the last byte
    std::uint32_t sum = ~0u;
    for (std::size_t i = start; i < out_.size(); ++i) {
      sum ^= static_cast<unsigned char>(out_[i]);
      for (int k = 0; k < 8; ++k) sum = sum >> 1 ^ (sum & 1 ? 0xedb88320u : 0u);
    }
    if (number(4) != ~sum || number(4) != static_cast<std::uint32_t>(out_.size() - start)) stop("the checksum does not fit the data");
  }
  void stored() {
    held_ = buffer_ = 0;
    const std::uint32_t size = number(2);
    if (number(2) != (size ^ 0xffffu)) stop("a stored block whose two lengths differ");
    for (std::uint32_t i = 0; i < size; ++i) put(static_cast<char>(byte()));
  }
  void fixed() {
    std::array<std::uint8_t, 288> lengths{};
    for (std::size_t i = 0; i < 288; ++i) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    HuffmanCode literals, distances;
    literals.assign(lengths);
    distances.assign(std::array<std::uint8_t, 30>{5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5});
    block(literals, distances);
  }
  void dynamic() {
    constexpr std::array<std::uint8_t, 19> order{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    const std::size_t literal_count = bits(5) + 257, distance_count = bits(5) + 1, length_count = bits(4) + 4;
    if (literal_count > 286 || distance_count > 30) stop("a table of too many codes");
    std::array<std::uint8_t, 320> lengths{};
    for (std::size_t i = 0; i < length_count; ++i) lengths[order[i]] = static_cast<std::uint8_t>(bits(3));
    HuffmanCode code;
    if (!code.assign(std::span(lengths).first(19))) stop("a table of too many codes");
    lengths = {};
    for (std::size_t i = 0; i < literal_count + distance_count;) {
      const unsigned found = symbol(code);
      if (found < 16) {
        lengths[i++] = static_cast<std::uint8_t>(found);
        continue;
      }
      if (found == 16 && i == 0) stop("a repetition of nothing");
      const std::uint8_t again = found == 16 ? lengths[i - 1] : std::uint8_t{0};
      const std::size_t times = found == 16 ? 3 + bits(2) : found == 17 ? 3 + bits(3) : 11 + bits(7);
      if (i + times > literal_count + distance_count) stop("a table of too many codes");
      for (std::size_t k = 0; k < times; ++k) lengths[i++] = again;
    }
    HuffmanCode literals, distances;
    if (!literals.assign(std::span(lengths).first(literal_count)) || !distances.assign(std::span(lengths).subspan(literal_count, distance_count)))
      stop("a table of too many codes");
    block(literals, distances);
  }
  void block(const HuffmanCode& literals, const HuffmanCode& distances) {
    while (true) {
      const unsigned found = symbol(literals);
      if (found < 256) {
        put(static_cast<char>(found));
        continue;
      }
      if (found == 256) return;
      if (found > 285) stop("a length that does not exist");
      // lengths: eight of no extra bits, then four for each number of extra bits; distances the same by twos
      const unsigned l = found - 257, length_bits = l < 8 || l == 28 ? 0 : l / 4 - 1;
      const std::size_t length = l == 28 ? 258 : l < 8 ? 3 + l : 3 + ((4 + l % 4) << length_bits) + bits(length_bits);
      const unsigned d = symbol(distances);
      if (d > 29) stop("a distance that does not exist");
      const unsigned distance_bits = d < 4 ? 0 : d / 2 - 1;
      const std::size_t distance = d < 4 ? 1 + d : 1 + ((2 + d % 2) << distance_bits) + bits(distance_bits);
      if (distance > out_.size()) stop("a distance before the beginning");
      for (std::size_t i = 0; i < length; ++i) put(out_[out_.size() - distance]);
    }
  }

  std::string_view bytes_;
  std::size_t limit_;
  std::string_view name_;
  std::size_t at_ = 0;
  unsigned buffer_ = 0, held_ = 0;
  std::string out_;
};

}  // namespace detail

/// What a gzip file's bytes unpack to, at most `limit` bytes. `name` stands in messages. Throws FileError on anything but a
/// whole file whose checksum fits.
inline std::string gunzip(std::string_view bytes, std::size_t limit, std::string_view name) { return detail::Inflate(bytes, limit, name).file(); }

}  // namespace tenon::inline TENON_ABI
