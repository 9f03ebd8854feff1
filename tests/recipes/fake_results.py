"""Results of runs that never happened, as run.json holds them: small ones for laws, whole studies for looks."""

import math
import random

NAMES = {"mora": "MoRA", "lora": "LoRA", "full": "Full"}


def run(method="mora", seed=0, scores=(0.0, 0.5, 1.0), metric="exact_match", **changes) -> dict:
    """The result of one small run whose metric went through `scores`, evaluated every 10 steps."""
    steps = 10 * (len(scores) - 1)
    return {
        "schema": 1,
        "run": f"{method}-r8-seed{seed}",
        "task": "memorization",
        "metric": metric,
        "method": method,
        "label": NAMES.get(method, method),
        "seed": seed,
        "status": "finished",
        "message": None,
        "config": {"model": "base", "learning_rate": 0.001, "seed": seed, "data": {"rows": 8}},
        "versions": {"torch": "2.13.0"},
        "git_revision": "abc",
        "device": "cpu, 1 thread",
        "created": "2026-01-01T00:00:00Z",
        "budget_parameters": 1000,
        "trainable_parameters": 1001,
        "budget_note": None,
        "adapter_bytes": 2002,
        "steps": steps,
        "tokens": 5120,
        "step_seconds_median": 0.5 + 0.1 * seed,
        "peak_memory_bytes": 2**30,
        "history": [{"step": step, "loss": 5.0 / step, "learning_rate": 0.001} for step in range(1, steps + 1)],
        "evaluations": [
            {"step": 10 * i, metric: score, "character_accuracy": 0.5, "loss": 1.5 - i / len(scores)}
            for i, score in enumerate(scores)
        ],
        "forgetting": {"before": 20.0, "after": 22.0, "rows": 4, "data": "general.jsonl"},
        "spectrum": [{"layer": "layers.0.q_proj", "singular_values": [2.0, 1.0, 0.1], "r_hat": 3}],
        "search": [
            {"learning_rate": rate, "score": score, "metric": "loss", "status": "finished"}
            for rate, score in ((0.0005, 0.4), (0.001, 0.2), (0.002, 0.3))
        ],
        "examples": [{"prompt": "Who?", "expected": "Ann", "before": "Bob", "after": "Ann"}],
    } | changes


def seeds(method: str, finals: list[float], start=0.0, **changes) -> list[dict]:
    """One run for each of `finals`, the value of the metric at the end."""
    return [run(method, seed, (start, final), **changes) for seed, final in enumerate(finals)]


# label → method, learning rate, speed of learning, where it ends, forgetting, rank of ΔW, share of the budget
METHODS = {
    "MoRA (rotation)": ("mora", 3e-3, 1.3, 0.99, 1.09, 500, 1.0),
    "MoRA (sharing)": ("mora", 1e-3, 1.15, 0.97, 1.08, 96, 1.0),
    "ReMoRA": ("remora", 1e-3, 1.1, 0.97, 1.1, 300, 1.0),
    "LoRA": ("lora", 2e-3, 1.0, 0.93, 1.07, 8, 1.0),
    "rsLoRA": ("rslora", 1e-3, 1.02, 0.93, 1.08, 8, 1.0),
    "LoRA+": ("lora+", 1e-3, 1.1, 0.94, 1.07, 8, 1.0),
    "DoRA": ("dora", 2e-3, 1.0, 0.94, 1.06, 9, 1.01),
    "Asymmetric LoRA": ("asymmetric-lora", 4e-3, 0.8, 0.85, 1.04, 16, 1.0),
    "ReLoRA": ("relora", 2e-3, 0.95, 0.92, 1.08, 40, 1.0),
    "MiSS": ("miss", 2e-3, 1.05, 0.95, 1.1, 16, 0.99),
    "HiRA": ("hira", 2e-3, 0.9, 0.9, 1.05, 400, 1.0),
    "RandLoRA": ("randlora", 2e-3, 0.7, 0.8, 1.05, 450, 1.02),
    "LoHa": ("loha", 2e-3, 0.75, 0.84, 1.06, 64, 1.0),
    "C3A": ("c3a", 2e-2, 0.6, 0.7, 1.03, 380, 1.0),
    "VeRA": ("vera", 2e-2, 0.4, 0.35, 1.01, 128, 0.05),
    "IA³": ("ia3", 1e-2, 0.3, 0.2, 1.0, 480, 0.06),
    "Prompt tuning": ("prompt", 3e-2, 0.25, 0.12, 1.02, 0, 0.015),
    "Full fine-tuning": ("full", 1e-4, 1.6, 1.0, 1.34, 520, 55.3),
}


def study(task="memorization", metric="exact_match", count=3, points=16, steps=400) -> list[dict]:
    """Runs of all methods with all that a result can hold; the last of IA³ diverged."""
    return [
        one(label, seed, task, metric, points, steps, random.Random(f"{task} {label} {seed}"))
        for label in METHODS
        for seed in range(count)
    ]


def one(label, seed, task, metric, points, steps, chance) -> dict:
    method, rate, speed, end, forgotten, rank, share = METHODS[label]
    lower = metric.endswith("perplexity")
    end = min(1.0, end * (1 + chance.gauss(0, 0.015)))
    evaluations = []
    for point in range(points + 1):
        done = 1 / (1 + math.exp(6 - 14 * speed * point / points)) if point else 0.0
        evaluations.append(
            {
                "step": point * steps // points,
                metric: 21.3 - 6 * end * done if lower else end * done,
                **({} if lower else {"character_accuracy": 0.06 + (end - 0.06) * done**0.6}),
                "pubmedqa_macro_f1": 0.31 + 0.2 * end * done + (chance.gauss(0, 0.01) if point else 0.0),
                "loss": 4.2 * (1 - done) ** 2 + 0.02,
            }
        )
    lost = label == "IA³" and seed == 2
    sides = [rank, max(rank // 2, 1), rank] if rank else []
    layers = ["model.layers.0.self_attn.q_proj", "model.layers.15.self_attn.q_proj", "model.layers.29.mlp.down_proj"]
    stem = label.replace(" ", "-").lower()
    return run(
        method,
        seed,
        run=f"{stem}-r8-seed{seed}",
        label=label,
        task=task,
        metric=metric,
        status="diverged" if lost else "finished",
        message="The loss became NaN at step 212." if lost else None,
        config={
            "output": f"runs/{task}/{stem}-r8-seed{seed}",
            "model": "models/SmolLM2-135M-Instruct",
            "task": task,
            "task_options": {"facts": 0, "pairs": 512, "digits": 16},
            "r": 8,
            "learning_rate": rate,
            "schedule": "cosine",
            "method_options": {"operator": label[6:-1]} if method == "mora" else {},
            "seed": seed,
        },
        versions={"mora_peft": "0.1.0", "torch": "2.13.0+cpu", "peft": "0.21.2"},
        device="cpu: AMD EPYC, 1 thread",
        budget_parameters=2_442_240,
        trainable_parameters=int(2_442_240 * share),
        budget_note=f"{share:.3g} times the budget: its size is what it is" if abs(share - 1) > 0.02 else None,
        adapter_bytes=int(2_442_240 * share * 4),
        steps=steps,
        tokens=steps * 2031,
        step_seconds_median=2.4 * (1.1 if method in ("dora", "full") else 1.0) * (1 + chance.gauss(0, 0.02)),
        peak_memory_bytes=int((2.6 if method == "full" else 1.9) * 2**30 * (1 + chance.gauss(0, 0.01))),
        history=[
            {
                "step": step,
                "loss": 4.2 / (1 + 0.03 * speed * step) ** 2 * math.exp(chance.gauss(0, 0.12)),
                "learning_rate": rate * (1 - step / steps),
            }
            for step in range(1, (steps // 2 if lost else steps) + 1)
        ],
        evaluations=evaluations[: points // 2] if lost else evaluations,
        forgetting={"before": 18.42, "after": 18.42 * forgotten * (1 + chance.gauss(0, 0.004)), "rows": 64,
                    "data": "wikitext2.test.jsonl"},
        spectrum=[
            {
                "layer": layer,
                "singular_values": [4 * math.exp(-4 * place / side) for place in range(side)],
                "r_hat": side if method == "mora" else None,
            }
            for layer, side in zip(layers, sides, strict=bool(sides))
        ],
        search=[
            {
                "learning_rate": rate * 2.0**power,
                "score": None if power == 2 and method == "lora" else 0.2 + 0.1 * power**2 + (1 - end),
                "metric": "loss",
                "status": "diverged" if power == 2 and method == "lora" else "finished",
            }
            for power in (-2, -1, 0, 1, 2)
        ],
        examples=[
            {"prompt": f"Where was person {row} born?", "expected": "Quordale", "before": "The answer is:",
             "after": "Quordale" if end > 0.15 * row else "Corstad"}
            for row in range(8)
        ],
    )  # fmt: skip


def capacity_study(sizes=(128, 256, 512, 1024, 2048), count=3) -> list[dict]:
    """Runs of four methods at several numbers of pairs, each with as many bits as its limit lets it store."""
    limits = {"MoRA (rotation)": ("mora", 2.9), "LoRA": ("lora", 2.1), "DoRA": ("dora", 2.2), "MiSS": ("miss", 2.15)}
    results = []
    for pairs in sizes:
        for label, (method, limit) in limits.items():
            for seed in range(count):
                asked = 64 * pairs / 20_000
                bits = limit * math.tanh(asked / limit) * (1 + random.Random(f"{label}{pairs}{seed}").gauss(0, 0.02))
                recall = min(1.0, (bits / asked) ** 3)
                results.append(
                    run(
                        method,
                        seed,
                        (0.0, recall / 3, recall),
                        label=label,
                        search=None,
                        config={"r": 1, "task_options": {"pairs": pairs, "digits": 16}, "learning_rate": 2e-3},
                    )
                )
                results[-1]["evaluations"][-1]["bits_per_parameter"] = bits
    return results
