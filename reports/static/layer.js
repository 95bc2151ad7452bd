// A layer page: which units are shown, in which order, and where. The state lives in the address after #.
(function () {
  "use strict";

  var data = window.MICROTOME_LAYER;
  if (!data) return;
  var cards = window.MicrotomeCards, el = cards.el;
  var form = document.getElementById("controls");
  var room = document.getElementById("cards");
  var units = data.state.length;
  var nodes = [];
  var shown = [];
  var target = null;
  var known = new Set();
  var DEFAULTS = { q: "", sort: "iou", min: "0", state: "", tau: "0" };

  function labels() {
    return data.taus[Number(form.elements.tau.value)] || data.taus[0];
  }

  function nameOf(at, unit) {
    return at.label[unit] >= 0 ? data.concepts[at.label[unit]][0] : "";
  }

  function categoryOf(at, unit) {
    return at.label[unit] >= 0 ? data.concepts[at.label[unit]][1] : data.categories.length;
  }

  // The state of the controls, to and from the address: #unit-12&q=car&sort=unit&min=0.1&category=0,2&detectors=1

  function chosenCategories() {
    return Array.from(form.querySelectorAll("[name=category]:checked"), function (box) { return Number(box.value); });
  }

  function writeAddress() {
    var parts = target === null ? [] : ["unit-" + target];
    Object.keys(DEFAULTS).forEach(function (name) {
      var value = form.elements[name].value;
      if (value !== DEFAULTS[name]) parts.push(name + "=" + encodeURIComponent(value));
    });
    var chosen = chosenCategories();
    if (chosen.length) parts.push("category=" + chosen.join(","));
    if (form.elements.detectors.checked) parts.push("detectors=1");
    var hash = parts.length ? "#" + parts.join("&") : location.pathname + location.search;
    history.replaceState(null, "", hash);
  }

  function readAddress() {
    var wanted = {}, chosen = [], detectors = false;
    target = null;
    location.hash.slice(1).split("&").forEach(function (part) {
      var match = /^unit-(\d+)$/.exec(part);
      if (match && Number(match[1]) < units) target = Number(match[1]);
      var cut = part.indexOf("=");
      if (cut < 0) return;
      var name = part.slice(0, cut), value = decode(part.slice(cut + 1));
      if (name === "category") chosen = value.split(",");
      else if (name === "detectors") detectors = value === "1";
      else if (name in DEFAULTS) wanted[name] = value;
    });
    Object.keys(DEFAULTS).forEach(function (name) {
      var control = form.elements[name], value = name in wanted ? wanted[name] : DEFAULTS[name];
      control.value = value;
      if (control.value === "" && value !== "") control.value = DEFAULTS[name];
    });
    form.querySelectorAll("[name=category]").forEach(function (box) { box.checked = chosen.indexOf(box.value) >= 0; });
    form.elements.detectors.checked = detectors;
  }

  function decode(text) {
    try { return decodeURIComponent(text); } catch (error) { return ""; }
  }

  // Which units, in which order. A text that is a concept's whole name means that concept, any other text is looked for
  // inside names: "tree" leaves "street" out.

  function matches(at, unit, query, least, state, chosen, detectors) {
    if (detectors && !at.detector[unit]) return false;
    if (state && data.states[data.state[unit]] !== state) return false;
    if (least > 0 && !(at.iou[unit] >= least)) return false;
    if (chosen.length && chosen.indexOf(categoryOf(at, unit)) < 0) return false;
    if (!query) return true;
    var name = nameOf(at, unit).toLowerCase();
    return known.has(query) ? name === query : name.indexOf(query) >= 0;
  }

  function comparison(at, sort) {
    function score(unit) { return at.label[unit] >= 0 && at.iou[unit] !== null ? at.iou[unit] : -1; }
    function relative(unit) { return at.label[unit] >= 0 && at.ceiling[unit] ? at.iou[unit] / at.ceiling[unit] : -1; }
    function byScore(a, b) { return score(b) - score(a) || a - b; }
    function byName(a, b) {
      var one = nameOf(at, a), two = nameOf(at, b);
      if (!one !== !two) return one ? -1 : 1;
      return one < two ? -1 : one > two ? 1 : 0;
    }
    return {
      iou: byScore,
      unit: function (a, b) { return a - b; },
      relative: function (a, b) { return relative(b) - relative(a) || a - b; },
      concept: function (a, b) { return byName(a, b) || byScore(a, b); },
      category: function (a, b) { return categoryOf(at, a) - categoryOf(at, b) || byScore(a, b); }
    }[sort] || byScore;
  }

  function select() {
    var at = labels(), controls = form.elements, chosen = chosenCategories();
    var query = controls.q.value.trim().toLowerCase();
    var found = [];
    for (var unit = 0; unit < units; unit++) {
      if (matches(at, unit, query, Number(controls.min.value), controls.state.value, chosen, controls.detectors.checked)) {
        found.push(unit);
      }
    }
    return found.sort(comparison(at, controls.sort.value));
  }

  // Cards: every unit has its element from the start, so that every address exists; its content comes when it nears view

  function draw(unit) {
    var node = nodes[unit];
    if (node.dataset.tau === form.elements.tau.value) return;
    node.dataset.tau = form.elements.tau.value;
    cards.fillCard(node, unit, labels());
  }

  var watcher = new IntersectionObserver(function (entries) {
    entries.forEach(function (entry) {
      if (entry.isIntersecting) draw(Number(entry.target.dataset.unit));
    });
  }, { rootMargin: "900px 0px" });

  function build() {
    for (var unit = 0; unit < units; unit++) {
      var node = el("article", { class: "card", id: "unit-" + unit, "data-unit": unit });
      nodes.push(node);
      watcher.observe(node);
    }
  }

  function apply() {
    shown = select();
    var visible = new Set(shown);
    nodes.forEach(function (node, unit) { node.hidden = !visible.has(unit); });
    room.replaceChildren.apply(room, shown.map(function (unit) { return nodes[unit]; }));
    nodes.forEach(function (node) {
      if (node.childNodes.length && node.dataset.tau !== form.elements.tau.value) {
        node.replaceChildren();
        watcher.unobserve(node);
        watcher.observe(node);
      }
    });
    document.getElementById("nothing").hidden = shown.length > 0;
    document.getElementById("shown").value = cards.thousands(shown.length) + " of " + cards.thousands(units) + " units";
    form.elements.minShown.value = Number(form.elements.min.value).toFixed(2);
    overview();
  }

  function reveal() {
    nodes.forEach(function (node, unit) { node.classList.toggle("target", unit === target); });
    if (target === null) return;
    if (shown.indexOf(target) < 0) {
      clearFilters();
      apply();
    }
    var place = shown.indexOf(target);
    shown.slice(Math.max(0, place - 8), place + 8).forEach(draw);
    var stuck = getComputedStyle(form).position === "sticky" ? form.offsetHeight : 0;
    room.style.setProperty("--stuck", stuck + "px");
    nodes[target].scrollIntoView({ block: "start" });
    requestAnimationFrame(function () { nodes[target] && nodes[target].scrollIntoView({ block: "start" }); });
  }

  function clearFilters() {
    form.elements.q.value = form.elements.state.value = "";
    form.elements.min.value = "0";
    form.elements.detectors.checked = false;
    form.querySelectorAll("[name=category]").forEach(function (box) { box.checked = false; });
  }

  // The concepts of this layer: one column each, as high as it has detectors

  function overview() {
    var at = labels(), counts = new Map(), detectors = 0;
    at.detector.forEach(function (is, unit) {
      if (!is || at.label[unit] < 0) return;
      detectors += 1;
      counts.set(at.label[unit], (counts.get(at.label[unit]) || 0) + 1);
    });
    var order = Array.from(counts.keys()).sort(function (a, b) {
      return data.concepts[a][1] - data.concepts[b][1] || counts.get(b) - counts.get(a) || a - b;
    });
    document.getElementById("tally").textContent =
      cards.thousands(detectors) + " of " + cards.thousands(units) + " units are detectors (IoU above " + data.bar + "), of " +
      counts.size + (counts.size === 1 ? " concept." : " different concepts.");
    var most = Math.max.apply(null, [1].concat(Array.from(counts.values())));
    var query = form.elements.q.value.trim().toLowerCase();
    document.getElementById("columns").replaceChildren.apply(
      document.getElementById("columns"),
      order.map(function (concept) { return column(concept, counts.get(concept), most, query); })
    );
  }

  function column(concept, count, most, query) {
    var entry = data.concepts[concept], pressed = entry[0].toLowerCase() === query;
    var title = entry[0] + " (" + data.categories[entry[1]] + "): " + count + (count === 1 ? " unit" : " units");
    var button = el(
      "button", { type: "button", title: title, "aria-pressed": String(pressed), class: data.categoryStyles[entry[1]] },
      el("span", { class: "count" }, String(count)),
      el("i", { style: "height:" + (4 + (56 * count) / most) + "px" }),
      el("span", { class: "name" }, entry[0])
    );
    button.addEventListener("click", function () {
      form.elements.q.value = pressed ? "" : entry[0];
      target = null;
      changed();
    });
    return button;
  }

  // Events

  function changed() {
    apply();
    writeAddress();
  }

  function step(by) {
    var place = target === null ? -1 : shown.indexOf(target);
    var next = shown[Math.min(Math.max(place + by, 0), shown.length - 1)];
    if (next === undefined) return;
    target = next;
    writeAddress();
    reveal();
  }

  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.addEventListener("input", function () { target = null; changed(); });
  form.addEventListener("reset", function (event) {
    event.preventDefault();
    target = null;
    clearFilters();
    changed();
  });
  document.getElementById("clear").addEventListener("click", function () { clearFilters(); changed(); });
  room.addEventListener("click", function (event) {
    var link = event.target.closest("a.unit");
    if (!link) return;
    event.preventDefault();
    target = Number(link.closest(".card").dataset.unit);
    writeAddress();
    reveal();
  });
  window.addEventListener("hashchange", function () { readAddress(); apply(); reveal(); });
  window.addEventListener("beforeprint", function () { shown.forEach(draw); });
  document.addEventListener("keydown", function (event) {
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") { event.preventDefault(); form.elements.q.focus(); }
  });

  var labelled = new Set();
  data.taus.forEach(function (at) { at.label.forEach(function (c) { if (c >= 0) labelled.add(data.concepts[c][0]); }); });
  Array.from(labelled).sort().forEach(function (name) {
    known.add(name.toLowerCase());
    document.getElementById("concepts").append(el("option", { value: name }));
  });
  history.scrollRestoration = "manual";
  build();
  readAddress();
  apply();
  reveal();
})();
