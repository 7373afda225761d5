// The labelling page, second part: navigation, answering, display and keys.

// Navigation
const answer = place => state.answers[images[place].id] || "";
const isInPart = place => !state.part || place % request.parts === state.part - 1;
const visible = () => images.map((_, place) => place).filter(isInPart);
function go(place) {
  if (place === undefined) return;
  const isFocused = tiles.includes(document.activeElement);
  at = place;
  confirming = "";
  byId("typed").value = "";
  render();
  if (isFocused) tiles[at].focus({preventScroll: true});
  reveal();
}
function reveal() {  // Only the scroll bar of the list of tiles moves.
  const box = document.querySelector(".all"), tile = tiles[at];
  const top = tile.offsetTop - box.offsetTop, below = top + tile.offsetHeight - box.clientHeight + 16;
  box.scrollTop = Math.min(Math.max(box.scrollTop, below), top - 48);
}
function move(steps) {
  const places = visible(), to = places.indexOf(at) + steps;
  go(places[Math.min(Math.max(to, 0), places.length - 1)]);
}
function perRow() {
  const tops = visible().map(place => tiles[place].offsetTop);
  return tops.filter(top => top === tops[0]).length;
}
function next() {
  const open = visible().filter(place => !answer(place));
  go(open.find(place => place > at) ?? open[0] ?? at);
}

// Answers
function answerWith(label) {
  const before = answer(at), place = at;
  notify("");
  if (label !== before) {
    undoStack.push([[place, before, timeOf(place)]]);
    set(place, label);
  }
  if (label) next();
  answersChanged();
  const left = visible().filter(place => !answer(place)).length;
  byId("live").textContent = (label || "no answer") + ". " + (left ? title(at) : "All answered.");
  if (!left && label !== before) notify("All " + visible().length + " answered. Save the file, or look through them once more.", true);
}
const timeOf = place => state.times[images[place].id] || "";
function set(place, label, time = new Date().toISOString()) {
  const id = images[place].id;
  delete state.answers[id];
  delete state.times[id];
  if (label) state.answers[id] = label;
  if (label && time) state.times[id] = time;
}
function undo() {
  const last = undoStack.pop();
  if (!last) return;
  notify("");
  for (const [place, before, time] of last) set(place, before, time);
  state.part = isInPart(last[0][0]) ? state.part : 0;
  go(last[0][0]);
  answersChanged();
  byId("live").textContent = "Taken back. " + title(at);
}
function restart() {
  const mine = visible().filter(answer);
  if (!mine.length || !confirm("Take back all " + mine.length + " answers? Undo brings them back.")) return;
  undoStack.push(mine.map(place => [place, answer(place), timeOf(place)]));
  for (const place of mine) set(place, "");
  go(visible()[0]);
  answersChanged();
}

// Typed class names
function submitTyped() {
  const text = byId("typed").value.trim().normalize("NFC"), found = choiceFor(text);
  if (!text) return byId("typed").blur();
  if (found !== undefined) { byId("typed").blur(); return answerWith(found); }
  const first = [...choices].find(([, button]) => !button.hidden);
  if (request.fixed) {
    if (!first) return hint("No class has that name.", true);
    byId("typed").blur();
    return answerWith(first[0]);
  }
  if (/[\/\\<>"\p{C}]|(?! )\p{Z}|^\.\.?$/u.test(text)) return hint('A class has none of / \\ < > " in its name.', true);
  const near = [...choices.keys()].find(name => isNear(name, text));
  if (near && confirming !== text) {
    confirming = text;
    return hint("That is almost “" + near + "”. Enter again makes “" + text + "” a class of its own.", true);
  }
  byId("typed").blur();
  answerWith(text);
}
function filter() {
  const text = byId("typed").value.trim().toLocaleLowerCase();
  let first;
  for (const [name, button] of choices) {
    button.hidden = !name.toLocaleLowerCase().includes(text);
    if (!button.hidden) first ??= name;
  }
  if (!text) return hint("");
  const found = choiceFor(byId("typed").value.trim());
  if (found !== undefined) return hint("Enter: " + found);
  if (request.fixed) return hint(first ? "Enter: " + first : "No class has that name.");
  hint("Enter: a new class" + (first ? "; arrow down: " + first : ""));
}
function hint(text, isLoud = false) {
  byId("hint").textContent = text;
  byId("hint").classList.toggle("loud", isLoud);
}
function notify(text, isGood = false) {
  byId("said").textContent = text;
  byId("said").hidden = !text;
  byId("said").classList.toggle("good", isGood);
  reveal();  // The notice takes room from the list.
}

// Display
const title = place => "Image " + (place + 1) + " of " + images.length + ": " + images[place].file;
const hue = label => [...choices.keys()].indexOf(label) * 137.508 + 212;
function render() {
  const places = visible(), done = places.filter(answer).length, label = answer(at), image = images[at];
  byId("count").textContent = done + " of " + places.length;
  document.title = done + "/" + places.length + " · " + request.name.replace("_", " ");
  const bar = document.querySelector(".bar");
  bar.setAttribute("aria-valuemax", places.length);
  bar.setAttribute("aria-valuenow", done);
  bar.firstChild.style.width = 100 * done / (places.length || 1) + "%";
  byId("undo").disabled = !undoStack.length;
  const text = csvText(), isSaved = text === state.saved || !text;
  byId("save").textContent = text && isSaved ? "Saved" : "Save";
  byId("save").classList.toggle("done", isSaved);
  tiles.forEach(renderTile);
  const picture = tiles[at].querySelector("img"), large = byId("large");
  large.hidden = !picture;
  large.nextElementSibling.hidden = !!picture;
  if (picture && large.src !== picture.src) large.src = picture.src;
  if (picture) large.classList.toggle("small", picture.classList.contains("small"));
  large.alt = title(at);
  byId("place").textContent = at + 1 + " of " + images.length;
  byId("file").textContent = image.file;
  if (document.activeElement !== byId("note")) byId("note").value = state.notes[image.id] || "";
  byId("given").hidden = !label;
  byId("given").textContent = label;
  byId("given").style.setProperty("--tint", [UNSURE, BAD].includes(label) ? "var(--soft)" : "hsl(" + hue(label) + " 60% var(--lightness))");
  byId("back").disabled = at === places[0];
  byId("on").disabled = at === places.at(-1);
  const guess = !label && choices.has(image.guess) ? image.guess : "";
  const counts = new Map();
  for (const given of Object.values(state.answers)) counts.set(given, (counts.get(given) || 0) + 1);
  for (const [name, button] of [...choices, [UNSURE, byId("unsure")], [BAD, byId("bad")]]) {
    button.setAttribute("aria-pressed", name === label);
    button.classList.toggle("guess", name === guess);
    button.querySelector("small").textContent = counts.get(name) || "";
  }
  byId("clear").disabled = !label;
  byId("part").value = state.part;
  filter();
  if (guess) hint("The model guesses “" + guess + "”: Enter agrees.");
}
function renderTile(tile, place) {
  const label = answer(place);
  tile.parentElement.hidden = !isInPart(place);
  tile.tabIndex = place === at ? 0 : -1;
  tile.setAttribute("aria-current", place === at);
  tile.setAttribute("aria-label", title(place) + ", " + (label || "no answer"));
  tile.classList.toggle("answered", !!label);
  tile.classList.toggle("apart", [UNSURE, BAD].includes(label) && !!label);
  tile.querySelector(".answer").textContent = label;
  if (label) tile.style.setProperty("--hue", hue(label));
}
function updateChoices() {  // A button for each class of the request, then new ones.
  const used = new Set(images.map((_, place) => answer(place)));
  for (const name of used) if (name && name !== UNSURE && name !== BAD) addChoice(name);
  for (const [name, button] of choices)
    if (!request.classes.includes(name) && !used.has(name)) { button.remove(); choices.delete(name); }
  byKey = {};
  const own = name => name.length === 1 && ("0" + KEYS).includes(name);  // The digit 1 is not key 2.
  const spare = [...KEYS].filter(key => !choices.has(key));
  choices.forEach((button, name) => {
    const key = own(name) ? name : spare.shift() || "";
    if (key) byKey[key] = name;
    button.firstChild.hidden = !key;
    button.firstChild.textContent = key;
    button.style.setProperty("--hue", hue(name));
  });
}
function addChoice(name) {
  if (choices.has(name)) return;
  const button = document.createElement("button"), key = document.createElement("kbd"), text = document.createElement("span");
  button.type = "button";
  button.className = "choice";
  key.setAttribute("aria-hidden", "true");
  text.textContent = name;
  button.append(key, text, document.createElement("small"));
  button.addEventListener("click", () => answerWith(name));
  byId("pad").append(button);
  choices.set(name, button);
}

// Keys
const isWide = () => matchMedia("(min-width: 60rem)").matches;
function keyPressed(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const isTyping = event.target.matches("input, select");
  if ((event.ctrlKey || event.metaKey) && !event.altKey && key === "s") { event.preventDefault(); return save(); }
  if ((event.ctrlKey || event.metaKey) && key === "z" && !isTyping) { event.preventDefault(); return undo(); }
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (isTyping) {
    if (key === "Escape") { byId("typed").value = ""; filter(); event.target.blur(); }
    if (key === "Enter" && event.target !== byId("typed")) event.target.blur();
    if (event.target !== byId("typed")) return;
    if (key === "Enter") { event.preventDefault(); submitTyped(); }
    if (key === "ArrowDown") { event.preventDefault(); byId("pad").querySelector("button:not([hidden])")?.focus(); }
    return;
  }
  // On some keyboards the upper row has digits only with Shift.
  const digit = /^Digit([0-9])/.exec(event.code);
  const guess = images[at].guess, isButton = event.target.matches("button");
  const label = byKey[key] ?? "", byPlace = byKey[digit && digit[1]] ?? "";
  const does = label ? () => answerWith(label) : {
    u: UNSURE && (() => answerWith(UNSURE)), b: BAD && (() => answerWith(BAD)), z: undo,
    n: () => byId("typed").focus(), "/": () => byId("typed").focus(),
    Backspace: () => answerWith(""), Delete: () => answerWith(""),
    ArrowLeft: () => move(-1), ArrowRight: () => move(1), Home: () => move(-images.length), End: () => move(images.length),
    ArrowUp: isWide() && (() => move(-perRow())), ArrowDown: isWide() && (() => move(perRow())),
    Enter: !isButton && !answer(at) && choices.has(guess) && (() => answerWith(guess)),
  }[key] ?? (byPlace && (() => answerWith(byPlace)));
  if (!does) return;
  event.preventDefault();
  does();
}

// Start
load();
byId("name").value = stored(NAME_KEY) || "";
[...request.classes, ...state.added].forEach(addChoice);
for (const [id, word] of [["unsure", UNSURE], ["bad", BAD]]) {
  byId(id).hidden = !word;
  byId(id).querySelector("span").textContent = word;
  byId(id).addEventListener("click", () => answerWith(word));
}
byId("typed").placeholder = request.fixed ? "Find a class" : "Find a class or name a new one";
byId("typed").hidden = byId("by-name").hidden = request.fixed && request.classes.length < 10;
if (request.parts > 1) {
  byId("parts").hidden = false;
  for (let part = 0; part <= request.parts; part++)
    byId("part").add(new Option(part ? part + " of " + request.parts : "all", part));
}
for (const picture of document.querySelectorAll(".tile img")) {
  const markSmall = () => picture.classList.toggle("small", picture.naturalWidth < 100);
  if (picture.complete) markSmall();
  picture.addEventListener("load", () => { markSmall(); render(); }, {once: true});
}
tiles.forEach((tile, place) => tile.addEventListener("click", () => {
  go(place);
  if (!isWide()) document.querySelector(".stage").scrollIntoView();
}));
document.addEventListener("keydown", keyPressed);
byId("typed").addEventListener("input", () => { confirming = ""; filter(); });
byId("note").addEventListener("input", () => {
  const {id} = images[at], text = byId("note").value.trim();
  if (text) state.notes[id] = text; else delete state.notes[id];
  answersChanged();
});
byId("name").addEventListener("input", () => { byId("name").classList.remove("missing"); store(NAME_KEY, byId("name").value); render(); });
byId("part").addEventListener("change", () => {
  state.part = Number(byId("part").value);
  byId("part").blur();
  go(visible().find(place => !answer(place)) ?? visible()[0]);
  answersChanged();
});
byId("back").addEventListener("click", () => move(-1));
byId("on").addEventListener("click", () => move(1));
byId("clear").addEventListener("click", () => answerWith(""));
byId("undo").addEventListener("click", undo);
byId("save").addEventListener("click", save);
byId("restart").addEventListener("click", restart);
addEventListener("storage", event => {  // Another window with this page.
  if (event.key !== KEY) return;
  load();
  state.added.forEach(addChoice);
  updateChoices();
  render();
});
addEventListener("beforeunload", event => { if (isUnsaved()) { event.preventDefault(); event.returnValue = true; } });
if (images.length) {
  answersChanged();  // Shows at once whether the browser can store answers.
  go(visible().find(place => !answer(place)) ?? visible()[0]);
}
