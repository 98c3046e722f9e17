"""The report's opening in plain words: what the ensemble knows, what each student kept, what it cost."""

import math
import os

from edd.experiments.results import get
from edd.experiments.tables import number, out_sets, variant_titles


def title(results: dict) -> str:
    """The report's heading."""
    parts = results.get("runs") or [{"settings": results["settings"]}]
    names = list(dict.fromkeys(str(part["settings"].get("name", "edd")) for part in parts))
    name = names[0] if len(names) == 1 else os.path.commonprefix(names).rstrip(" -_.:=") or ", ".join(names)
    return f"{name}: what the ensemble knows, what its students kept, what it cost"


def opening(results: dict) -> list[tuple[str, list[str]]]:
    """(heading, paragraphs) pairs; **bold** marks are for the renderer. Sections without numbers are left out."""
    summary = results["summary"]
    variants = [entry["variant"] for entry in summary]
    if any(variant != variants[0] for variant in variants):
        return [("What was compared", _study(results))]
    whole = next((entry for entry in summary if entry["group"] == "ensemble"), None)
    single = next((entry for entry in summary if entry["group"] == "single"), None)
    students = [entry for entry in summary if entry["group"] == "student"]
    baselines = [entry for entry in summary if entry["group"] == "baseline"]
    sections = []
    if results["settings"].get("smoke"):
        sections.append(("A smoke run", ["Two optimisation steps on invented arrays show that everything runs; the numbers mean nothing."]))
    if whole is not None:
        sections.append(("What the ensemble knows", _ensemble(results, whole, single)))
    if students:
        sections.append(("What each student kept", [_student(results, entry, whole) for entry in students]))
        cost = _cost(students, whole)
        if cost:
            sections.append(("What it cost", cost))
    if baselines:
        sections.append(("What training on labels alone gives", [_student(results, entry, whole) for entry in baselines]))
    return sections


def _value(entry: dict | None, *path: str, source: str = "metrics") -> float | None:
    leaf = get(entry[source], path) if entry is not None else None
    value = None if leaf is None else leaf["mean"]
    return None if value is None or math.isnan(value) else value


def _percent(value: float, decimals: int = 1) -> str:
    return f"{number(value, 100, decimals)} %"


def _ensemble(results: dict, whole: dict, single: dict | None) -> list[str]:
    size = len(single["seeds"]) if single else None
    accuracy = _value(whole, "classification", "accuracy")
    sentence = "The ensemble" + (f" of {size}" if size else "")
    paragraphs = []
    if accuracy is not None:
        sentence += f" classifies **{_percent(accuracy, 2)}** of {results['sets']['test']['examples']:,} test examples correctly"
        alone = _value(single, "classification", "accuracy")
        sentence += f"; one of its members alone {_percent(alone, 2)} on average." if alone is not None else "."
        ece, nll = _value(whole, "classification", "ece"), _value(whole, "classification", "nll")
        if ece is not None and nll is not None:
            sentence += f" Its calibration error (ECE) is {_percent(ece, 2)}, its negative log-likelihood {number(nll)} nats."
        paragraphs.append(sentence)
    inside = _value(whole, "uncertainty", "test", "mutual_information")
    parts = []
    for name in out_sets(results):
        outside = _value(whole, "uncertainty", name, "mutual_information")
        area = _value(whole, "detection", name, "mutual_information", "auroc")
        if None not in (outside, area):
            parts.append(
                f"{number(outside)} on {name}, where an example has more of it than a test example **{_percent(area)}** of the time (AUROC)"
            )
    if inside is not None and parts:
        knows = "How far its members disagree is its knowledge uncertainty (mutual information): it averages"
        paragraphs.append(f"{knows} {number(inside)} nats on test examples, {'; '.join(parts)}.")
    return paragraphs


def _student(results: dict, entry: dict, whole: dict | None) -> str:
    accuracy = _value(entry, "classification", "accuracy")
    if accuracy is None:
        return f"**{entry['name']}** gave predictions that are not numbers; see the notes below."
    text = f"**{entry['name']}**{_over(entry)} classifies {_percent(accuracy, 2)} correctly"
    teacher = _value(whole, "classification", "accuracy")
    if teacher is not None:
        gap = 100 * (accuracy - teacher)
        close = abs(gap) < 0.005
        text += ", as the ensemble does" if close else f", {abs(gap):.2f} points {'below' if gap < 0 else 'above'} the ensemble"
    rank = _value(entry, "fidelity", "test", "mutual_information", "rank_correlation")
    has_knowledge = _value(entry, "uncertainty", "test", "mutual_information") is not None
    if not has_knowledge:
        text += ". It gives one probability vector and so keeps no knowledge uncertainty"
    elif rank is not None:
        text += f". It orders test examples by knowledge uncertainty as the ensemble does with a rank correlation of {number(rank, 1, 2)}"
    precision, target = (_value(each, "precision", "test") for each in (entry, whole))
    if precision is not None:
        text += f". Its median precision on test examples is {number(precision, 1, 1)}"
        text += f" (the ensemble's proxy: {number(target, 1, 1)})" if target is not None else ""
    measure, words = ("mutual_information", "knowledge") if has_knowledge else ("total", "total")
    parts = []
    for name in out_sets(results):
        mine, theirs = (_value(each, "detection", name, measure, "auroc") for each in (entry, whole))
        if mine is not None:
            parts.append(
                f"{name} with an AUROC of **{_percent(mine)}**" + (f" (ensemble: {_percent(theirs)})" if theirs is not None else "")
            )
    return text + (f". By its {words} uncertainty it detects " + " and ".join(parts) if parts else "") + "."


def _over(entry: dict) -> str:
    accuracy = entry["metrics"]["classification"]["accuracy"]
    if accuracy["of"] == 1:
        return ""
    return f" (mean of {accuracy['n']}{'' if accuracy['n'] == accuracy['of'] else ' of ' + str(accuracy['of'])} seeds)"


def _cost(students: list[dict], whole: dict | None) -> list[str]:
    times = [value for entry in students if (value := _value(entry, "times_cheaper", source="costs")) is not None]
    smaller = [value for entry in students if (value := _value(entry, "times_smaller", source="costs")) is not None]
    if not times and not smaller:
        return []
    text = "A student is one network"
    if smaller:
        text += f", {_range(smaller)} times smaller than the ensemble"
    if times:
        milliseconds = _value(whole, "milliseconds_per_1000", source="costs")
        text += f"; it predicts **{_range(times)} times** faster (the ensemble takes {number(milliseconds, 1, 1)} ms for 1,000 predictions)"
    return [text + "."]


def _range(values: list[float]) -> str:
    low, high = number(min(values), 1, 1), number(max(values), 1, 1)
    return low if low == high else f"{low} to {high}"


def _study(results: dict) -> list[str]:
    titles = variant_titles(results["summary"])
    differ = ", ".join(f"`{name}`" for name in titles)
    paragraphs = [f"{len(results.get('runs', []))} runs that differ in {differ}, pooled over their seeds; error on the test set:"]
    lines: dict[tuple, list[str]] = {}
    for entry in results["summary"]:
        accuracy = _value(entry, "classification", "accuracy")
        if accuracy is not None:
            lines.setdefault(tuple(map(str, entry["variant"].values())), []).append(f"{entry['name']} {_percent(1 - accuracy, 2)}")
    for values, parts in lines.items():
        paragraphs.append(f"**{', '.join(f'{name} = {value}' for name, value in zip(titles.values(), values))}**: {', '.join(parts)}.")
    return paragraphs
