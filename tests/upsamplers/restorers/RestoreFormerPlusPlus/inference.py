"""Stands in for RestoreFormer: its arguments and files, with bilinear enlargement."""

import argparse
from pathlib import Path

from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("-i", "--input", default="inputs/whole_imgs")
parser.add_argument("-o", "--output", default="results")
parser.add_argument("-v", "--version", default="RestoreFormer++")
parser.add_argument("-s", "--upscale", type=int, default=2)
parser.add_argument("--bg_upsampler", default="realesrgan")
parser.add_argument("--bg_tile", type=int, default=400)
parser.add_argument("--suffix")
parser.add_argument("--only_center_face", action="store_true")
parser.add_argument("--aligned", action="store_true")
parser.add_argument("--ext", default="auto")
parser.add_argument("--save", action="store_true")
options = parser.parse_args()
assert options.version in ("RestoreFormer", "RestoreFormer++") and options.aligned

source, out = Path(options.input), Path(options.output)
for path in [source] if source.is_file() else sorted(source.glob("*")):
    crop = Image.open(path).convert("RGB").resize((512, 512), Image.Resampling.BILINEAR)
    grey = crop.convert("L").convert("RGB")  # what is not the result must not be taken for it
    for folder, picture in (("cropped_faces", grey), ("restored_faces", crop), ("cmp", grey)):
        (out / folder).mkdir(parents=True, exist_ok=True)
        picture.save(out / folder / f"{path.stem}_00.png")
