"use strict";
// A person's answers to a request, kept by the browser, with undo and redo of any depth.
// `backend` (static.js, live.js) knows where pictures come from and where answers go.
const byId = id => document.getElementById(id);
const STORE = "tavaal_jax ", NAME_KEY = STORE + "name", VIEW_KEY = STORE + "view";
const BLANK = {answers: {}, times: {}, notes: {}, steps: [], done: 0, changes: 0, saved: 0, saves: 0, part: 0};

// `images` are in the order of display; `state.steps` are lists of [id, label before, label after].
let request = {name: "", images: [], classes: [], unsure: {shown: "", also: []}, bad: {shown: "", also: []}, parts: 1};
let images = [], shown = [], state = structuredClone(BLANK), stateKey = "", inRequest = new Map();
let view = {mode: "grid", order: "similar"};

function store(key, text) {
  try { localStorage.setItem(key, text); return true; } catch { return false; }
}
function stored(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}
function storedJson(key, otherwise) {
  try { return JSON.parse(stored(key)) ?? otherwise; } catch { return otherwise; }
}
function load() {
  const old = storedJson(stateKey, {}), count = value => Math.max(0, Math.floor(Number(value)) || 0);
  const texts = pairs => Object.fromEntries(Object.entries(pairs || {}).filter(
    ([, text]) => typeof text === "string" && text));
  const isChange = change => Array.isArray(change) && change.length === 3 && change.every(text => typeof text === "string");
  const steps = (Array.isArray(old.steps) ? old.steps : []).filter(
    step => Array.isArray(step) && step.length && step.every(isChange));
  state = {
    answers: texts(old.answers), times: texts(old.times), notes: texts(old.notes), steps,
    done: Math.min(count(old.done), steps.length), changes: count(old.changes), saved: count(old.saved),
    saves: count(old.saves), part: count(old.part ?? request.part) <= request.parts ? count(old.part ?? request.part) : 0,
  };
}
function keep() {  // Where the browser has no more room, the oldest steps go, answers never.
  while (!store(stateKey, JSON.stringify(state))) {
    if (!state.steps.length) { byId("refused").hidden = false; return; }
    const gone = Math.ceil(state.steps.length / 2);
    state.steps.splice(0, gone);
    state.done = Math.max(0, state.done - gone);
  }
}

// Which images are shown, in which order
function begin(asked, key) {
  request = asked;
  stateKey = key;
  view = {...view, ...storedJson(VIEW_KEY, {})};
  load();
  arrange();
}
function arrange() {
  const places = view.order === "similar" && request.order || request.images.keys();
  images = [...places].map(place => request.images[place]);
  images.forEach((image, place) => { image.number = place + 1; });
  inRequest = new Map(images.map(image => [image.id, image]));
  const rank = new Map(request.images.map((image, place) => [image.id, place]));
  shown = images.filter(({id}) => !state.part || rank.get(id) % request.parts === state.part - 1);
}
function setView(changes) {
  Object.assign(view, changes);
  store(VIEW_KEY, JSON.stringify(view));
}

// Answers
const answerTo = image => state.answers[image.id] || "";
const isApart = label => !!label && (label === request.unsure.shown || label === request.bad.shown);
function give(answers) {  // [[id, label]]; one step for undo. Returns whether something changed.
  const step = answers.map(([id, label]) => [id, state.answers[id] || "", label]).filter(([, before, after]) => before !== after);
  if (!step.length) return false;
  state.steps.splice(state.done, Infinity, step);
  state.done = state.steps.length;
  put(step.map(([id, , after]) => [id, after]));
  return true;
}
function undo() { return !!state.done && goBack(state.steps[--state.done], 1, "Taken back. "); }
function redo() { return state.done < state.steps.length && goBack(state.steps[state.done++], 2, "Given again. "); }
function goBack(step, which, word) {
  put(step.map(change => [change[0], change[which]]));
  stepShown(step.map(([id]) => id), word);
  return true;
}
function put(answers) {
  const now = new Date().toISOString();
  for (const [id, label] of answers) {
    delete state.answers[id];
    delete state.times[id];
    if (label) [state.answers[id], state.times[id]] = [label, now];
  }
  changed();
  backend.deliver(answers);
}
function changed() {  // Something that is kept has changed.
  state.changes++;
  keep();
  answersChanged();
}
