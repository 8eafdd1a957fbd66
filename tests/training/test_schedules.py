"""The papers' schedules, in their own words' numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyattn.errors import TrainingError
from polyattn.training import Schedule, Settings


def test_faces_are_learnt_with_a_warm_up_of_three_epochs_and_two_falls():
    schedule = Schedule("step", milestones=(250, 350), warmup_epochs=3, warmup_from=0.0)
    rates = [0.001 * schedule.factor(epoch, 400) for epoch in (0, 1.5, 3, 249, 250, 350)]
    assert rates == pytest.approx([0, 0.0005, 0.001, 0.001, 0.0001, 0.00001])


@given(st.floats(0, 5), st.integers(6, 100), st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_a_cosine_rises_in_the_warm_up_and_falls_afterwards(warmup, epochs, places):
    schedule = Schedule("cosine", warmup_epochs=warmup)
    early, late = sorted(places)
    rise = [schedule.factor(place * warmup * 0.999, epochs) for place in (early, late)]
    fall = [schedule.factor(warmup + place * (epochs - warmup), epochs) for place in (early, late)]
    assert warmup == 0 or rise[0] <= rise[1] <= 1
    assert 1 >= fall[0] >= fall[1] >= 0
    assert schedule.factor(epochs, epochs) == pytest.approx(0)


def test_milestones_that_do_not_rise_are_refused():
    with pytest.raises(TrainingError, match="rising order"):
        Schedule(milestones=(60, 30))


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"keep": 0}, {"steps": 0}, {"ema": 1.0}, {"seed": -1}])
def test_settings_without_sense_are_refused_by_name(wrong):
    with pytest.raises(TrainingError, match=next(iter(wrong))):
        Settings(**wrong)
