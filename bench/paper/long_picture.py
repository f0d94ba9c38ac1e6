"""Where long rollouts ended: fields, and how their spectra changed."""

from __future__ import annotations

import math

from matplotlib.figure import Figure
from torch import Tensor

from bench.paper.long_variants import Case


def picture(all_done: list[tuple[Case, dict[str, dict[str, Tensor]]]], allowed: float) -> Figure:
    """Per score a row of last fields (v) and a row of their spectra over the data's."""
    across = max(len(done) for _, done in all_done) + 1
    sheet = Figure(figsize=(2.1 * across, 4.2 * len(all_done)), layout="constrained")
    grid = sheet.subplots(2 * len(all_done), across, squeeze=False)
    for index, (case, done) in enumerate(all_done):
        data = case.others[0, -1]
        low, high = float(case.others[:, -1].min()), float(case.others[:, -1].max())
        above, below = grid[2 * index], grid[2 * index + 1]
        for axes in (*above, *below):
            axes.set_axis_off()
        shown = {f"data: {case.stored.name}": data, **{name: found["picture"][-1] for name, found in done.items()}}
        for axes, (name, field) in zip(above, shown.items(), strict=False):
            axes.imshow(field.numpy(), vmin=low, vmax=high, cmap="viridis")
            axes.set_title(name, fontsize=8)
        for axes, found in zip(below[1:], done.values(), strict=False):
            axes.set_axis_on()
            ratio = (found["power"] / found["power"][0])[:, :, :24]
            for channel, hue in enumerate(("tab:blue", "tab:red")[: ratio.shape[1]]):
                axes.plot(range(1, ratio.shape[2] + 1), ratio[-1, channel].numpy(), color=hue, linewidth=1)
            axes.axhspan(math.exp(-allowed), math.exp(allowed), color="0.9", zorder=0)
            axes.set(yscale="log", ylim=(0.05, 20))
            axes.tick_params(labelsize=6)
        below[0].text(0, 0.5, f"score {case.name}\npower of u (blue), v (red)\nover that at time 0", fontsize=7)
    return sheet
