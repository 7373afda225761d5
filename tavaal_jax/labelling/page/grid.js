"use strict";
// A list of thumbnails of which many can be selected, by mouse, finger or keys. Only those that are
// seen are in the document. `list` (a listbox) lies in `box`, which scrolls and is positioned.
class Grid {
  // `size()`: least width of a tile; `fill(tile, image, place)`: what a tile says; `changed()`: after
  // another selection; `open(place)`: after a double click; `isMulti()`; `isToggled`: a plain click
  // takes one in or out and leaves the others.
  constructor(box, list, handlers) {
    Object.assign(this, {box, list, ...handlers, items: [], tiles: new Map(), selected: new Set()});
    Object.assign(this, {at: 0, anchor: 0, columns: 1, width: 1, height: 1, frame: null});
    box.addEventListener("scroll", () => this.draw(), {passive: true});
    new ResizeObserver(() => this.layOut()).observe(box);
    box.addEventListener("pointerdown", event => this.pressed(event));
    box.addEventListener("click", event => this.clicked(event));
    box.addEventListener("dblclick", event => {
      const place = this.placeOf(event);
      if (place !== undefined) this.open?.(place);
    });
  }

  show(items, at = 0, selected = [at]) {
    this.items = items;
    this.selected = new Set(selected.filter(place => place >= 0 && place < items.length));
    this.at = this.anchor = Math.min(Math.max(at, 0), Math.max(items.length - 1, 0));
    for (const [place, tile] of this.tiles) this.drop(tile, place);
    this.layOut();
    this.reveal();
  }
  get chosen() { return [...this.selected].sort((a, b) => a - b).map(place => this.items[place]); }
  get current() { return this.items[this.at]; }

  // Display
  layOut() {
    const gap = Grid.GAP, room = this.list.clientWidth;
    if (!room) return;  // Not shown.
    this.columns = Math.max(1, Math.floor((room + gap) / (this.size() + gap)));
    this.width = (room - gap * (this.columns - 1)) / this.columns;
    this.height = Math.round(this.width) + Grid.STRIP;
    this.list.style.height = this.rowTop(Math.ceil(this.items.length / this.columns)) + "px";
    for (const [place, tile] of this.tiles) this.position(tile, place);
    this.draw();
  }
  rowTop(row) { return row * (this.height + Grid.GAP); }
  position(tile, place) {
    const left = place % this.columns * (this.width + Grid.GAP), top = this.rowTop(Math.floor(place / this.columns));
    tile.style.width = this.width + "px";
    tile.style.height = this.height + "px";
    tile.style.transform = `translate(${left}px, ${top}px)`;
  }
  draw() {  // The rows that are seen, and one above and below; the current tile is always there.
    const top = this.box.scrollTop - this.list.offsetTop, step = this.rowTop(1);
    const first = Math.max(0, Math.floor(top / step) - 1) * this.columns;
    const end = Math.min(this.items.length, (Math.ceil((top + this.box.clientHeight) / step) + 1) * this.columns);
    for (const [place, tile] of this.tiles)
      if ((place < first || place >= end) && place !== this.at) this.drop(tile, place);
    const fresh = [];
    for (let place = first; place < end; place++) if (!this.tiles.has(place)) fresh.push(this.make(place));
    if (this.items.length && !this.tiles.has(this.at)) fresh.push(this.make(this.at));
    this.list.append(...fresh);
    if (this.items.length) this.list.setAttribute("aria-activedescendant", this.list.id + this.at);
    else this.list.removeAttribute("aria-activedescendant");
  }
  drop(tile, place) {  // A picture that has not come yet is not fetched any more.
    if (tile.firstChild.complete === false) tile.firstChild.removeAttribute("src");
    tile.remove();
    this.tiles.delete(place);
  }
  make(place) {
    const tile = document.createElement("div"), image = this.items[place];
    const source = backend.thumbnail(image), picture = document.createElement(source ? "img" : "span");
    if (source) {
      Object.assign(picture, {alt: "", decoding: "async", draggable: false});
      picture.addEventListener("load", () => picture.classList.toggle("small", picture.naturalWidth < 100));
      picture.addEventListener("error", () => picture.classList.add("lost"));
      picture.src = source;
    } else Object.assign(picture, {className: "none", textContent: "cannot be shown"});
    const texts = ["number", "answer"].map(name => Object.assign(document.createElement("span"), {className: name}));
    Object.assign(tile, {id: this.list.id + place, className: "tile", title: image.file || ""});
    tile.append(picture, ...texts);
    for (const [name, value] of [["role", "option"], ["aria-posinset", place + 1], ["aria-setsize", this.items.length]])
      tile.setAttribute(name, value);
    this.tiles.set(place, tile);
    this.position(tile, place);
    this.refreshTile(tile, place);
    return tile;
  }
  refreshTile(tile, place) {
    tile.setAttribute("aria-selected", this.selected.has(place));
    tile.classList.toggle("current", place === this.at);
    this.fill(tile, this.items[place], place);
  }
  refresh() {
    this.draw();
    for (const [place, tile] of this.tiles) this.refreshTile(tile, place);
  }
  reveal() {
    if (!this.items.length || !this.list.clientWidth) return;
    const top = this.list.offsetTop + this.rowTop(Math.floor(this.at / this.columns));
    const below = top + this.height - this.box.clientHeight + 8;
    this.box.scrollTop = Math.min(Math.max(this.box.scrollTop, below), Math.max(0, top - 8));
  }

  // Selection
  go(place, {isRange = false, isKept = false} = {}) {
    if (!this.items.length) return;
    place = Math.min(Math.max(place, 0), this.items.length - 1);
    const isMany = this.isMulti?.() ?? true;
    if (isRange && isMany) this.select(this.range(this.anchor, place), isKept);
    else if (!isKept || !isMany) { this.select([place]); this.anchor = place; }
    this.at = place;
    this.reveal();
    this.told();
  }
  range(from, to) {
    const first = Math.min(from, to);
    return Array.from({length: Math.abs(to - from) + 1}, (_, k) => first + k);
  }
  select(places, isAdded = false) { this.selected = new Set(isAdded ? [...this.selected, ...places] : places); }
  toggle(place) {
    if (!this.selected.delete(place)) this.selected.add(place);
    this.at = this.anchor = place;
    this.told();
  }
  selectAll() { this.select(this.items.keys()); this.told(); }
  clear() { this.select([]); this.told(); }
  told() {
    this.refresh();
    this.changed();
  }

  // Mouse and finger
  placeOf(event) {
    const tile = event.target.closest?.(".tile");
    return tile && this.list.contains(tile) ? Number(tile.id.slice(this.list.id.length)) : undefined;
  }
  clicked(event) {
    if (this.wasFramed) { this.wasFramed = false; return; }
    const place = this.placeOf(event), isMany = this.isMulti?.() ?? true;
    this.list.focus({preventScroll: true});
    if (place === undefined) { if (isMany && !this.isToggled && event.target !== this.box) this.clear(); return; }
    const isAdded = event.ctrlKey || event.metaKey, isTouch = event.pointerType === "touch";
    if (isMany && event.shiftKey) this.go(place, {isRange: true, isKept: isAdded || this.isToggled});
    else if (isMany && (isAdded || isTouch || this.isToggled)) this.toggle(place);
    else this.go(place);
  }
  pressed(event) {  // A frame begins where the mouse is dragged.
    this.wasFramed = false;
    if (event.button || event.pointerType === "touch" || !(this.isMulti?.() ?? true)) return;
    if (event.offsetX > event.target.clientWidth && event.target === this.box) return;  // The scroll bar.
    event.preventDefault();
    this.list.focus({preventScroll: true});
    const start = this.pointOf(event), before = this.isToggled || event.ctrlKey || event.metaKey || event.shiftKey ? [...this.selected] : [];
    let pointer = event, timer = 0;
    const drawFrame = () => {
      const end = this.pointOf(pointer), box = this.box.getBoundingClientRect();
      if (!this.frame && Math.hypot(end.x - start.x, end.y - start.y) < 6) return;
      this.frame ??= this.list.appendChild(Object.assign(document.createElement("div"), {className: "frame"}));
      this.frame.setAttribute("role", "presentation");
      const left = Math.min(start.x, end.x), top = Math.min(start.y, end.y);
      const right = Math.max(start.x, end.x), bottom = Math.max(start.y, end.y);
      Object.assign(this.frame.style, {width: right - left + "px", height: bottom - top + "px"});
      this.frame.style.transform = `translate(${left}px, ${top}px)`;
      const inside = this.within(left, top, right, bottom);
      if (inside.length) this.at = this.anchor = inside[0];
      this.select(this.isToggled ? before.filter(place => !inside.includes(place)) : [...before, ...inside]);
      if (this.isToggled) this.select(inside.filter(place => !before.includes(place)), true);
      this.told();
      const beyond = pointer.clientY < box.top + 24 ? pointer.clientY - box.top - 24 : Math.max(0, pointer.clientY - box.bottom + 24);
      cancelAnimationFrame(timer);
      if (beyond) timer = requestAnimationFrame(() => { this.box.scrollTop += beyond / 2; drawFrame(); });
    };
    const moved = event => { pointer = event; drawFrame(); };
    const ended = () => {
      cancelAnimationFrame(timer);
      removeEventListener("pointermove", moved);
      for (const name of ["pointerup", "pointercancel"]) removeEventListener(name, ended);
      this.wasFramed = !!this.frame;
      this.frame?.remove();
      this.frame = null;
    };
    addEventListener("pointermove", moved);
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, ended);
  }
  pointOf(event) {
    const list = this.list.getBoundingClientRect();
    return {x: event.clientX - list.left, y: event.clientY - list.top};
  }
  within(left, top, right, bottom) {  // Places of the tiles that a frame touches.
    const span = (from, to, step, size) => [Math.max(0, Math.ceil((from - size) / step)), Math.floor(to / step)];
    const [firstRow, lastRow] = span(top, bottom, this.rowTop(1), this.height);
    const [firstColumn, lastColumn] = span(left, right, this.width + Grid.GAP, this.width);
    const places = [];
    for (let row = firstRow; row <= lastRow; row++)
      for (let column = firstColumn; column <= Math.min(lastColumn, this.columns - 1); column++) {
        const place = row * this.columns + column;
        if (place < this.items.length) places.push(place);
      }
    return places;
  }

  // Keys. Returns whether it was one of the grid's.
  keyPressed(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.rowTop(1))) * this.columns, last = this.items.length - 1;
    const isCtrl = event.ctrlKey || event.metaKey, isMany = this.isMulti?.() ?? true;
    const to = {
      ArrowLeft: this.at - 1, ArrowRight: this.at + 1, Home: 0, End: last,
      ArrowUp: this.at < this.columns ? this.at : this.at - this.columns,
      ArrowDown: this.at + this.columns > last ? this.at : this.at + this.columns,
      PageUp: this.at - page, PageDown: this.at + page,
    }[event.key];
    if (to !== undefined) this.go(to, {isRange: event.shiftKey, isKept: isCtrl || this.isToggled});
    else if (isMany && isCtrl && event.key.toLowerCase() === "a") this.selectAll();
    else if (isMany && event.key === " ") this.toggle(this.at);
    else if (isMany && event.key === "Escape" && this.selected.size) this.clear();
    else return false;
    return true;
  }
}
Grid.GAP = 8;  // pixels between tiles
Grid.STRIP = 28;  // pixels below a picture, for the answer
