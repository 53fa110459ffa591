"""Stands in for OSDFace: its arguments and files, with bilinear enlargement for the network."""

import argparse
from pathlib import Path

from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("--input_image", "-i", required=True)
parser.add_argument("--output_dir", "-o", required=True)
parser.add_argument("--pretrained_model_name_or_path", default="preset/models")
parser.add_argument("--seed", type=int, default=114)
parser.add_argument("--process_size", type=int, default=512)
parser.add_argument("--ckpt_path")
parser.add_argument("--mixed_precision", choices=["fp16", "fp32"], default="fp32")
parser.add_argument("--img_encoder_weight", default="preset/pretrained/associate_2.ckpt")
parser.add_argument("--gpu_ids", nargs="+", type=int, default=[0])
parser.add_argument("--cat_prompt_embedding", action="store_true")
parser.add_argument("--use_pos_embedding", action="store_true")
parser.add_argument("--use_att_pool", action="store_true")
parser.add_argument("--merge_lora", action="store_true")
parser.add_argument("--lora_rank", type=int, default=16)
parser.add_argument("--lora_alpha", type=float, default=16)
options = parser.parse_args()

source, out = Path(options.input_image), Path(options.output_dir)
out.mkdir(parents=True, exist_ok=True)
for path in [source] if source.is_file() else sorted(source.glob("*.[jpJP][pnPN]*[gG]")):
    # What is there already is kept.
    if not (out / path.name).exists():
        crop = Image.open(path).convert("RGB")
        crop.resize((512, 512), Image.Resampling.BILINEAR).save(out / path.name)
