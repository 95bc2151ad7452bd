// Draws one unit of a layer as a card. Everything that comes from the run goes through textContent.
(function () {
  "use strict";

  var data = window.MICROTOME_LAYER;
  var SVG = "http://www.w3.org/2000/svg";
  var NARROW = "\u202f";

  function el(tag, attributes) {
    var node = document.createElement(tag);
    fill(node, attributes, Array.prototype.slice.call(arguments, 2));
    return node;
  }

  function svg(tag, attributes) {
    var node = document.createElementNS(SVG, tag);
    fill(node, attributes, Array.prototype.slice.call(arguments, 2));
    return node;
  }

  function fill(node, attributes, children) {
    Object.keys(attributes || {}).forEach(function (name) {
      if (attributes[name] !== null) node.setAttribute(name, attributes[name]);
    });
    children.forEach(function (child) {
      if (child !== null) node.append(child);
    });
  }

  function iou(value) {
    return value === null ? "–" : value.toFixed(3);
  }

  function short(value) {
    if (value === null) return "–";
    if (value === 0) return "0";
    var size = Math.abs(value);
    return size >= 1e5 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  }

  function percent(value) {
    return value === null ? "–" : Number((100 * value).toPrecision(3)) + "%";
  }

  function thousands(count) {
    return String(count).replace(/\B(?=(\d{3})+$)/g, NARROW);
  }

  function chip(category) {
    return el("span", { class: "chip " + data.categoryStyles[category] }, el("i"), data.categories[category]);
  }

  // A concept's place on the scale from 0 to 1: its IoU as a bar, its ceiling as a tick, the bar of detectors dotted.
  function meter(value, ceiling, style) {
    var title = "IoU " + iou(value) + ", ceiling " + iou(ceiling);
    return el(
      "span", { class: "meter", role: "img", "aria-label": title, title: title },
      el("i", { class: "bar " + style, style: "width:" + 100 * (value || 0) + "%" }),
      el("i", { class: "pass", style: "left:" + 100 * data.bar + "%" }),
      ceiling === null ? null : el("i", { class: "ceiling", style: "left:" + 100 * Math.min(ceiling, 1) + "%" })
    );
  }

  function patches(unit) {
    var list = data.patches.units[unit];
    var size = data.patches.size;
    var columns = list.length > 6 ? Math.ceil(list.length / 2) : Math.max(list.length, 4);
    var box = el("div", { class: "patches cols-" + Math.min(columns, 8) });
    list.forEach(function (patch, rank) {
      var across = patch[2] / size, down = patch[3] / size, count = list.length;
      var place = count > across ? (100 * rank) / (count - across) : 0;
      var title = "#" + (rank + 1) + " · " + short(patch[1]) + " · " + data.patches.keys[patch[0]];
      var inner = el("span", { class: "patch", role: "img", "aria-label": title, title: title });
      inner.style.cssText =
        "width:" + 100 * across + "%;height:" + 100 * down + "%;background-image:url(" + data.strips + unit + ".jpg);" +
        "background-size:" + (100 * count) / across + "% " + 100 / down + "%;background-position:" + place + "% 0";
      box.append(el("span", { class: "cell" }, inner));
    });
    if (!list.length) box.append(el("p", { class: "none" }, "No patches: this unit never responds."));
    return box;
  }

  // What the unit looks for: an image synthesised for it, and what of its first patches it responds to, by rank.
  function explained(unit) {
    var about = data.explained, shown = about && about.units[unit];
    if (!shown || (!shown[0] && !shown[1])) return null;
    var box = el("div", { class: "explained" });
    if (shown[0]) {
      var title = "image synthesised for unit " + unit;
      box.append(el("img", { class: "made", src: about.folder + unit + ".webp", alt: title, title: title, loading: "lazy" }));
    }
    if (shown[1]) {
      var words = about.method + " in its first " + shown[1] + (shown[1] === 1 ? " patch" : " patches");
      box.append(el(
        "figure", {},
        el("img", { src: about.folder + unit + "-patches.webp", alt: words, loading: "lazy", style: "aspect-ratio:" + shown[1] }),
        el("figcaption", {}, words)
      ));
    }
    return box;
  }

  // Log counts over equal bins from the least to the greatest value; what exceeds the threshold is coloured.
  function histogram(unit, threshold) {
    var heights = data.histogram[unit];
    var low = data.minimum[unit], high = data.maximum[unit];
    var figure = el("figure", { class: "histogram" });
    if (!heights || low === null || high === null) return figure;
    var bins = heights.length, top = data.levels.length - 1, path = "M0 " + top;
    for (var i = 0; i < bins; i++) {
      var y = top - data.levels.indexOf(heights[i]);
      path += "L" + i + " " + y + "L" + (i + 1) + " " + y;
    }
    path += "L" + bins + " " + top + "Z";
    var at = threshold === null || high <= low ? null : Math.min(Math.max((threshold - low) / (high - low), 0), 1);
    var plot = svg(
      "svg", { viewBox: "0 0 " + bins + " " + top, preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("path", { d: path, class: "below" })
    );
    if (at !== null) {
      var clip = "clip-" + unit;
      plot.append(
        svg("clipPath", { id: clip }, svg("rect", { x: at * bins, y: 0, width: bins, height: top })),
        svg("path", { d: path, class: "above", "clip-path": "url(#" + clip + ")" }),
        svg("line", { x1: at * bins, x2: at * bins, y1: 0, y2: top, class: "mark", "vector-effect": "non-scaling-stroke" })
      );
    }
    var words = "activations from " + short(low) + " to " + short(high) + ", threshold " + short(threshold);
    figure.setAttribute("title", "Log count of " + thousands(data.positions[unit]) + " positions; " + words);
    figure.append(plot, el("figcaption", {}, el("span", {}, short(low)), el("b", {}, "T " + short(threshold)), el("span", {}, short(high))));
    return figure;
  }

  function nextBest(unit, at) {
    var list = el("ol", { class: "next" });
    at.best[unit].forEach(function (concept, place) {
      if (concept < 0 || concept === at.label[unit]) return;
      var entry = data.concepts[concept];
      list.append(el(
        "li", {},
        el("span", { class: "name", title: entry[0] + " (" + data.categories[entry[1]] + ")" }, entry[0]),
        meter(at.bestIou[unit][place], at.bestCeiling[unit][place], data.categoryStyles[entry[1]]),
        el("span", { class: "n" }, iou(at.bestIou[unit][place]))
      ));
    });
    if (!list.childNodes.length) list.append(el("li", { class: "none" }, at.label[unit] < 0 ? "its mask meets no concept" : "its mask meets no other concept"));
    return list;
  }

  // The classes whose accuracy falls most when this unit is removed, where that was measured.
  function needing(unit) {
    var list = data.classes ? data.classes.units[unit] : [];
    if (!list.length) return null;
    var line = el("p", { class: "needing" }, "needed by ");
    list.forEach(function (entry, place) {
      var link = el("a", { href: data.classes.pages[entry[0]] }, data.classes.names[entry[0]]);
      line.append(place ? ", " : "", link, " ", el("small", {}, "(−" + (100 * entry[1]).toFixed(1) + ")"));
    });
    line.setAttribute("title", "Points of accuracy that the class loses when this unit alone is removed");
    return line;
  }

  function notes(unit, at) {
    var said = [];
    var state = data.states[data.state[unit]];
    if (state === "dead") said.push("Dead: 0 at every position of every sample.");
    if (state === "constant") said.push("Constant: the same value everywhere, so its mask is empty.");
    if (state === "saturated") said.push("Saturated: it ties at its maximum on more than τ of the positions; the mask is where it is there.");
    if (data.nan[unit]) said.push(thousands(data.nan[unit]) + " NaN values, left out of every count.");
    var label = at.label[unit];
    if (label >= 0 && at.ceiling[unit] !== null && at.ceiling[unit] <= data.bar) {
      said.push("No mask of this size can pass " + data.bar + " with " + data.concepts[label][0] + ".");
    }
    return said.length ? el("p", { class: "notes" }, said.join(" ")) : null;
  }

  // The label by the threshold of most information beside that of the fixed tau, whichever of them the card shows.
  function beside(unit, at) {
    var informed = data.taus[data.taus.length - 1];
    if (informed.tau !== null) return null;
    var other = at === informed ? data.taus[0] : informed, label = other.label[unit];
    return el(
      "p", { class: "details beside" }, other === informed ? "most information: " : "τ " + percent(other.tau) + ": ",
      el("b", {}, label >= 0 ? data.concepts[label][0] : "no concept"), label >= 0 ? " " + iou(other.iou[unit]) : null,
      other === informed && label >= 0 ? ", above T " + short(other.threshold[unit]) + " on " + percent(other.realised[unit]) : null
    );
  }

  function fillCard(card, unit, at) {
    var label = at.label[unit];
    var concept = label >= 0 ? data.concepts[label] : null;
    var state = data.states[data.state[unit]];
    var facts = [
      (at.tau === null ? "above T on " : "realised τ ") + percent(at.realised[unit]), "mean " + short(data.mean[unit]), "std " + short(data.std[unit]),
      percent(data.dead[unit]) + " ≤ 0"
    ];
    if (at.tau === null && label >= 0) {
      facts.unshift("information " + percent(at.information[unit]), "IoU " + iou(at.half[unit]) + " where it was chosen");
    }
    if (at.val && at.val[unit] !== null) facts.unshift("val IoU " + iou(at.val[unit]));
    card.replaceChildren(
      el(
        "header", {},
        el("a", { class: "unit", href: "#unit-" + unit, title: "address of this unit" }, "unit " + unit),
        state !== "ok" ? el("span", { class: "state" }, state) : null,
        concept ? chip(concept[1]) : null
      ),
      el(
        "h2", {},
        el("span", { class: "name" }, concept ? concept[0] : "no concept"),
        concept ? el("span", { class: "score" }, iou(at.iou[unit])) : null
      ),
      concept
        ? el("div", { class: "main-meter" }, meter(at.iou[unit], at.ceiling[unit], data.categoryStyles[concept[1]]),
            el("span", { class: "n" }, "ceiling " + iou(at.ceiling[unit])))
        : el("div", { class: "main-meter" }),
      beside(unit, at) || "",
      patches(unit),
      explained(unit) || "",
      el("div", { class: "below-patches" }, histogram(unit, at.threshold[unit]), nextBest(unit, at)),
      needing(unit) || "",
      el("p", { class: "details" }, facts.join(" · "), data.map ? " · " : null, data.map ? el("a", { href: data.map + unit }, "on the map") : null)
    );
    var more = notes(unit, at);
    if (more) card.append(more);
    if (window.MicrotomeExplain) window.MicrotomeExplain.offer(card, unit);
    card.classList.toggle("detector", Boolean(at.detector[unit]));
  }

  window.MicrotomeCards = { el: el, fillCard: fillCard, thousands: thousands };
})();
