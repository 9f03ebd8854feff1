"""Seconds that `import mora_peft` takes beyond `import peft`, in fresh processes that imported peft first.

`python benchmarks/import_time.py` writes benchmarks/results/import_time.json.
"""

import statistics
import subprocess
import sys

import _common

CODE = "import time, peft; start = time.perf_counter(); import mora_peft; print(time.perf_counter() - start)"


def main() -> None:
    def above() -> float:
        return float(subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True, text=True).stdout)

    seconds = sorted(above() for _ in range(5))
    _common.save("import_time", {"seconds_above_peft": statistics.median(seconds), "all": seconds})


if __name__ == "__main__":
    main()
