// What came of it: learning against forgetting, over time, in the weights and in the programs.

function tradeOffFigure(part, report) {
  const forgets = part.scored.some((t) => known(t.forgetting));
  const cost = forgets ? "forgetting" : "source_accuracy";
  const shown = part.scored.filter((t) => known(t[cost]));
  if (!shown.length) return missing("Learning against forgetting needs trials whose source accuracy was measured.");
  const series = new Map(part.methods.map((method, i) => [method, i]));
  const fronts = grouped((report.front ?? []).filter((point) => point.domain === part.domain && known(point[cost])), (point) => point.scope);
  const pooled = fronts.get("pooled") ?? [];
  const methods = part.methods.filter((method) => shown.some((t) => t.method === method));
  const lines = (methods.length > 1 ? methods : [])
    .filter((method) => (fronts.get(method) ?? []).length > 1)
    .map((method) => ({ series: series.get(method), dash: 1 + (series.get(method) % 3), at: fronts.get(method).map((p) => [p.learning, p[cost]]) }));
  if (pooled.length > 1) lines.push({ series: 0, dash: 0, className: "pooled", at: pooled.map((p) => [p.learning, p[cost]]) });
  const start = part.base && known(part.base.learning) && (forgets || known(part.base.source_accuracy))
    ? {
      x: part.base.learning,
      y: forgets ? 0 : part.base.source_accuracy,
      rows: () => [["learning", score(part.base.learning)], ["source accuracy", score(part.base.source_accuracy)]],
    }
    : null;
  const most = pooled.at(-1);
  const unsure = pooled.filter((p) => p.certain === false).length;
  const word = forgets ? "forgetting" : "source accuracy";
  return {
    id: "trade-off",
    title: "Learning against forgetting",
    caption: [
      most ? `The most learned was ${score(most.learning)}, at ${word} ${score(most[cost])}; ${plural(pooled.length, "trial")} on the pooled front.` : "",
      forgets ? "Better is right and down." : "Better is right and up.",
      "Circled trials are those that no other trial beats on both.",
      unsure ? `${unsure} of them, circled with dashes, could be there by noise.` : "",
    ].filter(Boolean).join(" "),
    legend: [
      ...methods.map((method) => ({ label: method, series: series.get(method) })),
      ...lines.map((line) => ({ line: true, className: line.className, series: line.dash,
        label: line.className ? "pooled front" : `front of ${methods.find((m) => series.get(m) === line.series)}`,
        ...(line.className ? {} : { className: `s${line.series % TONES}` }) })),
      ...(start ? [{ label: "base model", shape: 7, className: "base" }] : []),
    ],
    panels: [plane({
      part,
      wide: true,
      name: "Learning against forgetting",
      alt: `${plural(shown.length, "trial")}: learning ${between(...extent(shown.map((t) => t.learning)))}, ${word} ${between(...extent(shown.map((t) => t[cost])))}; ${pooled.length} on the front.`,
      x: { label: "learning (target-domain score)", log: false },
      y: { label: forgets ? "forgetting (positive is worse)" : "source accuracy", log: false },
      points: shown.map((t) => pointOf(t, t.learning, t[cost], series.get(t.method))),
      lines,
      rings: pooled.map((p) => ({ x: p.learning, y: p[cost], certain: p.certain })),
      base: start,
      height: 380,
    })],
    repeats: true,
    table: () => trialRows(part, [...shown].sort((a, b) => b.learning - a.learning)),
  };
}

function curvesFigure(part, report) {
  const all = (report.curves ?? []).filter((curve) => (curve.domain ?? "") === part.domain && (curve.points ?? []).length > 1);
  if (!all.length) return missing("Curves over duration need one configuration trained for several durations.");
  const most = 8;
  const top = (curve) => Math.max(...curve.points.map((p) => p.learning ?? -Infinity));
  const drawn = [...all].sort((a, b) => top(b) - top(a)).slice(0, most);
  const nameOf = (curve) => `${curve.method} ${settingsText(curve.configuration)}`.trim();
  const duration = drawn[0].duration ?? "duration";
  const panels = ["learning", "forgetting"].map((what) => {
    const own = drawn.map((curve, series) => [curve, series, curve.points.filter((p) => known(p[what]))]).filter(([, , points]) => points.length);
    if (!own.length) return null;
    const low = `${what}_low`;
    const high = `${what}_high`;
    return plane({
      part,
      title: what,
      name: `${what} over ${duration}`,
      alt: own.map(([curve, , points]) => `${nameOf(curve)}: ${what} ${score(points[0][what])} at ${level(points[0].at)}, ${score(points.at(-1)[what])} at ${level(points.at(-1).at)}`).join("; "),
      x: { label: duration },
      y: { label: what, log: false },
      points: own.flatMap(([curve, series, points]) => points.map((p) => ({
        x: p.at, y: p[what], series, trial: null, title: short(nameOf(curve), 60),
        rows: () => [[duration, level(p.at)], ["trials", String(p.n ?? "")], [what, score(p[what])],
          ["interval", known(p[low]) ? between(p[low], p[high]) : ""]],
      }))),
      lines: own.map(([, series, points]) => ({ series, at: points.map((p) => [p.at, p[what]]) })),
      spans: own.flatMap(([, series, points]) => points.filter((p) => known(p[low]) && known(p[high])).map((p) => ({ series, x: p.at, low: p[low], high: p[high] }))),
    });
  }).filter(Boolean);
  return {
    id: "curves",
    title: "Over the duration of training",
    caption: `How learning and forgetting go on with more training; bars are intervals where there are several seeds.${all.length > most ? ` Of ${all.length} configurations, the ${most} that learned most.` : ""}`,
    legend: drawn.flatMap((curve, series) => [{ label: nameOf(curve), series }]),
    panels,
    table: () => ({
      head: ["method", "configuration", duration, "n", "learning", "low", "high", "forgetting", "low", "high"],
      rows: all.flatMap((curve) => curve.points.map((p) => [curve.method, settingsText(curve.configuration), level(p.at), p.n ?? "",
        ...[p.learning, p.learning_low, p.learning_high, p.forgetting, p.forgetting_low, p.forgetting_high].map(score)])),
    }),
  };
}

function historyFigure(part) {
  const ended = part.trials.filter((t) => t.stage === "search" && t.status !== "RUNNING" && t.status !== "PENDING");
  if (!ended.some((t) => t.learning !== null)) return missing("The history of the search begins with its first completed trial.");
  const numbered = new Set(ended.map((t) => t.number)).size > ended.length / 4;
  const panels = [];
  const said = [];
  const reach = extent(part.scored.map((t) => t.learning));
  for (const method of part.methods) {
    const own = ended.filter((t) => t.method === method);
    const place = new Map(own.map((t, i) => [t, numbered ? t.number : i]));
    const ordered = [...own].sort((a, b) => place.get(a) - place.get(b));
    const steps = [];
    let best = null;
    for (const t of ordered) {
      if (t.status !== "COMPLETE" || !known(t.learning) || (best && t.learning <= best.learning)) continue;
      best = t;
      steps.push([place.get(t), t.learning]);
    }
    if (!best) continue;
    steps.push([place.get(ordered.at(-1)), best.learning]);
    const lost = ordered.filter((t) => t.status !== "COMPLETE").length;
    said.push(`${method} found its best, ${score(best.learning)}, at trial number ${place.get(best)} of ${ordered.length}.`);
    const series = part.methods.indexOf(method);
    panels.push(plane({
      part,
      title: method,
      name: `Best so far: ${method}`,
      alt: `${plural(ordered.length, "trial")}; the best, ${score(best.learning)}, is number ${place.get(best)}; ${lost} without a score.`,
      x: { label: "trial number", log: false, whole: true },
      y: { label: "learning", log: false },
      share: { y: reach },
      points: ordered.map((t) => pointOf(t, place.get(t), t.status === "COMPLETE" ? t.learning : null, series)),
      lines: [{ series, dash: 0, className: "pooled", at: steps, steps: true }],
      strip: "no score",
      height: 260,
    }));
  }
  if (!panels.length) return missing("The history of the search begins with its first completed trial.");
  return {
    id: "history",
    title: "How the search went",
    caption: `${said.join(" ")} The line is the best so far; crosses were pruned, diverged or failed.`,
    legend: [],
    panels,
    repeats: true,
    table: () => trialRows(part, ended),
  };
}

function spectrumFigure(part) {
  const found = (part.spectra ?? []).filter((entry) => entry.matrices.length);
  if (!found.length) return missing("No spectrum was measured of what training added to the weights.");
  const modules = [...new Set(found.flatMap((entry) => entry.matrices.map((m) => m.module)))].sort();
  const every = found.flatMap((entry) => entry.matrices.map((m) => m.update));
  const layers = extent(found.flatMap((entry) => entry.matrices.map((m) => m.layer)));
  const said = found.map((entry) => {
    const share = median(entry.matrices.map((m) => m.update / Math.max(1, m.full)));
    return `The median matrix of ${entry.method} needs rank ${median(entry.matrices.map((m) => m.update))}, ${percent(share)} of what its shape allows.`;
  });
  return {
    id: "spectrum",
    title: "The rank of what was added",
    caption: `The smallest rank that explains 90% of an update, matrix by matrix, of each method's best trial. ${said.join(" ")}`,
    legend: modules.map((module, series) => ({ label: module, series })),
    panels: found.map((entry) => plane({
      part,
      title: `${entry.method}, trial ${short(entry.trial, 20)}`,
      name: `Rank of the update by layer: ${entry.method}`,
      alt: `${plural(entry.matrices.length, "matrix").replace("matrixs", "matrices")}, ranks ${between(...extent(entry.matrices.map((m) => m.update)), level)}.`,
      x: { label: "layer", log: false, whole: true },
      y: { label: "rank of the update" },
      share: { x: layers, y: extent(every) },
      points: entry.matrices.map((m) => ({
        x: m.layer, y: m.update, series: modules.indexOf(m.module), trial: null,
        title: `${m.module}, layer ${m.layer}`,
        rows: () => [["rank of the update", level(m.update)], ["of noise as large", level(m.noise)], ["possible", level(m.full)],
          ["size over base", percent(m.share)], ["intruders", level(m.intruders)]],
      })),
    })),
    table: () => ({
      head: ["method", "layer", "module", "rank of the update", "of noise", "possible", "size over base", "intruders"],
      rows: found.flatMap((entry) => entry.matrices.map((m) => [entry.method, m.layer, m.module, m.update, m.noise, m.full, percent(m.share), m.intruders])),
    }),
  };
}

function diversityFigure(part, report) {
  const rows = (report.programs ?? []).filter((row) => row.domain === part.domain && row.samples > 1 && known(own(row.pass_at, "1")));
  if (!rows.length) return missing("No programs were sampled several times, so their diversity is unknown.");
  const who = [...new Set(rows.map((row) => row.who))];
  const tasks = [...grouped(rows, (row) => row.task)];
  return {
    id: "diversity",
    title: "How different the programs are",
    caption: `Distinct completions of a problem among its samples, as written, over the share that passes: ${rows.map((row) => `${row.who} ${score(row.exact.all)} at pass@1 ${score(row.pass_at["1"])}`).slice(0, 4).join("; ")}.`,
    legend: who.map((name, series) => ({ label: name, series })),
    panels: tasks.map(([task, own]) => plane({
      part,
      title: `${task}, ${own[0].samples} samples a problem`,
      name: `Distinct completions over pass@1: ${task}`,
      alt: own.map((row) => `${row.who}: ${score(row.exact.all)} distinct at pass@1 ${score(row.pass_at["1"])}`).join("; "),
      x: { label: "pass@1", log: false },
      y: { label: "distinct completions", log: false },
      height: 260,
      points: own.map((row) => ({
        x: row.pass_at["1"], y: row.exact.all, series: who.indexOf(row.who), trial: part.byId.get(row.trial)?.i ?? null,
        title: row.who,
        rows: () => [["models", String(row.n)], ...Object.entries(row.pass_at).map(([k, value]) => [`pass@${k}`, score(value)]),
          ["distinct as written", score(row.exact.all)], ["blanks as one", score(row.whitespace.all)], ["as syntax", score(row.syntax.all)]],
      })),
    })),
    table: () => ({
      head: ["task", "model", "models", "pass@1", "as written", "blanks as one", "as syntax"],
      rows: rows.map((row) => [row.task, row.who, row.n, ...[row.pass_at["1"], row.exact.all, row.whitespace.all, row.syntax.all].map(score)]),
    }),
  };
}
