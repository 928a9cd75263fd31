// Scales from values to pixels: linear, logarithmic and by level, with round ticks.

/** Widen a range so that no mark is on the border; a single value gets room on both sides. */
function padded([low, high], share = 0.06) {
  const room = high > low ? (high - low) * share : Math.abs(low) * 0.1 || 0.5;
  return [low - room, high + room];
}

function linear([low, high], [from, to]) {
  return {
    at: (value) => from + ((value - low) / (high - low)) * (to - from),
    ticks: (most) => niceTicks(low, high, most),
    write: (value) => value >= 1e4 ? powerOfTen(value) : minus(String(Number(value.toPrecision(6)))),
  };
}

function niceTicks(low, high, most) {
  const rough = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((size) => size >= rough * 0.999);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) ticks.push(n * step);
  return ticks;
}

/** Make a logarithmic scale; both ends must be above zero. */
function logarithmic([low, high], [from, to]) {
  const [bottom, top] = padded([Math.log10(low), Math.log10(high)], 0.05);
  return {
    at: (value) => from + ((Math.log10(value) - bottom) / (top - bottom)) * (to - from),
    ticks: (most) => logTicks(bottom, top, most),
    write: (value) => powerOfTen(value),
  };
}

function logTicks(bottom, top, most) {
  const first = Math.ceil(bottom);
  const decades = [];
  for (let n = first; n <= top; n++) decades.push(n);
  // Within a decade or two, powers of ten alone would be too few ticks.
  if (decades.length < 3) {
    const steps = [];
    for (let n = first - 1; n <= top; n++) {
      for (const digit of [1, 2, 5]) {
        const place = n + Math.log10(digit);
        if (place >= bottom && place <= top) steps.push(digit * 10 ** n);
      }
    }
    if (steps.length < 2) return niceTicks(10 ** bottom, 10 ** top, Math.max(2, most / 2)); // their labels are long
    return steps.length > most && decades.length > 1 ? decades.map((n) => 10 ** n) : thinned(steps, most);
  }
  const every = Math.ceil(decades.length / Math.max(1, most));
  return decades.filter((n) => n % every === 0).map((n) => 10 ** n);
}

const thinned = (ticks, most) => ticks.filter((_, i) => i % Math.ceil(ticks.length / Math.max(2, most)) === 0);

const RAISED = [..."\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"];

function powerOfTen(value) {
  if (value >= 1e4) return value.toLocaleString("en", { notation: "compact" });
  const power = Math.round(Math.log10(value));
  if (Math.abs(value / 10 ** power - 1) > 1e-6 || power >= -1) return level(Number(value.toPrecision(6)));
  const digits = [...String(Math.abs(power))].map((digit) => RAISED[Number(digit)]).join("");
  return `10${power < 0 ? "\u207b" : ""}${digits}`;
}

/** Make the scale of a picture's axis: levels by position, numbers with a margin. */
function scaleOf({ levels = [], low, high, log = false, whole = false }, [from, to]) {
  if (levels.length) {
    const step = (to - from) / levels.length;
    return {
      at: (position) => from + step * (position + 0.5),
      ticks: () => [...levels.keys()],
      write: (position) => levels[position],
      step: Math.abs(step),
    };
  }
  if (log) return logarithmic([low, high], [from, to]);
  const scale = linear(padded([low, high]), [from, to]);
  return whole ? { ...scale, ticks: (most) => scale.ticks(most).filter(Number.isInteger) } : scale;
}
