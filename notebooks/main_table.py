# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The main table
# Which local model does each task best, by how much, and do the judges see it alike?

# %%
from IPython.display import Image, Markdown

from llamaduo.studies.notebook import listing, open_study, told
from llamaduo.studies.plots.forest import forest

STUDY = "pocket_main_table"  # a folder of results/; the environment variable LLAMADUO_STUDY names any other folder
study = open_study(STUDY)
print(f"{len(study.reported)} finished runs")

# %% [markdown]
# ## The table
# The report's own, with each judge, and below it the panel's mean of every run.

# %%
Markdown(study.table("main_precision"))

# %%
Markdown(listing(study.reported, "precision"))

# %% [markdown]
# ## The figure

# %%
figure = forest(study.rows, "precision")
Image(study.save(figure)) if figure else "Fewer than two scored runs: nothing to compare."

# %%
figure = forest(study.rows, "similarity")
Image(study.save(figure)) if figure else "Fewer than two scored runs: nothing to compare."

# %% [markdown]
# ## What it says
# A winner is only named where its interval begins above the runner-up's mean. That is a rule of thumb for reading the
# figure; the table's bold type uses the paired difference, which is sharper.

# %%
lines = []
for task in sorted({row["task"] for row in study.reported}):
    rows = [row for row in study.reported if row["task"] == task and row["precision_mean"] is not None]
    best, *others = sorted(rows, key=lambda row: -row["precision_mean"])
    text = f"- **{task}**: {best['local_model']} {told(best, 'precision')}"
    if others:
        clear = best["precision_low"] is not None and best["precision_low"] > others[0]["precision_mean"]
        text += f", {'ahead of' if clear else 'not clearly ahead of'} {others[0]['local_model']} "
        text += told(others[0], "precision")
    lines.append(text)
Markdown("\n".join(lines))
