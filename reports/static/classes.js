// The list of classes: rows whose text holds what was typed.
(function () {
  "use strict";

  var form = document.getElementById("find");
  var box = form.querySelector("input"), count = form.querySelector("output");
  var rows = Array.from(document.querySelectorAll("table.classes tbody tr"));
  var texts = rows.map(function (row) { return row.textContent.toLowerCase(); });

  function narrow() {
    var query = box.value.trim().toLowerCase(), shown = 0;
    rows.forEach(function (row, place) {
      row.hidden = texts[place].indexOf(query) < 0;
      if (!row.hidden) shown += 1;
    });
    count.value = query ? shown + " of " + rows.length + " classes" : "";
  }

  box.addEventListener("input", narrow);
  form.hidden = false;
  narrow();
})();
