"""What other libraries say on the terminal and send over the network: nothing."""


def quiet_libraries() -> None:
    """Keep libraries' own bars and notices off the terminal, and TRL's usage report off the network."""
    import os

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
