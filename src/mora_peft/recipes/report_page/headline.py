"""The plain sentences at the top of a comparison: what the numbers say, and what they do not say."""

from .groups import Comparison, Group
from .metrics import Metric
from .numbers import Estimate, forgotten, number, rows, steps_to
from .words import counted, few, figures, listed, percent, rate, sentence, times


def headline(comparison: Comparison) -> tuple[str, list[str]]:
    """The claim in one sentence, and the notes that bound it."""
    metric = comparison.metric
    scored = [group for group in comparison.groups if comparison.score(group)]
    fair = [group for group in scored if comparison.equal_budget(group)]
    rivals = sorted(fair if len(fair) > 1 else scored, key=lambda group: metric.order(comparison.score(group).mean))
    others = [group for group in scored if group not in rivals]
    if not any(group.finished for group in comparison.groups):
        claim = "No run finished, so there is nothing to compare."
    elif not rivals:
        claim = f"No run finished with a value of {metric.name}, so there is nothing to compare."
    elif len(rivals) == 1:
        claim = f"{described(comparison, rivals[0])}. No other method has a value to compare it with."
    else:
        ends = [(group.label, comparison.sure(group)) for group in rivals]
        claim = compared(metric, ends, "At equal budget, " if others else "")
    notes = [standing(comparison, rivals), pace(comparison, rivals)]
    notes += [outside(comparison, others), forgetting_note(comparison)]
    return claim, [note for note in notes if note] + caveats(comparison, rivals + others)


def described(comparison: Comparison, group: Group) -> str:
    metric, estimate = comparison.metric, comparison.score(group)
    spread = f" (95\u00a0% confidence interval {metric.interval(estimate)})" if estimate.n > 1 else ""
    return f"{group.label} ended with {metric.name} at {metric.form(estimate.mean)}{spread}"


def compared(metric: Metric, ends: list[tuple[str, Estimate]], opening: str) -> str:
    """Which method led at the end and by how much; `ends` are two labels or more with their estimates, best first."""
    (best, first), (second, runner_up) = ends[:2]
    end = f"final {metric.name}{' (lower is better)' if metric.lower else ''}"
    lead = f"{metric.form(runner_up.mean)} for {second}, a lead of {metric.lead(first.mean, runner_up.mean)}"
    last = max(place for place, (_, estimate) in enumerate(ends) if estimate.overlaps(first))
    # A single run between another and an interval that holds that one is no further off: neither has a spread.
    close = [
        (name, found) for name, found in ends[1 : last + 1] if found.overlaps(first) or found.low is first.low is None
    ]
    names = few([best, *(name for name, _ in close)])
    points = {found.low is None for _, found in [ends[0], *close]}
    if close and False not in points:
        return f"{opening}{names} ended level on {metric.name}, at {metric.form(first.mean)}."
    if close:
        values = [metric.form(estimate.mean) for _, estimate in [ends[0], *close]]
        if len(set(values)) == 1:
            at = f"{values[0]} each"
        else:
            at = listed(values) if len(values) <= 3 else f"{values[0]} to {values[-1]}"
        why = "their intervals overlap" + (", one seed counting as a point" if True in points else "")
        return sentence(f"{opening}no difference seen on {end} between {names}, at {at}: {why}.")
    average = "" if first.n == 1 or runner_up.n == 1 else " on average"
    apart = "" if first.low is None or runner_up.low is None else "; their intervals do not overlap"
    return f"{opening}{best} led on {end}: {metric.form(first.mean)}{average} against {lead}{apart}."


def standing(comparison: Comparison, rivals: list[Group]) -> str:
    """Each method against LoRA, where there are more than two: who ended better, level, or worse."""
    reference, metric = comparison.reference, comparison.metric
    if reference not in rivals or len(rivals) < 3:
        return ""
    mine = comparison.sure(reference)
    better, level, worse = [], [], []
    for group in rivals:
        score = comparison.sure(group)
        if group is reference:
            continue
        if score.overlaps(mine):
            level.append(group.label)
        else:
            (better if metric.better(score.mean, mine.mean) else worse).append(group.label)
    told = [f"{word} {listed(found)}" for word, found in
            (("better:", better), ("no difference seen:", level), ("worse:", worse)) if found]  # fmt: skip
    return f"Against {reference.label} at {metric.form(mine.mean)}, {'; '.join(told)}."


def pace(comparison: Comparison, rivals: list[Group]) -> str:
    """Who came first to the highest mark, and when: it still tells methods apart when all end at the top."""
    marks, metric = comparison.marks(), comparison.metric
    if not marks or len(rivals) < 2:
        return ""
    mark, title = marks[-1]
    reached, partly, missed = [], [], []
    for group in rivals:
        steps = [steps_to(run, metric.key, mark, metric.lower) for run in group.finished]
        if None not in steps:
            reached.append((sum(steps) / len(steps), group.label))
        else:
            (partly if any(steps) else missed).append(group.label)
    if not reached:
        return ""
    reached.sort()
    told = [f"{label} after {steps:,.0f} steps" for steps, label in reached]
    if len(told) > 4:
        told = [*told[:3], f"{len(told) - 3} others by step {reached[-1][0]:,.0f}"]
    rest = [f"; {word} {few(names)}" for word, names in
            (("in some runs only by", partly), ("not reached by", missed)) if names]  # fmt: skip
    return sentence(f"{title}: {listed(told)}{''.join(rest)}.")


def outside(comparison: Comparison, others: list[Group]) -> str:
    """The methods of another size, with what they ended at."""
    told = []
    for group in others:
        share = group.share_of_budget()
        size = "" if share is None else f" with {of_budget(share)} the budget"
        told.append(f"{group.label} ended at {comparison.metric.form(comparison.score(group).mean)}{size}")
    return f"Not at equal budget: {'; '.join(told)}." if told else ""


def of_budget(share: float) -> str:
    return f"{figures(share)} times" if share >= 2 else f"{percent(share)} of"


def forgetting_note(comparison: Comparison) -> str:
    """The least and the most that general text became harder to predict."""
    found = [(ratio.mean, group.label) for group in comparison.groups if (ratio := group.result(forgotten))]
    before = comparison.general_before()
    if not found or before is None:
        return ""
    (least, first), (most, last) = min(found), max(found)
    start = f"Perplexity on general text, {Metric('perplexity').form(before)} for the base model, ended at"
    if len(found) == 1:
        return f"{start} {times(least)} of that with {first}."
    return f"{start} {times(least)} of that with {first} (the least) to {times(most)} with {last} (the most)."


def caveats(comparison: Comparison, scored: list[Group]) -> list[str]:
    """What a reader must know before believing the claim."""
    notes = []
    single = [group for group in scored if comparison.score(group).n == 1]
    if single:
        who = "each method" if len(single) == len(scored) else few([group.label for group in single])
        notes.append(
            f"One seed for {who}: one seed shows no spread, so a difference here may be luck. Repeat with more seeds."
        )
    if len(single) < len(scored):
        seeds = sorted({comparison.score(group).n for group in scored} - {1})
        notes.append(
            f"Means over {' or '.join(map(str, seeds))} seeds with 95\u00a0% confidence intervals (Student\u00a0t); "
            "overlapping intervals are called no difference."
        )
    if scored and comparison.asked:
        notes.append(
            f"{comparison.metric.title} is a share of {counted(comparison.asked, 'row')}: "
            "what is called a difference is one by the intervals of so many rows too (Wilson, 95\u00a0%)."
        )
    for group in comparison.groups:
        if lost := group.unfinished:
            what = listed(sorted({str(run.get("status") or "unfinished") for run in lost}))
            average = "; its average covers only those that finished" if group.finished else ""
            notes.append(f"{group.label}: {len(lost)} of {counted(len(group.runs), 'run')} {what}{average}.")
    notes += edges(comparison)
    finished = [run for group in scored for run in group.finished]
    for key in ("steps", "device"):
        found = {run[key] for run in finished if isinstance(run.get(key), str) or number(run.get(key)) is not None}
        if len(found) > 1:
            notes.append(f"The runs also differ in {key} ({', '.join(sorted(map(str, found)))}), not in method alone.")
    if scored:
        notes.append("One task, one model, one set of settings: nothing here says how other data or models would do.")
    return notes


def trials(group: Group) -> list[dict]:
    """The trials of a method's search for a learning rate, in order of the rate: of its first run that has any."""
    found = next((found for run in group.runs if (found := rows(run, "search"))), [])
    usable = [trial for trial in found if (number(trial.get("learning_rate")) or 0) > 0]
    return sorted(usable, key=lambda trial: trial["learning_rate"])


def edges(comparison: Comparison) -> list[str]:
    """Which methods' learning rates were the lowest or the highest tried, so that a better one may lie beyond."""
    found = []
    for group in comparison.groups:
        tried, chosen = [trial["learning_rate"] for trial in trials(group)], group.learning_rate
        if len(tried) > 1 and chosen in (tried[0], tried[-1]):
            found.append(f"{group.label} ({rate(chosen)})")
    if not found:
        return []
    return [f"Chosen at the edge of the learning rates tried, so a better one may lie beyond: {listed(found)}."]
