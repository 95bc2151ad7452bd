"""Label planes as codes: one number a pixel for what several planes hold there, so that it is counted once.

Distinct combinations of labels are few in an image, and not many more in some images together. A *code* stands for a
concept in each of some planes, within samples that are counted alike (a *class*). A plane that would make too many of
them (fine parts, noise) starts another *layer* of codes, in which the sample's pixels are counted once more.

Codes are numbered within a *group* of neighbouring samples, kept so few that a table of counts by code stays in the
processor's cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.maths.jit import inlined_kernel, kernel

CODES_AT_ONCE = 1024
"""A group that has more ends before the sample that brought them: 128 counts of 4 bytes for each are 512 KB."""
NODES_AT_ONCE = 8 * CODES_AT_ONCE
"""The same for combinations on the way to them."""
PIXELS_A_CODE = 32
"""A plane joins a layer that keeps so many pixels a code on average: adding up a code's counts under one more concept
takes as long as counting about so many pixels."""

Codes = tuple[
    NDArray[np.uint32],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.uint16],
    NDArray[np.bool_],
]
"""Code of each pixel in each layer (n, max(P, 1), H, W), filled as far as the sample has layers; how many these are
(n,); the first sample of each group, and n (g + 1,); where the codes of each group begin in what follows, and their
number m (g + 1,). Of each code: its class (m,), its concepts (m, P), then 0, and whether it is of a first layer (m,).
"""

Tree = tuple[
    NDArray[np.int64], NDArray[np.uint16], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]
"""Combinations of a group: of each node its parent, -1 - 2 * class - (1 after the first layer) for a root, the concept
it adds, its code or -1, and the last pass that met it; a hash table of nodes, counted from 1; how many nodes, codes
and passes there are (3,)."""
NODES, CODES, PASSES = 0, 1, 2


def code_labels(labels: NDArray[np.uint16], class_of: NDArray[np.int64]) -> Codes:
    """labels: (n, P, H, W) uint16, 0 = none; class_of: (n,) from 0: samples that may share codes have the same."""
    n, planes, height, width = labels.shape
    codes = np.empty((n, max(planes, 1), height * width), np.uint32)
    layers = np.empty(n, np.int64)
    flat = np.ascontiguousarray(labels).reshape(n, planes, height * width)
    begins, ends = [0], [0]
    classes, members, first = [np.empty(0, np.int64)], [np.empty((0, planes), np.uint16)], [np.empty(0, np.bool_)]
    while begins[-1] < n:
        end, tree = _code_group(flat, np.ascontiguousarray(class_of, np.int64), begins[-1], codes, layers)
        found = _describe(tree, planes)
        for parts, part in zip((classes, members, first), found, strict=True):
            parts.append(part)  # type: ignore[attr-defined]
        begins.append(end)
        ends.append(ends[-1] + len(found[0]))
    return (
        codes.reshape(n, max(planes, 1), height, width),
        layers,
        np.array(begins, np.int64),
        np.array(ends, np.int64),
        np.concatenate(classes),
        np.concatenate(members),
        np.concatenate(first),
    )


@kernel
def _code_group(
    labels: NDArray[np.uint16],
    class_of: NDArray[np.int64],
    begin: int,
    codes: NDArray[np.uint32],
    layers: NDArray[np.int64],
) -> tuple[int, Tree]:
    """Code samples from `begin` on, up to the one returned, which is left to the next group."""
    n, planes, area = labels.shape
    most = NODES_AT_ONCE + (planes + 1) * (area + area // PIXELS_A_CODE + 2)
    slots = 1
    while slots < 2 * most:
        slots *= 2
    tree = (
        np.empty(most, np.int64),
        np.empty(most, np.uint16),
        np.full(most, -1, np.int64),
        np.zeros(most, np.int64),
        np.zeros(slots, np.int64),
        np.zeros(3, np.int64),
    )
    for sample in range(begin, n):
        before = tree[5][CODES]
        _code_sample(labels[sample], class_of[sample], tree, codes[sample], layers[sample : sample + 1])
        if tree[5][CODES] > CODES_AT_ONCE and sample > begin:
            tree[5][CODES] = before
            return sample, tree
        if tree[5][NODES] > NODES_AT_ONCE:
            return sample + 1, tree
    return n, tree


@kernel
def _code_sample(
    labels: NDArray[np.uint16], cls: int, tree: Tree, codes: NDArray[np.uint32], layers: NDArray[np.int64]
) -> None:
    """Code one sample: labels (P, pixels) into codes (layers, pixels), and say in layers[0] how many these are."""
    planes, area = labels.shape
    here, there = np.empty(area, np.int64), np.empty(area, np.int64)
    here[:] = _node(-1 - 2 * cls, np.uint16(0), tree)
    layer, joined = 0, 0
    for plane in range(planes):
        if not _join(labels[plane], here, there, max(area // PIXELS_A_CODE, 1) if joined else area, tree):
            _close(here, tree, codes[layer])
            here[:] = _node(-2 - 2 * cls, np.uint16(0), tree)
            layer, joined = layer + 1, 0
            _join(labels[plane], here, there, area, tree)
        here, there = there, here
        joined += 1
    _close(here, tree, codes[layer])
    layers[0] = layer + 1


@kernel
def _join(labels: NDArray[np.uint16], here: NDArray[np.int64], there: NDArray[np.int64], most: int, tree: Tree) -> bool:
    """Write into `there` the nodes of `here` with the labels of one more plane; False where these are above `most`."""
    met, sizes = tree[3], tree[5]
    sizes[PASSES] += 1
    found = 0
    node = -1
    for i in range(labels.size):
        if i == 0 or here[i] != here[i - 1] or labels[i] != labels[i - 1]:
            node = _node(here[i], labels[i], tree)
            if met[node] != sizes[PASSES]:
                met[node] = sizes[PASSES]
                found += 1
                if found > most:
                    return False
        there[i] = node
    return True


@inlined_kernel
def _node(parent: int, concept: np.uint16, tree: Tree) -> int:
    """The node below `parent` that adds `concept`, made where there is none."""
    parents, concepts, _, _, table, sizes = tree
    mask = np.uint64(table.size - 1)
    mixed = (np.uint64(np.int64(parent)) * np.uint64(65536) + np.uint64(concept)) * np.uint64(0x9E3779B97F4A7C15)
    slot = (mixed >> np.uint64(32)) & mask
    while table[slot] > 0:
        node = table[slot] - 1
        if parents[node] == parent and concepts[node] == concept:
            return int(node)
        slot = (slot + np.uint64(1)) & mask
    node = sizes[NODES]
    sizes[NODES] += 1
    parents[node] = parent
    concepts[node] = concept
    table[slot] = node + 1
    return int(node)


@kernel
def _close(nodes: NDArray[np.int64], tree: Tree, codes: NDArray[np.uint32]) -> None:
    """Write the codes of a layer's nodes, numbering those that have none."""
    numbers, sizes = tree[2], tree[5]
    for i in range(nodes.size):
        if numbers[nodes[i]] < 0:
            numbers[nodes[i]] = sizes[CODES]
            sizes[CODES] += 1
        codes[i] = np.uint32(numbers[nodes[i]])


@kernel
def _describe(tree: Tree, planes: int) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.bool_]]:
    """Class, concepts and layer of every code of a group, as `Codes` has them."""
    parents, concepts, numbers, _, _, sizes = tree
    classes = np.empty(sizes[CODES], np.int64)
    members = np.zeros((sizes[CODES], planes), np.uint16)
    first = np.empty(sizes[CODES], np.bool_)
    for leaf in range(sizes[NODES]):
        code = numbers[leaf]
        if code < 0 or code >= sizes[CODES]:  # numbered for a sample that was left to the next group
            continue
        node = np.int64(leaf)
        found = 0
        while parents[node] >= 0:
            if concepts[node] > 0:
                members[code, found] = concepts[node]
                found += 1
            node = parents[node]
        root = -1 - parents[node]
        classes[code] = root // 2
        first[code] = root % 2 == 0
    return classes, members, first
