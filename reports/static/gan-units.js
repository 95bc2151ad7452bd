// The chooser of units on the page of a generator: a layer, a concept, a ranking, and its units best first.
(function () {
  "use strict";

  var asking = window.MicrotomeAsking, el = asking.el;
  var PAGE = 60;
  var NAMES = { ace: "average causal effect", alpha: "optimised alpha", information: "IoU, threshold of most information", iou: "IoU, best threshold" };

  function get(id) {
    return document.getElementById(id);
  }

  // told: { layer(name): another one was chosen; units(numbers, on): these were; has(unit): whether it is chosen;
  // trouble(error) }
  function Units(told) {
    var known = new Map(), rankings = new Map(), layer = "", listed = [], shown = PAGE, asked = "";
    var layers = get("layer"), find = get("find"), concepts = get("concept"), by = get("by"), list = get("units"), more = get("more");

    // What the server knows of the units of a layer, asked once.
    function about(name) {
      if (!known.has(name)) {
        known.set(name, asking.ask("units", { layer: name }).then(function (found) { known.set(name, found); return found; }, function (error) {
          known.delete(name);
          throw error;
        }));
      }
      return Promise.resolve(known.get(name));
    }

    // The same where it has come already, null where it has not.
    function now(name) {
      var found = known.get(name);
      return found && !found.then ? found : null;
    }

    function ranking(concept, how) {
      var key = JSON.stringify([layer, concept, how]);
      if (!rankings.has(key)) {
        rankings.set(key, asking.ask("ranking", { layer: layer, concept: concept, by: how }).then(function (found) { return found.units; }, function (error) {
          rankings.delete(key);
          throw error;
        }));
      }
      return rankings.get(key);
    }

    function fillConcepts() {
      var found = now(layer), wanted = find.value.trim().toLowerCase();
      if (!found) return;
      var before = concepts.options.length ? concepts.value : common(found);
      var fitting = found.concepts.filter(function (one) { return one.name.toLowerCase().indexOf(wanted) >= 0; });
      fitting.sort(function (one, other) { return one.name < other.name ? -1 : one.name > other.name ? 1 : 0; });
      var options = fitting.map(function (one) { return el("option", { value: one.id }, one.name + " (" + one.category + ")"); });
      if (!wanted) options.unshift(el("option", { value: "" }, "all units by number"));
      if (!options.length) options.push(el("option", { value: "none", disabled: "" }, "no such concept"));
      concepts.replaceChildren.apply(concepts, options);
      if (Array.from(concepts.options).some(function (option) { return option.value === before; })) concepts.value = before;
      fillRankings();
    }

    // The concept that most units are labelled with: shown first.
    function common(found) {
      var counts = new Map(), first = "";
      found.labels.forEach(function (label) { if (label) counts.set(label, (counts.get(label) || 0) + 1); });
      found.concepts.forEach(function (one) {
        if ((counts.get(one.name) || 0) > (first ? counts.get(first.name) || 0 : 0)) first = one;
      });
      return first ? String(first.id) : "";
    }

    function fillRankings() {
      var found = now(layer);
      var mine = found.concepts.find(function (one) { return String(one.id) === concepts.value; });
      var options = (mine ? mine.by : []).map(function (name) { return el("option", { value: name }, NAMES[name] || name); });
      by.replaceChildren.apply(by, options.length ? options : [el("option", { value: "" }, "number")]);
      if (mine && mine.by.indexOf(asked) >= 0) by.value = asked;
      fill();
    }

    function fill() {
      var found = now(layer), how = by.value, mine = layer, concept = concepts.value;
      shown = PAGE;
      if (concept === "none") { listed = []; refresh(); return; }
      if (!how) {
        listed = found.top.map(function (top, unit) { return [unit, null]; });
        refresh();
        return;
      }
      ranking(Number(concept), how).then(function (units) {
        if (mine !== layer || concept !== concepts.value || how !== by.value) return;
        listed = units;
        refresh();
      }).catch(told.trouble);
    }

    function refresh() {
      var found = now(layer);
      if (!found) return;
      list.replaceChildren.apply(list, listed.slice(0, shown).map(function (pair) {
        var box = el("input", { type: "checkbox", "data-unit": pair[0] }), state = found.states[pair[0]];
        box.checked = told.has(pair[0]);
        box.addEventListener("change", function () { told.units([pair[0]], box.checked); });
        var score = pair[1] === null ? "" : pair[1].toPrecision(3);
        return el("li", {}, el("label", {}, box, el("span", {}, "unit " + pair[0]), el("span", { class: "name" }, found.labels[pair[0]] + (state === "ok" ? "" : " (" + state + ")")), el("span", { class: "score" }, score)));
      }));
      if (!listed.length) list.append(el("li", { class: "note" }, "No unit meets it."));
      more.hidden = listed.length <= shown;
    }

    // Show another layer's units.
    function show(name) {
      layer = name;
      layers.value = name;
      return about(name).then(function () { if (layer === name) fillConcepts(); });
    }

    layers.addEventListener("change", function () { told.layer(layers.value); });
    find.addEventListener("input", fillConcepts);
    concepts.addEventListener("change", fillRankings);
    by.addEventListener("change", function () {
      asked = by.value;  // kept for other concepts; else each has its best ranking
      fill();
    });
    more.addEventListener("click", function () { shown += PAGE; refresh(); });
    get("top").addEventListener("submit", function (event) {
      event.preventDefault();
      var units = listed.slice(0, Number(get("count").value)).map(function (pair) { return pair[0]; });
      if (units.length) told.units(units, true);
    });

    return {
      about: about,
      now: now,
      show: show,
      refresh: function () {
        list.querySelectorAll("input").forEach(function (box) { box.checked = told.has(Number(box.dataset.unit)); });
      },
      layers: function (names) {
        layers.replaceChildren.apply(layers, names.map(function (one) {
          return el("option", { value: one.name }, one.name + " · " + one.units + " units, " + one.grid.join("×"));
        }));
      }
    };
  }

  window.MicrotomeUnits = Units;
})();
