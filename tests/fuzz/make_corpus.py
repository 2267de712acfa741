"""Writes corpus/tokenizer/small: vocab.json, a zero byte, merges.txt. The other targets begin from tests/golden."""
import json
import pathlib

kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
letters = [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]
merges = [("h", "o"), ("r", "s"), ("ho", "rs"), ("hors", "e</w>")]
tokens = letters + [c + "</w>" for c in letters] + [a + b for a, b in merges] + ["<|startoftext|>", "<|endoftext|>"]
text = json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False) + "\0#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)
(pathlib.Path(__file__).parent / "corpus/tokenizer/small").write_bytes(text.encode())
