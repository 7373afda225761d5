"use strict";
// The static page: thumbnails lie in it, answers are saved as a file.
const thumbnails = JSON.parse(byId("thumbnails").textContent);
const person = () => byId("name").value.trim().normalize("NFC");
const thumbnail = image => thumbnails[image.id] && "data:image/jpeg;base64," + thumbnails[image.id];
const backend = {
  thumbnail, picture: thumbnail, save, deliver() {}, whenDone: () => "Save the file, or look through them once more.",
  render() {
    byId("save").textContent = hasAnswers() && !isUnsaved() ? "Saved" : "Save";
    byId("save").classList.toggle("done", !isUnsaved());
  },
};
const hasAnswers = () => request.images.some(({id}) => state.answers[id] || state.notes[id]);
const isUnsaved = () => hasAnswers() && state.changes !== state.saved;

// The file that is saved
function cell(text) {
  if (/^'*[=+\-@\t\r]/.test(text)) text = "'" + text;  // No spreadsheet takes it for a formula.
  return /[",;\t\r\n]/.test(text) || text !== text.trim() ? '"' + text.replaceAll('"', '""') + '"' : text;
}
function csvText() {  // In the order of the request, whatever the order of display.
  const rows = request.images.filter(({id}) => state.answers[id] || state.notes[id]).map(({id, file}) =>
    [id, file, state.answers[id] || "", person(), state.notes[id] || "", state.times[id] || ""]);
  return [["id", "file", "label", "annotator", "note", "updated"], ...rows].map(row => row.map(cell).join(",") + "\n").join("");
}
function save() {
  if (!hasAnswers()) return notify("There is no answer yet.");
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
  link.href = URL.createObjectURL(new Blob(["\ufeff", csvText()], {type: "text/csv;charset=utf-8"}));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  state.saves++;
  state.saved = state.changes;
  keep();
  render();
  const left = shown.filter(image => !answerTo(image)).length;
  notify("Saved as " + link.download + " in your downloads. Put it into labels/ of the workdir"
    + (again ? ", in place of the one before: it has all your answers" : "")
    + (left ? "; " + left + " to go." : ". Then the same command continues."), true);
}

// Start
byId("name").value = stored(NAME_KEY) || "";
byId("name").addEventListener("input", () => {
  byId("name").classList.remove("missing");
  store(NAME_KEY, byId("name").value);
  if (hasAnswers()) changed();
});
const asked = JSON.parse(byId("request").textContent);
addEventListener("beforeunload", event => { if (isUnsaved()) { event.preventDefault(); event.returnValue = true; } });
begin(asked, STORE + asked.name + " " + asked.digest);
keep();  // Shows at once whether the browser can store answers.
showRequest();
