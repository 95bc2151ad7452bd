// Pointer, touch and keys on the canvas. The library knows a mouse alone: fingers and keys are ours.

import type { Camera, Scatter } from "./scatter";

export interface Wishes {
  hover: (across: number, down: number) => void;
  leave: () => void;
  click: (across: number, down: number) => void;
  middle: () => void; // pick what lies in the middle
  seen: () => void; // select what is in view
  escape: () => void;
}

const CLICK_REACH = 5;
const ZOOM = 1.5;

export function listenTo(canvas: HTMLCanvasElement, scatter: Scatter, lassoing: () => boolean, wishes: Wishes): void {
  let pressed: [number, number] | null = null;
  let frame = 0;
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    cancelAnimationFrame(frame);
    if (event.buttons) return wishes.leave();
    frame = requestAnimationFrame(() => wishes.hover(event.offsetX, event.offsetY));
  });
  canvas.addEventListener("pointerleave", () => {
    cancelAnimationFrame(frame);
    wishes.leave();
  });
  canvas.addEventListener("pointerdown", (event) => {
    scatter.settle();
    pressed = [event.offsetX, event.offsetY];
  });
  canvas.addEventListener("pointerup", (event) => {
    const still = !lassoing() && pressed && Math.hypot(event.offsetX - pressed[0], event.offsetY - pressed[1]) < CLICK_REACH;
    if (still && !event.shiftKey) wishes.click(event.offsetX, event.offsetY);
    pressed = null;
  });
  canvas.addEventListener("keydown", (event) => key(event, scatter, wishes));
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.matches("input, select, textarea");
    if (event.key === "Escape" && !typing) wishes.escape();
  });
  touches(canvas, scatter, lassoing);
}

export function zoom(scatter: Scatter, factor: number): void {
  const [x, y, distance] = scatter.camera();
  scatter.look([x, y, Math.min(4, Math.max(1e-4, distance / factor))], true);
}

function key(event: KeyboardEvent, scatter: Scatter, wishes: Wishes): void {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const [x, y, distance] = scatter.camera();
  const step = distance / 5;
  const moves: Record<string, Camera> = {
    ArrowLeft: [x - step, y, distance], ArrowRight: [x + step, y, distance],
    ArrowUp: [x, y + step, distance], ArrowDown: [x, y - step, distance],
  };
  const move = moves[event.key];
  if (move) scatter.look(move);
  else if (event.key === "+" || event.key === "=") zoom(scatter, ZOOM);
  else if (event.key === "-") zoom(scatter, 1 / ZOOM);
  else if (event.key === "0") scatter.look(undefined, true);
  else if (event.key === "Enter") wishes.middle();
  else if (event.key === "s" || event.key === "S") wishes.seen();
  else return;
  event.preventDefault();
}

// One finger moves the map, or draws the lasso as a mouse would; two fingers zoom around their middle.
function touches(canvas: HTMLCanvasElement, scatter: Scatter, lassoing: () => boolean): void {
  let before: Fingers | null = null;
  let drawing = false;
  const mouse = (kind: string, at: Touch, target: EventTarget): void => {
    const { clientX, clientY, screenX, screenY } = at;
    const buttons = kind === "mouseup" ? 0 : 1;
    target.dispatchEvent(new MouseEvent(kind, { bubbles: true, cancelable: true, clientX, clientY, screenX, screenY, buttons }));
  };
  canvas.addEventListener("touchstart", (event) => {
    before = fingers(canvas, event);
    const one = event.touches[0];
    if (!drawing && one && event.touches.length === 1 && lassoing()) {
      drawing = true;
      mouse("mousedown", one, canvas);
    }
  }, { passive: true });
  canvas.addEventListener("touchmove", (event) => {
    event.preventDefault();
    const one = event.touches[0];
    if (drawing && one) return mouse("mousemove", one, window);
    const now = fingers(canvas, event);
    if (before && now) move(scatter, before.apart && now.apart ? before.apart / now.apart : 1, before.middle, now.middle);
    before = now;
  }, { passive: false });
  const end = (event: TouchEvent): void => {
    const last = event.changedTouches[0];
    if (drawing && last) mouse("mouseup", last, window);
    drawing = false;
    before = fingers(canvas, event);
  };
  canvas.addEventListener("touchend", end);
  canvas.addEventListener("touchcancel", end);
}

interface Fingers {
  middle: [number, number];
  apart: number; // of two fingers; 0 for one
}

function fingers(canvas: HTMLCanvasElement, event: TouchEvent): Fingers | null {
  const one = event.touches[0];
  const two = event.touches[1] ?? one;
  if (!one || !two) return null;
  const box = canvas.getBoundingClientRect();
  return {
    apart: Math.hypot(one.clientX - two.clientX, one.clientY - two.clientY),
    middle: [(one.clientX + two.clientX) / 2 - box.left, (one.clientY + two.clientY) / 2 - box.top],
  };
}

// The place of the map that was under `from` comes to lie under `to`, `shrink` times nearer.
function move(scatter: Scatter, shrink: number, from: [number, number], to: [number, number]): void {
  const held = scatter.toMap(...from);
  const [x, y, distance] = scatter.camera();
  const aim = scatter.toMap(...to);
  scatter.look([held[0] + (x - aim[0]) * shrink, held[1] + (y - aim[1]) * shrink, distance * shrink]);
}
