"""Merging one adapter into one weight in place, over `W.addmm_` for a LoRA of equal r: one thread.

`python benchmarks/merge_time.py` writes benchmarks/results/merge_time.json. LoRA's merge reads and writes W once and
multiplies; MoRA's reads and writes W (or, for rotation, its blocks) once and only adds.
"""

import _common  # first: sets the number of threads
import torch

from mora_peft.operators import make_operator, needs_even_side, r_hat_for

R = 8
SHAPES = ((4096, 4096), (4096, 11008))


def main() -> None:
    torch.set_num_threads(1)
    results = {}
    for d, k in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            W = torch.randn(d, k).to(dtype)
            A, B = torch.randn(R, k).to(dtype), torch.zeros(d, R).to(dtype)
            cases = {"lora": lambda W=W, A=A, B=B: W.addmm_(B, A)}
            for name in ("sharing", "rotation"):
                r_hat = r_hat_for(k, d, R, even=needs_even_side(name))
                operator, M = make_operator(name, k=k, d=d, r_hat=r_hat), torch.zeros(r_hat, r_hat)
                cases[name] = lambda W=W, operator=operator, M=M: operator.add_delta_(W, M)
            over_lora = _common.ratios(_common.interleaved(cases, 15), "lora")
            results[f"{d}x{k} {str(dtype).removeprefix('torch.')}"] = over_lora
    _common.save("merge_time", results)


if __name__ == "__main__":
    main()
