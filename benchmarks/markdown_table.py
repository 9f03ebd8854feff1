"""A table as Markdown has it."""


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """`lines` of as many cells as `header` has, under it."""
    rows = [header, ["---"] * len(header), *lines]
    plain = [[cell.replace("|", "\\|").replace("\u00a0", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in plain)
