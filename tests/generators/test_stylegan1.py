import pytest
import torch
import torch.nn.functional as F

from pulse_audit.generators.stylegan1 import StyledNorm, StyleGAN1, UpConv
from pulse_audit.types import InputError

WIDTHS = {4: 6, 8: 5, 16: 4}
W_DIM = 8


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(key: str, n_out: int, *n_in: int, size: int = 3) -> dict[str, tuple[int, ...]]:
    return {f"{key}.weight": (n_out, *n_in, *[size] * 2 * (size > 0)), f"{key}.bias": (n_out,)}


def tiny_shapes() -> dict[str, tuple[int, ...]]:
    """A 16 px network, every block of another width."""
    shapes = layer("torgb", 3, WIDTHS[16], size=1)
    shapes |= {"blocks.4x4.const": (1, 6, 4, 4), "blocks.4x4.bias": (6,)}
    shapes |= layer("blocks.4x4.conv", 6, 6)
    for size, width in WIDTHS.items():
        block = f"blocks.{size}x{size}"
        if size > 4:
            shapes |= layer(f"{block}.conv0_up", width, WIDTHS[size // 2])
            shapes |= layer(f"{block}.conv1", width, width)
        for epilogue in ("epi1", "epi2"):
            shapes[f"{block}.{epilogue}.noise.weight"] = (width,)
            shapes |= layer(f"{block}.{epilogue}.style_mod.lin", 2 * width, W_DIM, size=0)
    return shapes


def tiny_state() -> dict[str, torch.Tensor]:
    return {k: normal(*s, seed=i) for i, (k, s) in enumerate(tiny_shapes().items())}


@pytest.fixture
def tiny() -> StyleGAN1:
    return StyleGAN1(tiny_state())


def conformance_error(file) -> float:
    network = StyleGAN1(file.state)
    w = file.inputs("input.w", 1, network.num_ws, network.w_dim)
    noise = [file.inputs(f"input.noise{i}", 1, 1, *s) for i, s in enumerate(network.noise_shapes)]
    with torch.no_grad():
        return file.error(network.synthesis(w, noise), "pixels")


def test_pixels_of_the_reference_at_64(conformance):
    assert conformance_error(conformance("stylegan1_pulse_64")) < 1e-4


def test_pixels_of_the_reference_at_1024(conformance):
    assert conformance_error(conformance("stylegan1_pulse_1024")) < 1e-3


def test_mapping_of_the_reference(conformance):
    synthesis = conformance("stylegan1_pulse_64").state
    file = conformance("stylegan1_pulse_mapping")
    network = StyleGAN1(synthesis, file.state)
    w = network.mapping(file.inputs("input.z", 4, 512))
    assert w.shape == (4, network.num_ws, 512)
    assert file.relative(w[:, -1], "w") < 1e-4


def test_parameters_are_counted_as_in_the_files(conformance):
    """PULSE's files hold 24,110,771 and 2,101,248 parameters; a 64 px cut holds fewer."""
    mapping = conformance("stylegan1_pulse_mapping").state
    lone = StyleGAN1(tiny_state())
    assert lone.parameter_count == sum(torch.Size(s).numel() for s in tiny_shapes().values())
    synthesis = conformance("stylegan1_pulse_64").state
    both = StyleGAN1(synthesis, mapping)
    assert both.parameter_count - StyleGAN1(synthesis).parameter_count == 2_101_248


def test_resolution_and_layers_are_read_from_the_shapes(tiny):
    assert (tiny.resolution, tiny.num_ws, tiny.w_dim, tiny.c_dim) == (16, 6, W_DIM, 0)
    assert tiny.noise_shapes == ((4, 4), (4, 4), (8, 8), (8, 8), (16, 16), (16, 16))


def test_weights_are_frozen(tiny):
    assert not any(p.requires_grad for p in tiny.parameters())


@pytest.mark.parametrize("fused", [False, True])
def test_upscaling_convolution_is_that_of_its_definition(fused):
    """Separate: nearest, convolution, blur. Fused: the sum of four shifts, transposed."""
    weight, bias, x = normal(5, 3, 3, 3), normal(5, seed=1), normal(2, 3, 6, 6, seed=2)
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    blur = torch.outer(line, line)[None, None]
    if fused:
        kernel = F.conv2d(weight.reshape(15, 1, 3, 3), torch.ones(1, 1, 2, 2), padding=1)
        kernel = kernel.reshape(5, 3, 4, 4).transpose(0, 1)
        features = F.conv_transpose2d(x, kernel, stride=2, padding=1)
    else:
        features = F.conv2d(F.interpolate(x, scale_factor=2), weight, padding=1)
    wanted = F.conv2d(features, blur.expand(5, 1, 3, 3), padding=1, groups=5)
    wanted = wanted + bias[:, None, None]
    assert torch.allclose(UpConv(weight, bias, blur, fused)(x), wanted, atol=1e-5)


def test_styled_norm_is_instance_norm_with_a_style():
    x, scale, shift = normal(2, 3, 5, 5), normal(2, 3, seed=1), normal(2, 3, seed=2)
    wanted = F.instance_norm(F.leaky_relu(x, 0.2)) * scale[..., None, None] + shift[..., None, None]
    assert torch.allclose(StyledNorm.apply(x, scale, shift), wanted, atol=1e-5)


def test_gradient_of_styled_norm_is_that_of_finite_differences():
    inputs = [normal(1, 2, 3, 3), normal(1, 2, seed=1), normal(1, 2, seed=2)]
    inputs = [i.double().requires_grad_() for i in inputs]
    assert torch.autograd.gradcheck(StyledNorm.apply, inputs)


def test_a_lone_synthesis_network_has_no_mapping(tiny):
    with pytest.raises(InputError, match="without its mapping network.*gaussian_fit"):
        tiny.mapping(normal(1, W_DIM))


def test_mapping_refuses_labels(conformance):
    state = conformance("stylegan1_pulse_mapping").state
    network = StyleGAN1(conformance("stylegan1_pulse_64").state, state)
    with pytest.raises(InputError, match="no classes"):
        network.mapping(normal(1, 512), torch.ones(1, 2))


def test_files_that_do_not_belong_together_are_refused(conformance):
    with pytest.raises(InputError, match="do not belong together"):
        StyleGAN1(tiny_state(), conformance("stylegan1_pulse_mapping").state)


def test_const_noise_is_fixed_and_random_noise_is_not(tiny):
    w = normal(2, 6, W_DIM)
    assert torch.equal(tiny.synthesis(w), tiny.synthesis(w, "const"))
    torch.manual_seed(1)
    assert not torch.allclose(tiny.synthesis(w, "random"), tiny.synthesis(w, "random"))


def test_no_noise_is_noise_of_zero(tiny):
    w, zero = normal(2, 6, W_DIM), [torch.zeros(2, 1, *s) for s in tiny.noise_shapes]
    assert torch.allclose(tiny.synthesis(w, "none"), tiny.synthesis(w, zero), atol=1e-6)


@pytest.mark.parametrize(
    ("noise", "message"),
    [("loud", "'loud' is unknown"), ([torch.zeros(1, 1, 4, 4)], "1 maps for 6 layers")],
)
def test_unknown_noise_is_refused(tiny, noise, message):
    with pytest.raises(InputError, match=message):
        tiny.synthesis(normal(1, 6, W_DIM), noise)


def test_styles_of_another_network_are_refused(tiny):
    with pytest.raises(InputError, match="need to be \\(n, 6, 8\\)"):
        tiny.synthesis(normal(1, 18, W_DIM))


def test_a_missing_tensor_is_named():
    state = tiny_state()
    del state["blocks.8x8.conv1.bias"]
    with pytest.raises(InputError, match="blocks.8x8.conv1.bias is missing"):
        StyleGAN1(state)


def test_a_tensor_of_another_shape_is_named():
    state = tiny_state() | {"blocks.8x8.epi2.noise.weight": torch.zeros(3)}
    with pytest.raises(InputError, match="blocks.8x8.epi2.noise.weight has the shape \\(3,\\)"):
        StyleGAN1(state)


def test_a_file_of_something_else_is_refused():
    with pytest.raises(InputError, match="not a StyleGAN 1 synthesis file"):
        StyleGAN1({"weight": torch.zeros(3)})


def test_bfloat16_is_close_and_loses_nothing_on_the_way_back(tiny):
    w = normal(2, 6, W_DIM)
    exact = tiny.synthesis(w)
    fast = tiny.to(dtype=torch.bfloat16).synthesis(w)
    assert fast.dtype == torch.float32
    assert F.cosine_similarity(fast.flatten(), exact.flatten(), dim=0) > 0.99
    assert torch.equal(tiny.to(dtype=torch.float32).synthesis(w), exact)


def test_float16_is_refused(tiny):
    with pytest.raises(InputError, match="overflows"):
        tiny.to(dtype=torch.float16)
