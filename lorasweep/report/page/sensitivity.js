// What mattered: shares of the variance, learning over the learning rate, the grid, and all at once.

function sensitivityFigure(part, report) {
  const ranked = part.methods
    .map((method) => [method, own(report.sensitivity, studyOf(part, method)) ?? []])
    .filter(([, rows]) => rows.length > 1);
  if (!ranked.length) return missing("A ranking of hyperparameters needs several of them and enough completed trials.");
  const panels = ranked.map(([method, rows]) => bars({
    part,
    title: titleOfArm(part, method, own(report.ranking, studyOf(part, method))),
    name: `Sensitivity of ${method}`,
    alt: `${method}: ${rows.map((row) => `${row.hyperparameter} ${percent(row.importance)}, ${between(row.low, row.high, percent)}`).join("; ")}`,
    axis: "share of the variance of learning",
    rows: rows.map((row) => ({
      label: row.hyperparameter,
      value: row.importance,
      low: row.low,
      high: row.high,
      chance: row.chance,
      certain: row.above_chance,
      rows: () => [
        ["share of variance", percent(row.importance)],
        ["90% interval", between(row.low, row.high, percent)],
        ["by chance up to", percent(row.chance)],
        ["place", row.above_chance ? `${row.rank}${row.tied_with.length ? ` (tied with ${words(row.tied_with)})` : ""}` : "cannot tell"],
        ["cost of the wrong level", `${score(row.cost_of_wrong_level)} (${between(row.cost_low, row.cost_high)})`],
        ["best, worst level", `${row.best_level}, ${row.worst_level}`],
      ],
    })),
  }));
  const first = ranked.map(([method, rows]) => {
    const sure = rows.filter((row) => row.above_chance);
    return sure.length
      ? `For ${method}, ${short(sure[0].hyperparameter)} comes first with ${percent(sure[0].importance)} (${between(sure[0].low, sure[0].high, percent)}).`
      : `For ${method}, no effect stands out from chance.`;
  });
  return {
    id: "sensitivity",
    title: "Which hyperparameters move learning",
    caption: `${first.join(" ")} Whiskers hold the middle 90% of redrawn samples; the dashed tick is what chance alone can reach, and a pale bar with a dashed outline is not above it.`,
    panels,
    table: () => ({
      head: ["method", "hyperparameter", "share", "low", "high", "by chance", "cost of the wrong level", "low", "high", "best level", "worst level"],
      rows: ranked.flatMap(([method, rows]) => rows.map((row) => [
        method, row.hyperparameter, ...[row.importance, row.low, row.high, row.chance].map(percent),
        ...[row.cost_of_wrong_level, row.cost_low, row.cost_high].map(score), row.best_level, row.worst_level,
      ])),
    }),
  };
}

const titleOfArm = (part, method, ranking) =>
  ranking ? `${method}: ${ranking.method_of_ranking || "ranking"}, ${plural(ranking.configurations, "configuration")}` : method;

/** Show further shares that the analysis may hold: near the top, and of pairs. */
function sharesFigure(part, report, { key, id, title, caption, axis, name, value, hasChance = false }) {
  const found = part.methods
    .map((method) => [method, own(report[key], studyOf(part, method)) ?? []])
    .filter(([, rows]) => Array.isArray(rows) && rows.length);
  if (!found.length) return null;
  const nameOf = (row) => (Array.isArray(row[name]) ? row[name].join(" \u00d7 ") : String(row[name]));
  return {
    id, title, caption,
    panels: found.map(([method, rows]) => bars({
      part,
      title: method,
      name: `${title}: ${method}`,
      alt: `${method}: ${rows.map((row) => `${nameOf(row)} ${percent(row[value])}`).join("; ")}`,
      axis,
      rows: rows.slice(0, 12).map((row) => ({
        label: nameOf(row), value: row[value] ?? 0, low: row.low, high: row.high, chance: hasChance ? row.chance : null,
        certain: row.above_chance ?? !(known(row.low) && row.low <= 0),
        rows: () => [[axis, percent(row[value])], ["90% interval", known(row.low) ? between(row.low, row.high, percent) : ""]],
      })),
    })),
    table: () => ({
      head: ["method", name, axis, "low", "high"],
      rows: found.flatMap(([method, rows]) => rows.map((row) => [method, nameOf(row), ...[row[value], row.low, row.high].map(percent)])),
    }),
  };
}

const topFigure = (part, report) => sharesFigure(part, report, {
  key: "top", id: "top", name: "hyperparameter", value: "importance", axis: "importance near the top",
  title: "What it takes to be among the best",
  caption: "Another question than the variance over all trials: which hyperparameters set the best trials apart from the rest.",
});

const interactionFigure = (part, report) => sharesFigure(part, report, {
  key: "interactions", hasChance: true, id: "interactions", name: "hyperparameters", value: "share", axis: "share of the variance",
  title: "Which hyperparameters work together",
  caption: "The share of the variance of learning that two hyperparameters explain only together, beyond what each does alone.",
});

function learningRateFigure(part) {
  const panels = [];
  const drawn = [];
  const said = [];
  let by = null;
  let apart = null; // a method without that hyperparameter gets a look of its own
  const reach = extent(part.scored.map((t) => t.learning));
  for (const method of part.methods) {
    const ordered = scalesOf(part, method).filter((scale) => scale.kind !== "text");
    const axis = ordered.find((scale) => scale.name === "lr") ?? ordered[0];
    const having = part.trials.filter((t) => t.method === method && axis && known(valueOf(t, axis.name)));
    const scored = having.filter((t) => t.status === "COMPLETE" && known(t.learning));
    const lost = having.filter((t) => t.status === "DIVERGED");
    if (new Set(scored.map((t) => valueOf(t, axis.name))).size < 2) continue;
    const others = scalesOf(part, method).map((scale) => scale.name).filter((name) => name !== axis.name);
    const facets = groupsBy(part, method, ["targets"], scored);
    const wanted = by ? [by.name] : ["rank", ...others.filter((name) => name !== facets?.name)];
    const series = groupsBy(part, method, wanted, scored);
    by ??= series;
    const alone = series || !by ? 0 : Math.min(by.labels.length, TONES - 1);
    if (alone) apart = { label: `without ${by.name}`, series: alone };
    const log = axis.name === "lr" ? true : null;
    const place = (t) => valueOf(t, axis.name);
    const placed = (t) => pointOf(t, place(t), t.status === "DIVERGED" ? null : t.learning, series ? series.of(t) : alone);
    const split = facets ? [...facets.present].sort((a, b) => a - b) : [null];
    for (const facet of split) {
      const here = (t) => facet === null || facets.of(t) === facet;
      const own = scored.filter(here);
      panels.push(plane({
        part,
        title: facet === null ? method : `${method}, ${facets.name} ${facets.labels[facet]}`,
        name: `Learning over ${axis.name}: ${method}${facet === null ? "" : `, ${facets.labels[facet]}`}`,
        alt: `${plural(own.length, "trial")}, learning ${own.length ? between(...extent(own.map((t) => t.learning))) : "not measured"}; ${lost.filter(here).length} diverged.`,
        x: { label: axis.name === "lr" ? "learning rate (lr)" : axis.name, log },
        y: { label: "learning" },
        share: { x: extent(having.map(place)), y: reach },
        points: [...own, ...lost.filter(here)].map(placed),
        lines: isInterval(axis) ? [] : ridges(own, place, series, alone),
        strip: "diverged",
      }));
    }
    const best = scored.reduce((a, b) => (b.learning > a.learning ? b : a));
    said.push(`For ${method} the best trial, ${score(best.learning)}, has ${axis.name} ${level(place(best))}; ${lost.length} of ${having.length} diverged.`);
    drawn.push(...scored, ...lost);
  }
  if (!panels.length) return missing("Learning over the learning rate needs completed trials at two rates or more.");
  return {
    id: "learning-rate",
    title: "Learning over the learning rate",
    caption: `${said.join(" ")} Crosses below the line are trials that diverged; lines join the best trial at each value.`,
    legend: by
      ? [...by.labels.map((text, i) => ({ label: `${by.name} ${text}`, series: i })).filter((_, i) => by.present.has(i)), ...(apart ? [apart] : [])]
      : [],
    panels,
    repeats: true,
    table: () => trialRows(part, drawn),
  };
}

/** Join the best trial at each value of the axis, group by group. */
function ridges(trials, place, series, alone) {
  return [...grouped(trials, (t) => (series ? series.of(t) : alone))].map(([group, own]) => ({
    series: group,
    at: [...grouped(own, place)]
      .map(([x, same]) => [x, Math.max(...same.map((t) => t.learning))])
      .sort((a, b) => a[0] - b[0]),
  })).filter((line) => line.at.length > 1);
}

function heatFigure(part) {
  const panels = [];
  const table = [];
  const said = [];
  for (const method of part.methods) {
    const usable = scalesOf(part, method).filter((scale) => scale.labels.length > 1 && scale.labels.length <= 12);
    const wanted = ["targets", "rank"].map((name) => usable.find((scale) => scale.name === name));
    const [down, across] = wanted.every(Boolean) ? wanted : usable;
    const own = part.scored.filter((t) => t.method === method);
    if (!down || !across || !own.length) continue;
    const cells = down.labels.map((_, i) => across.labels.map((_, j) => {
      const here = own.filter((t) => partOf(down, valueOf(t, down.name)) === i && partOf(across, valueOf(t, across.name)) === j);
      if (!here.length) return null;
      const best = here.reduce((a, b) => (b.learning > a.learning ? b : a));
      const mean = here.reduce((sum, t) => sum + t.learning, 0) / here.length;
      return { best, mean, n: here.length };
    }));
    const full = cells.flat().filter(Boolean);
    const range = extent(full.flatMap((cell) => [cell.best.learning, cell.mean]));
    const shared = { part, columns: across.labels, lines: down.labels, x: across.name, y: down.name, range };
    const tell = (cell) => [["trials", String(cell.n)], ["mean learning", score(cell.mean)], ["best learning", score(cell.best.learning)],
      ...describe(cell.best).filter(([name]) => !["learning", "method"].includes(name))];
    const drawn = (value) => cells.map((line) => line.map((cell) => cell && {
      value: value(cell), text: score(value(cell)), trial: cell.best.i, rows: () => tell(cell),
    }));
    const top = full.reduce((a, b) => (b.best.learning > a.best.learning ? b : a));
    const where = (cell) => [down, across].map((scale) => `${scale.name} ${level(valueOf(cell.best, scale.name))}`).join(" with ");
    said.push(`For ${method} the best trial has ${where(top)}.`);
    for (const [what, value] of [["best", (cell) => cell.best.learning], ["mean", (cell) => cell.mean]]) {
      panels.push(heat({
        ...shared,
        title: `${method}: ${what}`,
        name: `${down.name} by ${across.name}, ${what} learning, ${method}`,
        alt: down.labels.map((line, i) => `${line}: ${across.labels.map((column, j) => `${column} ${cells[i][j] ? score(value(cells[i][j])) : "none"}`).join(", ")}`).join("; "),
        cells: drawn(value),
      }));
    }
    down.labels.forEach((line, i) => across.labels.forEach((column, j) => {
      const cell = cells[i][j];
      table.push([method, `${down.name} ${line}`, `${across.name} ${column}`, cell?.n ?? 0, score(cell?.best.learning), score(cell?.mean)]);
    }));
  }
  if (!panels.length) return missing("A heat map needs two hyperparameters with several levels and completed trials.");
  return {
    id: "heat",
    title: "Two choices together",
    caption: `${said.join(" ")} Left the best trial of each pair, which shows what is possible; right the mean, which shows what is safe.`,
    legend: [{ ramp: true, label: "learning, low to high" }],
    pairs: true,
    panels,
    table: () => ({ head: ["method", "", "", "n", "best learning", "mean learning"], rows: table }),
  };
}

function parallelFigure(part) {
  const drawn = part.methods
    .map((method) => [method, scalesOf(part, method), part.scored.filter((t) => t.method === method)])
    .filter(([, scales, own]) => scales.length > 1 && own.length > 1);
  if (!drawn.length) return missing("Parallel coordinates need two hyperparameters and two completed trials.");
  return {
    id: "parallel",
    title: "Every trial across its settings",
    caption: "Each line is one trial from its settings to what it learned on the right; the strongest colour learned most. Arrow keys go from the best trial downwards.",
    legend: [{ ramp: true, label: "learning, low to high" }],
    panels: drawn.map(([method, scales, own]) => parallel({
      part,
      wide: true,
      title: `${method}, ${plural(own.length, "trial")}`,
      name: `All trials across their settings: ${method}`,
      alt: `${plural(own.length, "line")} across ${words(scales.map((scale) => scale.name))}, learning ${between(...extent(own.map((t) => t.learning)))}.`,
      axes: [
        ...scales.map((scale) => isInterval(scale)
          ? { name: scale.name, log: scale.kind === "log", values: scale.edges }
          : { name: scale.name, levels: scale.levels }),
        { name: "learning", log: false, values: own.map((t) => t.learning) },
      ],
      range: extent(own.map((t) => t.learning)),
      paths: own.map((t) => ({
        values: [...scales.map((scale) => valueOf(t, scale.name)), t.learning],
        value: t.learning, trial: t.i, title: titleOf(t), rows: () => describe(t),
      })),
    })),
    repeats: true,
    table: () => trialRows(part, drawn.flatMap(([, , own]) => [...own].sort((a, b) => b.learning - a.learning))),
  };
}
