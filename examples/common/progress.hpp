#pragma once
// Progress on stderr: a bar with the time left on a terminal, a plain line every 5 % elsewhere.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include <sys/ioctl.h>
#include <unistd.h>

namespace tenon::examples {

/// `95` seconds as `1:35`, from an hour on `1:02:03`.
inline std::string clock_text(double seconds) {
  const long total = static_cast<long>(std::max(0.0, seconds) + 0.5);
  char text[32];
  if (total >= 3600)
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60, total % 60);
  else
    std::snprintf(text, sizeof text, "%ld:%02ld", total / 60, total % 60);
  return text;
}

class Progress {
 public:
  /// `done` of `total` steps are behind us already, as when training resumes.
  Progress(std::string name, std::int64_t total, std::int64_t done = 0, std::FILE* out = stderr)
      : name_(std::move(name)), total_(std::max<std::int64_t>(total, 1)), first_(done), done_(done), out_(out), terminal_(::isatty(::fileno(out)) != 0) {
    next_line_ = done_ * 20 / total_ + 1;
    if (terminal_) draw();
  }
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Shows that `done` steps are behind us, and a word about how it goes. Cheap: draws at most ten times a second.
  void update(std::int64_t done, std::string word = {}) {
    done_ = done;
    word_ = std::move(word);
    if (terminal_) {
      if (Clock::now() - drawn_ >= std::chrono::milliseconds(100)) draw();
    } else if (done_ * 20 / total_ >= next_line_) {
      next_line_ = done_ * 20 / total_ + 1;
      std::fprintf(out_, "%s\n", line(true).c_str());
    }
  }
  /// A line of its own, above the bar.
  void note(const std::string& text) {
    std::fprintf(out_, terminal_ ? "\r\033[K%s\n" : "%s\n", text.c_str());
    if (terminal_) draw();
  }
  /// The last state, and the end of the bar.
  void finish() {
    if (finished_) return;
    finished_ = true;
    if (!terminal_) return;
    draw();
    std::fputc('\n', out_);
  }

 private:
  using Clock = std::chrono::steady_clock;

  /// `training  45 %  1:23 left  loss 2.1`
  std::string line(bool counts) const {
    const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
    const std::int64_t fresh = done_ - first_;
    std::string text = name_ + ' ' + std::to_string(done_ * 100 / total_) + " %";
    if (counts) text += " (" + std::to_string(done_) + " of " + std::to_string(total_) + ')';
    if (done_ >= total_)
      text += "  " + clock_text(elapsed);
    else if (fresh > 0)
      text += "  " + clock_text(elapsed / static_cast<double>(fresh) * static_cast<double>(total_ - done_)) + " left";
    return word_.empty() ? text : text + "  " + word_;
  }

  void draw() {
    drawn_ = Clock::now();
    ::winsize size{};
    const std::size_t columns = ::ioctl(::fileno(out_), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
    std::string text = line(false);
    if (text.size() + 14 < columns) {
      const std::size_t width = std::min<std::size_t>(columns - text.size() - 5, 40);
      const auto full = static_cast<std::size_t>(std::clamp<std::int64_t>(done_, 0, total_) * static_cast<std::int64_t>(width) / total_);
      text = '[' + std::string(full, '=') + std::string(width - full, ' ') + "] " + text;
    }
    std::fprintf(out_, "\r\033[K%.*s", static_cast<int>(columns - 1), text.c_str());
    std::fflush(out_);
  }

  std::string name_, word_;
  std::int64_t total_, first_, done_, next_line_ = 0;
  std::FILE* out_;
  bool terminal_, finished_ = false;
  Clock::time_point start_ = Clock::now(), drawn_{};
};

/// Progress that is shown only of what takes more than a second.
class LateProgress {
 public:
  LateProgress(std::string name, std::int64_t total) : name_(std::move(name)), total_(total) {}
  void add(std::int64_t n) {
    done_ += n;
    if (!shown_ && done_ < total_ && std::chrono::steady_clock::now() - start_ > std::chrono::seconds(1)) shown_.emplace(name_, total_, done_);
    if (shown_) shown_->update(done_);
  }

 private:
  std::string name_;
  std::int64_t total_, done_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::optional<Progress> shown_;
};

}  // namespace tenon::examples
