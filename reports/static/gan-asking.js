// How the page of a generator asks its server, beyond asking.js: of several questions that come while one is at work,
// only the latest is asked.
(function () {
  "use strict";

  var asking = window.MicrotomeAsking, ask = asking.ask;

  // A line of questions to one endpoint: one is at work, the latest of those that came meanwhile follows it.
  // show(answer, body); fail(error, body); idle(): nothing is left to ask.
  function Line(path, show, fail, idle) {
    var working = false, next = null;

    function begin(body) {
      working = true;
      ask(path, body).then(function (found) { return show(found, body); }).catch(function (error) { fail(error, body); }).then(function () {
        working = false;
        var then = next;
        next = null;
        if (then) begin(then);
        else if (idle) idle();
      });
    }

    return {
      ask: function (body) {
        if (working) next = body;
        else begin(body);
      },
      busy: function () { return working; }
    };
  }

  // A question that may be left: a newer one, or `leave`, takes the older one back, and the server drops it.
  function Leaving(path, wait, show, fail) {
    var timer = 0, working = null;

    function leave() {
      clearTimeout(timer);
      if (working) working.abort();
      working = null;
    }

    return {
      leave: leave,
      ask: function (body) {
        leave();
        timer = setTimeout(function () {
          var mine = new AbortController();
          working = mine;
          ask(path, body, mine.signal).then(function (found) { if (working === mine) show(found, body); }, function (error) {
            if (error.name !== "AbortError" && working === mine) fail(error);
          });
        }, wait);
      }
    };
  }

  // Pixels (RGBA) of the picture at an address.
  function pixels(source) {
    return new Promise(function (done, failed) {
      var image = new Image();
      image.onload = function () {
        var canvas = document.createElement("canvas");
        canvas.width = image.naturalWidth;
        canvas.height = image.naturalHeight;
        var draw = canvas.getContext("2d", { willReadFrequently: true });
        draw.drawImage(image, 0, 0);
        done(draw.getImageData(0, 0, canvas.width, canvas.height));
      };
      image.onerror = function () { failed(new Error("The picture that the server sent cannot be read.")); };
      image.src = source;
    });
  }

  function save(blob, name) {
    var link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 10000);
  }

  Object.assign(asking, { Line: Line, Leaving: Leaving, pixels: pixels, save: save });
})();
