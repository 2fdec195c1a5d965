"""The network, its masks and its file, without Spark."""

from __future__ import annotations

import math
import re

import pytest
import safetensors.torch
import torch

from nightrec.errors import NightrecError
from nightrec.ranker.heads import Network
from nightrec.ranker.model import DropoutMasks, dumped, flattened, loaded, read, write


def network(shift: float = 0.0) -> Network:
    torch.manual_seed(17)
    return Network(torch.tensor([1.0, 0.0, 5.0]), torch.tensor([2.0, 1.0, 0.0]), torch.tensor(shift), (8, 4)).eval()


def test_shapes_and_values_of_a_fixed_seed():
    out = network()(torch.tensor([[1.0, 0.0, 5.0], [3.0, -1.0, 5.0]]))
    assert out.shape == (2,)
    # drawn by torch's default initialisation from seed 17; a change means other models from the same data
    assert out.tolist() == pytest.approx([-0.24883, -0.248409], abs=1e-5)


def test_it_standardises_and_a_constant_feature_stays_out():
    net = network()
    # (x - mean) / std, worked out by hand; the third feature never varied, so its std counts as 1
    x = torch.tensor([[3.0, 2.0, 7.0]])
    z = torch.tensor([[1.0, 2.0, 2.0]])
    hidden = torch.relu(net.layers[1](torch.relu(net.layers[0](z))))
    assert torch.allclose(net(x), net.output(hidden).squeeze(-1))


def test_the_shift_undoes_the_sampling_of_negatives():
    # odds among all = odds among the kept times the share kept
    x = torch.randn(5, 3)
    kept, all_ = torch.sigmoid(network()(x)), torch.sigmoid(network(math.log(0.25))(x))
    assert torch.allclose(all_ / (1 - all_), 0.25 * kept / (1 - kept), rtol=1e-4)
    training = network(math.log(0.25)).train()
    assert torch.allclose(training(x), network()(x))


def test_masks_belong_to_rows_and_keep_the_mean():
    masks = DropoutMasks((64, 32), 0.25, seed=1).draw(range(4096), 4096)
    assert [mask.shape for mask in masks] == [(4096, 64), (4096, 32)]
    assert masks[0].unique().tolist() == pytest.approx([0, 4 / 3])
    assert [float(mask.mean()) for mask in masks] == pytest.approx([1, 1], abs=0.01)
    # no unit and no row is always in or always out
    assert all(mask.mean(dim).min() > 0 and mask.mean(dim).max() < 4 / 3 for mask in masks for dim in (0, 1))
    assert DropoutMasks((64,), 0.0, seed=1).draw(range(8), 8) == []


def test_processes_that_take_parts_of_a_batch_draw_the_masks_of_the_whole():
    # 5 and 3 units: a row's stretch of the stream is longer than it needs; parts of unlike sizes, one of them empty
    whole = DropoutMasks((5, 3), 0.5, seed=1)
    parts = [DropoutMasks((5, 3), 0.5, seed=1) for _ in range(3)]
    steps = []
    for borders in ([0, 3, 3, 8], [0, 1, 4, 5], [0, 0, 2, 8]):
        steps.append(whole.draw(range(borders[-1]), borders[-1]))
        spans = [range(*borders[n : n + 2]) for n in range(3)]
        drawn = [part.draw(span, borders[-1]) for part, span in zip(parts, spans, strict=True)]
        by_layer = zip(*drawn, strict=True)
        assert all(torch.equal(mask, torch.cat(layer)) for mask, layer in zip(steps[-1], by_layer, strict=True))
    assert not torch.equal(steps[0][0], steps[2][0])
    assert not torch.equal(steps[0][0], DropoutMasks((5, 3), 0.5, seed=2).draw(range(8), 8)[0])


def test_a_masked_unit_contributes_nothing():
    net = network().train()
    zero = [torch.ones(1, 8), torch.zeros(1, 4)]
    assert torch.equal(net(torch.randn(1, 3), zero), net.output.bias)


def test_weights_come_back_bit_for_bit_and_replace_whole(tmp_path):
    file = tmp_path / "ranker-1" / "model.safetensors"
    net = network(-0.5)
    write(b"an older model", file)
    sha256 = write(dumped(net), file)
    again = loaded(read(file, sha256))
    x = torch.randn(100, 3)
    assert torch.equal(again(x), net(x)) and not again.training
    assert [path.name for path in file.parent.iterdir()] == ["model.safetensors"]


def test_other_or_broken_weights_are_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    with pytest.raises(NightrecError, match=r"model.safetensors cannot be read: No such file"):
        read(file, "0")
    sha256 = write(dumped(network()), file)
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(NightrecError, match=rf"expected sha-256 {sha256}, found [0-9a-f]{{64}}; train it again"):
        read(file, sha256)
    tensors = safetensors.torch.load(dumped(network()))
    wrong_width = safetensors.torch.save(tensors | {"output.weight": torch.zeros(1, 9)})
    extra = safetensors.torch.save(tensors | {"other": torch.zeros(1)})
    for broken in (b"", b"\x80\x04N.", dumped(network())[:100], safetensors.torch.save({}), wrong_width, extra):
        with pytest.raises(NightrecError, match=re.compile("weights cannot be read: .*train it again")):
            loaded(broken)


def test_flattened_weights_are_the_network_s_own():
    net = network().train()
    before = net(x := torch.randn(4, 3))
    weights, gradient = flattened(net)
    assert torch.equal(net(x), before)
    net(x).sum().backward()
    assert torch.equal(gradient, torch.cat([weight.grad.flatten() for weight in net.parameters()])) and gradient.any()
    weights.data.zero_()
    assert net(x).tolist() == [0] * 4
    assert set(loaded(dumped(net)).state_dict()) == {*dict(net.named_parameters()), "mean", "std", "shift"}
