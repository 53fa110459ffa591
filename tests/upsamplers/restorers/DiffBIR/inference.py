"""Stands in for DiffBIR: its arguments and files; samples differ by a grey level."""

import argparse
from pathlib import Path

from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("--task", default="sr", choices=["sr", "face", "denoise", "unaligned_face"])
parser.add_argument("--upscale", type=float, default=4)
parser.add_argument("--version", default="v2.1", choices=["v1", "v2", "v2.1", "custom"])
parser.add_argument("--sampler", default="edm_dpm++_3m_sde")
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--captioner", default="llava", choices=["none", "llava", "ram"])
parser.add_argument("--pos_prompt", default="")
parser.add_argument("--neg_prompt", default="")
parser.add_argument("--cfg_scale", type=float, default=6.0)
parser.add_argument("--noise_aug", type=int, default=0)
parser.add_argument("--batch_size", type=int, default=1)
parser.add_argument("--input", required=True)
parser.add_argument("--n_samples", type=int, default=1)
parser.add_argument("--output", required=True)
parser.add_argument("--seed", type=int, default=231)
parser.add_argument("--device", default="cuda", choices=["cpu", "cuda", "mps"])
parser.add_argument("--precision", default="fp16", choices=["fp32", "fp16", "bf16"])
options = parser.parse_args()
assert options.task == "face" and Path(options.input).is_dir()

out = Path(options.output)
out.mkdir(parents=True, exist_ok=True)
with (out / "prompt.csv").open("w") as table:
    table.write("file_name,pos_prompt,neg_prompt\n")
for path in sorted(Path(options.input).iterdir()):
    small = Image.open(path).convert("RGB")
    size = (int(small.width * options.upscale), int(small.height * options.upscale))
    large = small.resize(size, Image.Resampling.BILINEAR)
    for i in range(options.n_samples):
        name = f"{path.stem}_{i}.png" if options.n_samples > 1 else f"{path.stem}.png"
        large.point([min(level + i, 255) for level in range(256)] * 3).save(out / name)
