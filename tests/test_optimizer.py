"""Optimizers: which parameters decay, which go where, and that each one moves downhill."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from mmnet.average import Ema, Last, ScheduleFree, follow
from mmnet.optimizer import decay_groups
from mmnet.optimizer.adamw import adamw
from mmnet.optimizer.muon import Pair, hidden_matrices, muon
from mmnet.optimizer.nadamw import nadamw
from mmnet.optimizer.prodigy import prodigy
from mmnet.optimizer.schedule_free import schedule_free
from mmnet.optimizer.sgd import sgd


ADAM: dict[str, Any] = {"betas": (0.9, 0.99), "eps": 1e-8}
BUILD = {
    "adamw": lambda m, lr, wd: adamw(m, lr, wd, **ADAM),
    "nadamw": lambda m, lr, wd: nadamw(m, lr, wd, **ADAM),
    "prodigy": lambda m, lr, wd: prodigy(m, 100 * lr, wd, **ADAM),
    "sgd": lambda m, lr, wd: sgd(m, lr, wd, momentum=0.9, nesterov=True),
    "muon": lambda m, lr, wd: muon(m, lr, wd, momentum=0.9, **ADAM),
    "schedule_free": lambda m, lr, wd: schedule_free(m, lr, wd, **ADAM),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.hidden = nn.Linear(8, 8)
        self.head = nn.Sequential(nn.Linear(8, 3))
        self.frozen = nn.Linear(8, 8).requires_grad_(False)

    def forward(self, ids):
        return self.head(self.hidden(self.norm(self.embed(ids) + self.token[0])))


def test_biases_norms_and_tokens_do_not_decay_and_frozen_ones_are_left_out():
    net = Net()
    names = {id(p): name for name, p in net.named_parameters()}
    decayed, spared = ({names[id(p)] for p in g["params"]} for g in decay_groups(net, 0.1))
    assert decayed == {"embed.weight", "hidden.weight", "head.0.weight"}
    assert spared == {"token", "norm.weight", "norm.bias", "hidden.bias", "head.0.bias"}
    assert [g["weight_decay"] for g in decay_groups(net, 0.1)] == [0.1, 0.0]


@pytest.mark.parametrize("name", BUILD)
def test_weight_decay_shrinks_matrices_only(name):
    def trained(decay):
        net = Net()
        optimizer = BUILD[name](net, 0.01, decay)
        for _ in range(20):
            optimizer.zero_grad()
            net(torch.arange(5)).square().mean().backward()
            optimizer.step()
        return net

    free, held = trained(0.0), trained(5.0)
    assert held.hidden.weight.norm() < 0.9 * free.hidden.weight.norm()
    assert held.norm.weight.norm() > 0.9 * free.norm.weight.norm()


@pytest.mark.parametrize("name", BUILD)
def test_each_one_goes_downhill_at_the_rate_in_its_groups(name):
    net = Net()
    optimizer = BUILD[name](net, 0.05, 0.0)
    target = torch.tensor([0, 1, 2, 0, 1])
    losses = []
    for step in range(60):
        if step == 40:
            for group in optimizer.param_groups:
                group["lr"] = 0.0
            frozen = [p.detach().clone() for p in net.parameters()]
        loss = nn.functional.cross_entropy(net(torch.arange(5)), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[39] < 0.3 * losses[0]
    if name != "schedule_free":  # its average catches up even while its rate is zero
        assert all(torch.equal(a, b) for a, b in zip(frozen, net.parameters(), strict=True))


def test_muon_takes_hidden_matrices_and_adamw_the_rest():
    net = Net()
    pair = BUILD["muon"](net, 0.01, 0.1)
    assert isinstance(pair, Pair)
    assert hidden_matrices(net) == [net.hidden.weight]
    muons, adamws = ([p for g in o.param_groups for p in g["params"]] for o in pair.both)
    assert [id(p) for p in muons] == [id(net.hidden.weight)]
    every = {id(p) for p in net.parameters() if p.requires_grad}
    assert {id(p) for p in adamws} == every - {id(net.hidden.weight)}


@pytest.mark.parametrize("name", BUILD)
def test_state_round_trip_goes_on_bit_for_bit(name):
    def step(net, optimizer):
        optimizer.zero_grad()
        net(torch.arange(5)).square().mean().backward()
        optimizer.step()

    net = Net()
    optimizer = BUILD[name](net, 0.01, 0.1)
    for _ in range(3):
        step(net, optimizer)
    twin = Net()
    twin.load_state_dict(net.state_dict())
    restored = BUILD[name](twin, 0.01, 0.1)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        step(net, optimizer)
        step(twin, restored)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_ema_by_hand():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    ema = Ema(net, 0.5)
    expected = 1.0
    for step in range(1, 6):
        net.weight.data.fill_(float(step))
        ema.update(step)
        past = step - 1
        decay = min(0.5, 1 - (1 + past) ** (-2 / 3)) if past else 0.0
        expected = decay * expected + (1 - decay) * step
    with ema.evaluated() as network:
        assert network.weight.item() == pytest.approx(expected)
    assert net.weight.item() == 5.0
    assert ema.averaged()["weight"].item() == pytest.approx(expected)


def test_evaluating_schedule_free_changes_training_by_no_bit():
    net, twin = Net(), Net()
    optimizer, other = (
        BUILD["schedule_free"](net, 0.05, 0.1),
        BUILD["schedule_free"](twin, 0.05, 0.1),
    )
    average = follow(net, optimizer, None)
    assert isinstance(average, ScheduleFree)
    for turn in range(8):
        for n, o in ((net, optimizer), (twin, other)):
            o.zero_grad()
            n(torch.arange(5)).square().mean().backward()
            o.step()
        with average.evaluated() as network:
            weights = dict(network.named_parameters())
            same = torch.equal(weights["hidden.weight"], twin.hidden.weight)
            assert same == (turn == 0)  # the average of one point is that point
        averaged = average.averaged()["hidden.weight"]
        assert torch.equal(averaged, net.hidden.weight) == (turn == 0)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))


def test_which_average_is_followed():
    net = Net()
    plain = BUILD["adamw"](net, 0.01, 0.0)
    assert isinstance(follow(net, plain, None), Last)
    assert isinstance(follow(net, plain, 0.99), Ema)
    assert isinstance(follow(net, BUILD["muon"](net, 0.01, 0.0), None), Last)
