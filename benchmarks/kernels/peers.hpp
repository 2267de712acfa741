#pragma once
// torch and OpenVINO in a Python process of their own (peers.py), timed in turn with the others.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "../rows.hpp"

namespace tenon_benchmark {

class Peers {
 public:
  /// Starts `python script threads`. Without a Python, or where it cannot import a peer, there are none.
  Peers(const std::string& python, const std::string& script, int threads) {
    if (python.empty()) return;
    int to[2], from[2];
    if (pipe(to) != 0 || pipe(from) != 0) return;
    child_ = fork();
    if (child_ == 0) {
      dup2(to[0], 0);
      dup2(from[1], 1);
      for (int end : {to[0], to[1], from[0], from[1]}) close(end);
      execlp(python.c_str(), python.c_str(), script.c_str(), std::to_string(threads).c_str(), static_cast<char*>(nullptr));
      std::perror(python.c_str());
      _exit(1);
    }
    std::signal(SIGPIPE, SIG_IGN);  // a Python that ends early is one that has no peers
    close(to[0]);
    close(from[1]);
    to_ = fdopen(to[1], "w");
    from_ = fdopen(from[0], "r");
    const std::string ready = answer();
    std::istringstream(ready) >> torch_ >> torch_ >> openvino_;
    std::printf("Python: torch %s, OpenVINO %s\n", torch_.empty() ? "-" : torch_.c_str(), openvino_.empty() ? "-" : openvino_.c_str());
    char folder[] = "/tmp/tenon-peers-XXXXXX";
    if (ready.empty() || mkdtemp(folder) == nullptr) return;
    folder_ = folder;
  }
  ~Peers() {
    if (to_ != nullptr) std::fclose(to_);
    if (from_ != nullptr) std::fclose(from_);
    if (child_ > 0) waitpid(child_, nullptr, 0);
    for (int i = 0; i < 4 && !folder_.empty(); ++i) std::remove(file(i).c_str());
    if (!folder_.empty()) rmdir(folder_.c_str());
  }
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  /// Adds the peers that can do `problem` ("gemm 2 3 4") on the inputs to the rivals.
  void add(std::vector<Rival>& rivals, const std::string& problem, const std::vector<const Floats*>& inputs) {
    names_.clear();
    if (folder_.empty()) return;
    std::string line = problem;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      std::ofstream(file(static_cast<int>(i)), std::ios::binary).write(reinterpret_cast<const char*>(inputs[i]->data()), inputs[i]->size() * 4);
      line += " " + file(static_cast<int>(i));
    }
    std::istringstream names(ask(line));
    for (std::string name; names >> name; names_.push_back(name)) {
      const std::size_t colon = name.find(':');
      Rival rival{problem.substr(0, problem.find(' ')), name.substr(colon + 1), name.substr(0, colon), {}, nullptr};
      rival.timed = [this, at = names_.size()] { return std::atof(ask("run " + std::to_string(at)).c_str()); };
      rivals.push_back(std::move(rival));
    }
  }
  /// The results of the rivals that `add` appended last, `count` elements each; they live until the next call.
  void results(std::vector<Rival>& rivals, Index count) {
    results_.clear();
    const std::size_t first = rivals.size() - names_.size();
    for (std::size_t i = 0; i < names_.size(); ++i) {
      ask("result " + std::to_string(i) + " " + file(3));
      results_.emplace_back(count);
      std::ifstream(file(3), std::ios::binary).read(reinterpret_cast<char*>(results_.back().data()), count * 4);
      rivals[first + i].result = results_.back().data();
    }
  }

 private:
  std::string file(int i) const { return folder_ + "/" + std::to_string(i); }
  std::string answer() {
    char text[256];
    if (std::fgets(text, sizeof text, from_) == nullptr) return {};
    std::string out = text;
    while (!out.empty() && out.back() == '\n') out.pop_back();
    return out;
  }
  std::string ask(const std::string& line) {
    std::fprintf(to_, "%s\n", line.c_str());
    std::fflush(to_);
    return answer();
  }

  pid_t child_ = 0;
  std::FILE *to_ = nullptr, *from_ = nullptr;
  std::string folder_, torch_, openvino_;
  std::vector<std::string> names_;
  std::vector<Floats> results_;
};

}  // namespace tenon_benchmark
