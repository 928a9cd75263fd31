// The embedded trials as objects, and what is said of one wherever it is pointed at.
// Python lays the data out by column (`lorasweep/report/payload.py`), which halves their size.

/** Unfold one domain's columns; every trial knows its place in them. */
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

/** Lay trials out as the rows of a figure's table. */
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
