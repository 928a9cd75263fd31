// The table of all trials: sorted by any column, filtered by words, method and status, in pages.
// Only one page of rows exists at a time, so ten thousand trials stay quick.

const PAGE = 50;
const MOST_PRINTED = 1000;

function trialsTable(parts, host) {
  const all = parts.flatMap((part) => part.trials);
  if (!all.length) {
    host.append(html("p", { class: "quiet" }, "No trial has started."));
    return { find() {} };
  }
  const columns = columnsOf(parts, all);
  const state = { key: null, down: false, page: 0, words: "", method: "", status: "", printing: false };
  let shown = all;

  const text = html("input", { type: "search", id: "filter", placeholder: "trial, method, setting", autocomplete: "off" });
  const choice = (id, name, values) => {
    const select = html("select", { id }, html("option", { value: "" }, `every ${name}`),
      ...values.map((value, i) => html("option", { value: String(i) }, short(value, 40))));
    select.addEventListener("change", () => {
      state[name] = select.value === "" ? "" : values[Number(select.value)];
      refresh(true);
    });
    return select;
  };
  const method = choice("filter-method", "method", [...new Set(all.map((t) => t.method))]);
  const status = choice("filter-status", "status", [...new Set(all.map((t) => t.status))]);
  text.addEventListener("input", () => {
    state.words = text.value;
    refresh(true);
  });

  const heads = columns.map((column) => {
    const button = html("button", { type: "button", title: column.name }, short(column.name), html("span", { class: "arrow", "aria-hidden": "true" }));
    button.addEventListener("click", () => sortBy(column));
    return html("th", { scope: "col", "aria-sort": "none", class: column.number ? "number" : null }, button);
  });
  const body = html("tbody");
  const counted = html("p", { class: "counted", role: "status" });
  const back = html("button", { type: "button", onclick: () => turn(-1) }, "Previous");
  const on = html("button", { type: "button", onclick: () => turn(1) }, "Next");
  const caption = html("caption", { class: "unseen" }, "All trials");

  function sortBy(column) {
    // The first click sorts the highest score or the first name to the top.
    const again = state.key === column;
    state.down = again ? !state.down : column.score === true;
    state.key = column;
    refresh(true);
    announce(`Sorted by ${column.name}, ${state.down ? "descending" : "ascending"}`);
  }

  function refresh(toStart) {
    const wanted = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    shown = all.filter((t) =>
      (!state.method || t.method === state.method) &&
      (!state.status || t.status === state.status) &&
      wanted.every((word) => haystack(t, columns).includes(word)));
    if (state.key) {
      const { value } = state.key;
      const sign = state.down ? -1 : 1;
      shown.sort((a, b) => compare(value(a), value(b), sign));
    }
    if (toStart) state.page = 0;
    draw();
  }

  function turn(step) {
    state.page += step;
    draw();
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    state.page = Math.max(0, Math.min(state.page, pages - 1));
    const first = state.printing ? 0 : state.page * PAGE;
    const last = state.printing ? MOST_PRINTED : first + PAGE;
    const rows = shown.slice(first, last);
    body.replaceChildren(...rows.map((t) => html("tr", {}, ...columns.map((column, i) =>
      html(i ? "td" : "th", { class: column.number ? "number" : i ? null : "id", scope: i ? null : "row", title: column.full?.(t) }, column.write(t))))));
    heads.forEach((head, i) => {
      const sorted = state.key === columns[i];
      head.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
      head.querySelector(".arrow").textContent = sorted ? (state.down ? "\u2193" : "\u2191") : "";
    });
    const range = rows.length ? `${count(first + 1)}\u2013${count(first + rows.length)} of ${plural(shown.length, "trial")}` : "No trial matches";
    const left = all.length - shown.length;
    counted.textContent = left ? `${range} (${count(left)} hidden by the filter)` : range;
    back.disabled = state.page === 0;
    on.disabled = state.page >= pages - 1;
  }

  host.append(
    html("div", { class: "controls" },
      html("label", { for: "filter" }, "Find", text),
      html("label", { for: "filter-method" }, "Method", method),
      html("label", { for: "filter-status" }, "Status", status)),
    html("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "All trials" },
      html("table", { class: "trials" }, caption, html("thead", {}, html("tr", {}, ...heads)), body)),
    html("div", { class: "pager" }, counted, back, on));
  draw();

  return {
    /** Filter for one trial, which was chosen in a plot. */
    find(part, index) {
      text.value = state.words = part.trials[index].trial;
      method.value = status.value = state.method = state.status = "";
      refresh(true);
      text.focus();
      host.scrollIntoView({ block: "start" });
    },
    print(printing) {
      state.printing = printing;
      draw();
    },
  };
}

function columnsOf(parts, all) {
  const searched = [];
  const fixed = [];
  for (const part of parts) {
    for (const column of part.hyperparameters) {
      const list = column.searched ? searched : fixed;
      if (!searched.includes(column.name) && !list.includes(column.name)) list.push(column.name);
    }
  }
  // A setting that is the same in all trials needs no column; the setup names it once.
  const names = [...searched, ...fixed.filter((name) => !searched.includes(name) && new Set(all.map((t) => valueOf(t, name))).size > 1)];
  const plain = (name, value, more = {}) => ({ name, value, write: (t) => short(String(value(t)), 40), full: (t) => String(value(t)), ...more });
  const measured = (name, value, write = score, more = {}) => ({
    name, value, write: (t) => (known(value(t)) ? write(value(t)) : ""), number: true, score: true, ...more,
  });
  const any = (value) => all.some((t) => known(value(t)));
  const scores = [
    ...parts[0].scores.map((of) => measured(of.label, (t) => t[of.name], score, { score: of.higher_is_better })),
    measured("tokens", (t) => t.tokens || null, count),
    measured("time", (t) => t.wall_s || null, seconds),
  ];
  return [
    plain("trial", (t) => t.trial),
    ...(parts.length > 1 ? [plain("domain", (t) => t.part.domain)] : []),
    plain("method", (t) => t.method),
    ...names.map((name) => {
      const value = (t) => valueOf(t, name);
      const number = all.every((t) => !known(value(t)) || typeof value(t) === "number");
      return { name, value, number, write: (t) => short(level(value(t)), 40), full: (t) => level(value(t)) };
    }),
    plain("seed", (t) => t.seed, { number: true }),
    ...(all.some((t) => t.stage !== "search") ? [plain("stage", (t) => t.stage)] : []),
    plain("status", (t) => t.status.toLowerCase()),
    ...scores.filter((column) => any(column.value)),
    ...(any((t) => t.error) ? [plain("error", (t) => t.error ?? "")] : []),
  ];
}

/** Join a trial's cells in lower case, for the filter; a minus sign is typed as a hyphen. */
function haystack(trial, columns) {
  trial.words ??= columns.map((column) => (column.full ?? column.write)(trial)).join("\n").toLowerCase().replaceAll("\u2212", "-");
  return trial.words;
}

/** Compare two cells: numbers before words, and unknown last in both directions. */
function compare(a, b, sign) {
  const [none, other] = [!known(a) || a === "", !known(b) || b === ""];
  if (none || other) return none - other;
  if (typeof a === typeof b) return sign * (a < b ? -1 : a > b ? 1 : 0);
  return typeof a === "number" ? -1 : 1;
}
