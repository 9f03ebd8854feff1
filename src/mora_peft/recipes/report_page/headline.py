"""The plain sentences at the top of the page: what the numbers say, and what they do not say."""

from .numbers import Comparison, Estimate, Group, final, number, steps_to


def percent(value: float) -> str:
    """A share as a percentage: 0.5 → '50 %', 0.123 → '12.3 %', 55.287 → '5,529 %'."""
    return (f"{value * 100:,.0f}" if value >= 10 else f"{value * 100:.1f}".removesuffix(".0")) + "\u00a0%"


def interval(estimate: Estimate) -> str:
    """The 95 % interval of a share, cut to what a share can be."""
    return f"{percent(max(0.0, estimate.low))[:-2]}–{percent(min(1.0, estimate.high))}"


def figures(value: float) -> str:
    """Three significant figures, trailing zeros kept: 2.3 → '2.30'."""
    return f"{value:#.3g}".removesuffix(".")


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def few(names: list[str]) -> str:
    """Up to three names; of more, the first and how many others."""
    return listed(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} other methods"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def exact_match(group: Group) -> Estimate | None:
    return group.result(lambda run: final(run, "exact_match"))


def headline(comparison: Comparison) -> tuple[str, list[str]]:
    """The claim in one sentence, and the notes that bound it."""
    scored = [group for group in comparison.groups if exact_match(group)]
    fair = [group for group in scored if comparison.equal_budget(group)]
    rivals = sorted(fair if len(fair) > 1 else scored, key=lambda group: -exact_match(group).mean)
    others = [group for group in scored if group not in rivals]
    if not rivals:
        claim = "No run finished with an exact match score, so there is nothing to compare."
    elif len(rivals) == 1:
        claim = f"{described(rivals[0])} on exact match. No other method has a score to compare it with."
    else:
        claim = compared(rivals, "At equal budget, " if others else "")
    notes = [note for note in (pace(comparison, rivals), *(outside(group) for group in others)) if note]
    return claim, notes + caveats(comparison, rivals + others)


def described(group: Group) -> str:
    estimate = exact_match(group)
    spread = f" (95\u00a0% confidence interval {interval(estimate)})" if estimate.n > 1 else ""
    return f"{group.label} ended at {percent(estimate.mean)}{spread}"


def compared(rivals: list[Group], opening: str) -> str:
    """Which method led on final exact match and by how much, from two methods or more, best first."""
    (best, first), (second, runner_up) = ((group, exact_match(group)) for group in rivals[:2])
    if first.n == 1 or runner_up.n == 1:
        tied = [group.label for group in rivals if exact_match(group).mean == first.mean]
        if len(tied) > 1:
            return f"{opening}{few(tied)} ended level on exact match, at {percent(first.mean)}."
        return (
            f"{opening}{best.label} led on final exact match: {percent(first.mean)} against "
            f"{percent(runner_up.mean)} for {second.label}, a lead of {points(first, runner_up)}."
        )
    close = [group for group in rivals[1:] if exact_match(group).n > 1 and exact_match(group).overlaps(first)]
    if close:
        names = few([group.label for group in (best, *close)])
        scores = [percent(exact_match(group).mean) for group in (best, *close)]
        at = (
            f"{scores[0]} each"
            if len(set(scores)) == 1
            else listed(scores)
            if len(scores) <= 3
            else f"{scores[0]} to {scores[-1]}"
        )
        return sentence(
            f"{opening}no difference seen on final exact match between {names}, at {at}: their intervals overlap."
        )
    return (
        f"{opening}{best.label} led on final exact match: {percent(first.mean)} on average against "
        f"{percent(runner_up.mean)} for {second.label}, a lead of {points(first, runner_up)}; "
        f"their intervals do not overlap."
    )


def sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def points(first: Estimate, second: Estimate) -> str:
    difference = f"{(first.mean - second.mean) * 100:.1f}".removesuffix(".0")
    return f"{difference} percentage point{'' if difference == '1' else 's'}"


def pace(comparison: Comparison, rivals: list[Group]) -> str:
    """Who reached 99 % recall, and when: it still tells methods apart when all end at the top."""
    reached, missed = [], []
    for group in rivals:
        steps = [steps_to(run, 0.99) for run in group.finished]
        if steps and None not in steps:
            reached.append((sum(steps) / len(steps), group.label))
        else:
            missed.append(group.label + (" (not in every run)" if len(steps) > steps.count(None) else ""))
    if not reached or len(rivals) < 2:
        return ""
    told = listed([f"{label} after {steps:,.0f} steps" for steps, label in sorted(reached)])
    return f"99\u00a0% exact match: {told}" + (f"; not reached by {listed(missed)}." if missed else ".")


def outside(group: Group) -> str:
    share = group.share_of_budget()
    size = f", at {percent(share)} of the budget" if share is not None else ""
    return f"Not at equal budget: {described(group)}{size}."


def caveats(comparison: Comparison, scored: list[Group]) -> list[str]:
    """What a reader must know before believing the claim."""
    notes = []
    single = [group for group in scored if exact_match(group).n == 1]
    if single:
        who = "each method" if len(single) == len(scored) else listed([group.label for group in single])
        notes.append(
            f"One seed for {who}: one seed shows no spread, so a difference here may be luck. Repeat with more seeds."
        )
    if len(single) < len(scored):
        seeds = sorted({exact_match(group).n for group in scored if exact_match(group).n > 1})
        notes.append(
            f"Means over {' or '.join(map(str, seeds))} seeds with 95\u00a0% confidence intervals (Student\u00a0t); "
            "overlapping intervals are called no difference."
        )
    for group in comparison.groups:
        if lost := group.unfinished:
            what = listed(sorted({str(run.get("status") or "unfinished") for run in lost}))
            average = "; its average covers only those that finished" if group.finished else ""
            notes.append(f"{group.label}: {len(lost)} of {counted(len(group.runs), 'run')} {what}{average}.")
    finished = [run for group in scored for run in group.finished]
    for key in ("steps", "device"):
        found = {run[key] for run in finished if isinstance(run.get(key), str) or number(run.get(key)) is not None}
        if len(found) > 1:
            notes.append(f"The runs also differ in {key} ({', '.join(sorted(map(str, found)))}), not in method alone.")
    if scored:
        notes.append("One task, one model, one set of settings: nothing here says how other data or models would do.")
    return notes
