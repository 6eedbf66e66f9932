# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Judges
# Do the judges put the same answers in the same order, and who is strict?

# %%
from IPython.display import Image, Markdown

from llamaduo.studies.notebook import open_study
from llamaduo.studies.plots.forest import forest

STUDY = "pocket_judges"  # a folder of results/; the environment variable LLAMADUO_STUDY names any other folder
study = open_study(STUDY)
judges = sorted({row["judge"] for row in study.rows} - {"all"})
print("Judges:", ", ".join(judges))

# %% [markdown]
# ## The tables
# Agreement (Krippendorff's alpha), rank correlations, and habits: strictness and noise.

# %%
Markdown("\n\n".join(study.table(name) for name in ("judges_agreement", "judges_correlation", "judges_habits")))

# %% [markdown]
# ## The figures
# The report's figures of agreement and of single answers, and every model under every judge.

# %%
pictures = [study.save(figure) for name in ("agreement_precision", "density") if (figure := study.figure(name))]
Image(pictures[0]) if pictures else "The answers were not summed up."

# %%
Image(pictures[1]) if len(pictures) > 1 else "One figure only."

# %%
figure = forest(study.rows, "precision")
Image(study.save(figure)) if figure else "Fewer than two scored runs: nothing to compare."

# %% [markdown]
# ## What it says
# Over the same runs, each judge's mean less the panel's. The table of habits has the intervals over answers.

# %%
panel = {row["run"]: row["precision_mean"] for row in study.reported}
for judge in judges:
    scored = [row for row in study.rows if row["reported"] and row["judge"] == judge]
    apart = [
        row["precision_mean"] - panel[row["run"]]
        for row in scored
        if row["precision_mean"] is not None and panel.get(row["run"]) is not None
    ]
    if apart:
        mean = sum(apart) / len(apart)
        print(f"{judge}: {mean:+.1f} points ({min(apart):+.1f} to {max(apart):+.1f}, {len(apart)} runs)")
