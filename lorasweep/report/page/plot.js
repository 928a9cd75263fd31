// The frame around every plot: it draws to the width of the page, shows a tooltip for what is pointed
// at or focused, and highlights the same trial in the other plots of the domain.
//
// A panel is {name, alt, draw(width)}. Drawing gives {height, nodes, targets}: SVG nodes, and the
// places that can be pointed at, each {x, y, trial, title, rows()}. Optional: nearest(x, y) where
// distance alone does not decide, outline(target) where a ring would not do, `order` where the arrow
// keys should step through the targets as they stand.

const tooltip = html("div", { class: "tooltip", "aria-hidden": "true" });
const frames = [];
let follow = null; // moves the tooltip of a focused point along when the page scrolls
let shownAt = null; // scroll position at which the tooltip was placed
const REACH = 40; // pixels from which a pointer still finds a target

/**
 * Hide the tooltip of a pointed-at mark when the page scrolls, and move that of a focused mark along.
 * The scroll event comes a frame late, when a new tooltip may already be shown: that one stays.
 */
function scrolled() {
  if (follow) follow();
  else if (`${window.scrollX} ${window.scrollY}` !== shownAt) tooltip.classList.remove("shown");
}

function frameOf(panel, find) {
  const view = svg("svg", { role: "img", "aria-label": short(panel.alt, 800) });
  const box = html("div", {
    class: "frame",
    tabindex: "0",
    role: "application",
    "aria-roledescription": "interactive plot",
    "aria-label": panel.name,
    "aria-describedby": "plot-keys",
  }, view);
  const state = { drawn: null, width: 0, current: null, orders: {}, byTrial: null };

  function redraw(width) {
    if (width < 40 || Math.abs(width - state.width) < 1) return;
    state.width = width;
    state.drawn = panel.draw(Math.round(width));
    state.orders = {};
    state.byTrial = null;
    state.current = null;
    state.echo = svg("g", { class: "echo" });
    state.ring = svg("g", { class: "ring" });
    view.setAttribute("viewBox", `0 0 ${Math.round(width)} ${state.drawn.height}`);
    view.replaceChildren(...state.drawn.nodes, state.echo, state.ring);
  }

  const outline = (target) =>
    state.drawn.outline?.(target) ?? svg("circle", { cx: target.x, cy: target.y, r: 9 });

  function show(target, spoken) {
    state.current = target;
    state.ring.replaceChildren(outline(target));
    const rows = target.rows().filter(([, value]) => value !== "");
    tooltip.replaceChildren(
      html("strong", {}, target.title),
      html("dl", {}, ...rows.flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, value)])),
    );
    place(target);
    follow = spoken ? () => place(target) : null;
    if (spoken) announce(`${target.title}. ${rows.map(([name, value]) => `${name} ${value}`).join(", ")}`);
    for (const other of frames) if (other.box !== box) other.echo(panel.part, target.trial);
  }

  function place(target) {
    const bounds = view.getBoundingClientRect();
    const scale = bounds.width / state.width;
    const [x, y] = [bounds.left + target.x * scale, bounds.top + target.y * scale];
    tooltip.classList.add("shown");
    const { offsetWidth: width, offsetHeight: height } = tooltip;
    const edge = document.documentElement.clientWidth;
    const left = x + 14 + width < edge ? x + 14 : Math.max(4, Math.min(x - 14 - width, edge - width - 4));
    const top = y - height - 12 > 4 ? y - height - 12 : y + 16;
    tooltip.style.left = `${left}px`;
    tooltip.style.top = `${top}px`;
    shownAt = `${window.scrollX} ${window.scrollY}`;
  }

  function hide() {
    state.ring?.replaceChildren();
    tooltip.classList.remove("shown");
    follow = null;
    for (const other of frames) other.echo(null, null);
  }

  function nearest(event) {
    const bounds = view.getBoundingClientRect();
    const scale = state.width / bounds.width;
    const [x, y] = [(event.clientX - bounds.left) * scale, (event.clientY - bounds.top) * scale];
    if (state.drawn.nearest) return state.drawn.nearest(x, y);
    let best = null;
    let least = REACH * REACH;
    for (const target of state.drawn.targets) {
      const distance = (target.x - x) ** 2 + (target.y - y) ** 2;
      if (distance < least) [best, least] = [target, distance];
    }
    return best;
  }

  // Left and right step through the points by x, up and down by y.
  function sorted(axis) {
    const { targets, order } = state.drawn;
    if (order) return targets;
    state.orders[axis] ??= axis === "x"
      ? [...targets].sort((a, b) => a.x - b.x || b.y - a.y)
      : [...targets].sort((a, b) => b.y - a.y || a.x - b.x);
    return state.orders[axis];
  }

  const first = () => state.current ?? state.drawn.start ?? sorted("x")[0];

  function press(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !state.drawn.targets.length) return;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    const axis = event.key === "ArrowUp" || event.key === "ArrowDown" ? "y" : "x";
    const down = state.drawn.order && axis === "y" ? -1 : 1; // in a list the next one is below
    const all = sorted(axis);
    let to = null;
    if (step) {
      const from = all.indexOf(first());
      to = state.current ? all[Math.max(0, Math.min(all.length - 1, from + step * down))] : first();
    } else if (event.key === "Home") to = all[0];
    else if (event.key === "End") to = all.at(-1);
    else if (event.key === "Escape") hide();
    else if (event.key === "Enter" && state.current && known(state.current.trial)) {
      find(panel.part, state.current.trial);
    } else return;
    event.preventDefault();
    if (to) show(to, true);
  }

  box.addEventListener("keydown", press);
  box.addEventListener("focus", () => {
    if (!box.matches(":focus-visible") || !state.drawn?.targets.length) return;
    box.scrollIntoView({ block: "nearest" });
    show(first(), true);
  });
  box.addEventListener("blur", hide);
  const point = (event) => {
    const target = nearest(event);
    if (!target) hide();
    else if (target !== state.current || !tooltip.classList.contains("shown")) show(target, false);
  };
  view.addEventListener("pointermove", point);
  view.addEventListener("pointerdown", point);
  view.addEventListener("pointerleave", hide);

  function echo(part, trial) {
    if (!state.drawn) return;
    state.echo.replaceChildren();
    if (part !== panel.part || !known(trial)) return;
    state.byTrial ??= new Map(state.drawn.targets.map((target) => [target.trial, target]));
    const target = state.byTrial.get(trial);
    if (target) state.echo.append(outline(target));
  }

  new ResizeObserver((entries) => redraw(entries.at(-1).contentRect.width)).observe(box);
  frames.push({ box, echo });
  return box;
}

/** Assemble a figure: heading, caption, legend, panels, and the numbers as a table. */
function figureOf(spec, depth, find) {
  const frames = spec.panels.map((panel) =>
    html("div", { class: panel.wide ? "panel wide" : "panel" },
      panel.title ? html("p", { class: "panel-title" }, panel.title) : null,
      frameOf(panel, find)));
  const numbers = html("details", { class: spec.repeats ? "numbers repeats" : "numbers" }, html("summary", {}, "The numbers as a table"));
  // The table is built when it is first opened.
  numbers.addEventListener("toggle", () => {
    if (!numbers.open || numbers.children.length > 1) return;
    const { heads, rows } = spec.table();
    const most = 200;
    const more = rows.length > most ? `, the first ${most} of ${count(rows.length)}` : "";
    numbers.append(tableOf(heads, rows.slice(0, most), `${spec.title}${more}`));
  });
  return html("figure", { class: "figure", id: spec.id },
    html("figcaption", {}, html(`h${depth}`, {}, spec.title), html("p", {}, spec.caption)),
    spec.legend.length ? legendOf(spec.legend) : null,
    html("div", { class: spec.pairs ? "panels pairs" : "panels" }, ...frames),
    html("p", { class: "keys", "aria-hidden": "true" },
      "Arrow keys move between points, Enter finds the trial in the table, Escape closes."),
    numbers);
}

/** Make the legend: colours together with the shapes and dashes that mean the same. */
function legendOf(entries) {
  return html("ul", { class: "legend" }, ...entries.map((entry) => html("li", {}, swatch(entry), short(entry.label, 40))));
}

function swatch({ kind, look, dash }) {
  if (kind === "ramp") {
    const cells = [...Array(RAMP).keys()].map((n) => svg("rect", { x: n * 9, y: 2, width: 9, height: 10, class: `q${n}` }));
    return svg("svg", { width: 9 * RAMP, height: 14, "aria-hidden": "true" }, ...cells);
  }
  const drawn = {
    line: () => svg("path", { d: "M1 7H25", class: `line ${toneOf({ look })} d${dash % DASHES}` }),
    base: () => svg("path", { d: marker(7, 13, 7, 5), class: "mark base" }),
    point: () => svg("path", { d: marker(look, 13, 7, 5), class: `mark ${toneOf({ look })}` }),
  };
  return svg("svg", { width: 26, height: 14, "aria-hidden": "true" }, drawn[kind]());
}

const TONES = 8;
const DASHES = 4;
const RAMP = 9;

/** Outline a marker; its eight shapes differ enough to do without colour. */
function marker(kind, x, y, r) {
  const close = (points) => `M${points.map(([a, b]) => `${(x + a * r).toFixed(1)} ${(y + b * r).toFixed(1)}`).join("L")}Z`;
  const arm = 0.38;
  switch (kind % TONES) {
    case 1: return close([[-0.88, -0.88], [0.88, -0.88], [0.88, 0.88], [-0.88, 0.88]]);
    case 2: return close([[0, -1.15], [1.1, 0.85], [-1.1, 0.85]]);
    case 3: return close([[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]]);
    case 4: return close([[0, 1.15], [1.1, -0.85], [-1.1, -0.85]]);
    case 5: return close([[-arm, -1.1], [arm, -1.1], [arm, -arm], [1.1, -arm], [1.1, arm], [arm, arm],
      [arm, 1.1], [-arm, 1.1], [-arm, arm], [-1.1, arm], [-1.1, -arm], [-arm, -arm]]);
    case 6: return close([...Array(6).keys()].map((n) => [1.1 * Math.sin((n * Math.PI) / 3), -1.1 * Math.cos((n * Math.PI) / 3)]));
    case 7: return close([...Array(10).keys()].map((n) => {
      const reach = n % 2 ? 0.55 : 1.3;
      return [reach * Math.sin((n * Math.PI) / 5), -reach * Math.cos((n * Math.PI) / 5)];
    }));
    default: return `M${(x - r).toFixed(1)} ${y.toFixed(1)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  }
}

const cross = (x, y, r = 4) =>
  `M${(x - r).toFixed(1)} ${(y - r).toFixed(1)}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`;
