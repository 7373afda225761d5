
// Where one is
const answer = place => state.answers[images[place].id] || "";
const isMine = place => !state.part || place % request.parts === state.part - 1;
const visible = () => images.map((_, place) => place).filter(isMine);
function go(place) {
  if (place === undefined) return;
  const isFocused = tiles.includes(document.activeElement);
  at = place;
  asking = "";
  the("typed").value = "";
  show();
  if (isFocused) tiles[at].focus({preventScroll: true});
  reveal();
}
function reveal() {  // Only the sheet's own scroll bar moves.
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
function give(label) {
  const before = answer(at), place = at;
  say("");
  if (label !== before) {
    past.push([[place, before]]);
    set(place, label);
  }
  if (label) next();
  changed();
  const left = visible().filter(place => !answer(place)).length;
  the("live").textContent = (label || "no answer") + ". " + (left ? title(at) : "All answered.");
  if (!left && label !== before) say("All " + visible().length + " answered. Save the file, or look through them once more.", true);
}
function set(place, label) {
  if (label) state.answers[images[place].id] = label; else delete state.answers[images[place].id];
}
function undo() {
  const last = past.pop();
  if (!last) return;
  say("");
  for (const [place, before] of last) set(place, before);
  state.part = isMine(last[0][0]) ? state.part : 0;
  go(last[0][0]);
  changed();
  the("live").textContent = "Taken back. " + title(at);
}
function restart() {
  const mine = visible().filter(answer);
  if (!mine.length || !confirm("Take back all " + mine.length + " answers? Undo brings them back.")) return;
  past.push(mine.map(place => [place, answer(place)]));
  for (const place of mine) set(place, "");
  go(visible()[0]);
  changed();
}

// A class by its name
function take() {
  const text = the("typed").value.trim().normalize("NFC"), found = meant(text);
  if (!text) return the("typed").blur();
  if (found !== undefined) { the("typed").blur(); return give(found); }
  const first = [...choices].find(([, button]) => !button.hidden);
  if (request.fixed) {
    if (!first) return hint("No class has that name.", true);
    the("typed").blur();
    return give(first[0]);
  }
  if (/[\/\\<>"\p{C}]|(?! )\p{Z}|^\.\.?$/u.test(text)) return hint('A class has none of / \\ < > " in its name.', true);
  const near = [...choices.keys()].find(name => isNear(name, text));
  if (near && asking !== text) {
    asking = text;
    return hint("That is almost “" + near + "”. Enter again makes “" + text + "” a class of its own.", true);
  }
  the("typed").blur();
  give(text);
}
function filter() {
  const text = the("typed").value.trim().toLocaleLowerCase();
  let first;
  for (const [name, button] of choices) {
    button.hidden = !name.toLocaleLowerCase().includes(text);
    if (!button.hidden) first ??= name;
  }
  if (!text) return hint("");
  const found = meant(the("typed").value.trim());
  if (found !== undefined) return hint("Enter: " + found);
  if (request.fixed) return hint(first ? "Enter: " + first : "No class has that name.");
  hint("Enter: a new class" + (first ? "; arrow down: " + first : ""));
}
function hint(text, isLoud = false) {
  the("hint").textContent = text;
  the("hint").classList.toggle("loud", isLoud);
}
function say(text, isGood = false) {
  the("said").textContent = text;
  the("said").hidden = !text;
  the("said").classList.toggle("good", isGood);
  reveal();  // There is less room for the sheet now.
}

// What is seen
const title = place => "Image " + (place + 1) + " of " + images.length + ": " + images[place].file;
const hue = label => [...choices.keys()].indexOf(label) * 137.508 + 212;
function show() {
  const places = visible(), done = places.filter(answer).length, label = answer(at), image = images[at];
  the("count").textContent = done + " of " + places.length;
  document.title = done + "/" + places.length + " · " + request.name.replace("_", " ");
  const bar = document.querySelector(".bar");
  bar.setAttribute("aria-valuemax", places.length);
  bar.setAttribute("aria-valuenow", done);
  bar.firstChild.style.width = 100 * done / (places.length || 1) + "%";
  the("undo").disabled = !past.length;
  const text = table(), isSaved = text === state.saved || !text;
  the("save").textContent = text && isSaved ? "Saved" : "Save";
  the("save").classList.toggle("done", isSaved);
  tiles.forEach(paint);
  const picture = tiles[at].querySelector("img"), large = the("large");
  large.hidden = !picture;
  large.nextElementSibling.hidden = !!picture;
  if (picture && large.src !== picture.src) large.src = picture.src;
  if (picture) large.classList.toggle("small", picture.classList.contains("small"));
  large.alt = title(at);
  the("place").textContent = at + 1 + " of " + images.length;
  the("file").textContent = image.file;
  if (document.activeElement !== the("note")) the("note").value = state.notes[image.id] || "";
  the("given").hidden = !label;
  the("given").textContent = label;
  the("given").style.setProperty("--tint", [UNSURE, BAD].includes(label) ? "var(--soft)" : "hsl(" + hue(label) + " 60% var(--lightness))");
  the("back").disabled = at === places[0];
  the("on").disabled = at === places.at(-1);
  const guess = !label && choices.has(image.guess) ? image.guess : "";
  const counts = new Map();
  for (const given of Object.values(state.answers)) counts.set(given, (counts.get(given) || 0) + 1);
  for (const [name, button] of [...choices, [UNSURE, the("unsure")], [BAD, the("bad")]]) {
    button.setAttribute("aria-pressed", name === label);
    button.classList.toggle("guess", name === guess);
    button.querySelector("small").textContent = counts.get(name) || "";
  }
  the("clear").disabled = !label;
  the("part").value = state.part;
  filter();
  if (guess) hint("The model guesses “" + guess + "”: Enter agrees.");
}
function paint(tile, place) {
  const label = answer(place);
  tile.parentElement.hidden = !isMine(place);
  tile.tabIndex = place === at ? 0 : -1;
  tile.setAttribute("aria-current", place === at);
  tile.setAttribute("aria-label", title(place) + ", " + (label || "no answer"));
  tile.classList.toggle("answered", !!label);
  tile.classList.toggle("apart", [UNSURE, BAD].includes(label) && !!label);
  tile.querySelector(".answer").textContent = label;
  if (label) tile.style.setProperty("--hue", hue(label));
}
function offer() {  // A button for each class: those that are given, then new ones.
  const used = new Set(images.map((_, place) => answer(place)));
  for (const name of used) if (name && name !== UNSURE && name !== BAD) add(name);
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
function add(name) {
  if (choices.has(name)) return;
  const button = document.createElement("button"), key = document.createElement("kbd"), text = document.createElement("span");
  button.type = "button";
  button.className = "choice";
  key.setAttribute("aria-hidden", "true");
  text.textContent = name;
  button.append(key, text, document.createElement("small"));
  button.addEventListener("click", () => give(name));
  the("pad").append(button);
  choices.set(name, button);
}

// Keys
const isWide = () => matchMedia("(min-width: 60rem)").matches;
function pressed(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const isTyping = event.target.matches("input, select");
  if ((event.ctrlKey || event.metaKey) && !event.altKey && key === "s") { event.preventDefault(); return save(); }
  if ((event.ctrlKey || event.metaKey) && key === "z" && !isTyping) { event.preventDefault(); return undo(); }
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (isTyping) {
    if (key === "Escape") { the("typed").value = ""; filter(); event.target.blur(); }
    if (key === "Enter" && event.target !== the("typed")) event.target.blur();
    if (event.target !== the("typed")) return;
    if (key === "Enter") { event.preventDefault(); take(); }
    if (key === "ArrowDown") { event.preventDefault(); the("pad").querySelector("button:not([hidden])")?.focus(); }
    return;
  }
  // On some keyboards the upper row has digits only with Shift.
  const digit = /^Digit([0-9])/.exec(event.code);
  const guess = images[at].guess, isButton = event.target.matches("button");
  const label = byKey[key] ?? "", byPlace = byKey[digit && digit[1]] ?? "";
  const does = label ? () => give(label) : {
    u: UNSURE && (() => give(UNSURE)), b: BAD && (() => give(BAD)), z: undo,
    n: () => the("typed").focus(), "/": () => the("typed").focus(),
    Backspace: () => give(""), Delete: () => give(""),
    ArrowLeft: () => move(-1), ArrowRight: () => move(1), Home: () => move(-images.length), End: () => move(images.length),
    ArrowUp: isWide() && (() => move(-perRow())), ArrowDown: isWide() && (() => move(perRow())),
    Enter: !isButton && !answer(at) && choices.has(guess) && (() => give(guess)),
  }[key] ?? (byPlace && (() => give(byPlace)));
  if (!does) return;
  event.preventDefault();
  does();
}

// Start
read();
the("name").value = kept(NAME_KEY) || "";
[...request.classes, ...state.added].forEach(add);
for (const [id, word] of [["unsure", UNSURE], ["bad", BAD]]) {
  the(id).hidden = !word;
  the(id).querySelector("span").textContent = word;
  the(id).addEventListener("click", () => give(word));
}
the("typed").placeholder = request.fixed ? "Find a class" : "Find a class or name a new one";
the("typed").hidden = the("by-name").hidden = request.fixed && request.classes.length < 10;
if (request.parts > 1) {
  the("parts").hidden = false;
  for (let part = 0; part <= request.parts; part++)
    the("part").add(new Option(part ? part + " of " + request.parts : "all", part));
}
for (const picture of document.querySelectorAll(".tile img")) {
  const look = () => picture.classList.toggle("small", picture.naturalWidth < 100);
  if (picture.complete) look();
  picture.addEventListener("load", () => { look(); show(); }, {once: true});
}
tiles.forEach((tile, place) => tile.addEventListener("click", () => {
  go(place);
  if (!isWide()) document.querySelector(".stage").scrollIntoView();
}));
document.addEventListener("keydown", pressed);
the("typed").addEventListener("input", () => { asking = ""; filter(); });
the("note").addEventListener("input", () => {
  const {id} = images[at], text = the("note").value.trim();
  if (text) state.notes[id] = text; else delete state.notes[id];
  changed();
});
the("name").addEventListener("input", () => { the("name").classList.remove("missing"); keep(NAME_KEY, the("name").value); show(); });
the("part").addEventListener("change", () => {
  state.part = Number(the("part").value);
  the("part").blur();
  go(visible().find(place => !answer(place)) ?? visible()[0]);
  changed();
});
the("back").addEventListener("click", () => move(-1));
the("on").addEventListener("click", () => move(1));
the("clear").addEventListener("click", () => give(""));
the("undo").addEventListener("click", undo);
the("save").addEventListener("click", save);
the("restart").addEventListener("click", restart);
addEventListener("storage", event => {  // Another window with this page.
  if (event.key !== KEY) return;
  read();
  state.added.forEach(add);
  offer();
  show();
});
addEventListener("beforeunload", event => { if (isUnsaved()) { event.preventDefault(); event.returnValue = true; } });
if (images.length) {
  changed();  // Says at once where nothing can be kept.
  go(visible().find(place => !answer(place)) ?? visible()[0]);
}
