"""Formatting shared by all Markdown tables, and the metric that is tested."""

TESTED = "ndcg@10"
SIGNIFICANT = 0.05


def p_words(p_value: float) -> str:
    """`p 0.022`; `p <0.050` where rounding would hide that it is significant."""
    hidden = p_value < SIGNIFICANT <= round(p_value, 3)
    return f"p <{SIGNIFICANT:.3f}" if hidden else f"p {p_value:.3f}"


def p_cell(p_value: float | None) -> str:
    """Three digits, bold when significant; empty for the reference row, which has no p-value."""
    if p_value is None:
        return ""
    return f"**{p_value:.3f}**" if p_value < SIGNIFICANT else f"{p_value:.3f}"
