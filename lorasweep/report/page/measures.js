// The embedded trials as objects, and what is said of one wherever it is pointed at.
// Python lays the data out by column (`lorasweep/report/payload.py`), which halves their size.

/** Unfold one domain's columns; every trial knows its place in them. */
function unfold(packed, index) {
  const part = { ...packed, index, names: packed.hyperparameters.map((column) => column.name) };
  const columns = Object.entries(packed.columns);
  part.trials = packed.columns.trial.map((_, i) => {
    const trial = { i, part };
    for (const [name, values] of columns) trial[name] = values[i];
    return trial;
  });
  part.byId = new Map(part.trials.map((trial) => [trial.trial, trial]));
  part.column = new Map(packed.hyperparameters.map((column) => [column.name, column.values]));
  part.scored = part.trials.filter((trial) => trial.status === "COMPLETE" && known(trial.learning));
  return part;
}

const studyOf = (part, method) => (part.domain ? `${part.domain}/${method}` : method);
const valueOf = (trial, name) => trial.part.column.get(name)?.[trial.i] ?? null;
const scalesOf = (part, method) => own(part.scales, method) ?? [];
const scaleOf = (part, method, name) => scalesOf(part, method).find((scale) => scale.name === name);
const isInterval = (scale) => scale.kind === "linear" || scale.kind === "log";

/** Give the place of a value among a scale's levels, or the part of the interval that holds it. */
function partOf(scale, value) {
  if (!isInterval(scale)) return scale.levels.indexOf(value);
  return scale.edges.slice(1, -1).filter((edge) => value >= edge).length;
}

const titleOf = (trial) => `Trial ${short(trial.trial, 32)}`;

/** Say of a trial what it was and what came of it, the searched settings first. */
function describe(trial) {
  const { part } = trial;
  const settings = part.hyperparameters
    .map((column) => [column.name, column.values[trial.i], column.searched])
    .filter(([, value]) => known(value));
  const rows = [true, false].flatMap((searched) =>
    settings.filter((setting) => setting[2] === searched).map(([name, value]) => [short(name), short(level(value), 40)]));
  const scores = [["learning", trial.learning], ["forgetting", trial.forgetting],
    ["source accuracy", trial.source_accuracy], ["response loss", trial.response_loss]];
  return [
    ["method", short(trial.method)],
    ...rows,
    ["seed", String(trial.seed)],
    ...(trial.status === "COMPLETE" ? [] : [["status", trial.status.toLowerCase()]]),
    ...scores.filter(([, value]) => known(value)).map(([name, value]) => [name, score(value)]),
  ];
}

/** Make the point of a trial in a plane. */
const pointOf = (trial, x, y, series) => ({
  x, y, series, trial: trial.i, title: titleOf(trial), rows: () => describe(trial),
});

/** Lay trials out as the rows of a figure's table. */
function trialRows(part, trials) {
  const names = part.hyperparameters.filter((column) => column.searched).map((column) => column.name);
  return {
    head: ["trial", "method", ...names, "seed", "status", "learning", "forgetting", "source accuracy"],
    rows: trials.map((t) => [
      t.trial, t.method, ...names.map((name) => level(valueOf(t, name))), t.seed, t.status.toLowerCase(),
      score(t.learning), score(t.forgetting), score(t.source_accuracy),
    ]),
  };
}

/** Bring a method's trials into at most eight named groups by one hyperparameter. */
function groupsBy(part, method, names, trials) {
  for (const name of names) {
    const scale = scaleOf(part, method, name);
    if (!scale || scale.labels.length < 2 || scale.labels.length > 8) continue;
    const present = new Set(trials.map((t) => partOf(scale, valueOf(t, name))));
    if (present.size < 2) continue;
    return { name, labels: scale.labels, of: (trial) => partOf(scale, valueOf(trial, name)), present };
  }
  return null;
}

const missing = (sentence) => ({ missing: sentence });

/** Write a configuration of the analysis in words. */
const settingsText = (configuration, names) =>
  typeof configuration === "object" && configuration !== null
    ? (names ?? Object.keys(configuration))
      .filter((name) => known(own(configuration, name)))
      .map((name) => `${name}=${level(configuration[name])}`).join(", ")
    : String(configuration ?? "");
