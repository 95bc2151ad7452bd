// What a server (microtome serve) explains on demand, on cards of units and pages of classes.
(function () {
  "use strict";

  var asking = window.MicrotomeAsking, ask = asking.ask, el = asking.el;
  if (!asking.served) return;
  var able = null;

  function read(file) {
    return new Promise(function (done, failed) {
      var reader = new FileReader();
      reader.onload = function () { done(String(reader.result).split(",", 2)[1] || ""); };
      reader.onerror = function () { failed(new Error("The file cannot be read.")); };
      reader.readAsDataURL(file);
    });
  }

  // One offer: what is explained (subject), and the samples that may be explained, each [number, name].
  function build(subject, samples) {
    var method = el("select", {}, el("option", {}, "…"));
    var source = el("select", {});
    samples.forEach(function (sample) { source.append(el("option", { value: sample[0] }, sample[1])); });
    source.append(el("option", { value: "upload" }, "an image of yours"));
    var file = el("input", { type: "file", accept: "image/*", "aria-label": "image file" });
    var go = el("button", { type: "submit", disabled: "" }, "Explain");
    var make = subject.visualise ? el("button", { type: "button" }, "Synthesise anew") : null;
    var trouble = el("p", { class: "trouble", role: "alert", hidden: "" });
    var busy = el("p", { class: "note", role: "status", hidden: "" });
    var refused = el("details", { class: "note", hidden: "" });
    var answers = el("div", { class: "answers" });
    var form = el("form", {}, el("label", {}, "method", method), el("label", {}, "image", source), el("label", {}, "file", file), go, make);
    var details = el("details", {}, el("summary", {}, "Explain"), form, busy, trouble, answers, refused);
    var working = null, asked = false, seed = 1;

    function say(node, text) {
      node.textContent = text;
      node.hidden = !text;
    }

    function upload() {
      file.parentNode.hidden = source.value !== "upload";
    }

    function learn() {
      if (asked) return;
      asked = true;
      say(busy, "The model is being opened …");
      ask("methods", subject.about).then(function (found) {
        method.replaceChildren.apply(method, found.methods.map(function (name) { return el("option", { value: name }, name); }));
        go.disabled = !found.methods.length;
        say(busy, "");
        refused.hidden = !found.refused.length;
        refused.replaceChildren(el("summary", {}, "does not apply: " + found.refused.map(function (one) { return one.name; }).join(", ")));
        found.refused.forEach(function (one) { refused.append(el("p", {}, el("b", {}, one.name), ": " + one.why)); });
      }).catch(function (error) { asked = false; say(busy, ""); say(trouble, error.message); });
    }

    function work(path, body) {
      if (working) working.abort();
      working = new AbortController();
      say(trouble, "");
      say(busy, "Working …");
      ask(path, body, working.signal).then(function (found) {
        say(busy, "");
        answers.replaceChildren.apply(answers, found.pictures.map(function (picture) {
          var image = picture.src ? el("img", { src: picture.src, alt: picture.caption }) : null;
          return el("figure", {}, image, el("figcaption", {}, picture.caption));
        }));
      }).catch(function (error) {
        if (error.name === "AbortError") return;
        say(busy, "");
        say(trouble, error.message);
      });
    }

    form.addEventListener("submit", function (event) {
      event.preventDefault();
      var body = Object.assign({ methods: [method.value] }, subject.about);
      if (source.value !== "upload") {
        body.sample = Number(source.value);
        work("explain", body);
      } else if (!file.files.length) {
        say(trouble, "Choose an image file first.");
      } else if (file.files[0].size > able.upload_bytes) {
        say(trouble, "The file is larger than " + Math.floor(able.upload_bytes / 1e6) + " MB.");
      } else {
        read(file.files[0]).then(function (data) { work("explain", Object.assign(body, { image: data })); })
          .catch(function (error) { say(trouble, error.message); });
      }
    });
    if (make) make.addEventListener("click", function () { work("visualise", Object.assign({ seed: seed++ }, subject.about)); });
    source.addEventListener("change", upload);
    details.addEventListener("toggle", function () { if (details.open) learn(); });
    upload();
    return details;
  }

  var waiting = [];

  function when(ready) {
    if (able) ready();
    else waiting.push(ready);
  }

  ask("hello", null).then(function (found) {
    able = found;
    waiting.forEach(function (ready) { ready(); });
  }).catch(function () { waiting = []; });

  // A card of a layer page: the patches of the unit can be explained.
  function offer(card, unit) {
    when(function () {
      var data = window.MICROTOME_LAYER;
      if (able.layers.indexOf(data.layer) < 0 || card.querySelector(".live")) return;
      var samples = data.patches.units[unit].map(function (patch, rank) {
        return [data.patches.samples[patch[0]], "patch " + (rank + 1) + ": " + data.patches.keys[patch[0]]];
      });
      var subject = { about: { layer: data.layer, unit: unit }, visualise: able.visualise };
      card.append(el("div", { class: "live" }, build(subject, samples)));
    });
  }

  // A page of a class
  document.querySelectorAll("section.live").forEach(function (room) {
    when(function () {
      var samples = Array.from(document.querySelectorAll(".portrait li [data-sample]"), function (node) {
        return [Number(node.dataset.sample), node.getAttribute("title")];
      });
      room.append(build({ about: { class: Number(room.dataset.class) }, visualise: able.visualise }, samples));
      room.hidden = false;
      room.closest("#pictures").hidden = false;
    });
  });

  window.MicrotomeExplain = { offer: offer };
})();
