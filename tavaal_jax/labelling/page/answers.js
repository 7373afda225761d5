"use strict";
// The labelling page, first part: stored answers and the file that is saved.
const byId = id => document.getElementById(id);
const request = JSON.parse(byId("request").textContent);
const images = request.images, tiles = [...document.querySelectorAll(".tile")];
const UNSURE = request.unsure.shown, BAD = request.bad.shown;
const KEY = "tavaal_jax " + request.name + " " + request.digest, NAME_KEY = "tavaal_jax name";
const KEYS = "123456789qwertyiopasdfghjklxcvm";  // u, b, n and z are taken.
const known = new Set(images.map(image => image.id));

// State, stored in the browser. `saved` is the text of the last saved file.
let state = {answers: {}, times: {}, notes: {}, added: [], saved: "", saves: 0, part: 0};
let at = 0, undoStack = [], choices = new Map(), byKey = {}, confirming = "";

function store(key, text) {
  try { localStorage.setItem(key, text); } catch { byId("refused").hidden = false; }
}
function stored(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}
function load() {
  let old;
  try { old = JSON.parse(stored(KEY)); } catch { old = null; }
  if (!old || typeof old !== "object") return;
  const texts = pairs => Object.fromEntries(Object.entries(pairs || {}).filter(
    ([id, text]) => known.has(id) && typeof text === "string" && text));
  const part = old.part > 0 && old.part <= request.parts ? Math.floor(old.part) : 0;
  const added = Array.isArray(old.added) ? old.added.filter(name => typeof name === "string") : [];
  const saved = String(old.saved || ""), saves = Number(old.saves) || 0;
  state = {answers: texts(old.answers), times: texts(old.times), notes: texts(old.notes), added, saved, saves, part};
}
function answersChanged() {
  updateChoices();
  state.added = [...choices.keys()].filter(name => !request.classes.includes(name));
  store(KEY, JSON.stringify(state));
  render();
}

// The file that is saved
function cell(text) {
  if (/^'*[=+\-@\t\r]/.test(text)) text = "'" + text;  // No spreadsheet takes it for a formula.
  return /[",;\t\r\n]/.test(text) || text !== text.trim() ? '"' + text.replaceAll('"', '""') + '"' : text;
}
const person = () => byId("name").value.trim().normalize("NFC");
function csvText() {
  const rows = images.filter(({id}) => state.answers[id] || state.notes[id]).map(({id, file}) =>
    [id, file, state.answers[id] || "", person(), state.notes[id] || "", state.times[id] || ""]);
  if (!rows.length) return "";
  return [["id", "file", "label", "annotator", "note", "updated"], ...rows].map(row => row.map(cell).join(",") + "\n").join("");
}
const isUnsaved = () => csvText() !== state.saved && csvText() !== "";
function save() {
  const text = csvText();
  if (!text) return notify("There is no answer yet.");
  byId("name").classList.toggle("missing", !person());
  if (!person()) {
    byId("name").focus();
    return notify("Your name, please: it goes into the file, so that several people can label. Then save again.");
  }
  const slug = person().replace(/[^\p{L}\p{N}-]+/gu, "_").slice(0, 60);
  const link = document.createElement("a");
  // Each answer has its time, so that of two files the newer answer counts, whatever their names.
  const again = state.saves ? "_" + String(state.saves + 1).padStart(3, "0") : "";
  link.download = "labels_" + request.name + "_" + slug + again + ".csv";
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], {type: "text/csv;charset=utf-8"}));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  state.saved = text;
  state.saves++;
  answersChanged();
  const left = visible().filter(place => !answer(place)).length;
  notify("Saved as " + link.download + " in your downloads. Put it into labels/ of the workdir"
    + (again ? ", in place of the one before: it has all your answers" : "")
    + (left ? "; " + left + " to go." : ". Then the same command continues."), true);
}

// Class names
function spelling(text) {  // As in class_names.py: case, width, blanks, and zeros of numbers do not count.
  const plain = text.normalize("NFKC").toLocaleLowerCase().trim().replace(/\s+/g, " ");
  const number = /^([+-]?)0*([0-9]+)(?:[.]0+)?$/.exec(plain);
  return number ? (number[1] === "-" ? "-" : "") + number[2] : plain;
}
const same = (a, b) => spelling(a) === spelling(b);
const choiceFor = text => [...choices.keys()].find(name => name === text) ?? [...choices.keys()].find(name => same(name, text))
  ?? (request.unsure.also.some(word => same(word, text)) ? UNSURE : request.bad.also.some(word => same(word, text)) ? BAD : undefined);
function isNear(a, b) {  // As in class_names.py: one letter more, less, another, or two swapped.
  const letters = text => text.replace(/\p{Nd}/gu, "");
  if (letters(a) === letters(b)) return false;  // They differ in a number only.
  a = [...a];
  b = [...b];
  if (Math.min(a.length, b.length) < 3) return false;
  while (a.length && b.length && a[0] === b[0]) { a.shift(); b.shift(); }
  const rest = (letters, count) => letters.slice(count).join("");
  const isSwapped = a[0] === b[1] && a[1] === b[0] && rest(a, 2) === rest(b, 2);
  return isSwapped || rest(a, 1) === rest(b, 1) || rest(a, 1) === rest(b, 0) || rest(a, 0) === rest(b, 1);
}
