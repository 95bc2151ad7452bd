// A region of the picture, painted on canvases that lie over it: with pointer, pen or finger, or with the keyboard.
(function () {
  "use strict";

  var SIDE = 512;

  // canvases: over pictures of height x width pixels, all showing the same region. told(region, ended): it has changed.
  // now(): { region, erase, size } as they stand; size: radius as a share of the shorter side.
  function Brush(canvases, height, width, now, told) {
    var most = Math.max(height, width), scale = Math.min(1, 128 / most);
    var grid = [Math.max(1, Math.round(height * scale)), Math.max(1, Math.round(width * scale))];
    var cursor = null, last = null, marked = null;

    canvases.forEach(function (canvas) {
      canvas.height = Math.round(SIDE * height / most);
      canvas.width = Math.round(SIDE * width / most);
    });

    function blank() {
      return { rows: grid[0], columns: grid[1], cells: new Uint8Array(grid[0] * grid[1]) };
    }

    // The region with a dot painted or erased around (across, down), shares of the picture.
    function dotted(region, across, down, radius, value) {
      var cells = region.cells.slice(), reach = radius * Math.min(height, width), touched = false;
      for (var row = 0; row < region.rows; row++) {
        for (var column = 0; column < region.columns; column++) {
          var x = ((column + 0.5) / region.columns - across) * width, y = ((row + 0.5) / region.rows - down) * height;
          if (x * x + y * y <= reach * reach) { cells[row * region.columns + column] = value; touched = true; }
        }
      }
      var nearest = Math.min(region.rows - 1, Math.floor(down * region.rows)) * region.columns + Math.min(region.columns - 1, Math.floor(across * region.columns));
      if (!touched) cells[nearest] = value; // a brush finer than a cell
      return { rows: region.rows, columns: region.columns, cells: cells };
    }

    function stroke(across, down, ended) {
      var state = now(), region = state.region || blank(), value = state.erase ? 0 : 1;
      var from = last || [across, down], far = Math.hypot(across - from[0], down - from[1]);
      var steps = Math.max(1, Math.ceil(far / Math.max(state.size / 2, 0.01)));
      for (var step = last ? 1 : steps; step <= steps; step++) {
        var part = step / steps;
        region = dotted(region, from[0] + part * (across - from[0]), from[1] + part * (down - from[1]), state.size, value);
      }
      last = [across, down];
      told(region, ended);
    }

    function where(event, canvas) {
      var box = canvas.getBoundingClientRect();
      var at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      return at.map(function (share) { return Math.min(Math.max(share, 0), 0.9999); });
    }

    // Lines between what is inside and what is not: black under white, so that they show on any picture.
    function edges(draw, inside, rows, columns, across, down) {
      draw.beginPath();
      for (var row = 0; row < rows; row++) {
        for (var column = 0; column < columns; column++) {
          if (!inside(row, column)) continue;
          var x = column * across, y = row * down;
          if (!row || !inside(row - 1, column)) { draw.moveTo(x, y); draw.lineTo(x + across, y); }
          if (row === rows - 1 || !inside(row + 1, column)) { draw.moveTo(x, y + down); draw.lineTo(x + across, y + down); }
          if (!column || !inside(row, column - 1)) { draw.moveTo(x, y); draw.lineTo(x, y + down); }
          if (column === columns - 1 || !inside(row, column + 1)) { draw.moveTo(x + across, y); draw.lineTo(x + across, y + down); }
        }
      }
      lined(draw);
    }

    function lined(draw) {
      draw.strokeStyle = "#000"; draw.lineWidth = 5; draw.stroke();
      draw.strokeStyle = "#fff"; draw.lineWidth = 2; draw.stroke();
    }

    function hatched(draw, inside, rows, columns, across, down) {
      draw.save();
      draw.beginPath();
      for (var row = 0; row < rows; row++) {
        for (var column = 0; column < columns; column++) if (inside(row, column)) draw.rect(column * across, row * down, across, down);
      }
      draw.clip();
      draw.beginPath();
      for (var x = -SIDE; x < SIDE; x += 14) { draw.moveTo(x, 0); draw.lineTo(x + SIDE, SIDE); }
      draw.strokeStyle = "rgb(255 255 255 / .45)"; draw.lineWidth = 2; draw.stroke();
      draw.restore();
    }

    function show() {
      var state = now(), region = state.region;
      canvases.forEach(function (canvas, number) {
        var draw = canvas.getContext("2d");
        draw.clearRect(0, 0, canvas.width, canvas.height);
        if (region) {
          var inside = function (row, column) { return region.cells[row * region.columns + column] === 1; };
          edges(draw, inside, region.rows, region.columns, canvas.width / region.columns, canvas.height / region.rows);
        }
        if (marked && marked[number]) {
          var mask = marked[number];
          var having = function (row, column) { return mask.cells[row * mask.columns + column] === 1; };
          hatched(draw, having, mask.rows, mask.columns, canvas.width / mask.columns, canvas.height / mask.rows);
          edges(draw, having, mask.rows, mask.columns, canvas.width / mask.columns, canvas.height / mask.rows);
        }
        if (cursor) {
          draw.beginPath();
          draw.arc(cursor[0] * canvas.width, cursor[1] * canvas.height, Math.max(state.size * Math.min(canvas.width, canvas.height), 3), 0, 2 * Math.PI);
          lined(draw);
        }
      });
    }

    canvases.forEach(function (canvas) {
      canvas.addEventListener("pointerdown", function (event) {
        if (event.button) return;
        event.preventDefault();
        canvas.focus({ preventScroll: true });
        canvas.setPointerCapture(event.pointerId);
        last = null;
        cursor = where(event, canvas);
        stroke(cursor[0], cursor[1], false);
      });
      canvas.addEventListener("pointermove", function (event) {
        cursor = where(event, canvas);
        if (last) stroke(cursor[0], cursor[1], false);
        else show();
      });
      ["pointerup", "pointercancel"].forEach(function (name) {
        canvas.addEventListener(name, function () {
          if (!last) return;
          last = null;
          told(now().region, true);
        });
      });
      canvas.addEventListener("pointerleave", function () { if (!last) { cursor = null; show(); } });
      canvas.addEventListener("blur", function () { cursor = null; show(); });
      canvas.addEventListener("keydown", function (event) {
        var moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (moves) {
          var from = cursor || [0.5, 0.5], step = event.shiftKey ? 0.1 : 0.025;
          cursor = [from[0] + step * moves[0], from[1] + step * moves[1]].map(function (share) { return Math.min(Math.max(share, 0), 0.9999); });
          show();
        } else if (event.key === " " || event.key === "Enter") {
          cursor = cursor || [0.5, 0.5];
          last = null;
          stroke(cursor[0], cursor[1], true);
          last = null;
        } else {
          return;
        }
        event.preventDefault();
      });
    });

    return { show: show, mark: function (masks) { marked = masks; show(); } };
  }

  window.MicrotomeBrush = Brush;
})();
