"""What a run says of itself while it goes on."""

from types import SimpleNamespace

from mora_peft.recipes import progress


def test_time_left_does_not_count_what_was_measured_before_the_first_step(monkeypatch, capsys):
    now = 1000.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(progress.sys, "stderr", SimpleNamespace(isatty=lambda: False))
    state = SimpleNamespace(global_step=4, max_steps=10, num_input_tokens_seen=400)
    said = progress.Progress()

    said.on_train_begin(None, state, None)
    now += 600
    said.on_evaluate(None, state, None, metrics={"eval_loss": 3.25})
    now += 20
    state.global_step, state.num_input_tokens_seen = 6, 600
    said.on_log(None, state, None, logs={"loss": 2.5})

    assert capsys.readouterr().out.splitlines() == [
        "step 4/10: measured: loss 3.250",
        "step 6/10: loss 2.500, 10 tokens/s, 0:40 left",
    ]


def test_a_measurement_between_steps_counts_in_the_time_left(monkeypatch, capsys):
    now = 1000.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(progress.sys, "stderr", SimpleNamespace(isatty=lambda: False))
    state = SimpleNamespace(global_step=0, max_steps=4, num_input_tokens_seen=0)
    said = progress.Progress()

    said.on_train_begin(None, state, None)
    now += 10
    state.global_step, state.num_input_tokens_seen = 1, 100
    said.on_evaluate(None, state, None, metrics={})
    now += 30
    state.global_step, state.num_input_tokens_seen = 2, 200
    said.on_log(None, state, None, logs={"loss": 1.0})

    assert capsys.readouterr().out.splitlines()[-1] == "step 2/4: loss 1.000, 5 tokens/s, 0:40 left"
