"use strict";
// Suggestions: images grouped by what the model says, most certain first. All of a group are
// selected; a click takes one out; Enter gives the others the group's class.
const suggested = new Grid(byId("suggested-box"), byId("suggested-tiles"), {
  size: tileSize, isToggled: true, changed: () => { renderAgree(); selectionChanged(); },
  fill(tile, image) {
    fillTile(tile, image);
    const label = answerTo(image), text = percent(image.confidence);
    if (!label) tile.querySelector(".answer").textContent = image.class + " " + text;
    tile.setAttribute("aria-label", title(image) + ", " + (label || image.class + "? " + text));
  },
});
const suggestions = {
  section: byId("suggestions"), groups: [], shown: "", cycle: null,
  target: {
    grid: suggested, place: image => percent(image.confidence), guess: () => suggestions.shown,
    answer(label) {
      const ids = suggested.chosen.map(({id}) => id);
      if (!ids.length) return hint("Nothing is selected.", true);
      answerElsewhere(ids.map(id => [id, label]), label);
      suggestions.render();
    },
    enter: () => suggestions.target.answer(suggestions.shown),
  },
  async open() {
    const {cycle, groups} = await call("/api/suggestions?who=" + encodeURIComponent(live.who));
    this.cycle = cycle;
    this.groups = groups.map(group => ({...group, images: group.images.map(image => ({...image, class: group.class}))}));
    this.render();
  },
  stepped(ids) {  // Shows the group of what undo or redo changed.
    this.shown = this.groups.find(group => group.images.some(({id}) => ids.includes(id)))?.class ?? this.shown;
    this.render();
  },
  render() {  // What has been answered goes; the group that was shown stays in view.
    const open = group => group.images.filter(image => !answerTo(image));
    const groups = this.groups.map(group => ({class: group.class, images: open(group)})).filter(group => group.images.length);
    if (!groups.some(group => group.class === this.shown)) this.shown = groups[0]?.class ?? "";
    byId("groups").replaceChildren(...groups.map(group => {
      const button = document.createElement("button");
      Object.assign(button, {type: "button", className: "plain", textContent: group.class + " " + group.images.length});
      button.setAttribute("aria-pressed", group.class === this.shown);
      button.addEventListener("click", () => { this.shown = group.class; this.render(); });
      return button;
    }));
    const images = groups.find(group => group.class === this.shown)?.images ?? [];
    byId("suggested-lead").textContent = images.length
      ? "A click takes an image out or in again; Enter gives the selected ones this class; a class key gives them another."
      : "There are no suggestions now. They come with the next model.";
    suggested.show(images, 0, [...images.keys()]);
    renderAgree();
    render();
  },
};
function renderAgree() {
  const count = suggested.selected.size, {shown} = suggestions;
  byId("agree").disabled = !count;
  byId("agree").textContent = count ? (count === 1 ? "This is " : count === suggested.items.length ? "All " + count + " are " : "These " + count + " are ") + shown : "None is selected";
}
byId("agree").addEventListener("click", () => suggestions.target.enter());
byId("take-all").addEventListener("click", () => suggested.selectAll());
