"""Writes tokenizer_openai.tsv and tokenizer_hugging_face.tsv: texts (UTF-8 in hexadecimal) and their ids, by rules of OpenAI's
simple_tokenizer.py (ftfy without fix_encoding) and by transformers' CLIPTokenizer. And tokenizer_added.json: the files that add
tokens to the vocabulary of examples/data/clip, texts and CLIPTokenizer's ids of them, padded to 24; tokenizer.json stands there
without its model.

    pip install ftfy regex transformers && python -P make_tokenizer.py bpe_simple_vocab_16e6.txt.gz
Made with ftfy 6.3.1, regex 2026.11.15, transformers 5.23.0.
"""
import gzip
import html
import json
import pathlib
import random
import sys
import tempfile
import unicodedata

import ftfy
import regex
from transformers import CLIPTokenizer

lines = gzip.open(sys.argv[1]).read().decode().split("\n")[1:48895]
merges = [tuple(line.split()) for line in lines]
printable = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
order = printable + [b for b in range(256) if b not in printable]
symbol = {b: chr(b) if b in printable else chr(256 + i - len(printable)) for i, b in enumerate(order)}
tokens = [symbol[b] for b in order] + [symbol[b] + "</w>" for b in order] + ["".join(m) for m in merges]
ids = {token: i for i, token in enumerate(tokens + ["<|startoftext|>", "<|endoftext|>"])}
ranks = {merge: i for i, merge in enumerate(merges)}
pattern = regex.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE)


def merge(piece):
    if piece in ("<|startoftext|>", "<|endoftext|>"):
        return [piece]
    word = [symbol[b] for b in piece.encode()]
    word[-1] += "</w>"
    while len(word) > 1:
        best = min(zip(word, word[1:]), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        joined = []
        while word:
            count = 2 if tuple(word[:2]) == best else 1
            joined.append("".join(word[:count]))
            word = word[count:]
        word = joined
    return word


def openai(text):
    text = html.unescape(html.unescape(ftfy.fix_text(text, fix_encoding=False))).strip()
    text = regex.sub(r"\s+", " ", text).strip().lower()
    return [ids[token] for piece in regex.findall(pattern, text) for token in merge(piece)]


random.seed(5)
words = ("a photo of cat Dogs DON'T you're it's 1234 x3 Σίσυφος ΟΔΥΣΣΕΥΣ ΣΑΣ'Σ İstanbul naïve Ünïcode ﬁne ＨＥＬＬＯ &amp; &lt;b&gt; &eacute &eacute; "
         "&notit; &#65; &#x1F600; &#150; &#0; &copy &amp;amp;amp;lt; &bogus; &# <br> <|endoftext|> <|startoftext|> <|ENDOFTEXT|> 日本語 한국어 🙂 "
         "👩\u200d👩\u200d👧 ½ ² Ⅷ ٣ e\u0301 “q” ‘s ’s —dash http://a.b/c_d !!! !'s ''' 's'S \u00a0 \u3000 \t \n\n \u200b \ufeff \x01 \x85 \x1c \x7f \u2028 "
         "ŉ ǅ ſ 'ſ \u212a \u212b ｶﾞ ｢x｣ ａｂｃ").split(" ")
blocks = [*range(32, 127)] * 4 + [*range(0xA0, 0x250), *range(0x370, 0x530), *range(0x2000, 0x2070), *range(0x3040, 0x3100),
                                  *range(0x1F600, 0x1F640), *range(0x300, 0x310), *range(0x2460, 0x2480), *range(0xFF00, 0xFFEF)]
characters = [chr(c) for c in blocks if unicodedata.category(chr(c)) != "Cn"]
texts = []
for i in range(1000):
    text = "".join(random.choice(words) + random.choice(["", " ", " ", "  "]) for _ in range(random.randint(0, 6)))
    if i % 3 == 0:
        text += "".join(random.choice(characters) for _ in range(random.randint(0, 8)))
    texts.append(text)

here = pathlib.Path(__file__).parent
with tempfile.TemporaryDirectory() as folder:
    (pathlib.Path(folder) / "vocab.json").write_text(json.dumps(ids))
    (pathlib.Path(folder) / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    transformers = CLIPTokenizer.from_pretrained(folder)
for name, encode in (("openai", openai), ("hugging_face", lambda text: transformers(text, add_special_tokens=False)["input_ids"])):
    rows = [text.encode().hex() + "\t" + " ".join(map(str, encode(text))) + "\n" for text in texts]
    (here / f"tokenizer_{name}.tsv").write_text("".join(rows))

shipped = here.parent.parent / "examples" / "data" / "clip"
vocabulary = json.loads((shipped / "vocab.json").read_text())
merges_text = (shipped / "merges.txt").read_text()
model = {"type": "BPE", "unk_token": "<|endoftext|>", "continuing_subword_prefix": "", "end_of_word_suffix": "</w>", "vocab": vocabulary,
         "merges": [line.split(" ") for line in merges_text.split("\n")[1:] if line]}
random.seed(6)
contents = ["<cat-toy>", "<Cat>", "sks", "cat", "é", "<A b>", " x", "!", "<pad>", "Naïve", "<|startoftext|>", "<|endoftext|>", "<s1>", "<s10>",
            "ＡＢ", "1", "'s", "e\u0301x", "🙂"]
words = contents + ["a", "photo", "CAT", "<CAT>", "E\u0301X", "  ", "\t", ".", ",", "_", "s", "sksx", "<s1", "<|ENDOFTEXT|>", "naïve", "\u3000", "!!", "x"]


def flags(content, **more):
    names = ["single_word", "lstrip", "rstrip", "normalized", "special"]
    return {"content": content} | {name: random.random() < 0.4 for name in names if random.random() < 0.6} | more


def named(tag):
    out = {}
    for key, content in (("bos_token", "<|startoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>"),
                         ("pad_token", random.choice(["<|endoftext|>", "!", "!", "<pad>"]))):
        if random.random() < 0.7:
            out[key] = random.choice([content, flags(content, **tag)])
    if random.random() < 0.3:
        out["additional_special_tokens"] = random.sample(["<x1>", "<x2>", "photo"], 2)
    return out


cases = []
for case in range(24):
    files, added, free = {}, {}, len(vocabulary)
    for content in random.sample(contents, random.randint(0, 6)):
        added[vocabulary.get(content, free)] = flags(content, lstrip=random.random() < 0.3)
        free += 0 if content in vocabulary else random.choice([1, 1, 3])
    if case % 3 == 0:
        every = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        files["tokenizer.json"] = {"version": "1.0", "added_tokens": [{"id": i} | every | added[i] for i in sorted(added)], "normalizer": None,
                                   "pre_tokenizer": None, "post_processor": None, "decoder": None}
    elif random.random() < 0.5:
        files["added_tokens.json"] = {token["content"]: i for i, token in added.items()}
    if random.random() < 0.6:
        files["special_tokens_map.json"] = named({})
    if random.random() < 0.7:
        files["tokenizer_config.json"] = named({"__type": "AddedToken"})
        if random.random() < 0.6:
            files["tokenizer_config.json"]["added_tokens_decoder"] = {str(i): token for i, token in added.items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (pathlib.Path(folder) / name).write_text(json.dumps(content | ({"model": model} if name == "tokenizer.json" else {})))
        (pathlib.Path(folder) / "vocab.json").write_text(json.dumps(vocabulary))
        (pathlib.Path(folder) / "merges.txt").write_text(merges_text)
        transformers = CLIPTokenizer.from_pretrained(folder)
    texts = ["".join(random.choice(words) + random.choice(["", " ", ""]) for _ in range(random.randint(0, 8))) for _ in range(10)]
    rows = [[text, transformers(text, padding="max_length", max_length=24, truncation=True)["input_ids"]] for text in texts]
    cases.append({"files": files, "size": len(transformers), "texts": rows})
(here / "tokenizer_added.json").write_text("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases) + "\n]\n")
