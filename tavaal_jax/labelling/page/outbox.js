"use strict";
// Answers on their way to the server. What it has not acknowledged stays in the browser, also over a
// reload, and is sent again; sending something twice does no harm.
const BATCH = 200, FIRST_WAIT = 1, LONGEST_WAIT = 30;  // answers a POST; seconds
const REFUSED = [400, 404, 413, 415, 422];  // never accepted: such an answer is set aside

async function call(path, body) {  // JSON of an answer; throws {status, message}.
  let answer, json;
  try {
    answer = await fetch(path, body === undefined ? {cache: "no-store"} : {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
    });
    json = await answer.json();
  } catch { if (!answer || answer.ok) throw {status: 0, message: "The server does not answer."}; }
  if (!answer.ok) throw {status: answer.status, message: json?.error || "The server says " + answer.status + "."};
  return json;
}

class Outbox {
  // `say()` is called when what `unsaved`, `refused` or `fault` say has changed.
  constructor(key, who, say) {
    Object.assign(this, {key, who, say, digest: "", fault: null, memory: null, size: BATCH, wait: FIRST_WAIT, timer: 0});
  }
  get held() { return this.memory ?? {waiting: {}, refused: {}, ...storedJson(this.key, {})}; }
  change(alter) {  // Read, change, write: other windows have the same queue.
    const held = this.held;
    alter(held);
    this.memory = store(this.key, JSON.stringify(held)) ? null : held;
    this.say();
  }
  get waiting() { return this.held.waiting; }
  get unsaved() { return Object.keys(this.waiting).length; }
  get refused() { return this.held.refused; }

  add(answers) {
    const stamp = Date.now() + "-" + Math.random();
    this.change(held => {
      for (const [id, label] of answers) {
        held.waiting[id] = {label, stamp};
        delete held.refused[id];
      }
    });
    this.send();
  }
  async send() {
    if (this.isSending) return;
    this.isSending = true;
    clearTimeout(this.timer);
    try {
      const work = () => this.sendAll();
      await (navigator.locks ? navigator.locks.request(this.key, work) : work());
      [this.fault, this.wait] = [null, FIRST_WAIT];
    } catch (fault) {
      if (!("status" in fault)) throw fault;
      this.fault = fault;
      this.timer = setTimeout(() => this.send(), this.wait * 1000);
      this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
    } finally {
      this.isSending = false;
      this.say();
    }
  }
  async sendAll() {
    for (;;) {
      const batch = Object.entries(this.waiting).slice(0, this.size);
      if (!batch.length) return;
      const answers = batch.map(([id, {label}]) => ({id, label: label || null}));
      try {
        await call("/api/answers", {who: this.who, digest: this.digest, answers});
        this.size = Math.min(2 * this.size, BATCH);
        this.settle(batch);
      } catch (fault) {
        if (!REFUSED.includes(fault.status)) throw fault;
        if (batch.length > 1) this.size = Math.ceil(batch.length / 2);
        else this.settle(batch, fault.message);
      }
    }
  }
  settle(batch, refusal = "") {  // An answer that was changed meanwhile stays.
    this.change(held => {
      for (const [id, {label, stamp}] of batch) {
        if (held.waiting[id]?.stamp !== stamp) continue;
        delete held.waiting[id];
        if (refusal) held.refused[id] = {label, refusal};
      }
    });
  }
  dropRefused() { this.change(held => { held.refused = {}; }); }
}
