"use strict";
// The map: all images in two dimensions. A click shows the image nearest to it, a frame all in it,
// which may be answered, or asked for next.
const canvas = byId("chart");
const mapped = new Grid(byId("mapped-box"), byId("mapped-tiles"), {
  size: () => 92, fill: fillTile, changed: () => { renderAsk(); selectionChanged(); },
});
const atlas = {
  section: byId("map"), points: [], inFrame: null, cross: null,
  target: {
    grid: mapped, place: () => "", guess: () => "",
    answer(label) {
      const ids = mapped.chosen.map(({id}) => id);
      if (!ids.length) return hint("Nothing is selected.", true);
      answerElsewhere(ids.map(id => [id, label]), label);
    },
  },
  async open() {
    const kind = byId("map-kind").value, found = await call("/api/map?kind=" + kind);
    if (kind !== byId("map-kind").value) return;  // Another has been chosen meanwhile.
    this.isComputing = found.state === "computing";
    byId("map-lead").textContent = this.isComputing ? "This layout is being computed …"
      : "A click shows an image, a frame takes all in it; class keys answer what is selected below.";
    if (this.isComputing) return;
    this.points = found.ids.map((id, k) => ({
      id, file: found.files?.[k] ?? "", x: found.x[k], y: found.y[k], label: found.label[k], cycle: found.picked[k],
    }));
    this.render();
  },
  render() { drawMap(); render(); },
};

// Drawing
function placePoints() {  // Sets left and top of each point in pixels.
  const {clientWidth: width, clientHeight: height} = canvas, margin = 12, {points} = atlas;
  const ends = axis => points.reduce(([low, high], point) => [Math.min(low, point[axis]), Math.max(high, point[axis])], [Infinity, -Infinity]);
  const [left, right] = ends("x"), [bottom, top] = ends("y");
  for (const point of points) {
    point.left = margin + (width - 2 * margin) * (point.x - left) / (right - left || 1);
    point.top = height - margin - (height - 2 * margin) * (point.y - bottom) / (top - bottom || 1);
  }
}
function colours() {  // [[text, colour, test of a point]]; a point has the first that fits.
  const style = getComputedStyle(document.documentElement), of = name => style.getPropertyValue(name).trim();
  const label = point => state.answers[point.id] || point.label, none = ["no answer", of("--faint"), () => true];
  const kind = byId("map-colours").value;
  if (kind === "unlabelled") return [["unlabelled", of("--strong"), point => !label(point)], ["answered", of("--faint"), () => true]];
  if (kind === "picked") {
    const cycles = [...new Set(atlas.points.map(point => point.cycle))].filter(cycle => cycle !== null).sort((a, b) => a - b);
    const colour = k => `hsl(${260 - 220 * k / (cycles.length - 1 || 1)} 70% ${of("--lightness")})`;
    return [...cycles.map((cycle, k) => ["cycle " + cycle, colour(k), point => point.cycle === cycle]), ["not picked", of("--faint"), () => true]];
  }
  return [...[...choices.keys()].map(name => [name, `hsl(${hue(name) % 360} 60% ${of("--lightness")})`, point => label(point) === name]), none];
}
function drawMap() {
  const {clientWidth: width, clientHeight: height} = canvas, sharp = devicePixelRatio || 1, paint = canvas.getContext("2d");
  if (!width) return;
  Object.assign(canvas, {width: width * sharp, height: height * sharp});
  paint.scale(sharp, sharp);
  placePoints();
  const kinds = colours().map(kind => [...kind, []]);
  for (const point of atlas.points) kinds.find(([, , fits]) => fits(point))[3].push(point);
  for (const [, colour, , points] of [...kinds].reverse()) {  // The faint ones below.
    paint.fillStyle = colour;
    for (const {left, top} of points) paint.fillRect(left - 2.5, top - 2.5, 5, 5);
  }
  paint.strokeStyle = getComputedStyle(document.body).color;
  paint.lineWidth = 1.5;
  for (const {left, top} of mapped.items) paint.strokeRect(left - 4, top - 4, 8, 8);
  const {cross, inFrame} = atlas;
  if (cross) for (const [dx, dy] of [[7, 0], [0, 7]]) {
    paint.beginPath();
    paint.moveTo(cross.x - dx, cross.y - dy);
    paint.lineTo(cross.x + dx, cross.y + dy);
    paint.stroke();
  }
  if (inFrame) paint.strokeRect(inFrame.x, inFrame.y, inFrame.width, inFrame.height);
  byId("legend").replaceChildren(...kinds.filter(([, , , points]) => points.length).map(([text, colour, , points]) => {
    const entry = Object.assign(document.createElement("span"), {textContent: text + " " + points.length});
    entry.style.setProperty("--tint", colour);
    return entry;
  }));
}

// Choosing
function choose(points) {
  mapped.show(points, 0, [...points.keys()]);
  renderAsk();
  selectionChanged();
  drawMap();
  say(counted(points.length, "image") + " chosen.");
}
function nearest({x, y}) {
  const far = point => Math.hypot(point.left - x, point.top - y);
  return atlas.points.reduce((best, point) => !best || far(point) < far(best) ? point : best, null);
}
function frameOf(a, b) {
  return {x: Math.min(a.x, b.x), y: Math.min(a.y, b.y), width: Math.abs(a.x - b.x), height: Math.abs(a.y - b.y)};
}
const inside = ({x, y, width, height}) => atlas.points.filter(
  point => point.left >= x && point.left <= x + width && point.top >= y && point.top <= y + height);
function renderAsk() {
  const count = mapped.selected.size;
  byId("ask").disabled = !count;
  byId("ask").textContent = count ? "Ask for " + (count === 1 ? "this one" : "these " + count) + " next" : "Ask for these next";
}
canvas.addEventListener("pointerdown", event => {
  if (event.button || !atlas.points.length) return;
  const at = event => { const box = canvas.getBoundingClientRect(); return {x: event.clientX - box.left, y: event.clientY - box.top}; };
  const start = at(event);
  canvas.setPointerCapture(event.pointerId);
  const moved = event => { atlas.inFrame = frameOf(start, at(event)); drawMap(); };
  const ended = event => {
    canvas.removeEventListener("pointermove", moved);
    canvas.removeEventListener("pointerup", ended);
    canvas.removeEventListener("pointercancel", ended);
    const frame = frameOf(start, at(event));
    atlas.inFrame = null;
    choose(frame.width + frame.height > 8 ? inside(frame) : [nearest(start)]);
  };
  canvas.addEventListener("pointermove", moved);
  canvas.addEventListener("pointerup", ended);
  canvas.addEventListener("pointercancel", ended);
});
canvas.addEventListener("keydown", event => {  // Arrows move a cross, with Shift they draw a frame.
  const step = {ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10]}[event.key];
  const cross = atlas.cross ?? {x: canvas.clientWidth / 2, y: canvas.clientHeight / 2};
  if (!step && event.key !== "Enter" || !atlas.points.length) return;
  event.preventDefault();
  event.stopPropagation();
  if (!step) return choose([nearest(cross)]);
  atlas.cross = {x: cross.x + step[0], y: cross.y + step[1]};
  atlas.from = event.shiftKey ? atlas.from ?? cross : null;
  if (!atlas.from) return drawMap();
  atlas.inFrame = frameOf(atlas.from, atlas.cross);
  choose(inside(atlas.inFrame));
});
canvas.addEventListener("blur", () => { atlas.cross = atlas.inFrame = atlas.from = null; drawMap(); });
new ResizeObserver(drawMap).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
byId("map-colours").addEventListener("change", drawMap);
byId("map-kind").addEventListener("change", () => refreshView());
byId("ask").addEventListener("click", async () => {
  const ids = mapped.chosen.map(({id}) => id);
  try {
    await call("/api/ask", {ids});
    notify(counted(ids.length, "image") + " will be asked for next, unless they are answered or kept for the test.", true);
  } catch (fault) { notify(fault.message); }
});
