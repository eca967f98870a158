"""An audit in a notebook: a small table, and a figure."""

from html import escape
from typing import TYPE_CHECKING

from evenslice.report.verdict import sentence, slot_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evenslice.evidence.result import Audit
    from evenslice.evidence.stats import Interval


def audit_html(audit: "Audit") -> str:
    """Return an audit as HTML: the verdict in a sentence, and a row a method."""
    head = "".join(
        f"<th>{escape(word)}</th>" for word in ("method", *slot_names(audit.slices), "mirror index", "verdict")
    )
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{share.value:.3f}</td>" for share in method.shares)
        + f"<td>{_interval(method.index)}</td><td>{escape(method.verdict)}</td></tr>"
        for name, method in audit.methods.items()
    )
    return (
        f"<p>{escape(sentence(audit.to_dict()))}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _interval(interval: "Interval | None") -> str:
    return "-" if interval is None else f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def audit_figure(audit: "Audit") -> "Figure":
    """Draw the shares of every method, and its mirror pairs with their intervals and the margin."""
    from matplotlib.figure import Figure

    names = list(audit.methods)
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for row, method in enumerate(audit.methods.values()):
        start = 0.0
        for slot, share in enumerate(method.shares):
            grey = 0.25 + 0.6 * abs(slot - audit.slices // 2) / max(1, audit.slices // 2)
            left.barh(row, share.value, left=start, color=str(grey), edgecolor="white")
            start += share.value
        for number, pair in enumerate(method.pairs):
            height = row + 0.15 * (number - (len(method.pairs) - 1) / 2)
            right.plot([pair.low, pair.high], [height, height], color="#0072b2")
            right.plot([pair.value], [height], "o", color="#0072b2", markersize=4)
    right.axvspan(-audit.margin, audit.margin, color="#0072b2", alpha=0.12)
    right.axvline(0, color="black", linewidth=0.8)
    left.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1), xlabel="share of importance, first slot to last")
    left.invert_yaxis()
    right.set(xlabel="mirror pairs (above 0: the later slice counts more)")
    figure.suptitle(audit.verdict)
    return figure
