import numpy as np
import pytest
import torch

from pulse_audit.generators.mapping import MappingNetwork, mix_styles
from pulse_audit.types import InputError


@pytest.fixture
def network():
    out = MappingNetwork(z_dim=4, c_dim=3, w_dim=5, num_ws=6, hidden=(7,), embed_dim=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in out.state_dict().values():
            tensor.normal_(generator=generator)
    return out.requires_grad_(False).double()


def layer(x, module, gain, lr):
    weight, bias = module.weight.numpy(), module.bias.numpy()
    return x @ (weight * lr / np.sqrt(weight.shape[1])).T + bias * lr


def normalised(x):
    return x / np.sqrt(np.square(x).mean(1, keepdims=True) + 1e-8)


@pytest.mark.parametrize("joint", [False, True])
def test_w_follows_the_equations(network, joint):
    network.joint_norm = joint
    z = np.random.RandomState(0).standard_normal((3, 4))
    embedded = layer(np.eye(3), network.embed, 1, 1)
    parts = [z, embedded] if joint else [normalised(z), normalised(embedded)]
    x = np.concatenate(parts, axis=1)
    x = normalised(x) if joint else x
    for module in (network.fc0, network.fc1):
        x = layer(x, module, np.sqrt(2), 0.01)
        x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2)
    w = network(torch.from_numpy(z), torch.eye(3))
    assert w.shape == (3, 6, 5)
    np.testing.assert_allclose(w[:, 3].numpy(), x, atol=1e-12)


def test_truncation_pulls_the_leading_styles_to_the_average(network):
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.eye(3)[:2]
    w = network(z, labels)
    cut = network(z, labels, truncation=0.7, cutoff=2)
    torch.testing.assert_close(cut[:, :2], network.w_avg + 0.7 * (w[:, :2] - network.w_avg))
    assert torch.equal(cut[:, 2:], w[:, 2:])
    average = network(z, labels, truncation=0.0)
    torch.testing.assert_close(average, network.w_avg.expand(2, 6, 5))


@pytest.mark.parametrize(
    ("z", "labels", "message"),
    [
        ((2, 3), (2, 3), r"z is \(2, 3\), needs to be \(n, 4\)"),
        ((2, 4), None, "conditional on 3 classes"),
        ((2, 4), (2, 2), r"labels are \(2, 2\); the generator takes \(2, 3\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(network, z, labels, message):
    with pytest.raises(InputError, match=message):
        network(torch.zeros(z), None if labels is None else torch.zeros(labels))


def test_labels_for_an_unconditional_network_are_refused():
    network = MappingNetwork(4, 0, 4, 2, (), 4)
    with pytest.raises(InputError, match="no classes"):
        network(torch.zeros(1, 4), torch.zeros(1, 2))


def test_estimated_average_is_the_mean_over_latents(network):
    network.float().estimate_average()
    z = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(5))
    labels = torch.eye(3)[torch.arange(20_000) % 3]
    w = network.single(z, labels)
    error = (w.mean(0) - network.w_avg).abs()
    assert (error < 5 * w.std(0) / np.sqrt(10_000)).all()


def test_mixing_crosses_over_at_the_layer():
    coarse, fine = torch.zeros(1, 4, 2), torch.ones(1, 4, 2)
    assert mix_styles(coarse, fine, 3)[0, :, 0].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(("shape", "crossover"), [((1, 4, 2), 5), ((2, 4, 2), 1)])
def test_mixing_refuses_what_does_not_fit(shape, crossover):
    with pytest.raises(InputError, match="style mixing"):
        mix_styles(torch.zeros(1, 4, 2), torch.zeros(shape), crossover)
