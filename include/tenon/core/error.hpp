#pragma once
// Errors are exceptions whose text reads `[op] what was expected, what came, where`.
#include <concepts>
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
inline void append(std::string& out, std::string_view text) { out += text; }
inline void append(std::string& out, char c) { out += c; }
template <std::same_as<bool> B>
void append(std::string& out, B b) {
  out += b ? "true" : "false";
}
template <class T>
  requires(std::integral<T> && !std::same_as<T, char> && !std::same_as<T, bool>) || std::floating_point<T>
void append(std::string& out, T number) {
  out += std::to_string(number);
}
template <class T>
  requires requires(const T& t) {
    { t.text() } -> std::convertible_to<std::string_view>;
  }
void append(std::string& out, const T& value) {
  out += value.text();
}
}  // namespace detail

/// The parts joined: strings, numbers, and anything with a `text()` member.
template <class... Parts>
std::string join_text(const Parts&... parts) {
  std::string out;
  (detail::append(out, parts), ...);
  return out;
}

/// Throws `E` with the text `[op] parts...`.
template <class E = Error, class... Parts>
[[noreturn]] void fail(std::string_view op, const Parts&... parts) {
  throw E(join_text('[', op, "] ", parts...));
}

/// Throws `E` with the text `[op] parts...` unless `condition` holds; the text is built only then.
template <class E = Error, class... Parts>
void check(bool condition, std::string_view op, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail<E>(op, parts...);
}

}  // namespace tenon::inline TENON_ABI
