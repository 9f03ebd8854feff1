"""How the page puts numbers and names into words."""


def percent(value: float) -> str:
    """A share as a percentage: 0.5 → '50 %', 0.123 → '12.3 %', 55.287 → '5,529 %'."""
    return (f"{value * 100:,.0f}" if value >= 10 else f"{value * 100:.1f}".removesuffix(".0")) + "\u00a0%"


def figures(value: float, count: int = 3) -> str:
    """Three significant figures (or `count`), trailing zeros kept: 2.3 → '2.30', 12345 → '12,300', 2e-5 → '2.00e-5'."""
    if abs(value) >= 1000:
        return f"{float(f'{value:.{count - 1}e}'):,.0f}" if abs(value) < 1e9 else exponent(value, count)
    if value and abs(value) < 1e-3:
        return exponent(value, count)
    return f"{value:#.{count}g}".removesuffix(".")


def exponent(value: float, count: int) -> str:
    digits, power = f"{value:.{count - 1}e}".split("e")
    return f"{digits}e{int(power)}"


def rate(value: float) -> str:
    """A learning rate as people write it: 0.002 → '2e-3', 0.00025 → '2.5e-4'."""
    digits, power = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def times(ratio: float) -> str:
    """A ratio: 1.1234 → '×1.12'."""
    return f"×{figures(ratio)}"


def size(count: float) -> str:
    """Bytes in binary units, three figures: 4915200 → '4.69 MiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{figures(count)} {unit}"
        count /= 1024


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def few(names: list[str]) -> str:
    """Up to three names; of more, the first and how many others."""
    return listed(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} other methods"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def sentence(text: str) -> str:
    return text[0].upper() + text[1:]
