"""The pages of a report, written from its contents with the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from microtome.reports.ablations import ablations_context, pages_by_name
from microtome.reports.alignment import alignments, principal_components
from microtome.reports.bundles import missing_bundles, script_instead
from microtome.reports.classes import class_page, write_class_pages
from microtome.reports.contents import Contents, ReportLayer
from microtome.reports.data_files import write_listing
from microtome.reports.experiments import PAGE as EXPERIMENTS_PAGE
from microtome.reports.experiments import experiments_context, has_experiments
from microtome.reports.explained import Explained, Portraits, layer_words, model_numbers
from microtome.reports.figures.write import write_figures
from microtome.reports.findings import findings_context
from microtome.reports.listing import concept_rows, layer_data
from microtome.reports.maps.page import PAGE as MAP_PAGE
from microtome.reports.matrix import matrix_context
from microtome.reports.methods import methods_context
from microtome.reports.pages import (
    ASK_PAGE,
    GENERATOR_PAGE,
    axis_ticks,
    environment,
    index_context,
    shared_context,
    static_files,
)


class Site:
    """The pages of one report in `folder`, which lies empty but for pictures."""

    def __init__(self, contents: Contents, folder: Path) -> None:
        self._contents, self._folder = contents, folder
        self._env = environment()
        run, classes, explained = contents.run, contents.classes, contents.explained
        self._addresses = pages_by_name(classes.classes, class_page) if classes else {}
        components = principal_components(contents.summaries)
        self._ablations = ablations_context(run.ablations(), self._addresses, components)
        self._portraits = Portraits.of(explained) if explained and explained.classes and not classes else None
        self._has_experiments = contents.is_generator and has_experiments(run)
        self._more = self._more_pages()
        self._shared = shared_context(run.info, contents.concepts, contents.summaries, self._more)

    def write(self) -> None:
        """Write every page, and what all of them use."""
        classes = self._addresses or (self._portraits.addresses() if self._portraits else {})
        write_listing(self._contents, self._folder, classes, self._more)
        self._write_layers()
        self._write_classes()
        self._write_concepts()
        if self._contents.maps:
            self._page(MAP_PAGE, {"kind": "map", **self._contents.maps.page()})
        self._write_ablations()
        self._write_about()
        if self._contents.is_generator:
            self._page(GENERATOR_PAGE, {"kind": "gan"})
        if self._has_experiments:
            self._page(EXPERIMENTS_PAGE, experiments_context(self._contents.run, self._folder))
        self._page(ASK_PAGE, {"kind": "ask"})
        self._page("index.html", self._index())
        self._write_static()

    def _more_pages(self) -> list[tuple[str, str]]:
        """Name and address of the pages beside the index and those of layers."""
        more = [("Concepts", "concepts.html")]
        more += [("Compare", "layers.html")] if len(self._contents.layers) > 1 else []
        more += [("Map", MAP_PAGE)] if self._contents.maps else []
        more += [("Classes", "classes.html")] if self._contents.classes or self._portraits else []
        more += [("Ablations", "ablations.html")] if any(self._ablations.values()) else []
        more += [("Experiments", EXPERIMENTS_PAGE)] if self._has_experiments else []
        more += [("Edit", GENERATOR_PAGE)] if self._contents.is_generator else []
        more += [("Ask", ASK_PAGE), ("Data", "data.html"), ("Methods", "methods.html")]
        return more

    def _page(self, name: str, context: Mapping[str, Any], current: str | None = None) -> None:
        """A page in the report's folder, by the template of its name; current: the page that the navigation marks."""
        text = self._env.get_template(name).render(**{"root": "", "page": current or name, **self._shared, **context})
        (self._folder / name).write_text(text, encoding="utf-8")

    def _write_layers(self) -> None:
        """A page for each layer, and the one where two are side by side."""
        (self._folder / "layers").mkdir()
        template = self._env.get_template("layer.html")
        classes, maps = self._contents.classes, self._contents.maps
        for number, layer in enumerate(self._contents.layers):
            one = layer.importance
            page = template.render(
                root="../",
                kind="layer",
                data=layer_data(layer.folder),
                number=number,
                names=self._contents.concepts.names,
                matrix=matrix_context(one, classes.addresses[number]) if classes and one else None,
                map=maps.layer(number) if maps else None,
                explained=_words(layer, self._contents.explained),
                **self._shared,
            )
            (self._folder / "layers" / f"{layer.folder}.html").write_text(page, encoding="utf-8")
        self._page("unit.html", {"kind": "unit"})
        if len(self._contents.layers) > 1:
            self._page("layers.html", {"kind": "layers"})

    def _write_classes(self) -> None:
        classes, explained = self._contents.classes, self._contents.explained
        if classes:
            self._page("classes.html", classes.listing())
            template, pictures = self._env.get_template("class.html"), explained.classes if explained else {}
            numbers = model_numbers(self._contents.run)
            write_class_pages(classes, template, self._folder / "classes", self._shared, pictures, numbers)
        if self._portraits:
            self._portraits.write(self._env, self._folder, self._shared)

    def _write_concepts(self) -> None:
        contents = self._contents
        rows = concept_rows(contents.summaries, contents.units, contents.concepts)
        self._page("concepts.html", {"rows": rows, "own_layers": self._own_rows()})
        self._page("concept.html", {"kind": "concept"}, current="concepts.html")

    def _write_ablations(self) -> None:
        """The page of ablations, and the contact sheets of generators' ones."""
        _write_pictures(self._contents, self._folder, self._ablations["generated"])
        if any(self._ablations.values()):
            self._page("ablations.html", self._ablations)

    def _write_about(self) -> None:
        """The pages of data findings and of methods."""
        contents = self._contents
        found = findings_context(contents.run, contents.concepts, contents.samples, contents.summaries, contents.maps)
        self._page("data.html", found)
        patches = max((layer.plan.per_unit for layer in contents.layers), default=0)
        methods = methods_context(contents.run.info, contents.summaries, patches)
        self._page("methods.html", {**methods, **self._ablations})

    def _own_rows(self) -> list[Any]:
        """The network's own layers as every page lists them."""
        return [self._shared["layers"][number] for number in self._contents.own]

    def _index(self) -> dict[str, Any]:
        """What the index page shows."""
        contents, rows, own = self._contents, self._shared["layers"], self._contents.own
        widest = max((row["unique"] for row in rows), default=0)
        summaries, plans = contents.summaries, [contents.layers[number].plan for number in own]
        shown = [summaries[number] for number in own]
        return {
            **index_context(contents.run.info, contents.concepts, shown, plans, contents.samples),
            "own_layers": self._own_rows(),
            "widest": max(widest, 1),
            "ticks": axis_ticks(widest),
            "map": contents.maps.teaser(own) if contents.maps else None,
            "classes": contents.classes.teaser() if contents.classes else None,
            "ablations": self._ablations["ablations"],
            "generated": self._ablations["generated"],
            "alignments": alignments(summaries, rows),
            "figures": write_figures(self._folder, summaries, contents.concepts, contents.bar),
        }

    def _write_static(self) -> None:
        """Scripts and styles; what was not built is replaced by a script that says so on the page."""
        folder = self._folder / "static"
        folder.mkdir()
        maps, generator = self._contents.maps is not None, self._contents.is_generator
        for file in static_files(maps=maps, generator=generator):
            (folder / file.name).write_bytes(file.read_bytes())
        for name in missing_bundles(maps=maps, generator=generator):
            (folder / name).write_text(script_instead(name), encoding="ascii")


def _words(layer: ReportLayer, explained: Explained | None) -> list[str]:
    """What the page of a layer says of its pictures."""
    known = explained.layers.get(layer.name) if explained else None
    return [] if known is None else layer_words(known)


def _write_pictures(contents: Contents, folder: Path, ablations: Sequence[dict[str, Any]]) -> None:
    """The contact sheets of generators' ablations, and into each ablation its "picture", or None."""
    for number, ablation in enumerate(ablations, 1):
        picture = contents.run.ablation_picture(ablation["file"])
        ablation["picture"] = None if picture is None else f"ablations/{number}.png"
        if picture is not None:
            (folder / "ablations").mkdir(exist_ok=True)
            (folder / "ablations" / f"{number}.png").write_bytes(picture)
