"""Progress of a training run: a bar on a terminal, and plain lines where the output goes to a file or a pipe."""

import sys
import time

from tqdm.auto import tqdm
from transformers import TrainerCallback

_SECONDS_BETWEEN_LINES = 5.0


class Progress(TrainerCallback):
    """Shows step, loss, tokens a second and the time left, and each measurement."""

    def __init__(self):
        self.bar = None
        self.last_line = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = time.monotonic()
        self.first_step, self.first_tokens = state.global_step, state.num_input_tokens_seen
        if sys.stderr.isatty():
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_step_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in logs:
            return
        seconds = time.monotonic() - self.began
        speed = (state.num_input_tokens_seen - self.first_tokens) / seconds
        text = f"loss {logs['loss']:.3f}, {speed:.0f} tokens/s"
        if self.bar is not None:
            self.bar.set_postfix_str(text)
        elif time.monotonic() - self.last_line > _SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            left = int(seconds / (state.global_step - self.first_step) * (state.max_steps - state.global_step))
            self._line(state, f"{text}, {left // 60}:{left % 60:02d} left")

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if state.global_step == self.first_step:  # what is measured before the first step is no part of a step
            self.began = time.monotonic()
        names = ("loss", "exact_match", "character_accuracy")
        found = [(name, metrics[f"eval_{name}"]) for name in names if f"eval_{name}" in metrics]
        self._line(state, "measured: " + ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in found))

    def on_train_end(self, args, state, control, **kwargs):
        if self.bar is not None:
            self.bar.close()

    def _line(self, state, text: str) -> None:
        line = f"step {state.global_step}/{state.max_steps}: {text}"
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        else:
            print(line, flush=True)
