// How a page asks the server that gave it out (microtome serve), and how it makes elements of what comes back. A page
// that no server has given out has no <meta name="microtome-server">, and asks nobody for anything.
(function () {
  "use strict";

  var meta = document.querySelector("meta[name=microtome-server]");
  var api = meta ? meta.content : "";

  // JSON values of an endpoint; body null: GET. Fails with the server's sentence.
  function ask(path, body, signal) {
    var options = body === null ? { signal: signal } : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: signal };
    return fetch(api + path, options).catch(function (error) {
      throw error.name === "AbortError" ? error : new Error("The server does not answer; is microtome serve still running?");
    }).then(function (answer) {
      return answer.json().catch(function () { return {}; }).then(function (found) {
        if (!answer.ok) throw new Error(found.error || "The server answered with " + answer.status + ".");
        return found;
      });
    });
  }

  // What comes from the run goes through attributes and text, never through markup.
  function el(tag, attributes) {
    var node = document.createElement(tag);
    Object.keys(attributes || {}).forEach(function (name) {
      if (attributes[name] !== null) node.setAttribute(name, attributes[name]);
    });
    Array.prototype.slice.call(arguments, 2).forEach(function (child) {
      if (child !== null) node.append(child);
    });
    return node;
  }

  window.MicrotomeAsking = { served: !!meta, ask: ask, el: el };
})();
