"use strict";
// The pad: a button and a key for each class, and the field in which a class is typed.
let choices = new Map(), byKey = {}, confirming = "";

const choiceFor = text => [...choices.keys()].find(name => name === text) ?? [...choices.keys()].find(name => same(name, text))
  ?? (request.unsure.also.some(word => same(word, text)) ? request.unsure.shown : request.bad.also.some(word => same(word, text)) ? request.bad.shown : undefined);
const hue = label => [...choices.keys()].indexOf(label) * 137.508 + 212;
const tint = label => isApart(label) || !choices.has(label) ? "var(--soft)" : `hsl(${hue(label)} 60% var(--lightness))`;

function updateChoices() {  // The request's classes, then new ones that an answer has.
  const used = Object.values(state.answers).filter(label => label && !isApart(label));
  const names = [...new Set([...request.classes, ...used])];
  for (const [name, button] of choices) if (!names.includes(name)) { button.remove(); choices.delete(name); }
  for (const name of names) if (!choices.has(name)) choices.set(name, makeChoice(name));
  byKey = {};
  for (const [name, key] of keysOf([...choices.keys()])) {
    const button = choices.get(name);
    if (key) byKey[key] = name;
    button.firstChild.hidden = !key;
    button.firstChild.textContent = key;
    button.style.setProperty("--hue", hue(name));
  }
  for (const [id, word] of [["unsure", request.unsure.shown], ["bad", request.bad.shown]]) {
    byId(id).hidden = !word;
    byId(id).querySelector("span").textContent = word;
  }
  byId("typed").placeholder = request.fixed ? "Find a class" : "Find a class or name a new one";
  byId("typed").hidden = byId("by-name").hidden = request.fixed && request.classes.length < 10;
}
function makeChoice(name) {
  const button = document.createElement("button"), key = document.createElement("kbd"), text = document.createElement("span");
  button.type = "button";
  button.className = "choice";
  key.setAttribute("aria-hidden", "true");
  text.textContent = name;
  button.append(key, text, document.createElement("small"));
  button.addEventListener("click", () => answerWith(name));
  byId("pad").append(button);
  return button;
}
function renderChoices(given, guess) {  // `given`: labels of what is chosen.
  const counts = new Map();
  for (const image of shown) counts.set(answerTo(image), (counts.get(answerTo(image)) || 0) + 1);
  for (const [name, button] of [...choices, [request.unsure.shown, byId("unsure")], [request.bad.shown, byId("bad")]]) {
    button.setAttribute("aria-pressed", given.length > 0 && given.every(label => label === name));
    button.classList.toggle("guess", name === guess);
    button.querySelector("small").textContent = counts.get(name) || "";
  }
  byId("clear").disabled = !given.some(label => label);
}

// Typed class names
function submitTyped() {
  const text = byId("typed").value.trim().normalize("NFC"), found = choiceFor(text);
  const done = label => { byId("typed").blur(); byId("typed").value = ""; answerWith(label); };
  if (!text) return byId("typed").blur();
  if (found !== undefined) return done(found);
  const first = [...choices].find(([, button]) => !button.hidden);
  if (request.fixed) return first ? done(first[0]) : hint("No class has that name.", true);
  if (isForbidden(text)) return hint('A class has none of / \\ < > " in its name.', true);
  const near = [...choices.keys()].find(name => isNear(name, text));
  if (near && confirming !== text) {
    confirming = text;
    return hint("That is almost “" + near + "”. Enter again makes “" + text + "” a class of its own.", true);
  }
  done(text);
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
function clearTyped() {
  confirming = "";
  byId("typed").value = "";
  filter();
}
function hint(text, isLoud = false) {
  byId("hint").textContent = text;
  byId("hint").classList.toggle("loud", isLoud);
}
