// The candles of one chart, and what Plotly draws of them. No DOM, no network: run by the tests too.

const MINUTE_US = 60_000_000;
const DAY_US = 86_400_000_000;
const WEEK_US = 7 * DAY_US;
export const COVERAGES = {
  contiguous: { color: "green", text: "contiguous: ids prove that no trade is missing" },
  exchange: { color: "blue", text: "exchange: the exchange's own values" },
  unverified: { color: "amber", text: "unverified: the exchange's ids can't prove it" },
  partial: { color: "violet", text: "partial: not followed from open to close" },
  gap: { color: "pink", text: "gap: trades are missing" },
};
const RISING = "#26a69a";
const FALLING = "#ef5350";

export class Candles {
  constructor(timeframe, durationUs, countMax) {
    this.timeframe = timeframe;
    this.durationUs = durationUs;
    this.countMax = countMax;
    this.closed = new Map(); // by open time
    this.minutes = new Map(); // of the open window, where it is longer than a minute
    this.base = null; // the open window as far as ClickHouse has its closed minutes
    this.open = null; // the open candle of a chart of minutes
  }

  load(candles) {
    for (const candle of candles) {
      if (candle.closed) this.put(candle);
      else if (!this.base || candle.until_us >= this.base.until_us) this.base = candle;
    }
  }

  put(candle) {
    if (candle.timeframe === this.timeframe && candle.closed) {
      const known = this.closed.get(candle.open_time_us);
      // The same window may come again: the highest revision stands.
      if (known && BigInt(known.revision) > BigInt(candle.revision)) return;
      this.closed.set(candle.open_time_us, candle);
      while (this.closed.size > this.countMax) this.closed.delete(Math.min(...this.closed.keys()));
    } else if (candle.timeframe === this.timeframe) {
      this.open = candle;
    } else if (candle.timeframe === "1m") {
      const known = this.minutes.get(candle.open_time_us);
      if (known && known.closed && !candle.closed) return;
      this.minutes.set(candle.open_time_us, candle);
      const newest = Math.max(...this.minutes.keys());
      for (const time of this.minutes.keys()) if (time < newest - 2 * this.durationUs) this.minutes.delete(time);
    }
  }

  newest() {
    return Math.max(0, ...this.closed.keys());
  }

  // The candle that is still open, or null.
  opened() {
    return this.pending().at(-1) ?? null;
  }

  // Windows that are newer than the newest closed candle, oldest first: the last one is open, one
  // before it is complete and not stored yet.
  pending() {
    const newest = this.closed.size ? this.newest() : -1;
    if (this.durationUs <= MINUTE_US) {
      return this.open && this.open.open_time_us > newest ? [this.open] : [];
    }
    const windows = new Map();
    if (this.base) windows.set(this.base.open_time_us, [this.base]);
    for (const time of [...this.minutes.keys()].sort((a, b) => a - b)) {
      const parts = windows.get(this.windowOf(time)) ?? [];
      if (parts[0] === this.base && this.base && time < this.base.until_us) continue;
      windows.set(this.windowOf(time), [...parts, this.minutes.get(time)]);
    }
    return [...windows]
      .filter(([time]) => time > newest)
      .sort(([a], [b]) => a - b)
      .map(([time, parts]) => merged(parts, time, this.timeframe));
  }

  // As the contracts know it: a week starts on a Monday, four days after 1970 began.
  windowOf(time) {
    const offset = this.durationUs === WEEK_US ? 4 * DAY_US : 0;
    return time - ((time - offset) % this.durationUs);
  }

  // Whether this minute was a longer window's last: then its candle is there to be loaded soon.
  completes(candle) {
    const end = candle.open_time_us + MINUTE_US;
    return this.durationUs > MINUTE_US && candle.timeframe === "1m" && candle.closed && this.windowOf(end) === end;
  }

  // Whether windows are missing: ClickHouse may not have stored yet what the socket came too late for.
  hasHole() {
    const times = [...this.closed.keys()].sort((a, b) => a - b);
    return times.some((time, number) => number > 0 && time - times[number - 1] > this.durationUs);
  }

  all() {
    const closed = [...this.closed.values()].sort((a, b) => a.open_time_us - b.open_time_us);
    return [...closed, ...this.pending()];
  }
}

function merged(parts, openTime, timeframe) {
  const numbers = (name) => parts.map((part) => Number(part[name]));
  return {
    timeframe,
    open_time_us: openTime,
    open: parts[0].open,
    high: String(Math.max(...numbers("high"))),
    low: String(Math.min(...numbers("low"))),
    close: parts.at(-1).close,
    volume: String(+numbers("volume").reduce((sum, volume) => sum + volume, 0).toFixed(12)),
    trade_count: parts.reduce((sum, part) => sum + (part.trade_count ?? 0), 0),
    coverage: parts.at(-1).coverage,
    closed: false,
  };
}

function traceOf(name, candles, times, color, fill, hidden) {
  const at = (field) => candles.map((candle) => Number(candle[field]));
  return {
    type: "candlestick", name, x: times, open: at("open"), high: at("high"), low: at("low"), close: at("close"),
    increasing: { line: { color: color || RISING, width: 1 }, fillcolor: fill || RISING },
    decreasing: { line: { color: color || FALLING, width: 1 }, fillcolor: fill || FALLING },
    hoverinfo: "text", text: candles.map(describe), visible: hidden ? "legendonly" : true,
  };
}

export function describe(candle) {
  const count = candle.trade_count === null ? "" : `<br>${candle.trade_count} trades`;
  const coverage = candle.closed ? COVERAGES[candle.coverage].text : "still open";
  return `${new Date(candle.open_time_us / 1000).toISOString().slice(0, 16).replace("T", " ")} UTC` +
    `<br>open ${candle.open}<br>high ${candle.high}<br>low ${candle.low}<br>close ${candle.close}` +
    `<br>volume ${candle.volume}${count}<br>${coverage}`;
}

// One trace for each coverage, so that the legend tells them and can hide them; the proven ones wear
// the colours of rising and falling, all others the colour of their doubt. colorOf: of a name in page.css.
export function tracesOf(candles, colorOf = (name) => name) {
  const time = (candle) => new Date(candle.open_time_us / 1000).toISOString();
  const traces = [];
  for (const [coverage, { color }] of Object.entries(COVERAGES)) {
    const chosen = candles.filter((candle) => candle.closed && candle.coverage === coverage);
    if (!chosen.length) continue;
    const doubt = coverage === "contiguous" ? null : colorOf(color);
    traces.push(traceOf(`${coverage} (${chosen.length})`, chosen, chosen.map(time), doubt, doubt));
  }
  const open = candles.filter((candle) => !candle.closed);
  if (open.length) traces.push(traceOf("open", open, open.map(time), colorOf("open"), colorOf("open-fill")));
  const shade = (candle) => {
    if (!candle.closed) return colorOf("open");
    if (candle.coverage !== "contiguous") return colorOf(COVERAGES[candle.coverage].color);
    return Number(candle.close) >= Number(candle.open) ? RISING : FALLING;
  };
  traces.push({
    type: "bar", name: "volume", yaxis: "y2", x: candles.map(time), y: candles.map((candle) => Number(candle.volume)),
    marker: { color: candles.map(shade), opacity: 0.55 }, hoverinfo: "skip", showlegend: false,
  });
  traces.push({
    type: "bar", name: "coverage", yaxis: "y3", x: candles.map(time), y: candles.map(() => 1),
    marker: { color: candles.map((candle) => colorOf(candle.closed ? COVERAGES[candle.coverage].color : "line")) },
    hoverinfo: "text", text: candles.map((candle) => (candle.closed ? COVERAGES[candle.coverage].text : "still open")),
    textposition: "none", showlegend: false,
  });
  return traces;
}
