"use strict";
// Answers to which the model, fitted without them, gives little probability: confirm or mend.
const doubted = new Grid(byId("doubted-box"), byId("doubted-tiles"), {
  size: () => 132, changed: selectionChanged,
  fill(tile, row) {
    fillTile(tile, row);
    tile.querySelector(".answer").textContent = row.label + " → " + row.instead + "?";
    tile.setAttribute("aria-label", title(row) + ", answer " + row.label + " with probability " + percent(row.probability) + ", the model says " + row.instead);
  },
});
const doubts = {
  section: byId("doubts"), rows: [],
  target: {
    grid: doubted, place: row => row.label + ": " + percent(row.probability), guess: () => "",
    answer(label) { doubts.answer(() => label); },
    enter() { doubts.answer(row => row.label); },
  },
  answer(labelFor) {  // A row's own label confirms it.
    const rows = doubted.chosen;
    if (!rows.length) return hint("Nothing is selected.", true);
    const answers = rows.map(row => [row.id, labelFor(row)]);
    for (const row of rows) state.answers[row.id] ||= row.label;
    backend.deliver(answers.filter(([id, label]) => label === state.answers[id]));
    answerElsewhere(answers, rows.length > 1 ? rows.length + " answers" : answers[0][1]);
    this.rows = this.rows.filter(row => !rows.includes(row));
    this.render(Math.min(doubted.at, this.rows.length - 1));
  },
  async open() {
    const {rows, state: stage} = await call("/api/doubts?who=" + encodeURIComponent(live.who));
    this.rows = rows;
    this.isComputing = stage === "computing";
    this.render();
  },
  render(at = 0) {
    doubted.show(this.rows, at, this.rows.length ? [at] : []);
    byId("doubted-lead").textContent = this.isComputing ? "The answers are being looked through …"
      : this.rows.length ? "Enter confirms what is selected, a class key mends it. It counts from the next model on."
      : "There is no answer that the model doubts.";
    byId("confirm").disabled = byId("mend").disabled = !this.rows.length;
    render();
  },
};
byId("confirm").addEventListener("click", () => doubts.answer(row => row.label));
byId("mend").addEventListener("click", () => doubts.answer(row => row.instead));
