import pytest
import torch

from pulse_audit.search.rules import RULES

PEERS = {
    "adam": (torch.optim.Adam, {}),
    "adamax": (torch.optim.Adamax, {}),
    "sgd": (torch.optim.SGD, {}),
    "sgdm": (torch.optim.SGD, {"momentum": 0.9}),
}


def gradient(at: torch.Tensor) -> torch.Tensor:
    return (at - 1) ** 3 + torch.sin(5 * at)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_that_of_torch(name):
    start = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    ours, theirs = start.clone(), start.clone().requires_grad_()
    kind, settings = PEERS[name]
    peer = kind([theirs], lr=1.0, **settings)
    moments = [torch.zeros_like(start) for _ in range(RULES[name].moments)]
    for t in range(1, 40):
        rate = 0.01 * (1 + t % 7)
        ours -= rate * RULES[name].direction(gradient(ours), moments, t)
        theirs.grad, peer.param_groups[0]["lr"] = gradient(theirs.detach()), rate
        peer.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-12)
