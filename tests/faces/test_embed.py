"""FaceNet through the real package: its crop, its network, weights from a local server."""

import hashlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from facenet_pytorch import InceptionResnetV1, extract_face, fixed_image_standardization
from PIL import Image
from skimage.data import astronaut

from pulse_audit.faces import embed
from pulse_audit.faces.align import FaceAligner
from pulse_audit.faces.embed import FaceNet, cut_face
from pulse_audit.models import download, published
from pulse_audit.models.fetch import fetch
from pulse_audit.types import InputError


@pytest.fixture(scope="module")
def network() -> InceptionResnetV1:
    """The package's network with seeded random weights, as the published file has them.

    Its normalisations have seen some images: else all embeddings would be alike.
    """
    torch.manual_seed(0)
    made = InceptionResnetV1(pretrained=None, classify=True, num_classes=11)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.momentum = 1.0
    with torch.no_grad():
        made.train()(2 * random_faces(4, 99) - 1)
    return made.eval()


@pytest.fixture(scope="module")
def weights(network: InceptionResnetV1) -> bytes:
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def facenet(weights: bytes, tmp_path_factory: pytest.TempPathFactory) -> FaceNet:
    path = tmp_path_factory.mktemp("weights") / "facenet.pt"
    path.write_bytes(weights)
    return FaceNet.load(path)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return astronaut()


@pytest.fixture(scope="module")
def box(photo: np.ndarray) -> np.ndarray:
    return FaceAligner().find(photo).box


def as_tensor(photo: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(photo).permute(2, 0, 1).float() / 255


def random_faces(n: int, size: int = 160) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "where", [[170.3, 60.8, 280.2, 210.9], [-20.0, -4.5, 90.0, 140.0], [400.0, 380.0, 560.0, 570.0]]
)
def test_the_crop_is_the_package_s(photo: np.ndarray, where: list[float]) -> None:
    theirs = extract_face(Image.fromarray(photo), np.array(where), 160, embed.MARGIN) / 255
    assert (cut_face(as_tensor(photo), np.array(where)) - theirs).abs().max() < 1.01 / 255


def test_the_embedding_is_the_package_s(facenet, network, photo, box) -> None:
    face = extract_face(Image.fromarray(photo), box, 160, embed.MARGIN)
    network.classify = False
    with torch.no_grad():
        theirs = network(fixed_image_standardization(face)[None])
    ours = facenet.embed(as_tensor(photo)[None], [box])
    assert torch.nn.functional.cosine_similarity(ours, theirs) > 1 - 1e-5


def test_faces_that_are_cut_already_enter_as_they_are(facenet, network) -> None:
    faces = random_faces(1)
    network.classify = False
    with torch.no_grad():
        theirs = network(fixed_image_standardization(255 * faces))
    torch.testing.assert_close(facenet.embed(faces), theirs, rtol=0, atol=1e-5)


def test_embeddings_are_unit_vectors_that_differ(facenet) -> None:
    vectors = facenet.embed(random_faces(3, 64))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    assert (vectors @ vectors.T).fill_diagonal_(0).max() < 0.999


def test_an_embedding_is_independent_of_its_batch_mates(facenet, monkeypatch) -> None:
    faces = random_faces(3)
    monkeypatch.setattr(embed, "_BATCH", 2)
    alone = torch.cat([facenet.embed(face[None]) for face in faces])
    torch.testing.assert_close(facenet.embed(faces), alone, rtol=0, atol=1e-5)


def test_no_face_no_embedding(facenet, photo, box) -> None:
    images = as_tensor(photo)[None].repeat(2, 1, 1, 1)
    found = facenet.embed(images, [None, box])
    assert found[0].isnan().all()
    torch.testing.assert_close(found[1:], facenet.embed(images[:1], [box]), rtol=0, atol=1e-5)


def test_a_small_face_is_cut_where_the_large_one_is(photo, box) -> None:
    """Boxes of small images are not rounded to their coarse pixels."""
    large = torch.nn.functional.interpolate(as_tensor(photo)[None], (1024, 1024))[0]
    smooth = torch.nn.functional.interpolate(large[None], (64, 64), mode="area")[0]
    wanted, small = cut_face(large, 2 * box), cut_face(smooth, box / 8)
    shifted = cut_face(smooth, box / 8 + 1)
    assert (small - wanted).square().mean() < (shifted - wanted).square().mean() / 3


def test_a_box_beyond_the_picture_still_gives_a_face() -> None:
    face = cut_face(torch.rand(3, 20, 20), np.array([19.99, 19.99, 30.0, 30.0]))
    assert face.shape == (3, 160, 160)
    assert face.isfinite().all()


@pytest.mark.parametrize(
    "content", [b"no tensors", [1, 2], {"a": torch.zeros(2)}, {1: "x"}], ids=str
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError) as caught:
        FaceNet.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"conv2d_1a.conv.weight": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(InputError):
        FaceNet.load(tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def served(weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The catalogue's FaceNet lies on a server of this machine; the cache is empty."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(weights)))
            self.end_headers()
            self.wfile.write(weights)

        def log_message(self, *args: object) -> None:
            """Stay silent."""

    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PULSE_AUDIT_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        digest = hashlib.sha256(weights).hexdigest()
        changes = {
            "url": f"http://127.0.0.1:{server.server_address[1]}/facenet.pt",
            "size": len(weights),
            "sha256": digest,
        }
        card = published.get(embed.WEIGHTS).model_copy(update=changes)
        monkeypatch.setattr(published, "cards", lambda: {card.name: card})
        yield
        server.shutdown()


def test_without_weights_it_says_what_to_do(served) -> None:
    with pytest.raises(InputError, match="pulse-audit fetch facenet-vggface2$") as caught:
        published.fetched(published.get(embed.WEIGHTS))
    assert "\n" not in str(caught.value)


def test_fetched_weights_are_used(served, facenet) -> None:
    fetch(published.get(embed.WEIGHTS), lambda text: True)
    assert published.hash_state(published.get(embed.WEIGHTS)) == "as claimed"
    loaded = FaceNet.load(published.fetched(published.get(embed.WEIGHTS))[0])
    assert torch.equal(loaded.embed(random_faces(1)), facenet.embed(random_faces(1)))
