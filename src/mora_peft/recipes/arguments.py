"""A run's settings in the words of TRL's trainer."""

from typing import TYPE_CHECKING

from . import ranks

if TYPE_CHECKING:
    from trl import SFTConfig

    from .train import TrainConfig


def trainer_arguments(config: "TrainConfig", autocast: bool, measured: bool, texts: bool, sampling: str) -> "SFTConfig":
    """The arguments of a run.

    Args:
        autocast: Compute in bfloat16 on weights that are trained in float32.
        measured: Whether there are rows to measure.
        texts: Whether the rows are plain texts, which may flow into one another.
        sampling: Order of the rows: random or sequential.
    """
    import torch
    from trl import SFTConfig

    arguments = SFTConfig(
        output_dir=config.output,
        seed=config.seed,
        # Without a seed of its own the data order would hang on how many random numbers a method's start draws.
        data_seed=config.seed,
        train_sampling_strategy=sampling,
        max_steps=config.steps,
        per_device_train_batch_size=ranks.share_of(config.batch_size, "batch_size"),
        per_device_eval_batch_size=config.evaluate_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        max_length=config.max_length,
        packing=config.packing == "all" or (config.packing == "texts" and texts),
        # Texts flow on into the next row. Rows with a prompt stay whole, and are kept apart by their positions.
        packing_strategy="wrapped" if texts else "bfd",
        eval_packing=False,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch",
        bf16=autocast,
        gradient_checkpointing=config.gradient_checkpointing,
        eval_strategy="steps" if measured else "no",
        eval_steps=config.evaluate_every,
        eval_on_start=measured,
        save_strategy="steps",
        save_steps=config.checkpoint_every,
        logging_steps=config.log_every,
        # A loss that is not a number must be seen, not averaged away.
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        report_to=config.report_to or "none",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        use_cpu=not torch.accelerator.is_available(),
        dataloader_pin_memory=torch.accelerator.is_available(),
    )
    if arguments.n_gpu > 1:  # Transformers would copy the model to each; a launcher gives each a process
        arguments._n_gpu = 1
    return arguments
