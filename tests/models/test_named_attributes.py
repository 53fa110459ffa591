"""FairFace's classifier by name: fetched from a server on this machine, then loaded."""

import io
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet34

from pulse_audit.models import published
from pulse_audit.models.attributes import attribute_names, load_attributes
from pulse_audit.models.fetch import fetch
from pulse_audit.seeding import sha256
from pulse_audit.types import InputError


@pytest.fixture(scope="module")
def content() -> bytes:
    """A file as FairFace's: seeded random weights, in half precision to be small."""
    torch.manual_seed(0)
    buffer = io.BytesIO()
    torch.save(resnet34(num_classes=18).half().state_dict(), buffer)
    return buffer.getvalue()


def test_it_is_fetched_and_then_loaded_by_name(server, monkeypatch, content: bytes) -> None:
    known = published.get("fairface-race7")
    card = known.model_copy(update={"url": f"{server.url}/f.pt", "obtain": None})
    monkeypatch.setattr(published, "cards", lambda: {card.name: card})
    server.answers = [server.full(content)]
    with pytest.raises(InputError, match="pulse-audit fetch fairface-race7"):
        load_attributes("fairface-race7", "cpu")
    path = fetch(card, lambda terms: True)
    model = load_attributes("fairface-race7", torch.device("cpu"))
    said = model.card
    assert (said.name, said.licence) == ("fairface-race7", "CC BY 4.0")
    assert said.training_data == known.trained_on
    assert said.sha256 == sha256(content) == sha256(path.read_bytes())
    found = model(torch.full((1, 3, 32, 32), 0.5)).probabilities
    assert {name: tuple(p.shape) for name, p in found.items()} == {
        "race": (1, 7), "gender": (1, 2), "age": (1, 9),
    }  # fmt: skip
    assert "fairface-race7" in attribute_names()


def test_a_file_that_was_not_fetched_is_named_with_its_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.pt"
    path.write_bytes(content)
    model = load_attributes(f"fairface-race4:{path}", "cpu")
    assert list(model.card.vocabulary) == ["race4"]
    assert model.card.sha256 == sha256(content)
