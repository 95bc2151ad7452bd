// The page that edits what a generator makes. Without a server (microtome serve) it says so, and asks nobody for anything.
(function () {
  "use strict";

  var asking = window.MicrotomeAsking, model = window.MicrotomeEdits, el = asking.el;
  if (!asking.served) return;

  var SEEDS = 12, SETTLED = 150;
  var edits = [], current = 0, seed = 0, firstShown = 0, history = model.History();
  var about = null, lastSeed = Number.MAX_SAFE_INTEGER, brush = null, chooser = null, seen = null, outlined = "";
  var pictures = { before: null, after: null }, thumbnails = new Map();

  function get(id) {
    return document.getElementById(id);
  }

  function trouble(error) {
    get("trouble").textContent = error ? error.message : "";
    get("trouble").hidden = !error;
  }

  function say(text) {
    get("said").textContent = text;
  }

  function edit() {
    return edits[current];
  }

  // Pictures

  function fail(error) {
    get("after").classList.remove("waiting");
    trouble(error);
  }

  function shower(which) {
    return function (found, body) {
      if (found.seed !== seed) return null;
      trouble(null);
      if (!thumbnails.size) say("");
      pictures[which] = found.picture;
      get(which).src = found.picture;
      if (which === "before" && !body.edits.length && !wanted().length) same(found.picture);
      if (which === "after") get("took").textContent = body.edits.length ? "· answered in " + Math.max(1, Math.round(1000 * found.seconds)) + " ms" : "";
      return compare();
    };
  }

  function same(picture) {
    pictures.after = picture;
    get("after").src = picture;
    get("took").textContent = "";
  }

  var befores = asking.Line("generate", shower("before"), fail, function () { sketch(); });
  var afters = asking.Line("generate", shower("after"), fail, function () { get("after").classList.remove("waiting"); look(); sketch(); });
  var areas = asking.Leaving("areas", SETTLED, showAreas, trouble);

  function wanted() {
    return model.toJson(edits);
  }

  // Ask for the picture as the edits stand.
  function generate() {
    var now = wanted();
    areas.leave();
    if (now.length > about.most_edits) {
      trouble(new Error("These are " + now.length + " edits; at most " + about.most_edits + " are applied at once."));
    } else if (now.length) {
      get("after").classList.add("waiting");
      afters.ask({ seed: seed, edits: now });
    } else if (pictures.before && !afters.busy()) {
      same(pictures.before);
      compare();
      look();
    } else {
      afters.ask({ seed: seed, edits: [] });
    }
  }

  function go(number) {
    if (!(number >= 0 && number <= lastSeed)) { trouble(new Error("A seed is a whole number from 0 to " + lastSeed + ".")); return; }
    seed = Math.floor(number);
    get("seed").value = seed;
    pictures.before = pictures.after = null;
    befores.ask({ seed: seed, edits: [] });
    generate();
    if (seed < firstShown || seed >= firstShown + SEEDS) firstShown = Math.max(0, Math.min(seed, lastSeed - SEEDS + 1));
    strip();
  }

  // Dark blue to yellow, ever lighter: read alike by all eyes, and in grey.
  function shade(share) {
    var stops = [[0, 32, 76], [87, 93, 109], [165, 156, 116], [255, 234, 70]], at = Math.min(share, 1) * 3, from = Math.min(Math.floor(at), 2);
    return stops[from].map(function (low, number) { return low + (at - from) * (stops[from + 1][number] - low); });
  }

  function compare() {
    if (!pictures.before || !pictures.after) return null;
    var pair = [pictures.before, pictures.after];
    return Promise.all(pair.map(asking.pixels)).then(function (read) {
      if (pair[0] !== pictures.before || pair[1] !== pictures.after) return;
      var one = read[0].data, other = read[1].data, canvas = get("changed"), count = 0, most = 0;
      canvas.width = read[0].width;
      canvas.height = read[0].height;
      var drawn = canvas.getContext("2d").createImageData(canvas.width, canvas.height);
      for (var at = 0; at < one.length; at += 4) {
        var far = Math.max(Math.abs(one[at] - other[at]), Math.abs(one[at + 1] - other[at + 1]), Math.abs(one[at + 2] - other[at + 2]));
        count += far > 0;
        most = Math.max(most, far);
        shade(far / 128).forEach(function (value, channel) { drawn.data[at + channel] = value; });
        drawn.data[at + 3] = 255;
      }
      canvas.getContext("2d").putImageData(drawn, 0, 0);
      get("change-words").textContent = most ? "difference: " + percent(count * 4 / one.length) + " of the pixels, at most " + most + " of 255 (yellow: 128 or more)" : "no difference";
      get("difference").dataset.most = most;
    }).catch(trouble);
  }

  function percent(share) {
    var value = 100 * share;
    return (value && value < 0.01 ? "<0.01" : value.toFixed(value < 1 ? 2 : 1)) + "%";
  }

  // Thumbnails of seeds, asked for one by one while nothing else is.

  var sketching = false;

  function strip() {
    get("strip").replaceChildren.apply(get("strip"), Array.from({ length: Math.min(SEEDS, lastSeed + 1) }, function (_, at) {
      var number = firstShown + at;
      var button = el("button", { type: "button", "aria-pressed": String(number === seed), "aria-label": "seed " + number }, el("img", { alt: "", "data-seed": number, src: thumbnails.get(number) || null }), String(number));
      button.addEventListener("click", function () { go(number); });
      return el("li", {}, button);
    }));
    sketch();
  }

  function sketch() {
    if (sketching || befores.busy() || afters.busy()) return;
    var missing = Array.from({ length: Math.min(SEEDS, lastSeed + 1) }, function (_, at) { return firstShown + at; }).find(function (number) { return !thumbnails.has(number); });
    if (missing === undefined) return;
    sketching = true;
    asking.ask("generate", { seed: missing, edits: [], side: 96 }).then(function (found) {
      if (thumbnails.size > 600) thumbnails.clear();
      thumbnails.set(missing, found.picture);
      get("strip").querySelectorAll('img[data-seed="' + missing + '"]').forEach(function (image) { image.src = found.picture; });
      sketching = false;
      sketch();
    }, function (error) { sketching = false; trouble(error); });
  }

  // Areas of concepts

  function look() {
    if (about.segmenter && pictures.before) areas.ask({ seed: seed, edits: wanted() });
  }

  function showAreas(found, body) {
    if (body.seed !== seed) return;
    seen = null;
    get("areas").hidden = false;
    var rows = found.concepts.filter(function (one) { return one.before > 0 || one.after > 0; });
    rows.sort(function (one, other) { return Math.abs(other.after - other.before) - Math.abs(one.after - one.before) || other.before - one.before; });
    var most = Math.max.apply(null, rows.map(function (one) { return Math.abs(one.after - one.before); }).concat(1e-9));
    get("seen").replaceChildren.apply(get("seen"), rows.map(function (one) {
      var change = one.after - one.before, sign = change < 0 ? "−" : change > 0 ? "+" : "";
      var button = el("button", { type: "button", "aria-pressed": String(one.name === outlined) }, one.name);
      button.addEventListener("click", function () { outlined = outlined === one.name ? "" : one.name; outline(); });
      var bar = el("span", { class: "bar" }, change ? el("i", { class: change < 0 ? "less" : "more", style: "width:" + (50 * Math.abs(change) / most).toFixed(1) + "%" }) : null);
      return el("tr", {}, el("th", {}, button), el("td", { class: "n" }, percent(one.before)), el("td", { class: "n" }, percent(one.after)), el("td", { class: "n" }, sign + percent(Math.abs(change))), el("td", {}, bar));
    }));
    Promise.all(found.maps.map(asking.pixels)).then(function (maps) {
      seen = { names: found.concepts.map(function (one) { return one.name; }), planes: found.planes, maps: maps };
      outline();
    }).catch(trouble);
  }

  // Where the chosen concept is, on both pictures.
  function outline() {
    get("seen").querySelectorAll("button").forEach(function (button) { button.setAttribute("aria-pressed", String(button.textContent === outlined)); });
    if (!seen || !outlined) { brush.mark(null); return; }
    brush.mark(seen.maps.map(function (map) {
      var rows = map.height / seen.planes, cells = new Uint8Array(rows * map.width);
      for (var at = 0; at < map.width * map.height; at++) {
        var id = map.data[4 * at] + 256 * map.data[4 * at + 1] - 1;
        if (id >= 0 && seen.names[id] === outlined) cells[at % cells.length] = 1;
      }
      return { rows: rows, columns: map.width, cells: cells };
    }));
  }

  // Edits

  function remember(gesture) {
    history.remember(edits, current, gesture);
  }

  function top(unit) {
    var found = chooser.now(edit().layer);
    return found ? found.top[unit] || 0 : 0;
  }

  function label(unit) {
    var found = chooser.now(edit().layer);
    return unit + (found && found.labels[unit] ? " · " + found.labels[unit] : "");
  }

  function summary(one) {
    var area = model.share(one.region), units = one.units.length;
    return one.layer + " · " + (units === 1 ? "unit " + one.units[0].unit : units ? units + " units" : "no units yet") + " · " + (area ? "in " + percent(area) + " of the picture" : "everywhere");
  }

  function showEdits() {
    get("edits").replaceChildren.apply(get("edits"), edits.map(function (one, number) {
      var on = el("input", { type: "checkbox", "aria-label": "apply edit " + (number + 1) });
      on.checked = one.on;
      on.addEventListener("change", function () { remember(); one.on = on.checked; changed(); });
      var pick = el("button", { type: "button", class: "pick", "aria-pressed": String(number === current) }, number + 1 + " · " + summary(one));
      pick.addEventListener("click", function () { current = number; showAll(); });
      var drop = el("button", { type: "button", "aria-label": "remove edit " + (number + 1) }, "×");
      drop.addEventListener("click", function () {
        remember();
        edits.splice(number, 1);
        if (!edits.length) edits.push(model.empty(one.layer));
        current = Math.min(current > number ? current - 1 : current, edits.length - 1);
        showAll();
        generate();
      });
      return el("li", {}, on, pick, drop);
    }));
    get("undo").disabled = !history.any();
    get("reset").disabled = edits.length === 1 && !edit().units.length && !edit().region;
    var area = model.share(edit().region);
    get("where").textContent = "This edit applies " + (area ? "in " + percent(area) + " of the picture" : "everywhere: nothing is painted") + ".";
  }

  function showSliders() {
    get("chosen").replaceChildren.apply(get("chosen"), edit().units.map(function (one, at) {
      var id = "slider-" + at, words = el("output", { for: id });
      var slider = el("input", { type: "range", id: id, min: model.LEAST, max: model.MOST, step: 0.01, list: "marks", "data-unit": one.unit });
      var drop = el("button", { type: "button", "aria-label": "remove unit " + one.unit }, "×");
      slider.addEventListener("input", function () {
        remember("slide " + current + " " + one.unit);
        edit().units[at] = model.placed(one.unit, model.round(Number(slider.value)), top(one.unit));
        tell();
        changed();
      });
      slider.addEventListener("change", history.ended);
      drop.addEventListener("click", function () { choose([one.unit], false); });

      function tell() {
        words.textContent = model.words(edit().units[at], top(one.unit));
        slider.setAttribute("aria-valuetext", words.textContent);
      }

      slider.value = model.position(one, top(one.unit));
      tell();
      return el("li", {}, el("label", { for: id, title: label(one.unit) }, label(one.unit)), slider, words, drop);
    }));
    var any = edit().units.length > 0;
    ["ablate", "untouched", "insert", "drop"].forEach(function (id) { get(id).disabled = !any; });
    get("whole").hidden = edit().units.length < 2;
    get("scale").hidden = get("meaning").hidden = !any;
    get("chosen-title").textContent = "Units of edit " + (current + 1) + ", in " + edit().layer;
    showWhole();
  }

  function showWhole() {
    var stands = edit().units.map(function (one) { return model.position(one, top(one.unit)); });
    var alike = stands.every(function (one) { return Math.abs(one - stands[0]) < 1e-6; });
    if (stands.length && document.activeElement !== get("all")) get("all").value = alike ? stands[0] : 0;
    get("all-words").textContent = alike && stands.length ? model.words(edit().units[0], top(edit().units[0].unit)) : "differ";
    get("all").setAttribute("aria-valuetext", get("all-words").textContent);
  }

  // After any change of what is applied.
  function changed() {
    showEdits();
    showWhole();
    generate();
  }

  function showAll() {
    showEdits();
    var mine = edit().layer;
    chooser.show(mine).then(function () { if (edit().layer === mine) { showSliders(); chooser.refresh(); } }).catch(trouble);
    showSliders();
    brush.show();
  }

  function choose(units, on) {
    remember();
    var having = new Set(edit().units.map(function (one) { return one.unit; }));
    if (on) {
      units.filter(function (unit) { return !having.has(unit); }).forEach(function (unit) { edit().units.push({ unit: unit, value: 0, strength: 0 }); });
    } else {
      edit().units = edit().units.filter(function (one) { return units.indexOf(one.unit) < 0; });
    }
    showSliders();
    chooser.refresh();
    changed();
  }

  function place(position, gesture) {
    remember(gesture);
    edit().units = edit().units.map(function (one) { return model.placed(one.unit, position, top(one.unit)); });
    get("all").value = position;
    showSliders();
    changed();
  }

  function another(layer) {
    remember();
    if (!edit().units.length) edit().layer = layer;
    else { edits.push(model.empty(layer)); current = edits.length - 1; }
    showAll();
    generate();
  }

  // Files

  function named(rest) {
    return "seed-" + String(seed).padStart(6, "0") + rest;
  }

  // As a shell takes it for one word.
  function quoted(word) {
    return /^[\w@%+=:,./-]+$/.test(word) ? word : "'" + word.replace(/'/g, "'\\''") + "'";
  }

  function savePicture() {
    if (!pictures.after) return;
    var bytes = Uint8Array.from(atob(pictures.after.split(",", 2)[1]), function (letter) { return letter.charCodeAt(0); });
    asking.save(new Blob([bytes], { type: "image/png" }), named(wanted().length ? "-edited.png" : ".png"));
  }

  function saveRecipe() {
    asking.ask("recipe", { edits: wanted(), seeds: [seed] }).then(function (found) {
      asking.save(new Blob([JSON.stringify(found.recipe, null, 2) + "\n"], { type: "application/json" }), "edit.json");
      say("Apply it elsewhere: microtome generate " + quoted(about.spec) + " --recipe edit.json --seeds " + seed + " --out images");
      trouble(null);
    }).catch(trouble);
  }

  function openRecipe(file) {
    file.text().then(function (text) {
      try { return JSON.parse(text); } catch (error) { throw new Error(file.name + " is no JSON; bring a recipe that this page or microtome has made."); }
    }).then(function (recipe) { return asking.ask("edits", { recipe: recipe }); }).then(function (found) {
      remember();
      edits = model.fromJson(found.edits);
      if (!edits.length) edits = [model.empty(about.layers[0].name)];
      current = 0;
      trouble(null);
      say(file.name + ": " + found.edits.length + (found.edits.length === 1 ? " edit." : " edits."));
      return Promise.all(edits.map(function (one) { return chooser.about(one.layer).catch(function () { return null; }); })).then(function () {
        showAll();
        if (found.seeds.length && found.seeds[0] <= lastSeed) go(found.seeds[0]);
        else generate();
      });
    }).catch(trouble);
  }

  // Beginning

  function wire() {
    get("seeds").addEventListener("submit", function (event) { event.preventDefault(); go(Number(get("seed").value)); });
    get("next").addEventListener("click", function () { go(Math.min(seed + 1, lastSeed)); });
    get("random").addEventListener("click", function () { go(Math.floor(Math.random() * Math.min(lastSeed + 1, 1000000))); });
    get("earlier").addEventListener("click", function () { firstShown = Math.max(0, firstShown - SEEDS); strip(); });
    get("later").addEventListener("click", function () { firstShown = Math.max(0, Math.min(lastSeed - SEEDS + 1, firstShown + SEEDS)); strip(); });
    get("all").addEventListener("input", function () { place(model.round(Number(get("all").value)), "all " + current); });
    get("all").addEventListener("change", history.ended);
    get("ablate").addEventListener("click", function () { place(-1); });
    get("untouched").addEventListener("click", function () { place(0); });
    get("insert").addEventListener("click", function () { place(1); });
    get("drop").addEventListener("click", function () { choose(edit().units.map(function (one) { return one.unit; }), false); });
    get("everywhere").addEventListener("click", function () { remember(); edit().region = null; brush.show(); changed(); });
    get("add").addEventListener("click", function () { remember(); edits.push(model.empty(edit().layer)); current = edits.length - 1; showAll(); });
    get("undo").addEventListener("click", undo);
    get("reset").addEventListener("click", function () { remember(); edits = [model.empty(edit().layer)]; current = 0; showAll(); generate(); });
    get("save-picture").addEventListener("click", savePicture);
    get("save-recipe").addEventListener("click", saveRecipe);
    get("open-recipe").addEventListener("change", function () { if (this.files.length) openRecipe(this.files[0]); this.value = ""; });
    document.addEventListener("keydown", function (event) {
      var typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range" && event.target.type !== "checkbox";
      if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key === "z" && !typing) { event.preventDefault(); undo(); }
    });
  }

  function undo() {
    var before = history.back();
    if (!before) return;
    edits = before.edits;
    current = before.current;
    showAll();
    generate();
  }

  function painted(region, ended) {
    remember("stroke");
    if (ended) history.ended();
    edit().region = region;
    brush.show();
    changed();
  }

  function begin(found) {
    about = found;
    if (found.last_seed !== null) lastSeed = found.last_seed;
    edits = [model.empty(found.layers[0].name)];
    chooser = window.MicrotomeUnits({ layer: another, units: choose, has: function (unit) { return edit().units.some(function (one) { return one.unit === unit; }); }, trouble: trouble });
    brush = window.MicrotomeBrush([get("over-before"), get("over-after")], found.size[0], found.size[1], function () {
      return { region: edit().region, erase: document.querySelector("input[name=brush]:checked").value === "erase", size: Number(get("size").value) / 100 };
    }, painted);
    chooser.layers(found.layers);
    say("The generator is being opened …");
    wire();
    showAll();
    go(Math.min(found.first_seed, lastSeed));
  }

  get("unserved").hidden = true;
  get("gan").hidden = false;
  asking.ask("generator", null).then(begin).catch(function (error) { trouble(error); });
})();
