#pragma once
// Pickles, read as plain data: no name in a pickle is ever looked up or called (Python's pickletools.py documents the format).
//
// What a pickle would build by calling something stays an inert `call` node: the callee's name and its arguments. Names
// outside the families that checkpoints are made of are an error, so a pickle that would run `os.system` is refused.
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <unordered_map>
#include <vector>

#include <tenon/core/error.hpp>

namespace tenon::inline TENON_ABI {

/// The objects of a pickle as a table; nodes refer to each other by index, so shared and cyclic objects are harmless.
class Pickle {
 public:
  enum class Kind : std::uint8_t {
    none,
    boolean,     // number
    integer,     // number
    real,        // nothing kept
    text,        // text
    sequence,    // items: a list, tuple or set
    dictionary,  // items: key, value, key, value...
    global,      // text: "module name"
    persistent,  // items: the id
    call,        // items: callee, arguments, then the states given to it
    mark
  };
  using Id = std::uint32_t;
  struct Node {
    Kind kind = Kind::none;
    std::int64_t number = 0;
    std::string text{};
    std::vector<Id> items{};
  };

  static constexpr std::size_t max_nodes = 4'000'000;

  /// Throws FileError on anything but one whole pickle of protocol 0 to 5 with allowed names. `file` stands in errors.
  static Pickle parse(std::span<const std::byte> bytes, const std::string& file) {
    Pickle out;
    out.run(bytes, file);
    return out;
  }

  Id root() const { return root_; }
  const Node& operator[](Id id) const { return nodes_[id]; }
  /// The text of a text or global node, else nothing.
  std::string_view text(Id id) const { return nodes_[id].text; }
  /// The value under `key`, or null, in a dictionary; null for other nodes.
  const Id* find(Id dictionary, std::string_view key) const {
    const Node& node = nodes_[dictionary];
    if (node.kind != Kind::dictionary) return nullptr;
    for (std::size_t i = 0; i + 1 < node.items.size(); i += 2)
      if (nodes_[node.items[i]].kind == Kind::text && nodes_[node.items[i]].text == key) return &node.items[i + 1];
    return nullptr;
  }

 private:
  static bool allowed(std::string_view module, std::string_view name) {
    constexpr std::array<std::string_view, 13> families{"torch", "numpy", "collections", "pytorch_lightning", "lightning", "lightning_fabric",
                                                        "omegaconf", "transformers", "diffusers", "ldm", "argparse", "typing", "__torch__"};
    for (std::string_view family : families)
      if (module == family || (module.starts_with(family) && module[family.size()] == '.')) return true;
    if (module == "builtins" || module == "__builtin__")
      for (std::string_view type : {"set", "frozenset", "dict", "list", "tuple", "int", "float", "bool", "str", "bytes", "bytearray",
                                    "complex", "slice", "object"})
        if (name == type) return true;
    return (module == "_codecs" && name == "encode") || (module == "pathlib" && name.find("Path") != name.npos);
  }

  void run(std::span<const std::byte> bytes, const std::string& file) {
    std::size_t at = 0;
    const auto expect = [&](bool condition, const auto&... what) {
      check<FileError>(condition, "pickle", file, ": byte ", at, ": ", what...);
    };
    std::vector<Id> stack;
    std::unordered_map<std::uint64_t, Id> memo;
    const auto take = [&](std::size_t count) {
      expect(bytes.size() - at >= count, "the pickle ends too early");
      const std::span<const std::byte> part = bytes.subspan(at, count);
      at += count;
      return part;
    };
    const auto number = [&](std::size_t size) {
      std::uint64_t value = 0;
      const auto part = take(size);
      for (std::size_t i = 0; i < size; ++i) value |= std::uint64_t{std::to_integer<std::uint8_t>(part[i])} << (8 * i);
      return value;
    };
    const auto chars = [&](std::uint64_t size) {
      expect(size <= bytes.size() - at, "the pickle ends too early");
      const auto part = take(static_cast<std::size_t>(size));
      return std::string(reinterpret_cast<const char*>(part.data()), part.size());
    };
    const auto line = [&] {
      std::size_t end = at;
      while (end < bytes.size() && bytes[end] != std::byte{'\n'}) ++end;
      std::string out = chars(end - at);
      take(1);
      return out;
    };
    const auto push = [&](Node node) {
      expect(nodes_.size() < max_nodes, "expected at most ", max_nodes, " objects");
      nodes_.push_back(std::move(node));
      stack.push_back(static_cast<Id>(nodes_.size() - 1));
    };
    const auto pop = [&] {
      expect(!stack.empty() && nodes_[stack.back()].kind != Kind::mark, "expected an object on the stack");
      const Id id = stack.back();
      stack.pop_back();
      return id;
    };
    const auto pop_mark = [&] {
      std::size_t begin = stack.size();
      while (begin > 0 && nodes_[stack[begin - 1]].kind != Kind::mark) --begin;
      expect(begin > 0, "expected a mark on the stack");
      std::vector<Id> items(stack.begin() + static_cast<std::ptrdiff_t>(begin), stack.end());
      stack.resize(begin - 1);
      return items;
    };
    const auto global = [&](const std::string& module, const std::string& name) {
      expect(allowed(module, name), "refers to ", module, '.', name, ", which no checkpoint needs: refused");
      push({.kind = Kind::global, .text = module + ' ' + name});
    };
    /// A call of a dictionary type without arguments is the dictionary itself.
    const auto call = [&](Id callee, std::vector<Id> arguments) {
      const bool dictionary = nodes_[callee].kind == Kind::global &&
                              (nodes_[callee].text == "collections OrderedDict" || nodes_[callee].text == "collections defaultdict" ||
                               nodes_[callee].text == "builtins dict");
      if (dictionary) return push({.kind = Kind::dictionary});
      arguments.insert(arguments.begin(), callee);
      push({.kind = Kind::call, .items = std::move(arguments)});
    };
    const auto append_all = [&](std::vector<Id> items) {
      expect(!stack.empty(), "expected an object on the stack");
      Node& target = nodes_[stack.back()];
      if (target.kind == Kind::call) return;  // elements of an inert object
      expect(target.kind == Kind::sequence, "expected a list on the stack");
      target.items.insert(target.items.end(), items.begin(), items.end());
    };
    const auto set_all = [&](const std::vector<Id>& items) {
      expect(!stack.empty() && items.size() % 2 == 0, "expected keys and values");
      Node& target = nodes_[stack.back()];
      if (target.kind == Kind::call) return;
      expect(target.kind == Kind::dictionary, "expected a dictionary on the stack");
      target.items.insert(target.items.end(), items.begin(), items.end());
    };

    while (true) {
      const auto opcode = static_cast<char>(number(1));
      switch (opcode) {
        case '\x80': expect(number(1) <= 5, "expected protocol 0 to 5"); break;                     // PROTO
        case '\x95': take(8); break;                                                               // FRAME
        case '(': push({.kind = Kind::mark}); break;                                               // MARK
        case 'N': push({}); break;                                                                 // NONE
        case '\x88': push({.kind = Kind::boolean, .number = 1}); break;                            // NEWTRUE
        case '\x89': push({.kind = Kind::boolean}); break;                                         // NEWFALSE
        case 'K': push({.kind = Kind::integer, .number = static_cast<std::int64_t>(number(1))}); break;  // BININT1
        case 'M': push({.kind = Kind::integer, .number = static_cast<std::int64_t>(number(2))}); break;  // BININT2
        case 'J': push({.kind = Kind::integer, .number = static_cast<std::int32_t>(number(4))}); break;  // BININT
        case '\x8a': {                                                                             // LONG1
          const auto size = number(1);
          expect(size <= 8, "expected an integer of at most 64 bits");
          auto value = number(static_cast<std::size_t>(size));
          if (size > 0 && size < 8 && ((value >> (8 * size - 1)) & 1u) != 0) value |= ~std::uint64_t{0} << (8 * size);
          push({.kind = Kind::integer, .number = static_cast<std::int64_t>(value)});
          break;
        }
        case 'G': take(8); push({.kind = Kind::real}); break;                                      // BINFLOAT
        case 'F': line(); push({.kind = Kind::real}); break;                                       // FLOAT
        case 'I': case 'L': {                                                                      // INT, LONG
          const std::string digits = line();
          push({.kind = Kind::integer, .number = std::strtoll(digits.c_str(), nullptr, 10)});
          break;
        }
        case 'X': case 'T': case 'B': push({.kind = Kind::text, .text = chars(number(4))}); break;  // BINUNICODE, BINSTRING, BINBYTES
        case '\x8c': case 'U': case 'C': push({.kind = Kind::text, .text = chars(number(1))}); break;  // the SHORT_ forms
        case '\x8d': case '\x8e': case '\x96': push({.kind = Kind::text, .text = chars(number(8))}); break;  // the 8-byte forms
        case 'V': case 'S': push({.kind = Kind::text, .text = line()}); break;                     // UNICODE, STRING
        case '}': push({.kind = Kind::dictionary}); break;                                         // EMPTY_DICT
        case ']': case ')': case '\x8f': push({.kind = Kind::sequence}); break;                    // EMPTY_LIST, _TUPLE, _SET
        case 'd': { auto items = pop_mark(); push({.kind = Kind::dictionary}); set_all(items); break; }       // DICT
        case 't': case 'l': case '\x91': {                                                                      // TUPLE, LIST, FROZENSET
          auto items = pop_mark();
          push({.kind = Kind::sequence, .items = std::move(items)});
          break;
        }
        case '\x85': case '\x86': case '\x87': {                                                   // TUPLE1, 2, 3
          std::vector<Id> items(static_cast<std::size_t>(static_cast<unsigned char>(opcode) - 0x84));
          for (auto item = items.rbegin(); item != items.rend(); ++item) *item = pop();
          push({.kind = Kind::sequence, .items = std::move(items)});
          break;
        }
        case 'a': { const Id item = pop(); append_all({item}); break; }                            // APPEND
        case 'e': case '\x90': append_all(pop_mark()); break;                                      // APPENDS, ADDITEMS
        case 's': { const Id value = pop(), key = pop(); set_all({key, value}); break; }           // SETITEM
        case 'u': set_all(pop_mark()); break;                                                      // SETITEMS
        case 'c': { const std::string module = line(); global(module, line()); break; }            // GLOBAL
        case '\x93': {                                                                             // STACK_GLOBAL
          const Id name = pop(), module = pop();
          expect(nodes_[name].kind == Kind::text && nodes_[module].kind == Kind::text, "expected two names");
          global(std::string(nodes_[module].text), std::string(nodes_[name].text));
          break;
        }
        case 'P': push({.kind = Kind::text, .text = line()}); [[fallthrough]];                     // PERSID
        case 'Q': { const Id id = pop(); push({.kind = Kind::persistent, .items = {id}}); break; }  // BINPERSID
        case 'R': case '\x81': { const Id arguments = pop(); call(pop(), {arguments}); break; }    // REDUCE, NEWOBJ
        case '\x92': { const Id keywords = pop(), arguments = pop(); call(pop(), {arguments, keywords}); break; }  // NEWOBJ_EX
        case 'b': {                                                                                // BUILD
          const Id state = pop();
          expect(!stack.empty(), "expected an object on the stack");
          if (nodes_[stack.back()].kind == Kind::call) nodes_[stack.back()].items.push_back(state);
          break;
        }
        case 'q': memo[number(1)] = stack.empty() ? 0 : stack.back(); expect(!stack.empty(), "nothing to remember"); break;  // BINPUT
        case 'r': memo[number(4)] = stack.empty() ? 0 : stack.back(); expect(!stack.empty(), "nothing to remember"); break;  // LONG_BINPUT
        case '\x94': expect(!stack.empty(), "nothing to remember"); memo[memo.size()] = stack.back(); break;  // MEMOIZE
        case 'h': case 'j': {                                                                      // BINGET, LONG_BINGET
          const auto found = memo.find(number(opcode == 'h' ? 1 : 4));
          expect(found != memo.end(), "expected a remembered object");
          stack.push_back(found->second);
          expect(stack.size() <= max_nodes, "expected at most ", max_nodes, " objects");
          break;
        }
        case '0': pop(); break;                                                                    // POP
        case '1': pop_mark(); break;                                                               // POP_MARK
        case '2': expect(!stack.empty(), "expected an object on the stack"); stack.push_back(stack.back()); break;  // DUP
        case '.': root_ = pop(); return;                                                           // STOP
        default: --at; expect(false, "opcode ", static_cast<int>(static_cast<unsigned char>(opcode)), " is not read");
      }
    }
  }

  std::vector<Node> nodes_;
  Id root_ = 0;
};

}  // namespace tenon::inline TENON_ABI
