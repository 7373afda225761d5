"use strict";
// Class names: when two are the same, and which key gives which.
const KEYS = "123456789qwertyiopasdfghjklxcvm";  // u, b, n and z are taken.

function spelling(text) {  // As in class_names.py: case, width, blanks, and zeros of numbers do not count.
  const plain = text.normalize("NFKC").toLocaleLowerCase().trim().replace(/\s+/g, " ");
  const number = /^([+-]?)0*([0-9]+)(?:[.]0+)?$/.exec(plain);
  return number ? (number[1] === "-" ? "-" : "") + number[2] : plain;
}
const same = (a, b) => spelling(a) === spelling(b);
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
const isForbidden = text => /[\/\\<>"\p{C}]|(?! )\p{Z}|^\.\.?$/u.test(text);
function keysOf(names) {  // Name of each class -> its key, "" when there are more names than keys.
  const own = name => name.length === 1 && ("0" + KEYS).includes(name);  // The digit 1 is not key 2.
  const spare = [...KEYS].filter(key => !names.includes(key));
  return new Map(names.map(name => [name, own(name) ? name : spare.shift() || ""]));
}
