// From the JSON of a picture (`lorasweep/report/picture.py`) to the panels that `panels.js` draws.
// Python decides what a figure shows; report.md has the same pictures, drawn by matplotlib.

/** Prepare a picture for `figureOf`: panels that can draw themselves, legend and table. */
function pictureFigure(picture, part) {
  return {
    id: `figure-${part.index}-${picture.name}`,
    title: picture.title,
    caption: picture.caption,
    legend: picture.legend,
    pairs: picture.panels[0].kind === "heat",
    repeats: !picture.table, // then it lists trials, which the table of all trials has
    panels: picture.panels.map((panel) => ({ ...KINDS[panel.kind](panel, picture, part), part, wide: picture.wide })),
    table: () => picture.table ?? trialRows(part, picture.trials.map((i) => part.trials[i])),
  };
}

const KINDS = {
  plane: (panel, picture, part) => plane({
    ...panel,
    points: panel.series.flatMap((series) => {
      const [x, y] = [series.x, series.y].map((given) => numbersOf(given, series.trials, part));
      return x.map((at, i) => ({ x: at, y: y[i], look: series.look, ...described(picture, part, series.rows[i], series.trials[i]) }));
    }),
    base: panel.base && { x: panel.base[0], y: panel.base[1], rows: () => [["learning", score(part.base.learning)],
      ["source accuracy", score(part.base.source_accuracy)]] },
    height: picture.wide ? 380 : 290,
  }),
  bars: (panel, picture, part) => bars({
    ...panel,
    bars: panel.bars.map((bar) => ({ ...bar, ...described(picture, part, bar.row, null) })),
  }),
  heat: (panel, picture, part) => heat({
    ...panel,
    cells: panel.cells.map((line) => line.map((cell) => cell && { ...cell, ...described(picture, part, cell.row, cell.trial) })),
  }),
  parallel: (panel, picture, part) => {
    const values = panel.values.map((given) => numbersOf(given, panel.trials, part));
    return parallel({
      ...panel,
      paths: panel.trials.map((trial, i) => ({ values: values.map((own) => own[i]), ...described(picture, part, null, trial) })),
    });
  },
};

/** Resolve a reference to a column of the trials; Python embeds no number twice. */
function numbersOf(given, trials, part) {
  if (Array.isArray(given)) return given;
  const column = known(given.column) ? part.columns[given.column] : part.hyperparameters[given.setting].values;
  return trials.map((i) => column[i]);
}

/** Describe a mark for its tooltip: by its row in the figure's table, by its trial, or by both. */
function described(picture, part, row, index) {
  const trial = known(index) ? part.trials[index] : null;
  if (!known(row)) return { trial: index, title: titleOf(trial), rows: () => describe(trial) };
  const { heads, rows, names } = picture.table;
  const cells = rows[row];
  const name = (cell, i) => short(isNumeric(cell) ? `${heads[i]} ${cell}` : cell, 60);
  return {
    trial: index,
    title: cells.slice(0, names).map(name).join(", "),
    rows: () => {
      const own = cells.map((cell, i) => [heads[i], cell]).slice(names);
      const further = trial ? describe(trial).filter(([what]) => !["method", "learning"].includes(what)) : [];
      return [...own, ...(trial ? [["trial", short(trial.trial, 32)]] : []), ...further];
    },
  };
}
