# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # LoRA ranks
# Does a larger rank, or another alpha, make a better model, or is it all within the noise?

# %%
from IPython.display import Image, Markdown

from llamaduo.studies.notebook import listing, open_study, told
from llamaduo.studies.plots.lines import rank_lines
from llamaduo.studies.plots.ranks import rank_map

STUDY = "pocket_ranks"  # a folder of results/; the environment variable LLAMADUO_STUDY names any other folder
study = open_study(STUDY)
print(f"{len(study.reported)} finished runs")

# %% [markdown]
# ## The table

# %%
Markdown(listing(study.reported, "precision", axis=("lora_r", "lora_alpha")))

# %% [markdown]
# ## The figure
# A map where rank and alpha vary apart from each other, lines where alpha follows from the rank.

# %%
made = [rank_map(study.rows, score) or rank_lines(study.rows, score) for score in ("precision", "similarity")]
pictures = [study.save(figure) for figure in made if figure]
Image(pictures[0]) if pictures else "The runs don't differ in their ranks."

# %%
Image(pictures[1]) if len(pictures) > 1 else "No second score."

# %% [markdown]
# ## What it says
# A rank matters if the best run's interval leaves the worst run's mean out. With many cells some do so by chance.

# %%
rows = sorted((row for row in study.reported if row["precision_mean"] is not None), key=lambda r: r["precision_mean"])
if len(rows) > 1:
    worst, best = rows[0], rows[-1]
    clear = best["precision_low"] is not None and best["precision_low"] > worst["precision_mean"]
    print(
        f"Best: r {best['lora_r']}, alpha {best['lora_alpha']}: {told(best, 'precision')}. "
        f"Worst: r {worst['lora_r']}, alpha {worst['lora_alpha']}: {told(worst, 'precision')}. "
        f"The best interval {'leaves the worst mean out' if clear else 'covers the worst mean'}."
    )
