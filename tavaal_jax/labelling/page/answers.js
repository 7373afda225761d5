"use strict";
const the = id => document.getElementById(id);
const request = JSON.parse(the("request").textContent);
const images = request.images, tiles = [...document.querySelectorAll(".tile")];
const UNSURE = request.unsure.shown, BAD = request.bad.shown;
const KEY = "tavaal_jax " + request.name + " " + request.digest, NAME_KEY = "tavaal_jax name";
const KEYS = "123456789qwertyiopasdfghjklxcvm";  // u, b, n and z are taken.
const known = new Set(images.map(image => image.id));

// What is kept. `saved` is the text of the last file that was saved.
let state = {answers: {}, notes: {}, added: [], saved: "", saves: 0, part: 0};
let at = 0, past = [], choices = new Map(), byKey = {}, asking = "";

function keep(key, text) {
  try { localStorage.setItem(key, text); } catch { the("refused").hidden = false; }
}
function kept(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}
function read() {
  let old;
  try { old = JSON.parse(kept(KEY)); } catch { old = null; }
  if (!old || typeof old !== "object") return;
  const texts = pairs => Object.fromEntries(Object.entries(pairs || {}).filter(
    ([id, text]) => known.has(id) && typeof text === "string" && text));
  const part = old.part > 0 && old.part <= request.parts ? Math.floor(old.part) : 0;
  const added = Array.isArray(old.added) ? old.added.filter(name => typeof name === "string") : [];
  const saved = String(old.saved || ""), saves = Number(old.saves) || 0;
  state = {answers: texts(old.answers), notes: texts(old.notes), added, saved, saves, part};
}
function changed() {
  offer();
  state.added = [...choices.keys()].filter(name => !request.classes.includes(name));
  keep(KEY, JSON.stringify(state));
  show();
}

// The file that is saved
function cell(text) {
  if (/^[=+\-@\t\r]/.test(text)) text = "'" + text;  // No spreadsheet takes it for a formula.
  return /[",;\t\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}
const person = () => the("name").value.trim().normalize("NFC");
function table() {
  const rows = images.filter(({id}) => state.answers[id] || state.notes[id]).map(({id, file}) =>
    [id, file, state.answers[id] || "", person(), state.notes[id] || ""]);
  if (!rows.length) return "";
  return [["id", "file", "label", "annotator", "note"], ...rows].map(row => row.map(cell).join(",") + "\n").join("");
}
const isUnsaved = () => table() !== state.saved && table() !== "";
function save() {
  const text = table();
  if (!text) return say("There is no answer yet.");
  the("name").classList.toggle("missing", !person());
  if (!person()) {
    the("name").focus();
    return say("Your name, please: it goes into the file, so that several people can label. Then save again.");
  }
  const slug = person().replace(/[^\p{L}\p{N}-]+/gu, "_").slice(0, 60);
  const link = document.createElement("a");
  // Of two files that say different things, the one that sorts last counts.
  const again = state.saves ? "_" + String(state.saves + 1).padStart(3, "0") : "";
  link.download = "labels_" + request.name + "_" + slug + again + ".csv";
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], {type: "text/csv;charset=utf-8"}));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  state.saved = text;
  state.saves++;
  changed();
  const left = visible().filter(place => !answer(place)).length;
  say("Saved as " + link.download + " in your downloads. Put it into labels/ of the workdir"
    + (again ? ", in place of the one before: it has all your answers" : "")
    + (left ? "; " + left + " to go." : ". Then the same command continues."), true);
}

// A class by its name
const same = (a, b) => a.toLocaleLowerCase() === b.toLocaleLowerCase();
const meant = text => [...choices.keys()].find(name => name === text) ?? [...choices.keys()].find(name => same(name, text))
  ?? (request.unsure.also.some(word => same(word, text)) ? UNSURE : request.bad.also.some(word => same(word, text)) ? BAD : undefined);
function isNear(a, b) {  // As the study judges names: one letter more, less, another, or two swapped.
  const letters = text => text.replace(/\p{Nd}/gu, "");
  if (letters(a) === letters(b)) return false;  // Numbers differ that little by nature.
  a = [...a];
  b = [...b];
  if (Math.min(a.length, b.length) < 3) return false;
  while (a.length && b.length && a[0] === b[0]) { a.shift(); b.shift(); }
  const rest = (letters, count) => letters.slice(count).join("");
  const isSwapped = a[0] === b[1] && a[1] === b[0] && rest(a, 2) === rest(b, 2);
  return isSwapped || rest(a, 1) === rest(b, 1) || rest(a, 1) === rest(b, 0) || rest(a, 0) === rest(b, 1);
}
