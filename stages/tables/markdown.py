"""Formatting shared by all Markdown tables, and the metric that is tested."""

from collections.abc import Iterator

TESTED = "ndcg@10"
SIGNIFICANT = 0.05


def p_digits(p_value: float) -> str:
    """Three digits; `<0.050` where rounding would hide that it is significant."""
    hidden = p_value < SIGNIFICANT <= round(p_value, 3)
    return f"<{SIGNIFICANT:.3f}" if hidden else f"{p_value:.3f}"


def p_cell(p_value: float | None) -> str:
    """Bold when significant; empty for the reference row, which has no p-value."""
    if p_value is None:
        return ""
    return f"**{p_digits(p_value)}**" if p_value < SIGNIFICANT else p_digits(p_value)


def table_lines(cells: list[list[str]]) -> Iterator[str]:
    """A Markdown table: a head, the first column to the left, the others to the right."""
    head, *rows = cells
    yield "| " + " | ".join(head) + " |"
    yield "| --- " + "| ---: " * (len(head) - 1) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
