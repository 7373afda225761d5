"use strict";
// Where we stand: accuracy with its interval, the curve, how much is left, the next model.
const percent = share => typeof share !== "number" ? "?" : (100 * share).toFixed(share > .995 || share < .1 ? 1 : 0) + " %";
let modelAt = null;  // when a model in training is expected, in ms of performance.now()

function renderStatus(now) {
  const facts = [], last = now.curve?.at(-1);
  if (last && last.accuracy !== null && last.accuracy !== undefined) {
    const few = last.n < 30 ? ", too few to judge" : "";
    facts.push(["Accuracy", percent(last.accuracy), percent(last.low) + " to " + percent(last.high) + ", " + counted(last.n, "test image") + few]);
  } else facts.push(["Accuracy", "not yet", "it needs answers to random images and a model"]);
  facts.push(["Answered", (now.answered ?? 0) + " of " + (now.asked ?? 0), "of this request, by all"]);
  facts.push(["Unlabelled", (now.left ?? 0).toLocaleString("en"), "images are left"]);
  if (typeof now.agreement?.alpha === "number") facts.push(["Agreement", now.agreement.alpha.toFixed(2), "Krippendorff's alpha, " + counted(now.agreement.n, "image")]);
  byId("facts").replaceChildren(...facts.map(([name, value, more]) => {
    const row = document.createElement("div");
    for (const [tag, text] of [["dt", name], ["dd", value], ["dd", more]])
      row.append(Object.assign(document.createElement(tag), {textContent: text}));
    return row;
  }));
  byId("train").disabled = !!now.training || now.state === "FINISHED";
  modelAt = typeof now.seconds_to_model === "number" && now.training ? performance.now() + 1000 * now.seconds_to_model : null;
  renderModel(now);
  drawCurve(now.curve || []);
  byId("outlook").textContent = now.hint || "";
  byId("problem").textContent = now.problem || "";
  byId("problem").hidden = !now.problem;
}
function renderModel(now) {
  const time = seconds => seconds > 120 ? Math.round(seconds / 60) + " min" : seconds + " s";
  const left = modelAt === null ? null : Math.max(0, Math.round((modelAt - performance.now()) / 1000));
  const soon = left ? " in about " + time(left) : left === 0 ? " in a moment" : " soon";
  const takes = typeof now.seconds_to_model === "number" ? "; it takes about " + time(Math.max(1, Math.round(now.seconds_to_model))) : "";
  byId("model").textContent = {
    STARTING: "Looking at the images …", FINISHED: "Finished: nothing is left to ask.",
  }[now.state] ?? (now.training ? "The model learns; next images" + soon + "." : "The model waits for answers" + takes + ".");
}

function drawCurve(points) {  // Accuracy with its interval over the number of labels.
  const svg = byId("curve"), width = 180, height = 48, pad = 4;
  points = points.filter(point => typeof point.accuracy === "number");
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.classList.toggle("empty", points.length < 2);
  if (points.length < 2) return;
  const most = Math.max(...points.map(point => point.labelled)), least = Math.min(...points.map(point => point.labelled));
  const bottom = Math.min(...points.map(point => point.low)), top = Math.max(...points.map(point => point.high));
  const x = point => pad + (width - 2 * pad) * (point.labelled - least) / (most - least || 1);
  const y = share => height - pad - (height - 2 * pad) * (share - bottom) / (top - bottom || 1);
  const add = (name, attributes) => {
    const part = svg.appendChild(document.createElementNS(svg.namespaceURI, name));
    for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
    return part;
  };
  const line = (list, share) => list.map(point => x(point).toFixed(1) + "," + y(share(point)).toFixed(1)).join(" ");
  add("polygon", {class: "interval", points: line(points, point => point.high) + " " + line([...points].reverse(), point => point.low)});
  add("polyline", {class: "line", points: line(points, point => point.accuracy)});
  for (const point of points) {
    const dot = add("circle", {class: "dot", cx: x(point).toFixed(1), cy: y(point.accuracy).toFixed(1), r: 2.5});
    dot.appendChild(document.createElementNS(svg.namespaceURI, "title")).textContent =
      counted(point.labelled, "label") + ": " + percent(point.accuracy) + " (" + percent(point.low) + " to " + percent(point.high) + ", n = " + point.n + ")";
  }
  svg.setAttribute("aria-label", "Accuracy by number of labels: " + points.map(
    point => point.labelled + " labels " + percent(point.accuracy)).join(", "));
}
