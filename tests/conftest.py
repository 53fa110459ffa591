"""Small data sets of nobody, and a small generator, made anew for the tests that need them."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# As the command line does, before torch is loaded: threads that wait do not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

RACES = (
    "White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian",
    "Middle Eastern",
)  # fmt: skip

#: A decoder of 64 latents to 32 px: smooth skin-coloured patterns, quick to search.
TINY_GENERATOR = """
import torch
import pulse_audit as pa


def build():
    torch.manual_seed(3)
    colour = torch.tensor([0.72, 0.52, 0.42]).view(1, 3, 1, 1)
    grid = torch.linspace(-1, 1, 32)
    waves = torch.stack([
        torch.outer(torch.cos(a * grid + p), torch.cos(b * grid + q))
        for a, b, p, q in (6 * torch.rand(64, 4)).tolist()
    ])
    weights = 0.04 * torch.randn(64, 3)

    def decode(z):
        return colour + torch.einsum("nd,dc,dhw->nchw", z, weights.to(z), waves.to(z))

    return pa.as_generator(decode, name="tiny", latent_dim=64, output_range=(0, 1))
"""


def paint_face(seed: int, size: int = 48) -> np.ndarray:
    """A skin-coloured ellipse with two dark eyes on a grey ground: nobody's face."""
    random = np.random.default_rng(seed)
    tone = np.array([0.75, 0.55, 0.45]) * random.uniform(0.5, 1.2)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.full((size, size, 3), 0.5)
    image[(x / 0.7) ** 2 + (y / 0.95) ** 2 < 1] = tone
    for side in (-0.3, 0.3):
        image[(x - side) ** 2 + (y + 0.2) ** 2 < 0.015] = 0.1
    image += 0.03 * random.standard_normal(image.shape)
    return (255 * image.clip(0, 1)).round().astype(np.uint8)


def pixels(path: Path) -> np.ndarray:
    """The decoded picture in a file, as it is stored."""
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def read_pixels() -> Callable[[Path], np.ndarray]:
    """`pixels`, for tests (conftest cannot be imported by name)."""
    return pixels


@pytest.fixture
def fairface_root(tmp_path: Path) -> Path:
    """A FairFace root in the official layout: 7 groups x 4 synthetic validation faces."""
    return write_fairface(tmp_path / "fairface")


@pytest.fixture(scope="session")
def fairface_kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same root for tests that leave it as it is."""
    return write_fairface(tmp_path_factory.mktemp("data") / "fairface")


def write_fairface(root: Path) -> Path:
    (root / "val").mkdir(parents=True)
    rows = ["file,age,gender,race,service_test"]
    for number in range(28):
        name = f"val/{number + 1}.jpg"
        Image.fromarray(paint_face(number)).save(root / name, quality=95)
        gender = ("Male", "Female")[number // 7 % 2]
        rows.append(f"{name},20-29,{gender},{RACES[number % 7]},True")
    (root / "fairface_label_val.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def tiny_generator(tmp_path: Path) -> str:
    """Reference to a generator factory, as the command line takes it."""
    path = tmp_path / "tiny.py"
    path.write_text(TINY_GENERATOR)
    return f"{path}:build"


@pytest.fixture
def shared() -> Path:
    """The folder of real faces and reference numbers beside the project, or a skip."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs {folder.name}/ beside the project")
    return folder


@pytest.fixture
def edit_csv(fairface_root: Path) -> Callable[[Callable[[str], str]], None]:
    """Change the label file of the small data set by a function of its text."""
    path = fairface_root / "fairface_label_val.csv"

    def edit(change: Callable[[str], str]) -> None:
        path.write_text(change(path.read_text()))

    return edit
