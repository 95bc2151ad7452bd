"""The mathematics of network dissection: pure functions on arrays, exact and fast.

Activations are (n, C, h, w) float16, C-contiguous. Nothing here knows models, storage or schedulers; every
statistic has `update`, `merge`, `to_arrays` and `from_arrays`, and its result does not depend on how the samples
were split into shards. Kernels are compiled by numba, release the GIL and use one thread.
"""
