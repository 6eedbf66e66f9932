# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Cost
# What did the runs cost, which of them are worth it, and when has the move paid back?

# %%
from IPython.display import Image, Markdown

from llamaduo.studies.notebook import open_study
from llamaduo.studies.plots.pareto import pareto

STUDY = "pocket_cost"  # a folder of results/; the environment variable LLAMADUO_STUDY names any other folder
study = open_study(STUDY)
print(f"{len(study.reported)} finished runs")

# %% [markdown]
# ## The tables
# Every cost table that the report made; each states its assumptions.

# %%
names = sorted(path.stem for path in (study.folder / "tables").glob("*cost*.md"))
Markdown("\n\n".join(map(study.table, names)) or study.table("cost"))

# %% [markdown]
# ## The figures
# Score against what a run cost; then, where the report worked them out, the bill over twelve months and the pay-back.

# %%
figure = pareto(study.rows, "precision")
Image(study.save(figure)) if figure else "The runs don't differ in their cost."

# %%
pictures = [study.save(figure) for name in ("cost_over_time", "pay_back") if (figure := study.figure(name))]
Image(pictures[0]) if pictures else "No cost over time: the service LLM has no price, or no speed was measured."

# %%
Image(pictures[1]) if len(pictures) > 1 else "No pay-back: see above."

# %% [markdown]
# ## What it says

# %%
lines = []
for row in study.reported:
    usd = sum(one["cost_usd"] or 0 for one in study.rows if one["run"] == row["run"] and one["judge"] == "all")
    seconds = sum(one["seconds"] or 0 for one in study.rows if one["run"] == row["run"] and one["judge"] == "all")
    who = f"{row['local_model']}, {row['task']}"
    lines.append(f"- {who}: ${usd:.2f} of replies, {seconds:,.0f} s, {row['precision_n']} answers scored")
Markdown("\n".join(lines))
