"""MATLAB files as label data sets publish them: one variable, without any object that could run code."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.storage.errors import SampleError


def load_variable(path: Path, name: str, key: str) -> NDArray[np.generic]:
    """The variable `name` of a MATLAB file (version 4 to 7.2); structs are record arrays of objects.

    Raises SampleError for `key` where the file is missing, damaged or has no such variable.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(os.fspath(path), appendmat=False, variable_names=[name])
    except FileNotFoundError as error:
        raise SampleError(key, "the file is missing") from error
    except NotImplementedError as error:
        raise SampleError(key, "a MATLAB file of version 7.3; expected one saved with -v7") from error
    except Exception as error:  # the decoder raises nearly every type there is on damaged input
        text = " ".join(str(error).split())[:80]
        raise SampleError(key, f"a damaged or truncated MATLAB file ({text or type(error).__name__})") from error
    if name not in found:
        raise SampleError(key, f"a MATLAB file without the variable {name}")
    value: NDArray[np.generic] = np.asarray(found[name])
    return value
