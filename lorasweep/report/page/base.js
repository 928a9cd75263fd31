// What every other script uses: elements, and numbers as text.
// Whatever a user named (a model, a column, a trial) enters the page as text and never as markup.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Make an HTML element; strings among its children become text. */
function html(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** Make an SVG element. */
function svg(tag, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

const known = (value) => value !== null && value !== undefined;

/** Write numbers below zero with a minus sign and not a hyphen. */
const minus = (text) => text.replace(/(^|e)-(?=\d)/g, "$1\u2212");

/** Format a number with at most this many digits, as Python's format "g" does in report.md. */
function general(value, digits) {
  const [mantissa, power] = value.toExponential(digits - 1).split("e");
  const size = Math.abs(Number(power));
  if (Number(power) >= -4 && Number(power) < digits) return minus(String(Number(value.toPrecision(digits))));
  return minus(`${Number(mantissa)}e${power[0]}${size < 10 ? "0" : ""}${size}`);
}

/** Format a score as report.md does: three decimals below ten, four digits above. */
function score(value) {
  if (!known(value)) return "n/a";
  const text = Math.abs(value) < 10 ? value.toFixed(3) : general(value, 4);
  return Number(text) === 0 ? text.replace("-", "") : minus(text);
}

/** Format a level of a hyperparameter as report.md does: names as they are, numbers with four digits. */
function level(value) {
  if (!known(value)) return "";
  if (typeof value !== "number") return String(value);
  if (!Number.isInteger(value)) return general(value, 4);
  return Math.abs(value) < 1e6 ? minus(String(value)) : general(value, 10);
}

const percent = (share) => (known(share) ? `${Math.round(100 * share)}%` : "n/a");
const count = (number) => number.toLocaleString("en");
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** Format seconds as seconds, minutes or hours. */
function seconds(value) {
  if (!known(value)) return "n/a";
  if (value < 120) return `${Math.round(value)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

/** Cut a name to the room that there is; the table has it whole. */
function short(text, length = 24) {
  const characters = [...String(text)];
  return characters.length > length ? `${characters.slice(0, length - 1).join("")}\u2026` : text;
}

/** Group items by a key, in the order in which the keys first occur. */
function grouped(items, key) {
  const groups = new Map();
  for (const item of items) {
    const name = key(item);
    if (groups.has(name)) groups.get(name).push(item);
    else groups.set(name, [item]);
  }
  return groups;
}

/** Have a screen reader speak a text, without moving the focus. */
function announce(text) {
  document.getElementById("announcer").textContent = text;
}

/** Make a table whose columns of numbers are aligned to the right. */
function tableOf(head, rows, caption) {
  const numeric = head.map((_, i) => rows.length > 0 && rows.every((row) => isNumeric(row[i])));
  const cell = (value, i) => html("td", { class: numeric[i] ? "number" : null }, String(value));
  return html(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    html(
      "table",
      {},
      html("caption", { class: "quiet" }, caption),
      html("thead", {}, html("tr", {}, ...head.map((name, i) =>
        html("th", { scope: "col", class: numeric[i] ? "number" : null }, name)))),
      html("tbody", {}, ...rows.map((row) => html("tr", {}, ...row.map(cell)))),
    ),
  );
}

const isNumeric = (value) => /^(|n\/a|[\u2212-]?[\d,.]+(e[\u2212-]?\d+)?(%| [a-z]+)?)$/.test(String(value));
