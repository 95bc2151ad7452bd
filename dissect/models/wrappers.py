"""Take a module out of torch.compile, DataParallel and DistributedDataParallel.

Hooks added after compilation do not run, and a parallel wrapper runs replicas that carry none of them.
"""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel


def unwrap(module: nn.Module) -> nn.Module:
    """The module itself, with every wrapper at the root and inside replaced by what it wraps (in place).

    Names lose the wrappers' `_orig_mod.` and `module.` parts. A module compiled in place (`module.compile()`) is
    set back to eager.
    """
    root = _bare(module)
    for parent in list(root.modules()):
        for name, child in list(parent.named_children()):
            bare = _bare(child)
            if bare is not child:
                parent._modules[name] = bare
    for each in root.modules():
        if getattr(each, "_compiled_call_impl", None) is not None:
            each._compiled_call_impl = None
    return root


def _bare(module: nn.Module) -> nn.Module:
    while True:
        inner: object = None
        if isinstance(module, DataParallel | DistributedDataParallel):
            inner = module.module
        elif "_orig_mod" in module._modules:
            inner = module._modules["_orig_mod"]
        if not isinstance(inner, nn.Module):
            return module
        module = inner
