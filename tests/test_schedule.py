"""Schedules as pure functions of the step."""

from itertools import pairwise

import pytest

from mmnet.schedule.constant import constant
from mmnet.schedule.cosine import cosine
from mmnet.schedule.linear import linear
from mmnet.schedule.wsd import wsd


ALL = {
    "cosine": lambda warmup, final: cosine(warmup, final),
    "linear": lambda warmup, final: linear(warmup, final),
    "wsd": lambda warmup, final: wsd(warmup, 0.25, final),
    "constant": lambda warmup, final: constant(warmup),
}


@pytest.mark.parametrize("name", ALL)
def test_warm_up_rises_in_a_straight_line(name):
    factor = ALL[name](0.1, 0.0)
    assert [factor(step, 100) for step in (1, 5, 10)] == pytest.approx([0.1, 0.5, 1.0])


@pytest.mark.parametrize("name", ALL)
def test_without_warm_up_the_first_step_is_a_whole_one(name):
    assert ALL[name](0.0, 0.0)(1, 50) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
def test_the_rate_falls_to_its_floor_and_the_last_step_still_moves(name):
    free, floored = ALL[name](0.1, 0.0), ALL[name](0.1, 0.25)
    path = [free(step, 200) for step in range(21, 201)]
    assert all(a >= b for a, b in pairwise(path))
    assert 0 < path[-1] < 0.03
    assert floored(200, 200) == pytest.approx(0.25, abs=0.03)


def test_half_way_figures():
    assert cosine(0.0, 0.0)(51, 100) == pytest.approx(0.5)
    assert linear(0.0, 0.0)(26, 100) == pytest.approx(0.75)
    assert wsd(0.0, 0.2, 0.0)(80, 100) == 1.0
    assert wsd(0.0, 0.2, 0.0)(91, 100) == pytest.approx(0.5)
    assert constant(0.1)(90, 100) == 1.0


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_have_finite_rates(name, total):
    factor = ALL[name](0.5, 0.0)
    assert all(0 < factor(step, total) <= 1 for step in range(1, total + 1))
