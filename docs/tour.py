"""The tour as cells of Python; `make notebook` runs them over runs/demo and writes tour.ipynb."""
# ruff: noqa: B018

# %% [markdown]
# # A run in a notebook
#
# `make demo` dissects the built-in classifier over 2,000 procedural scenes and leaves `runs/demo`. Any other run opens
# the same way, also from a bucket. Nothing here needs the model or the images; `make notebook` makes this page again.

# %%
from microtome.dissect.query import open_run

run = open_run("runs/demo")
run

# %% [markdown]
# The bars are unique detectors: distinct concepts that label a detector, a unit whose best IoU exceeds 0.04.
# `block4:rotated` is a random rotation of `block4`, for comparison.
#
# ## Which units detect wheels?

# %%
run.concept("wheel")

# %% [markdown]
# Above: the highest IoU that any unit of a layer has with the concept, and how many units it is the label of. Below:
# patches of the units that see it best, outlined where they exceed their thresholds. The mark in a bar is the ceiling,
# the highest IoU that the areas of mask and concept allow.
#
# ## One unit

# %%
run.unit("block4", 12)

# %% [markdown]
# ## One layer

# %%
run.layer("block4")

# %% [markdown]
# ## Questions
#
# The words are those of `microtome query`.

# %%
run.query("category=part detector=yes iou>0.2")

# %% [markdown]
# Every answer is a table (pandas), and what is taken out of it is a plain one.

# %%
parts = run.query("category=part detector=yes layer!=block4:rotated")
best = parts.groupby(["layer", "concept"])["iou"].agg(["count", "max"])
best.sort_values("max", ascending=False).round(3).head(8)

# %%
table = run.summary().pivot(index="category", columns="layer", values="unique_detectors")
table.sort_values("block4", ascending=False)
