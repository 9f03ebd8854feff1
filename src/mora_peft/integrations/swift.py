"""A tuner for ms-swift: `--tuner_type mora`.

`--external_plugins mora.py`, a file of two lines, makes it known:

    from mora_peft.integrations.swift import register
    register(operator="rotation")  # any fields of MoraConfig that ms-swift has no option for
"""

from typing import Any

import torch
from peft import get_peft_model
from swift.pipelines.train.tuner import get_modules_to_save, get_target_modules
from swift.tuner_plugin import PeftTuner, tuners_map

from .lora_fields import mora_config


def register(**options: Any) -> None:
    """Make `--tuner_type mora` known to ms-swift, with `options` for every adapter that it makes.

    ms-swift's `lora_rank`, `lora_dropout`, `target_modules`, `target_regex`, `target_parameters` and `modules_to_save`
    say the rest; `lora_alpha` is passed over.
    """

    class MoraTuner(PeftTuner):
        """Saved and loaded as any adapter of PEFT."""

        @staticmethod
        def prepare_model(args: Any, model: torch.nn.Module) -> torch.nn.Module:
            fields = {
                "task_type": args.task_type.upper(),
                "r": args.lora_rank,
                "lora_dropout": args.lora_dropout,
                "lora_alpha": args.lora_alpha,
                "target_modules": get_target_modules(args, model),
                "target_parameters": args.target_parameters,
                "modules_to_save": get_modules_to_save(args, model, args.task_type) or None,
                "bias": args.lora_bias,
                "use_dora": args.use_dora,
                "use_rslora": args.use_rslora,
            }
            return get_peft_model(model, mora_config(**fields | options))

    tuners_map["mora"] = MoraTuner
