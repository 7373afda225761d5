"use strict";
// The live page: a request after the other, whose answers go to the server as they are given.
const NAMELESS = 409;  // status of an answer to a name that cannot be one
const RETRY = 2000;  // ms until the server is asked again when it does not answer
const live = {who: "", now: null, digest: null, outbox: null, view: "label", stream: null, version: -1};
const backend = {
  thumbnail: image => "/image/" + encodeURIComponent(image.id) + "?size=thumbnail",
  picture: image => "/image/" + encodeURIComponent(image.id) + "?size=full",
  deliver(answers) { if (answers.length) live.outbox.add(answers); },
  save: () => live.outbox?.send(),
  whenDone: () => "The next ones come when the model has learnt from them.",
  render: renderSaved, selected: renderFold, expand: withFold,
  stepped(ids) { views[live.view].stepped?.(ids); },
};
const views = {
  label: {section: byId("requested"), target}, suggestions, doubts, map: atlas,
};

// Saved or not
function renderSaved() {
  const {outbox} = live, button = byId("save"), count = outbox?.unsaved ?? 0, fault = count && outbox.fault;
  button.textContent = !count ? "Saved" : fault ? count + " not saved" : "Saving " + count + " …";
  button.classList.toggle("done", !count);
  button.classList.toggle("failing", !!fault);
  const refused = outbox ? Object.values(outbox.refused) : [];
  const texts = [];
  if (fault) texts.push(counted(count, "answer") + " not saved yet: " + fault.message + " This browser keeps them and sends them again.");
  if (refused.length) texts.push(counted(refused.length, "answer") + " refused by the server: " + refused[0].refusal);
  else if (!fault && live.fault) texts.push(live.fault.message + " Trying again.");
  if ([live.fault, fault].some(fault => fault?.status === 401))
    texts.push("Open the address again that the command has printed: answers that wait here are sent then.");
  if ([live.fault, fault].some(fault => fault?.status === NAMELESS) && !byId("who").open)
    askName((live.fault ?? fault).message);
  byId("offline").textContent = texts.join(" ");
  byId("offline").hidden = !texts.length;
}

// State and request
async function update() {  // Calls during a call lead to one more after it.
  if (live.isUpdating) { live.isStale = true; return; }
  live.isUpdating = true;
  try {
    do {
      live.isStale = false;
      await updateOnce();
    } while (live.isStale);
    live.fault = null;
  } catch (fault) {
    if (!("status" in fault)) throw fault;
    live.fault = fault;
    clearTimeout(live.timer);
    live.timer = setTimeout(update, RETRY);
  } finally {
    live.isUpdating = false;
    renderSaved();
  }
}
async function updateOnce() {
  const now = await call("/api/state"), isNew = now.digest !== live.digest, before = live.now;
  if (live.workdir === undefined) openOutbox(now.workdir || "");
  live.now = now;
  renderStatus(now);
  if (isNew && now.request !== null && now.request !== undefined) await openRequest(now);
  else if (String(now.classes) !== String(before?.classes)) {
    request.classes = now.classes;
    answersChanged();
  }
  if (before && (isNew || now.request !== before.request)) refreshView();
}
function openOutbox(workdir) {  // What others left unsent in this browser goes, too.
  const prefix = STORE + "outbox " + workdir + " ", left = live.outbox;
  live.workdir = workdir;
  live.outbox = new Outbox(prefix + live.who, live.who, renderSaved);
  if (left?.fault?.status === NAMELESS) {  // That name is none: its answers are this person's.
    live.outbox.add(Object.entries(left.waiting).map(([id, {label}]) => [id, label]));
    left.change(held => { held.waiting = {}; });
  }
  let keys = [];
  try { keys = Object.keys(localStorage); } catch { /* Nothing is kept here. */ }
  for (const key of keys)
    if (key.startsWith(prefix) && key !== live.outbox.key) new Outbox(key, key.slice(prefix.length), () => {}).send();
}
async function openRequest(now) {
  const found = await call("/api/request?who=" + encodeURIComponent(live.who)), isFirst = live.digest === null;
  begin({
    name: "cycle_" + String(found.request).padStart(3, "0"), images: found.images, classes: now.classes,
    fixed: now.fixed, unsure: now.unsure, bad: now.bad, parts: now.parts || 1, part: found.part,
  }, STORE + "live " + live.workdir + " " + live.who);
  // The server's answers are the truth, but for those that are still on their way to it.
  state.answers = {...found.answers};
  state.times = {};
  for (const [id, {label}] of Object.entries(live.outbox.waiting)) state.answers[id] = label;
  for (const id of Object.keys(state.answers)) if (!state.answers[id]) delete state.answers[id];
  live.digest = live.outbox.digest = found.digest;
  keep();
  byId("title").textContent = "Cycle " + found.request;
  showRequest();
  live.outbox.send();
  if (!isFirst) notify("New images: cycle " + found.request + ", " + counted(images.length, "image") + ".", true);
}
function listen() {
  const stream = live.stream = new EventSource("/api/events");
  stream.addEventListener("state", event => {
    let version;
    try { ({version} = JSON.parse(event.data)); } catch { return; }
    if (version === live.version) return;
    live.version = version;
    update();
  });
  stream.addEventListener("open", () => { update(); live.outbox?.send(); });
  stream.addEventListener("error", () => {
    live.version = -1;
    // Where it is not closed it connects again by itself.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, RETRY);
    update();
  });
}

// Views
function openView(name) {
  const chosen = views[live.view = name];
  for (const [other, {section}] of Object.entries(views)) {
    section.hidden = other !== name;
    byId("view-" + other).setAttribute("aria-pressed", other === name);
  }
  target = chosen.target;
  document.body.classList.toggle("mapping", name === "map");
  render();
  target.grid.layOut();
  (name === "map" ? byId("chart") : target.grid.list).focus({preventScroll: true});
  refreshView();
}
async function refreshView() {  // Again after a while where it is still being computed.
  const name = live.view, current = views[name];
  clearTimeout(live.viewTimer);
  try {
    await current.open?.();
    if (current.isComputing) live.viewTimer = setTimeout(() => { if (live.view === name) refreshView(); }, RETRY);
  } catch (fault) {
    if (!("status" in fault)) throw fault;
    notify(fault.message);
  }
}
function answerElsewhere(answers, label) {  // Answers outside the grid of the request.
  notify("");
  clearTyped();
  give(answers);
  say((answers.length > 1 ? counted(answers.length, "image") + ": " : "") + (label || "no answer"));
}

// Near-duplicates
function renderFold(image) {
  const fold = target.grid === grid && image?.fold || [];
  byId("fold").hidden = !fold.length;
  if (!fold.length || live.fold === image.id) return;
  live.fold = image.id;
  byId("fold-text").textContent = "One answer for this and " + counted(fold.length, "near-duplicate");
  byId("fold-images").replaceChildren(...fold.slice(0, 12).map(id => Object.assign(document.createElement("img"), {
    alt: "Near-duplicate", src: backend.thumbnail({id}),
  })));
}
function withFold(answers) {
  if (!view.folds || target.grid !== grid) return answers;
  return answers.flatMap(([id, label]) => [id, ...inRequest.get(id)?.fold || []].map(one => [one, label]));
}

// The name, then the start
function askName(error = "") {
  byId("who-error").textContent = error;
  byId("who-error").hidden = !error;
  byId("name").value = live.who || stored(NAME_KEY) || "";
  byId("who").showModal();
}
function named() {
  const name = byId("name").value.trim().normalize("NFC");
  byId("who-error").hidden = !!name;
  byId("who-error").textContent = "A name is needed.";
  if (!name) return;
  byId("who").close();
  store(NAME_KEY, name);
  startAs(name);
}
function startAs(name) {
  live.who = name;
  byId("person").textContent = name;
  [live.digest, live.workdir] = [null, undefined];
  if (live.stream) update(); else listen();
}
for (const name of Object.keys(views)) byId("view-" + name).addEventListener("click", () => openView(name));
byId("person").addEventListener("click", () => askName());
byId("start").addEventListener("click", named);
byId("name").addEventListener("keydown", event => { if (event.key === "Enter") { event.preventDefault(); named(); } });
byId("who").addEventListener("cancel", event => { if (!live.who) event.preventDefault(); });
byId("fold-all").addEventListener("change", () => setView({folds: byId("fold-all").checked}));
byId("train").addEventListener("click", () => call("/api/train", {}).then(update, fault => notify(fault.message)));
addEventListener("online", () => { live.outbox?.send(); update(); });
addEventListener("beforeunload", event => { if (live.outbox?.unsaved) { event.preventDefault(); event.returnValue = true; } });
setInterval(() => { if (live.now) renderModel(live.now); }, 1000);
byId("note").hidden = byId("orders").hidden = true;
byId("fold-all").checked = !!(view = {...view, ...storedJson(VIEW_KEY, {})}).folds;
if (stored(NAME_KEY)) startAs(stored(NAME_KEY)); else askName();
