#pragma once
// Errors are exceptions whose text reads `[op] what was expected, what came, where`.
#include <concepts>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

#include <tenon/core/config.hpp>

namespace tenon::inline TENON_ABI {

/// Base of everything tenon throws on a user's or a file's mistake.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Shapes, ranks or axes that do not fit the operation.
struct ShapeError : Error {
  using Error::Error;
};
/// A file that cannot be read or written, or whose contents break its format's rules.
struct FileError : Error {
  using Error::Error;
};
/// A parameter, site, adapter, or option name that does not exist or exists twice.
struct NameError : Error {
  using Error::Error;
};
/// Misuse of the gradient graph: a second backward, a value that moved under a checkpoint.
struct GraphError : Error {
  using Error::Error;
};
/// Training that produced non-finite numbers for too many steps in a row.
struct NumericError : Error {
  using Error::Error;
};

namespace detail {
/// A part of a text, by reference and without its type, so that the writing is compiled once.
class TextPart {
 public:
  TextPart(std::string_view text) : data_(text.data()), size_(text.size()) {}
  TextPart(const char* text) : TextPart(std::string_view(text)) {}
  TextPart(const std::string& text) : TextPart(std::string_view(text)) {}
  TextPart(const char& c) : data_(&c), size_(1) {}
  template <std::same_as<bool> B>
  TextPart(const B& b) : TextPart(std::string_view(b ? "true" : "false")) {}
  template <class T>
    requires(std::integral<T> && !std::same_as<T, char> && !std::same_as<T, bool>) || std::floating_point<T>
  TextPart(const T& number) : data_(&number), write_([](std::string& out, const void* at) { out += std::to_string(*static_cast<const T*>(at)); }) {}
  template <class T>
    requires requires(const T& t) {
      { t.text() } -> std::convertible_to<std::string_view>;
    }
  TextPart(const T& value) : data_(&value), write_([](std::string& out, const void* at) { out += static_cast<const T*>(at)->text(); }) {}

  void append_to(std::string& out) const {
    if (write_ != nullptr) return write_(out, data_);
    out.append(static_cast<const char*>(data_), size_);
  }

 private:
  const void* data_;
  std::size_t size_ = 0;
  void (*write_)(std::string&, const void*) = nullptr;
};

inline std::string joined(std::initializer_list<TextPart> parts) {
  std::string out;
  for (const TextPart& part : parts) part.append_to(out);
  return out;
}
template <class E>
[[noreturn]] TENON_COLD void throw_error(std::initializer_list<TextPart> parts) {
  throw E(joined(parts));
}
}  // namespace detail

/// The parts joined: strings, numbers, and anything with a `text()` member.
template <class... Parts>
std::string join_text(const Parts&... parts) {
  return detail::joined({detail::TextPart(parts)...});
}

/// Throws `E` with the text `[op] parts...`.
template <class E = Error, class... Parts>
[[noreturn]] TENON_COLD void fail(std::string_view op, const Parts&... parts) {
  detail::throw_error<E>({"[", op, "] ", detail::TextPart(parts)...});
}

/// Throws `E` with the text `[op] parts...` unless `condition` holds; the text is built only then.
template <class E = Error, class... Parts>
void check(bool condition, std::string_view op, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail<E>(op, parts...);
}

}  // namespace tenon::inline TENON_ABI
