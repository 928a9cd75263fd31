// The embedded trials as objects, and a trial's description for tooltips and tables.
// Python writes the data column by column (`lorasweep/report/payload.py`), which halves their size.

/** Turn one domain's columns into trials; each knows its index `i` and its domain's data `part`. */
function unfold(packed, index) {
  const part = { ...packed, index };
  const columns = Object.entries(packed.columns);
  part.trials = packed.columns.trial.map((_, i) => {
    const trial = { i, part };
    for (const [name, values] of columns) trial[name] = values[i];
    return trial;
  });
  part.column = new Map(packed.hyperparameters.map((column) => [column.name, column.values]));
  return part;
}

const valueOf = (trial, name) => trial.part.column.get(name)?.[trial.i] ?? null;

const titleOf = (trial) => `Trial ${short(trial.trial, 32)}`;

/** List a trial's settings, the searched ones first, and its scores, in pairs of name and text. */
function describe(trial) {
  const { part } = trial;
  const settings = part.hyperparameters
    .map((column) => [column.name, column.values[trial.i], column.searched])
    .filter(([, value]) => known(value));
  const rows = [true, false].flatMap((searched) =>
    settings.filter((setting) => setting[2] === searched).map(([name, value]) => [short(name), short(level(value), 40)]));
  const scores = part.scores.map((of) => [of.label, trial[of.name]]);
  return [
    ["method", short(trial.method)],
    ...rows,
    ["seed", String(trial.seed)],
    ...(trial.status === "COMPLETE" ? [] : [["status", trial.status.toLowerCase()]]),
    ...scores.filter(([, value]) => known(value)).map(([name, value]) => [name, score(value)]),
  ];
}

/** Make the table of a figure whose points are trials. */
function trialRows(part, trials) {
  const names = part.hyperparameters.filter((column) => column.searched).map((column) => column.name);
  return {
    heads: ["trial", "method", ...names, "seed", "status", "learning", "forgetting", "source accuracy"],
    rows: trials.map((t) => [
      t.trial, t.method, ...names.map((name) => level(valueOf(t, name))), t.seed, t.status.toLowerCase(),
      score(t.learning), score(t.forgetting), score(t.source_accuracy),
    ]),
  };
}
