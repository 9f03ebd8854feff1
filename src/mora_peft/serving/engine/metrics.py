"""vLLM's gauge of the adapters that run and wait: the latest line of it, where vLLM keeps every one there ever was.

Its labels are the names of all adapters of a step, so that with thousands of adapters nearly every step makes a new
line, of some kilobytes, which is kept and sent to whoever asks for /metrics.
"""

from typing import Any

from vllm.v1.metrics.loggers import PrometheusStatLogger


def install() -> None:
    """Forget the gauge's lines before a new one is written: a line's value is its time, so the newest counts."""
    record = PrometheusStatLogger.record

    def record_latest(self: PrometheusStatLogger, scheduler_stats: Any, *args: Any, **options: Any) -> None:
        if scheduler_stats is not None and self.gauge_lora_info is not None:
            self.gauge_lora_info.clear()
        record(self, scheduler_stats, *args, **options)

    PrometheusStatLogger.record = record_latest
