"use strict";
// The page: what is shown, answering, keys. static.js or live.js, which follows, starts it.
const tileSize = () => matchMedia("(min-width: 40rem)").matches ? 132 : 92;
const grid = new Grid(byId("box"), byId("tiles"), {
  size: () => view.mode === "one" ? 84 : tileSize(),
  fill: fillTile, changed: selectionChanged, isMulti: () => view.mode === "grid",
  open: place => { grid.go(place); setMode("one"); },
});
// What class keys answer, and what arrows move in; the live page has further ones.
let target = {
  grid, answer: answerShown, place: image => image.number + " of " + images.length,
  enter() { const answers = guessed(); if (answers.length) respond(answers, answers[0][1]); },
};

// Display
const title = image => image.number ? "Image " + image.number + " of " + images.length + ": " + image.file : image.file || "Image";
function fillTile(tile, image) {
  const label = answerTo(image), number = tile.querySelector(".number");
  number.textContent = (image.number ?? "") + (image.fold?.length ? " +" + image.fold.length : "");
  number.hidden = !number.textContent;
  tile.setAttribute("aria-label", title(image) + ", " + (label || "no answer"));
  tile.classList.toggle("answered", !!label);
  tile.classList.toggle("apart", isApart(label));
  tile.querySelector(".answer").textContent = label;
  if (label) tile.style.setProperty("--tint", tint(label));
}
function answersChanged() {
  updateChoices();
  render();
}
function render() {
  const done = shown.filter(answerTo).length, bar = document.querySelector(".bar");
  byId("count").textContent = done + " of " + shown.length;
  document.title = done + "/" + shown.length + " · " + request.name.replace("_", " ");
  bar.setAttribute("aria-valuemax", shown.length);
  bar.setAttribute("aria-valuenow", done);
  bar.firstChild.style.width = 100 * done / (shown.length || 1) + "%";
  byId("undo").disabled = !state.done;
  byId("redo").disabled = state.done === state.steps.length;
  byId("part").value = state.part;
  document.body.classList.toggle("one", view.mode === "one" && target.grid === grid);
  byId("tiles").setAttribute("aria-multiselectable", view.mode === "grid");
  for (const mode of ["grid", "one"]) byId(mode).setAttribute("aria-pressed", view.mode === mode);
  target.grid.refresh();
  selectionChanged();
  backend.render();
}
function selectionChanged() {
  const list = target.grid, image = list.current, large = byId("large"), count = grid.selected.size;
  byId("chosen").textContent = view.mode === "grid" && count !== 1 ? count + " selected" : "";
  const isLarge = target.grid !== grid || view.mode === "one", next = list.items[list.at + 1];
  // In the grid of a phone it is not seen, and needs not be fetched.
  const source = image && large.parentElement.offsetParent && (isLarge ? backend.picture : backend.thumbnail)(image);
  if (view.mode === "one" && next && backend.picture(next)) new Image().src = backend.picture(next);
  large.hidden = !source;
  large.nextElementSibling.hidden = !!source || !image;
  if (source && large.getAttribute("src") !== source) large.src = source;
  byId("place").textContent = image ? target.place(image) : "";
  byId("file").textContent = image?.file || "";
  if (!image) byId("given").hidden = true;
  else {
    const label = answerTo(image);
    large.alt = title(image);
    if (document.activeElement !== byId("note")) byId("note").value = state.notes[image.id] || "";
    byId("given").hidden = !label;
    byId("given").textContent = label;
    byId("given").style.setProperty("--tint", tint(label));
  }
  byId("back").disabled = list.at === 0 || !image;
  byId("on").disabled = list.at >= list.items.length - 1;
  const guess = target.guess?.() ?? guessed()[0]?.[1] ?? "";
  renderChoices(list.chosen.map(answerTo), guess);
  backend.selected?.(image);
  if (byId("typed").value || confirming) return;
  filter();
  if (guess && list === grid) hint("The model guesses “" + guess + "”: Enter agrees.");
}
const guessed = () => target.grid !== grid ? [] : grid.chosen.filter(image => !answerTo(image) && choices.has(image.guess)).map(({id, guess}) => [id, guess]);
function notify(text, isGood = false) {
  byId("said").textContent = text;
  byId("said").hidden = !text;
  byId("said").classList.toggle("good", isGood);
}
const counted = (count, word) => count.toLocaleString("en") + " " + word + (count === 1 ? "" : "s");
const say = text => { byId("live").textContent = text; };

// Answers
const answerWith = label => target.answer(label);
function answerShown(label) {
  if (!grid.selected.size) return hint("Nothing is selected.", true);
  respond(grid.chosen.map(({id}) => [id, label]), label);
}
function respond(answers, label) {  // Gives answers, and goes on to the next open image.
  notify("");
  clearTyped();
  const isNew = give(backend.expand?.(answers) ?? answers), open = shown.findIndex((image, place) => place > grid.at && !answerTo(image));
  const to = open < 0 ? shown.findIndex(image => !answerTo(image)) : open;
  if (label && to >= 0) grid.go(to);
  const left = shown.filter(image => !answerTo(image)).length, many = answers.length > 1 ? answers.length + " images: " : "";
  say(many + (label || "no answer") + ". " + (left ? title(grid.current) : "All answered."));
  if (!left && isNew) notify("All " + shown.length + " answered. " + backend.whenDone(), true);
}
function stepShown(ids, word) {  // Shows and selects what undo or redo changed.
  notify("");
  if (!ids.some(id => shown.includes(inRequest.get(id))) && ids.some(id => inRequest.has(id))) setPart(0);
  const places = ids.map(id => shown.indexOf(inRequest.get(id))).filter(place => place >= 0).sort((a, b) => a - b);
  if (places.length) {
    grid.go(places[0]);
    if (view.mode === "grid") grid.select(places);
    grid.told();
  }
  say(word + (places.length > 1 ? counted(places.length, "image") + "." : places.length ? title(grid.current) : counted(ids.length, "image") + " elsewhere."));
  backend.stepped?.(ids);
}
function restart() {
  const mine = shown.filter(answerTo);
  if (!mine.length || !confirm("Take back all " + mine.length + " answers? Undo brings them back.")) return;
  respond(mine.map(({id}) => [id, ""]), "");
  grid.go(0);
}

// Which images, and how
function showImages() {
  const open = shown.findIndex(image => !answerTo(image));
  grid.show(shown, Math.max(open, 0));
  render();
}
function setPart(part) {
  state.part = part;
  keep();
  arrange();
  showImages();
}
function setMode(mode) {
  setView({mode});
  render();
  grid.select([grid.at]);
  grid.layOut();
  grid.reveal();
  grid.told();
  byId("tiles").focus({preventScroll: true});
}

// Keys
function keyPressed(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const isTyping = event.target.matches("input:not([type=checkbox]), select"), isCtrl = event.ctrlKey || event.metaKey;
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  const take = does => { event.preventDefault(); does(); };
  if (isCtrl && !event.altKey && key === "s") return take(backend.save);
  if (isCtrl && !isTyping && (key === "y" || key === "z")) return take(key === "y" || event.shiftKey ? redo : undo);
  if (event.altKey) return;
  if (isTyping) return typingKey(event, key);
  const isButton = event.target.matches("button, input");
  if (!(isButton && [" ", "Enter"].includes(key)) && target.grid && target.grid.keyPressed(event)) return event.preventDefault();
  if (isCtrl) return;
  // On some keyboards the upper row has digits only with Shift.
  const digit = /^Digit([0-9])/.exec(event.code), label = byKey[key] ?? "", byPlace = byKey[digit && digit[1]] ?? "";
  const {unsure, bad} = request;
  const does = label ? () => answerWith(label) : {
    u: unsure.shown && (() => answerWith(unsure.shown)), b: bad.shown && (() => answerWith(bad.shown)),
    z: event.shiftKey ? redo : undo, n: () => byId("typed").focus(), "/": () => byId("typed").focus(),
    Backspace: () => answerWith(""), Delete: () => answerWith(""),
    ".": target.grid === grid && (() => setMode(view.mode === "one" ? "grid" : "one")),
    Escape: view.mode === "one" && target.grid === grid && (() => setMode("grid")),
    Enter: !isButton && target.enter,
  }[key] ?? (byPlace && (() => answerWith(byPlace)));
  if (does) take(does);
}
function typingKey(event, key) {
  const isClass = event.target === byId("typed");
  if (key === "Escape") { clearTyped(); selectionChanged(); event.target.blur(); }
  if (key === "Enter" && !isClass) event.target.blur();
  if (key === "Enter" && isClass) { event.preventDefault(); submitTyped(); }
  if (key === "ArrowDown" && isClass) { event.preventDefault(); byId("pad").querySelector("button:not([hidden])")?.focus(); }
}

// Start
for (const [id, does] of [
  ["back", () => target.grid.go(target.grid.at - 1)], ["on", () => target.grid.go(target.grid.at + 1)], ["clear", () => answerWith("")],
  ["unsure", () => answerWith(request.unsure.shown)], ["bad", () => answerWith(request.bad.shown)],
  ["undo", undo], ["redo", redo], ["restart", restart], ["save", () => backend.save()],
  ["grid", () => setMode("grid")], ["one", () => setMode("one")],
]) byId(id).addEventListener("click", does);
document.addEventListener("keydown", keyPressed);
byId("large").addEventListener("load", () => byId("large").classList.toggle("small", byId("large").naturalWidth < 100));
byId("typed").addEventListener("input", () => { confirming = ""; filter(); });
byId("note").addEventListener("input", () => {
  const {id} = grid.current, text = byId("note").value.trim();
  if (text) state.notes[id] = text; else delete state.notes[id];
  changed();
});
byId("part").addEventListener("change", () => { byId("part").blur(); setPart(Number(byId("part").value)); });
byId("order").addEventListener("change", () => {
  setView({order: byId("order").value});
  byId("order").blur();
  arrange();
  showImages();
});
addEventListener("storage", event => {  // Another window with this page.
  if (event.key !== stateKey) return;
  load();
  answersChanged();
});
function showRequest() {  // After `begin`.
  byId("parts").hidden = request.parts < 2;
  byId("part").replaceChildren(...Array.from({length: request.parts + 1}, (_, part) => new Option(part ? part + " of " + request.parts : "all", part)));
  byId("orders").hidden = !request.order;
  byId("order").value = view.order;
  updateChoices();
  showImages();
}
