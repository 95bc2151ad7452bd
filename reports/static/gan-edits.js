// Edits of a generator as its page holds them, and as a recipe has them.
//
// An edit: { layer, units: [{ unit, value, strength }], region: null or { rows, columns, cells }, on }. A slider stands at
// -1 (ablated: value 0, strength 1), 0 (untouched), 1 (inserted: its high value, strength 1), or up to 2 (twice that).
(function () {
  "use strict";

  var LEAST = -1, MOST = 2;

  function round(number) {
    return Math.round(number * 100) / 100;
  }

  // What a slider's position makes of a unit whose high value is `top`.
  function placed(unit, position, top) {
    if (position <= 0) return { unit: unit, value: 0, strength: -position };
    return position <= 1 ? { unit: unit, value: top, strength: position } : { unit: unit, value: top * position, strength: 1 };
  }

  // Where the slider of a unit stands, also of one that comes from somebody's recipe.
  function position(one, top) {
    if (!one.strength) return 0;
    if (!one.value) return Math.max(-one.strength, LEAST);
    if (one.strength < 1 || !(top > 0)) return Math.min(Math.max(one.strength, 0), MOST);
    return Math.min(Math.max(one.value / top, LEAST), MOST);
  }

  function words(one, top) {
    var at = position(one, top), exact = one.value === 0 || one.value === top || at > 1 && Math.abs(one.value - top * at) < 1e-9 * Math.abs(top);
    if (!one.strength) return "untouched";
    if (!exact) return "to " + one.value.toPrecision(3) + (one.strength === 1 ? "" : ", " + Math.round(100 * one.strength) + "%");
    if (at < 0) return at === -1 ? "ablated" : "ablated " + Math.round(-100 * at) + "%";
    return at === 1 ? "inserted" : "inserted " + Math.round(100 * at) + "%";
  }

  function empty(layer) {
    return { layer: layer, units: [], region: null, on: true };
  }

  function copy(edit) {
    return { layer: edit.layer, units: edit.units.map(function (one) { return Object.assign({}, one); }), region: edit.region, on: edit.on };
  }

  // Lengths of runs of cells, row by row, the first outside the region.
  function runs(cells) {
    var found = [0], inside = 0;
    for (var at = 0; at < cells.length; at++) {
      if (cells[at] !== inside) { found.push(0); inside = cells[at]; }
      found[found.length - 1]++;
    }
    return found;
  }

  function share(region) {
    if (!region) return 0;
    var inside = 0;
    for (var at = 0; at < region.cells.length; at++) inside += region.cells[at];
    return inside / region.cells.length;
  }

  function regionToJson(region) {
    return share(region) ? { grid: [region.rows, region.columns], runs: runs(region.cells) } : null;
  }

  function regionFromJson(content) {
    if (!content) return null;
    var cells = new Uint8Array(content.grid[0] * content.grid[1]), at = 0;
    content.runs.forEach(function (length, number) {
      cells.fill(number % 2, at, at + length);
      at += length;
    });
    return { rows: content.grid[0], columns: content.grid[1], cells: cells };
  }

  // An edit as one or more of a recipe: units of one strength together. One that changes nothing is none.
  function toJson(edits) {
    var found = [];
    edits.filter(function (edit) { return edit.on; }).forEach(function (edit) {
      var region = regionToJson(edit.region), groups = new Map();
      edit.units.forEach(function (one) {
        if (!one.strength) return;
        if (!groups.has(one.strength)) groups.set(one.strength, []);
        groups.get(one.strength).push(one);
      });
      groups.forEach(function (units, strength) {
        found.push({
          layer: edit.layer,
          units: units.map(function (one) { return one.unit; }),
          values: units.map(function (one) { return one.value; }),
          strength: strength,
          region: region
        });
      });
    });
    return found;
  }

  function fromJson(content) {
    return content.map(function (edit) {
      var units = edit.units.map(function (unit, at) { return { unit: unit, value: edit.values[at], strength: edit.strength }; });
      return { layer: edit.layer, units: units, region: regionFromJson(edit.region), on: true };
    });
  }

  // What was done, to undo it. One gesture (a slider that is dragged, a stroke) is one step: the same `gesture` twice in
  // a row is remembered once, until `ended`.
  function History() {
    var past = [], last = null;
    return {
      remember: function (edits, current, gesture) {
        if (gesture && gesture === last) return;
        last = gesture || null;
        past.push({ edits: edits.map(copy), current: current });
        if (past.length > 200) past.shift();
      },
      ended: function () { last = null; },
      back: function () { last = null; return past.pop() || null; },
      any: function () { return past.length > 0; }
    };
  }

  window.MicrotomeEdits = {
    LEAST: LEAST, MOST: MOST, round: round, placed: placed, position: position, words: words, empty: empty, share: share,
    toJson: toJson, fromJson: fromJson, History: History
  };
})();
