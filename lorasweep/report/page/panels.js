// The four kinds of panels: points in a plane, bars with intervals, heat maps, parallel coordinates.
// Points that look alike share one path, so ten thousand trials are a handful of SVG nodes.

const label = (text, x, y, anchor = "middle", className = "tick") =>
  svg("text", { x, y, "text-anchor": anchor, class: className }, text);
const rule = (x1, y1, x2, y2, className = "grid") => svg("line", { x1, y1, x2, y2, class: className });
/** Name the class that colours a mark; what belongs to no series is black, or white on dark. */
const toneOf = ({ look }) => (known(look) ? `s${look % TONES}` : "pooled");
const roughWidth = (text) => 7 * [...String(text)].length;

/**
 * Draw points, lines and intervals in a plane.
 *
 * points: {x, y, look, trial, title, rows}; y null puts the point on the strip at the bottom.
 * The rest is as the picture has it (`lorasweep/report/picture.py`).
 */
function plane({ x, y, points, lines, intervals, rings, strip, base, height, ...panel }) {
  const placed = points.filter((point) => known(point.y));
  const lost = points.filter((point) => !known(point.y));

  function draw(width) {
    const floor = lost.length ? 22 : 0;
    const [top, bottom, right] = [26, height - 40 - floor, width - 12];
    const vertical = scaleOf(y, [bottom, top]);
    const marks = vertical.ticks(5);
    const texts = [lost.length ? strip : "", ...marks.map((value) => vertical.write(value))];
    const left = 10 + Math.max(26, ...texts.map((text) => roughWidth(text)));
    const horizontal = scaleOf(x, [left, right]);
    const nodes = [label(y.label, 0, 12, "start", "axis-label")];
    for (const value of marks) {
      const at = vertical.at(value);
      nodes.push(rule(left, at, right, at), label(vertical.write(value), left - 6, at + 4, "end"));
    }
    nodes.push(rule(left, bottom + floor, right, bottom + floor, "axis"));
    const room = Math.max(2, Math.floor((right - left) / 40));
    for (const value of horizontal.ticks(room)) {
      const at = horizontal.at(value);
      nodes.push(rule(at, bottom + floor, at, bottom + floor + 4, "axis"));
      nodes.push(label(short(horizontal.write(value), 12), at, bottom + floor + 17));
    }
    nodes.push(label(x.label, (left + right) / 2, height - 4, "middle", "axis-label"));
    const place = (px, py) => `${horizontal.at(px).toFixed(1)} ${vertical.at(py).toFixed(1)}`;

    for (const line of lines) {
      const path = line.steps ? stepped(line.points, horizontal, vertical) : `M${line.points.map(([a, b]) => place(a, b)).join("L")}`;
      nodes.push(svg("path", { d: path, class: `line ${toneOf(line)} d${line.dash % DASHES}` }));
    }
    for (const span of intervals) {
      const [at, low, high] = [horizontal.at(span.x), vertical.at(span.low), vertical.at(span.high)];
      nodes.push(svg("path", { d: `M${at} ${low}V${high}M${at - 4} ${low}h8M${at - 4} ${high}h8`, class: `span ${toneOf(span)}` }));
    }

    const many = placed.length > 1500;
    const size = many ? 2.6 : placed.length > 300 ? 3.6 : 4.6;
    const targets = points.map((point) => ({
      x: horizontal.at(point.x),
      y: known(point.y) ? vertical.at(point.y) : bottom + floor / 2 + 2,
      trial: point.trial,
      title: point.title,
      rows: point.rows,
      point,
    }));
    for (const [look, own] of grouped(targets.filter((t) => known(t.point.y)), (t) => t.point.look)) {
      const path = own.map((target) => marker(look, target.x, target.y, size)).join("");
      nodes.push(svg("path", { d: path, class: `mark ${toneOf({ look })}${many ? " many" : ""}` }));
    }
    const circled = rings.map((ring) => [ring, `M${horizontal.at(ring.x) - 8} ${vertical.at(ring.y)}a8 8 0 1 0 16 0a8 8 0 1 0 -16 0`]);
    for (const [ring, path] of circled) {
      nodes.push(svg("path", { d: path, class: `circled ${ring.certain ? "d0" : "d2"}` }));
    }
    if (lost.length) {
      const crosses = targets.filter((t) => !known(t.point.y)).map((t) => cross(t.x, t.y)).join("");
      nodes.push(rule(left, bottom + 3, right, bottom + 3, "grid"), svg("path", { d: crosses, class: "cross" }));
      nodes.push(label(strip, 0, bottom + floor / 2 + 6, "start", "tick"));
    }
    if (base) {
      const [at, over] = [horizontal.at(base.x), vertical.at(base.y)];
      nodes.push(svg("path", { d: marker(7, at, over, 7), class: "mark base" }));
      const flip = at > right - 50;
      nodes.push(label("base", at + (flip ? -12 : 12), over - 6, flip ? "end" : "start", "note"));
      targets.push({ x: at, y: over, trial: null, title: "Base model before tuning", rows: base.rows });
    }
    const start = targets.reduce((best, t) => ((t.point?.y ?? -Infinity) > (best?.point?.y ?? -Infinity) ? t : best), null);
    return { height, nodes, targets, start: start ?? targets[0] };
  }
  return { ...panel, draw };
}

function stepped(at, horizontal, vertical) {
  const [first, ...rest] = at;
  const steps = rest.map(([x, y]) => `H${horizontal.at(x).toFixed(1)}V${vertical.at(y).toFixed(1)}`);
  return `M${horizontal.at(first[0]).toFixed(1)} ${vertical.at(first[1]).toFixed(1)}${steps.join("")}`;
}

/** Draw a bar and its interval for each share {label, value, low, high, chance, certain, title, rows}. */
function bars({ bars: shares, x, ...panel }) {
  function draw(width) {
    const step = 38;
    const left = Math.min(width * 0.34, 12 + Math.max(...shares.map((bar) => roughWidth(bar.label))));
    const right = width - 46;
    const bottom = 8 + step * shares.length;
    const scale = linear([x.low, x.high], [left, right]);
    const nodes = [];
    for (const value of scale.ticks(width < 340 ? 2 : 5)) {
      nodes.push(rule(scale.at(value), 4, scale.at(value), bottom), label(percent(value), scale.at(value), bottom + 16));
    }
    nodes.push(rule(left, 4, left, bottom, "axis"), label(x.label, (left + right) / 2, bottom + 36, "middle", "axis-label"));
    const targets = shares.map((bar, i) => {
      const middle = 8 + step * (i + 0.5);
      const end = scale.at(bar.value);
      nodes.push(label(short(bar.label, Math.max(4, Math.floor((left - 8) / 7))), left - 8, middle + 4, "end", "bar-label"));
      nodes.push(svg("rect", { x: left, y: middle - 9, width: Math.max(1, end - left), height: 18, class: bar.certain ? "bar" : "bar unsure" }));
      if (known(bar.low) && known(bar.high)) {
        const [low, high] = [scale.at(bar.low), scale.at(bar.high)];
        nodes.push(svg("path", { d: `M${low} ${middle}H${high}M${low} ${middle - 5}v10M${high} ${middle - 5}v10`, class: "whisker" }));
      }
      if (known(bar.chance)) {
        const at = scale.at(Math.min(bar.chance, x.high));
        nodes.push(rule(at, middle - 15, at, middle + 15, "chance"));
      }
      nodes.push(label(percent(bar.value), width - 2, middle + 4, "end", "bar-value"));
      return { x: end, y: middle, trial: null, title: bar.title, rows: bar.rows, middle };
    });
    const outline = (target) => svg("rect", { x: 1, y: target.middle - 17, width: width - 2, height: 34, rx: 5 });
    const nearest = (_, y) => targets[Math.max(0, Math.min(targets.length - 1, Math.floor((y - 8) / step)))];
    return { height: bottom + 44, nodes, targets, outline, nearest, order: true, start: targets[0] };
  }
  return { ...panel, draw };
}

/** Colour a grid of cells {value, trial, title, rows} by value; null is a cell without a trial. */
function heat({ cells, x, y, low, high, ...panel }) {
  const [columns, lines] = [x.levels, y.levels];

  function draw(width) {
    const left = Math.min(width * 0.36, 16 + Math.max(roughWidth(y.label), ...lines.map((name) => roughWidth(name))));
    const cell = (width - left - 2) / columns.length;
    const tall = 40;
    const top = 24;
    const nodes = [label(y.label, 0, 14, "start", "axis-label")];
    const targets = [];
    lines.forEach((line, i) => {
      nodes.push(label(short(line, Math.floor(left / 7)), left - 8, top + tall * (i + 0.5) + 4, "end", "bar-label"));
      columns.forEach((column, j) => {
        const at = cells[i][j];
        const [px, py] = [left + cell * j, top + tall * i];
        const tone = at ? ramp(at.value, low, high) : null;
        nodes.push(svg("rect", { x: px + 1, y: py + 1, width: Math.max(1, cell - 2), height: tall - 2, rx: 3, class: at ? `q${tone}` : "hole" }));
        const text = at ? score(at.value).slice(0, cell < 44 ? -1 : undefined) : "\u2013"; // a digit less where room is short
        nodes.push(label(text, px + cell / 2, py + tall / 2 + 4, "middle", at ? `on-q${tone} cell` : "tick"));
        const target = at ?? { trial: null, title: `${line}, ${column}`, rows: () => [["trials", "none completed"]] };
        targets.push({ x: px + cell / 2, y: py + tall / 2, trial: target.trial, title: target.title, rows: target.rows, box: [px, py] });
      });
    });
    columns.forEach((column, j) =>
      nodes.push(label(short(column, Math.max(3, Math.floor(cell / 7))), left + cell * (j + 0.5), top + tall * lines.length + 17)));
    nodes.push(label(x.label, left + (width - left) / 2, top + tall * lines.length + 36, "middle", "axis-label"));
    const outline = ({ box: [px, py] }) => svg("rect", { x: px + 1, y: py + 1, width: Math.max(1, cell - 2), height: tall - 2, rx: 3 });
    const nearest = (px, py) => targets.find(({ box: [bx, by] }) => px >= bx && px < bx + cell && py >= by && py < by + tall) ?? null;
    return { height: top + tall * lines.length + 42, nodes, targets, outline, nearest };
  }
  return { ...panel, draw };
}

/** Find the step of the colour ramp for a value; higher steps contrast more with the background. */
const ramp = (value, low, high) =>
  high > low ? Math.max(0, Math.min(RAMP - 1, Math.floor(((value - low) / (high - low)) * RAMP))) : RAMP - 1;

/**
 * Draw each trial as a line across its hyperparameters, coloured by learning.
 *
 * paths: {values, trial, title, rows}, from the worst to the best, which so lies on top.
 */
function parallel({ axes, paths, height = 320, ...panel }) {

  function draw(width) {
    const [top, bottom] = [40, height - 18];
    const side = Math.min(46, width / 8);
    const gap = axes.length > 1 ? (width - 2 * side) / (axes.length - 1) : 0;
    const across = axes.map((_, i) => side + gap * i);
    const scales = axes.map((axis) => scaleOf(axis, [bottom, top]));
    // At a level the lines fan out in the order of learning: without that they would coincide.
    const fan = (i, n) => (axes[i].levels.length ? (0.5 - n / Math.max(1, paths.length - 1)) * scales[i].step * 0.6 : 0);
    const heights = paths.map((path, n) => axes.map((_, i) =>
      known(path.values[i]) ? scales[i].at(path.values[i]) + fan(i, n) : null));
    const trace = (at) => {
      let path = "";
      at.forEach((py, i) => {
        if (py !== null) path += `${i && at[i - 1] !== null ? "L" : "M"}${across[i].toFixed(1)} ${py.toFixed(1)}`;
      });
      return path;
    };
    const tones = Array.from({ length: RAMP }, () => []);
    const { low, high } = axes.at(-1);
    paths.forEach((path, i) => tones[ramp(path.values.at(-1), low, high)].push(trace(heights[i])));
    const nodes = tones.map((own, tone) =>
      svg("path", { d: own.join(""), class: `trace t${tone}${paths.length > 400 ? " many" : ""}` }));
    axes.forEach((axis, i) => {
      const [first, last] = [i === 0, i === axes.length - 1];
      const name = short(axis.label, Math.max(5, Math.floor((gap < 70 ? 2 * gap : gap) / 7.5)));
      const wide = roughWidth(name) > 2 * side; // then it starts or ends where the drawing does
      const anchor = wide && first ? "start" : wide && last ? "end" : "middle";
      nodes.push(rule(across[i], top - 6, across[i], bottom + 6, "axis"));
      nodes.push(label(name, anchor === "start" ? 0 : anchor === "end" ? width : across[i], 12 + (gap < 70 && i % 2 ? 14 : 0), anchor, "axis-label"));
      for (const value of scales[i].ticks(5)) {
        nodes.push(label(short(scales[i].write(value), first ? 6 : 10), across[i] + (first ? -5 : 5), scales[i].at(value) + 4, first ? "end" : "start", "tick halo"));
      }
    });
    const targets = paths.map((path, i) => ({
      x: across.at(-1), y: heights[i].at(-1), trial: path.trial, title: path.title, rows: path.rows, line: i,
    }));
    const outline = (target) => svg("path", { d: trace(heights[target.line]), class: "traced" });
    // The line closest above or below the pointer.
    const nearest = (px, py) => {
      const i = Math.max(0, Math.min(axes.length - 2, Math.floor((px - side) / (gap || 1))));
      const share = Math.max(0, Math.min(1, (px - across[i]) / (gap || 1)));
      let best = null;
      let least = 14;
      heights.forEach((at, n) => {
        if (at[i] === null || at[i + 1] === null) return;
        const distance = Math.abs(at[i] + share * (at[i + 1] - at[i]) - py);
        if (distance <= least) [best, least] = [targets[n], distance];
      });
      return best;
    };
    return { height, nodes, targets: [...targets].reverse(), outline, nearest, order: true };
  }
  return { ...panel, draw };
}
