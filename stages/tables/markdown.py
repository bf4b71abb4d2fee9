"""Formatting shared by all Markdown tables, and the metric that is tested."""

TESTED = "ndcg@10"
SIGNIFICANT = 0.05


def p_cell(p_value: float | None) -> str:
    """Three digits, bold when significant; empty for the reference row, which has no p-value."""
    if p_value is None:
        return ""
    return f"**{p_value:.3f}**" if p_value < SIGNIFICANT else f"{p_value:.3f}"
