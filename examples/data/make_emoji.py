#!/usr/bin/env python3
"""Renders the emoji set again: two atlases, the table and the label font. README.md says what each file is.

Needs Pillow with raqm, and Debian's fonts-noto-color-emoji, fonts-symbola, fonts-dejavu-core and unicode-data:
    apt-get install python3-pil fonts-noto-color-emoji fonts-symbola fonts-dejavu-core unicode-data
    python3 make_emoji.py [OUTPUT_FOLDER]
"""

import hashlib
import re
import sys
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFont

FONTS = Path("/usr/share/fonts/truetype")
COLOUR_FONT = FONTS / "noto/NotoColorEmoji.ttf"
LINE_ART_FONT = FONTS / "ancient-scripts/Symbola_hint.ttf"
LABEL_FONT = FONTS / "dejavu/DejaVuSansMono.ttf"
EMOJI_TEST = Path("/usr/share/unicode/emoji/emoji-test.txt")

SIDE = 64  # pixels of one picture
COLUMNS = 40  # pictures in one row of an atlas
HELD_OUT_SHARE = 0.15
NEAR = 14.0  # two pictures whose root mean square difference (grey levels) is below this are the same picture
LABEL_SIZE = (6, 12)  # pixels of one letter

SKIN_TONES = range(0x1F3FB, 0x1F400)
REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)
JOINER, PRESENTATION = 0x200D, 0xFE0F
NOTHING_NEW = {JOINER, PRESENTATION, 0x2640, 0x2642}  # joiners and the signs of gender
FAMILIES = {0x1F46A, 0x1F46B, 0x1F46C, 0x1F46D, 0x1F48F, 0x1F491}  # family, couples
PEOPLE = {0x1F466, 0x1F467, 0x1F468, 0x1F469, 0x1F474, 0x1F475, 0x1F9D1, 0x1F9D2, 0x1F9D3}  # boy ... older person
# Characters of their own that Unicode calls another gender, or another make, of the same: one key for each row.
SAME = [
    (0x1F478, 0x1F934, 0x1FAC5),  # princess, prince, person with crown
    (0x1F385, 0x1F936, 0x1F384),  # Santa Claus, Mrs. Claus, mx claus (person + Christmas tree)
    (0x1F57A, 0x1F483),  # man dancing, woman dancing
    (0x1FAC3, 0x1F930, 0x1FAC4),  # pregnant man, woman, person
    tuple(range(0x1F550, 0x1F568)),  # the clock faces: only the hands differ
]


def read_emoji_test(text):
    """-> [(code points, name, group, subgroup)], fully-qualified only, without skin tones, components and country flags."""
    emoji, group, subgroup = [], "", ""
    for line in text.splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ").strip()
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ").strip()
        elif match := re.match(r"([0-9A-F ]+?)\s*; fully-qualified\s*# \S+ E[\d.]+ (.+)", line):
            code_points = tuple(int(c, 16) for c in match[1].split())
            left_out = group == "Component" or any(c in SKIN_TONES or c in REGIONAL_INDICATORS for c in code_points)
            if not left_out:
                emoji.append((code_points, match[2].strip(), group, subgroup))
    return emoji


def key_of(code_points):
    """What is left of a character when gender and age are taken away: one key, one side of the split."""
    parts = [c for c in code_points if c not in NOTHING_NEW]
    people = [c for c in parts if c in PEOPLE]
    rest = [c for c in parts if c not in PEOPLE]
    if len(people) > 1 or FAMILIES.intersection(rest):
        return ("family",)
    if not rest:
        return ("person",) if people else code_points
    for row, members in enumerate(SAME):
        if any(c in members for c in rest):
            return (f"row {row}",)
    return tuple(rest)


def render_colour(font, text):
    """-> RGB picture on white; the font's 136x128 bitmaps, scaled down. Levels are multiples of 4: PNG holds that in less."""
    if font.getlength(text) != font.getlength("\U0001F600"):
        raise SystemExit(f"{text}: not one glyph; the font or Pillow's raqm is missing")
    left, top, right, bottom = font.getbbox(text)
    side = max(right - left, bottom - top)
    canvas = Image.new("RGB", (side, side), "white")
    at = ((side - (right - left)) // 2 - left, (side - (bottom - top)) // 2 - top)
    ImageDraw.Draw(canvas).text(at, text, font=font, embedded_color=True)
    small = canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return small.point(lambda v: min(255, (v + 2) // 4 * 4 if v < 254 else 255))


def render_line_art(font, character):
    """-> grey picture, black on white, the ink fitted into 60x60 and centred; None for a glyph without ink."""
    mask = Image.new("L", (1024, 1024), 0)
    ImageDraw.Draw(mask).text((256, 256), character, font=font, fill=255)
    box = mask.getbbox()
    if box is None:
        return None
    ink = mask.crop(box)
    scale = (SIDE - 4) / max(ink.size)
    size = tuple(max(1, round(x * scale)) for x in ink.size)
    ink = ink.resize(size, Image.Resampling.LANCZOS)
    picture = Image.new("L", (SIDE, SIDE), 0)
    picture.paste(ink, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return ImageChops.invert(picture).point(lambda v: v // 17 * 17)  # 16 levels


def cmap_has(font, character):
    """True if the font draws the character by a glyph of its own."""
    missing = font.getmask("\U0010FFFF")
    glyph = font.getmask(character)
    return glyph.size != missing.size or bytes(glyph) != bytes(missing)


def difference(a, b):
    """Root mean square difference of two pictures, in grey levels."""
    histogram = ImageChops.difference(a, b).histogram()
    return (sum(n * (v % 256) ** 2 for v, n in enumerate(histogram)) / (3 * SIDE * SIDE)) ** 0.5


def clusters_of(emoji, pictures):
    """-> cluster number per character: joined by key_of, and by pictures that are almost the same."""
    parent = list(range(len(emoji)))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    def join(i, j):
        a, b = sorted((root(i), root(j)))
        parent[b] = a

    first = {}
    for i, entry in enumerate(emoji):
        join(first.setdefault(key_of(entry[0]), i), i)
    tiny = [list(p.resize((8, 8), Image.Resampling.BOX).tobytes()) for p in pictures]
    for i in range(len(emoji)):
        for j in range(i):
            if root(i) == root(j):
                continue
            # Means over 8x8 pixels can only be closer than the pictures are, so they rule most pairs out.
            mean_square = sum((x - y) ** 2 for x, y in zip(tiny[i], tiny[j])) / 192
            if mean_square < (NEAR + 1) ** 2 and difference(pictures[i], pictures[j]) < NEAR:
                print(f"nearly the same: {emoji[j][1]}, {emoji[i][1]}")
                join(i, j)
    return [root(i) for i in range(len(emoji))]


def held_out_of(emoji, clusters):
    """-> set of held-out indices: about HELD_OUT_SHARE of every subgroup with four members or more, whole clusters, chosen
    in the order of a hash of the code points; every subgroup keeps characters to train on."""
    members, subgroup_size, held_size = {}, {}, {}
    for i, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(i)
        subgroup_size[emoji[i][3]] = subgroup_size.get(emoji[i][3], 0) + 1

    def hash_of(cluster):
        return hashlib.sha256(" ".join(f"{c:04X}" for c in emoji[cluster][0]).encode()).hexdigest()

    held = set()
    for cluster in sorted(members, key=hash_of):
        counts = {}
        for i in members[cluster]:
            counts[emoji[i][3]] = counts.get(emoji[i][3], 0) + 1
        fits = all(
            subgroup_size[s] >= 4 and held_size.get(s, 0) + n <= max(1, round(HELD_OUT_SHARE * subgroup_size[s]))
            for s, n in counts.items()
        )
        if fits:
            held.update(members[cluster])
            for s, n in counts.items():
                held_size[s] = held_size.get(s, 0) + n
    return held


def save_png(picture, path):
    picture.save(path, optimize=True)
    print(f"{path.name}: {picture.size[0]}x{picture.size[1]}, {path.stat().st_size / 1e6:.2f} MB")


def main(folder):
    emoji = read_emoji_test(EMOJI_TEST.read_text(encoding="utf-8"))
    colour_font = ImageFont.truetype(str(COLOUR_FONT), 109, layout_engine=ImageFont.Layout.RAQM)
    line_art_font = ImageFont.truetype(str(LINE_ART_FONT), 256, layout_engine=ImageFont.Layout.BASIC)

    colour = [render_colour(colour_font, "".join(map(chr, e[0]))) for e in emoji]
    line_art = []
    for code_points, *_ in emoji:
        plain = [chr(c) for c in code_points if c != PRESENTATION]
        drawn = len(plain) == 1 and cmap_has(line_art_font, plain[0])
        line_art.append(render_line_art(line_art_font, plain[0]) if drawn else None)

    rows = -(-len(emoji) // COLUMNS)
    colour_atlas = Image.new("RGB", (COLUMNS * SIDE, rows * SIDE), "white")
    line_art_atlas = Image.new("L", (COLUMNS * SIDE, rows * SIDE), 255)
    for i, (in_colour, in_lines) in enumerate(zip(colour, line_art)):
        at = (i % COLUMNS * SIDE, i // COLUMNS * SIDE)
        colour_atlas.paste(in_colour, at)
        if in_lines:
            line_art_atlas.paste(in_lines, at)
    save_png(colour_atlas, folder / "emoji_colour.png")
    save_png(line_art_atlas, folder / "emoji_line_art.png")

    held_out = held_out_of(emoji, clusters_of(emoji, colour))
    with open(folder / "emoji.tsv", "w", encoding="utf-8", newline="\n") as table:
        table.write("# Names, groups and subgroups from Unicode's emoji-test.txt (version 15.0), selected; LICENSE.unicode.txt.\n")
        table.write("# index\tcode points\tname\tgroup\tsubgroup\tsplit\tline art\n")
        for i, (code_points, name, group, subgroup) in enumerate(emoji):
            hexadecimal = " ".join(f"{c:04X}" for c in code_points)
            split = "heldout" if i in held_out else "train"
            table.write(f"{i}\t{hexadecimal}\t{name}\t{group}\t{subgroup}\t{split}\t{int(line_art[i] is not None)}\n")
    print(f"{len(emoji)} characters, {len({e[2] for e in emoji})} groups, {len({e[3] for e in emoji})} subgroups; "
          f"{len(held_out)} held out; {sum(p is not None for p in line_art)} with line art, "
          f"{sum(line_art[i] is not None for i in held_out)} of them held out")

    width, height = LABEL_SIZE
    label_font = ImageFont.truetype(str(LABEL_FONT), 10, layout_engine=ImageFont.Layout.BASIC)
    letters = Image.new("L", (95 * width, height), 0)
    for i in range(95):
        letter = Image.new("L", LABEL_SIZE, 0)
        ImageDraw.Draw(letter).text((0, 0), chr(32 + i), font=label_font, fill=255)
        letters.paste(letter, (i * width, 0))
    save_png(letters, folder / "font.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
