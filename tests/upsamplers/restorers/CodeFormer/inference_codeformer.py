"""Stands in for CodeFormer: its arguments and files, with bilinear enlargement for the network."""

import argparse
from pathlib import Path

from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("-i", "--input_path", default="./inputs/whole_imgs")
parser.add_argument("-o", "--output_path")
parser.add_argument("-w", "--fidelity_weight", type=float, default=0.5)
parser.add_argument("-s", "--upscale", type=int, default=2)
parser.add_argument("--has_aligned", action="store_true")
parser.add_argument("--only_center_face", action="store_true")
parser.add_argument("--draw_box", action="store_true")
parser.add_argument("--detection_model", default="retinaface_resnet50")
parser.add_argument("--bg_upsampler", default="None")
parser.add_argument("--face_upsample", action="store_true")
parser.add_argument("--bg_tile", type=int, default=400)
parser.add_argument("--suffix")
parser.add_argument("--save_video_fps", type=float)
options = parser.parse_args()
assert options.has_aligned

source = Path(options.input_path)
default = f"results/{'test_img' if source.is_file() else source.name}_{options.fidelity_weight}"
out = Path(options.output_path or default) / "restored_faces"
out.mkdir(parents=True, exist_ok=True)
for path in [source] if source.is_file() else sorted(source.glob("*.[jpJP][pnPN]*[gG]")):
    crop = Image.open(path).convert("RGB").resize((512, 512), Image.Resampling.BILINEAR)
    crop.save(out / f"{path.stem}{f'_{options.suffix}' if options.suffix else ''}.png")
