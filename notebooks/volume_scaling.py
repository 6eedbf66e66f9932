# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Volume scaling
# What does more synthetic data buy, for which model, and where does it stop?

# %%
from IPython.display import Image, Markdown

from llamaduo.studies.notebook import listing, open_study
from llamaduo.studies.plots.lines import learning_curves, volume_scaling

STUDY = "pocket_volume_scaling"  # a folder of results/; the environment variable LLAMADUO_STUDY names any other folder
study = open_study(STUDY)
print(f"{len(study.reported)} finished runs")

# %% [markdown]
# ## The table

# %%
Markdown(listing(study.reported, "precision", axis=("volume",)))

# %% [markdown]
# ## The figure
# A run a volume gives the scaling curves. A run that went through several iterations gives its learning curve.

# %%
made = [draw(study.rows, score) for draw in (volume_scaling, learning_curves) for score in ("precision", "similarity")]
pictures = [study.save(figure) for figure in made if figure]
Image(pictures[0]) if pictures else "No run differs in its number of rows."

# %%
Image(pictures[1]) if len(pictures) > 1 else "No second score."

# %% [markdown]
# ## What it says
# From the smallest to the largest number of rows, line by line. A gain whose two intervals overlap may be noise.

# %%
lines = []
points = [point for figure in made if figure and figure.name.endswith("precision") for point in figure.data]
for panel, series in sorted({(point["panel"], point["series"]) for point in points}):
    line = [point for point in points if (point["panel"], point["series"]) == (panel, series)]
    first, last = line[0], line[-1]
    apart = None not in (first["high"], last["low"]) and last["low"] > first["high"]
    gain = last["mean"] - first["mean"]
    lines.append(
        f"- {panel} **{series}**: {first['mean']:.1f} to {last['mean']:.1f}, {gain:+.1f} points "
        f"({'intervals apart' if apart else 'intervals overlap'}; n = {first['n']} and {last['n']} answers)"
    )
Markdown("\n".join(lines))
