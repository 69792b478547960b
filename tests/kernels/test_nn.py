"""The modules: other people's checkpoints load unchanged and give equal outputs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from esi_fast import kernels


@pytest.mark.parametrize("bias", [True, False])
def test_depthwise_conv1d_loads_what_torch_saved(bias: bool) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Conv1d(6, 6, 5, padding=2, groups=6, bias=bias)
    ours = kernels.nn.DepthwiseConv1d(6, 5, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 11, 6)
    expected = theirs(x.transpose(1, 2))
    torch.testing.assert_close(ours(x), expected.transpose(1, 2))
    channels_first = kernels.nn.DepthwiseConv1d(6, 5, bias=bias, layout="BCT")
    channels_first.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(channels_first(x.transpose(1, 2)), expected)
    theirs.load_state_dict(ours.state_dict())


def test_depthwise_conv1d_starts_as_torch_does() -> None:
    torch.manual_seed(0)
    ours = kernels.nn.DepthwiseConv1d(4000, 5)
    theirs = torch.nn.Conv1d(4000, 4000, 5, groups=4000)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.abs().max().item() == pytest.approx(5**-0.5, rel=1e-2)
        assert mine.std().item() == pytest.approx(other.std().item(), rel=0.05)


def test_an_even_kernel_needs_a_padding() -> None:
    with pytest.raises(ValueError, match="kernel_size=4 is even"):
        kernels.nn.DepthwiseConv1d(6, 4)
    assert kernels.nn.DepthwiseConv1d(6, 4, padding=0)(torch.zeros(1, 9, 6)).shape == (1, 6, 6)


def test_modules_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="activation='relu' is unknown: use"):
        kernels.nn.GRN(6, activation="relu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layout='NCL' is unknown"):
        kernels.nn.DepthwiseConv1d(6, 3, layout="NCL")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="padding='same' must be a count"):
        kernels.nn.DepthwiseConv1d(6, 3, padding="same")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kernel_size=0 must be a count of taps"):
        kernels.nn.DepthwiseConv1d(6, 0)
    with pytest.raises(ValueError, match=r"kernel_size=\(7,\) must be a count of taps"):
        kernels.nn.DepthwiseConv1d(6, (7,))  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [("gamma", "beta"), ("weight", "bias")])
@pytest.mark.parametrize("shape", [(6,), (1, 1, 6), (1, 1, 1, 6)])
def test_grn_loads_every_spelling(names: tuple[str, str], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    gamma, beta = torch.randn(2, 6)
    model = torch.nn.Sequential(torch.nn.Identity(), kernels.nn.GRN(6))  # under a prefix
    saved = {f"1.{names[0]}": gamma.view(shape), f"1.{names[1]}": beta.view(shape)}
    before = dict(saved)
    model.load_state_dict(saved)
    assert torch.equal(model[1].gamma, gamma)
    assert torch.equal(model[1].beta, beta)
    assert saved.keys() == before.keys()  # the caller's dict is left alone
    assert set(model.state_dict()) == {"1.gamma", "1.beta"}


def test_grn_refuses_another_width() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        kernels.nn.GRN(6).load_state_dict({"gamma": torch.zeros(5), "beta": torch.zeros(5)})


@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_tanh"])
def test_grn_starts_as_its_activation(activation: kernels.reference.Activation) -> None:
    x = torch.randn(2, 9, 6)
    module = kernels.nn.GRN(6, activation=activation)
    torch.testing.assert_close(module(x), kernels.reference.activate(x, activation))


def test_lengths_reach_the_operators() -> None:
    x, lengths = torch.randn(2, 9, 6), torch.tensor([9, 4])
    conv, grn = kernels.nn.DepthwiseConv1d(6, 5), kernels.nn.GRN(6, activation="gelu")
    torch.nn.init.ones_(grn.beta)
    for module in (conv, grn):
        y = module(x, lengths)
        assert torch.equal(y[1, 4:], torch.zeros(5, 6))
        torch.testing.assert_close(y[1:, :4], module(x[1:, :4]))


def test_block_is_that_of_transformers() -> None:
    from transformers import ConvNextV2Config
    from transformers.models.convnextv2.modeling_convnextv2 import ConvNextV2Layer

    torch.manual_seed(0)
    theirs = ConvNextV2Layer(ConvNextV2Config(hidden_act="gelu"), dim=6).double().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    state = {name.replace("layernorm", "norm"): p for name, p in theirs.state_dict().items()}
    state["dwconv.weight"] = state["dwconv.weight"][:, :, :, 3]  # what a T x 1 image sees
    block = kernels.nn.ConvNeXtV2Block1d(6).double()
    block.load_state_dict(state)
    x = torch.randn(2, 20, 6, dtype=torch.float64, requires_grad=True)
    y = block(x)
    expected = theirs(x.transpose(1, 2).unsqueeze(3)).squeeze(3).transpose(1, 2)
    torch.testing.assert_close(y, expected)
    dy = torch.randn_like(y)
    ours, wanted = (torch.autograd.grad(out, x, dy)[0] for out in (y, expected))
    torch.testing.assert_close(ours, wanted)


def test_block_is_copied_saved_checkpointed_exported_and_run_without_gradients() -> None:
    torch.manual_seed(0)
    block, x = kernels.nn.ConvNeXtV2Block1d(4), torch.randn(2, 9, 4)
    torch.nn.init.normal_(block.grn.gamma)
    y = block(x)
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(twin(x), y)
    with torch.inference_mode():
        assert torch.equal(block(x), y)
    torch.testing.assert_close(torch.export.export(block, (x,)).module()(x), y)
    y.sum().backward()
    wanted = {name: parameter.grad for name, parameter in block.named_parameters()}
    for reentrant in (False, True):
        block.zero_grad()
        checkpoint(block, x.clone().requires_grad_(), use_reentrant=reentrant).sum().backward()
        for name, parameter in block.named_parameters():
            torch.testing.assert_close(parameter.grad, wanted[name])


def test_block_is_made_on_meta_and_drawn_later() -> None:
    block = kernels.nn.ConvNeXtV2Block1d(4, device="meta", dtype=torch.float64)
    assert {p.device.type for p in block.parameters()} == {"meta"}
    block = block.to_empty(device="cpu")
    for module in block.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert torch.equal(block.grn.gamma, torch.zeros(16, dtype=torch.float64))
    assert block(torch.randn(2, 9, 4, dtype=torch.float64)).isfinite().all()


def test_block_has_the_usual_names() -> None:
    names = {name for name, _ in kernels.nn.ConvNeXtV2Block1d(4).named_parameters()}
    affine = {
        f"{m}.{p}" for m in ("dwconv", "norm", "pwconv1", "pwconv2") for p in ("weight", "bias")
    }
    assert names == affine | {"grn.gamma", "grn.beta"}


def test_drop_path_drops_whole_records_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    block = kernels.nn.ConvNeXtV2Block1d(4, drop_path=0.25)
    x = torch.randn(1, 9, 4).expand(400, 9, 4)
    with torch.no_grad():
        whole = block.eval()(x) - x
        branch = block.train()(x) - x
    kept = branch.abs().sum((1, 2)) > 0
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.08)
    torch.testing.assert_close(branch[kept], whole[kept] / 0.75)
    with pytest.raises(ValueError, match=r"drop_path=1.0 must lie in \[0, 1\)"):
        kernels.nn.ConvNeXtV2Block1d(4, drop_path=1.0)


def test_block_compiles_as_one_graph_and_trains_under_autocast() -> None:
    torch.manual_seed(0)
    block = kernels.nn.ConvNeXtV2Block1d(4)
    x = torch.randn(2, 9, 4)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        y = compiled(x)
        torch.testing.assert_close(y, block(x), rtol=2e-2, atol=2e-2)
    assert y.dtype == torch.float32  # the residual stream
    y.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in block.parameters())
