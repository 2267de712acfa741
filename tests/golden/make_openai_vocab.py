"""Writes include/tenon/models/clip/openai_vocab.hpp from OpenAI's bpe_simple_vocab_16e6.txt.gz (github.com/openai/CLIP, clip/).

    python make_openai_vocab.py bpe_simple_vocab_16e6.txt.gz
"""
import gzip
import hashlib
import pathlib
import sys

packed = pathlib.Path(sys.argv[1]).read_bytes()
assert hashlib.sha256(packed).hexdigest() == "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
lines = gzip.decompress(packed).decode().split("\n")[1:48895]
merges = [tuple(line.split()) for line in lines]

printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
symbols = [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]
tokens = symbols + [s + "</w>" for s in symbols] + ["".join(m) for m in merges]
ids = {token: i for i, token in enumerate(tokens)}
assert len(merges) == 48894 and len(ids) == len(tokens) == 49406
digits = [chr(c) for c in range(35, 127) if chr(c) not in '\\?']  # printable, without quote and escape


def spell(number):
    return digits[number // len(digits) ** 2] + digits[number // len(digits) % len(digits)] + digits[number % len(digits)]


text = "".join(spell(ids[left]) + spell(ids[right]) for left, right in merges)
per_line, per_block = 19 * 6, 10000 * 6
blocks = [text[i:i + per_block] for i in range(0, len(text), per_block)]
body = ",\n".join("\n".join(f'    "{block[i:i + per_line]}"' for i in range(0, len(block), per_line)) for block in blocks)
header = f"""#pragma once
// The merges of OpenAI's CLIP tokenizer, for checkpoints that bring none. Made by tests/golden/make_openai_vocab.py from
// clip/bpe_simple_vocab_16e6.txt.gz of github.com/openai/CLIP, which is distributed under this licence:
//
// MIT License
//
// Copyright (c) 2021 OpenAI
//
// Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
// documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
// rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
// persons to whom the Software is furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
// Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
// WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
// COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
// OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
#include <string_view>

#include <tenon/models/clip/tokenizer.hpp>

namespace tenon::inline TENON_ABI {{

namespace detail {{
// Six characters a merge: the ids of its two tokens, each three digits in base {len(digits)}.
inline constexpr std::string_view openai_merge_digits[] = {{
// clang-format off
{body}
// clang-format on
}};
}}  // namespace detail

/// The 48,894 merges of OpenAI's CLIP, best first.
inline std::vector<BpeMerge> openai_merges() {{
  const auto digit = [](char c) {{ return c - '#' - (c > '?' ? 1 : 0) - (c > '\\\\' ? 1 : 0); }};
  std::vector<BpeMerge> merges;
  for (std::string_view block : detail::openai_merge_digits)
    for (std::size_t i = 0; i < block.size(); i += 6) {{
      const auto id = [&](std::size_t at) {{
        return (digit(block[at]) * {len(digits)} + digit(block[at + 1])) * {len(digits)} + digit(block[at + 2]);
      }};
      merges.push_back({{id(i), id(i + 3)}});
    }}
  return merges;
}}

/// The tokenizer of OpenAI's CLIP: 49,408 tokens, texts cleaned and padded as OpenAI's own does.
inline Tokenizer openai_tokenizer(TokenizerConfig config = {{}}) {{ return Tokenizer(openai_merges(), std::move(config)); }}

}}  // namespace tenon::inline TENON_ABI
"""
path = pathlib.Path(__file__).parents[2] / "include/tenon/models/clip/openai_vocab.hpp"
path.write_text(header)
