"""Runs that are interrupted, and settings of small ones."""

from contextlib import contextmanager

import pytest


@pytest.fixture
def interrupted():
    """`with interrupted(step):` a training that ends there as by Ctrl-C."""
    from mora_peft.recipes.trainer import RecipeTrainer

    original = RecipeTrainer.training_step

    @contextmanager
    def interrupted(step: int):
        def stop(self, *args, **kwargs):
            if self.state.global_step == step:
                raise KeyboardInterrupt
            return original(self, *args, **kwargs)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(RecipeTrainer, "training_step", stop)
            yield

    return interrupted


@pytest.fixture
def settings(tiny_model, tmp_path) -> dict:
    """Settings of a small memorization run, as keywords of TrainConfig or CompareConfig."""
    return {
        "output": str(tmp_path / "run"),
        "model": tiny_model,
        "task": "memorization",
        "task_options": {"facts": 4, "pairs": 4, "digits": 4},
        "r": 2,
        "steps": 7,
        "batch_size": 3,  # not a divisor of the rows, so that epochs end in short batches
        "evaluate_every": 3,
        "checkpoint_every": 2,
    }
